# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Texts made from the code: config/pipeline.yaml and the tables of the pages in docs/.

python -m road_anomaly_ros.ros.tables config > config/pipeline.yaml
python -m road_anomaly_ros.ros.tables {topics,parameters,presets,methods,engines}
python -m road_anomaly_ros.ros.tables pages

`pages` renews in README.md and every page of docs/ what stands between `<!-- topics -->` and
`<!-- /topics -->`, and so on. `--folder` is the one with config/ and docs/.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.registry import Option, options_of
from road_anomaly_ros.ros import outputs
from road_anomaly_ros.ros.fake_camera import TRUTH
from road_anomaly_ros.ros.health import TOPIC as DIAGNOSTICS
from road_anomaly_ros.ros.parameters import NodeOptions, descriptor, node_parameters, to_ros
from road_anomaly_ros.tools import engines
from road_anomaly_ros.tools import methods as measured
from road_anomaly_ros.tools.markdown import table
from road_anomaly_ros.tools.results import OUTPUTS

NODE_KEY = '/**'  # under whatever name
WIDTH = 99
PIPELINE = 'pipeline.yaml'
NOT_PRESETS = (PIPELINE, 'nav2_costmap.yaml')
INPUTS = (
    (
        '`image`, `camera_info`',
        'any encoding',
        'Camera, as reliable as it offers; `image/compressed` with `image_transport: compressed`.',
    ),
    (
        '`anomaly_in`',
        '32FC1, 16UC1, mono8',
        'Anomaly map of another method for an image, under its stamp, with the segmenter '
        '`external`.',
    ),
    (
        '`depth`',
        '16UC1 in mm, 32FC1 in m',
        'Depth registered to the image, with `geometry.use_depth`.',
    ),
)


def config() -> str:
    """Return config/pipeline.yaml: every parameter that the node declares, with its default."""
    segmenter = PipelineConfig().segmenter
    lines = [
        '# Every parameter of anomaly_node with its default; a file of your own needs only what',
        '# differs. Made from the code: python -m road_anomaly_ros.ros.tables config',
        f'{NODE_KEY}:',
        '  ros__parameters:',
    ]
    for item in node_parameters(segmenter):
        described = descriptor(item)
        limits = '; '.join(filter(None, (bounds(item), described.additional_constraints)))
        text = described.description + (f' ({limits})' if limits else '')
        lines += textwrap.wrap(text, WIDTH, initial_indent='    # ', subsequent_indent='    # ')
        lines.append(f'    {item.name}: {scalar(to_ros(item.default))}')
    return '\n'.join(lines) + '\n'


def scalar(value: Any) -> str:
    """Return a value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix('\n').removesuffix('\n...')


def bounds(item: Option) -> str:
    """Return the range of an option as text; empty where it has none."""
    if item.low is None and item.high is None:
        return ''
    low, high = (
        '' if end is None else str(end) if item.kind is int else f'{end:g}'
        for end in (item.low, item.high)
    )
    return f'{low} to {high}' if low and high else f'at least {low}' if low else f'up to {high}'


def topics() -> str:
    """Return the table of topics in Markdown."""
    rows = [(name, 'in', encoding, text) for name, encoding, text in INPUTS]
    rows += [(name, 'out', encoding, text) for name, encoding, text in _outputs()]
    return table(('topic', '', 'encoding', 'what'), rows)


def _outputs() -> Iterator[tuple[str, str, str]]:
    for item in outputs.offered(debug=False):
        small = ', also `/compressed`' if item.compressed else ''
        yield f'`~/{item.topic}`{small}', item.form.rpartition('/')[2], item.text
    stages = [item for item in OUTPUTS if item.debug]
    yield (
        ', '.join(f'`~/{item.topic}`' for item in stages),
        stages[0].form,
        'Stages of the score, as `road-anomaly explain` draws them, with `debug_topics: true`.',
    )
    yield f'`{DIAGNOSTICS}`', 'diagnostic_msgs', 'Rates, times, drops and refusals, at 1 Hz.'
    truth = ', '.join(f'`~/truth/{name}` {encoding}' for name, encoding in TRUTH.items())
    told = f'{truth} (with `truth: true`); labels are train ids of Cityscapes.'
    yield 'of `fake_camera`', '', told


def parameters() -> str:
    """Return the table of the node's and the chain's own parameters in Markdown."""
    rows = [
        (
            f'`{item.name}`',
            f'`{scalar(to_ros(item.default))}`',
            'yes' if item.live else 'no',
            item.text + (f' [{item.unit}]' if item.unit else ''),
        )
        for item in options_of(NodeOptions) + options_of(PipelineConfig)
    ]
    return table(('parameter', 'default', 'live', 'what'), rows)


def presets(folder: Path) -> str:
    """Return the table of the presets in a folder of parameter files."""
    rows = []
    for path in sorted(folder.glob('*.yaml')):
        if path.name in NOT_PRESETS:
            continue
        text = path.read_text(encoding='utf-8')
        values = yaml.safe_load(text)[NODE_KEY]['ros__parameters']
        shown = ', '.join(f'`{name}: {scalar(value)}`' for name, value in values.items())
        rows.append((f'`{path.name}`', text.splitlines()[0].lstrip('# '), shown))
    return table(('preset', 'what for', 'values'), rows)


def methods(path: Path) -> str:
    """Return the table of methods with the figures that `road-anomaly bench --methods` wrote."""
    figures = json.loads(path.read_text(encoding='utf-8'))
    rows = list(measured.cells(figures['methods']))
    return '\n'.join([table(measured.HEAD, rows, numbers=2), '', measured.where(figures)])


def renewed(text: str, made: dict[str, str]) -> str:
    """Return a page whose tables between markers are those of `made`."""
    for name, content in made.items():
        pattern = re.compile(rf'(<!-- {name} -->\n).*?(<!-- /{name} -->)', re.DOTALL)
        text = pattern.sub(lambda found, content=content: f'{found[1]}{content}\n{found[2]}', text)
    return text


def tables(folder: Path) -> dict[str, str]:
    """Return all tables for the pages of a folder that holds config/ and docs/."""
    stored = json.loads((folder / 'docs' / 'engines.json').read_text(encoding='utf-8'))
    return {
        'topics': topics(),
        'parameters': parameters(),
        'presets': presets(folder / 'config'),
        'methods': methods(folder / 'docs' / 'methods.json'),
        'engines': engines.summary(stored['engines']),
        'engine details': engines.details(stored['engines']),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is asked for, or renew the pages in place."""
    parser = argparse.ArgumentParser(
        prog='tables', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'what',
        choices=('config', 'topics', 'parameters', 'presets', 'methods', 'engines', 'pages'),
    )
    parser.add_argument('--folder', type=Path, default=Path())
    arguments = parser.parse_args(argv)
    folder = arguments.folder
    if arguments.what == 'pages':
        made = tables(folder)
        for path in (folder / 'README.md', *(folder / 'docs').glob('*.md')):
            path.write_text(renewed(path.read_text(encoding='utf-8'), made), encoding='utf-8')
    elif arguments.what == 'config':
        print(config(), end='')
    else:
        print(tables(folder)[arguments.what])
    return 0


if __name__ == '__main__':
    sys.exit(main())
