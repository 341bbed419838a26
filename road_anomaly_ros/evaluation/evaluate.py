# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure methods on a labelled data set: pixels, obstacles and classes.

A method is a score and its refinements, such as s2+variance_aware; 'auto' is the chain measured
best for the model. All methods of a run share one pass of the network. OUT gets results.json,
table.md and table.csv, metrics in percent; other data sets and methods already there are kept.
A run that was stopped is continued by the same command. Until a method is measured its scores
wait in OUT/scores, 4 bytes per pixel. Figures are exact; memory holds one image and the scores
of all anomalies.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros import __version__
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config, positive

if TYPE_CHECKING:
    from road_anomaly_ros.evaluation.datasets import DataSet, Histogram
    from road_anomaly_ros.evaluation.measuring import Method
    from road_anomaly_ros.evaluation.store import Store
    from road_anomaly_ros.perception.config import PipelineConfig
    from road_anomaly_ros.perception.pipeline import Pipeline

EXAMPLES = """
examples:
  road-anomaly evaluate synth/ --layout synthetic -o results
  road-anomaly evaluate RoadAnomaly21/ --layout road_anomaly21 \\
      --methods rba eam s2+variance_aware -o results
  road-anomaly evaluate cityscapes/ --layout cityscapes --model models/mine -o results
  road-anomaly evaluate --compare results_before results_after

layouts: folder, synthetic, road_anomaly, road_anomaly21, road_obstacle21,
fishyscapes_lost_and_found, fishyscapes_static, lost_and_found, cityscapes and camvid (mIoU).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('dataset', metavar='DATASET_DIR', type=Path, nargs='?',
                        help='folder of the data set')
    parser.add_argument('--layout', default='folder',
                        help='how it keeps images and labels (default folder: images/ and '
                             'labels_masks/ with 0 inlier, 1 anomaly, 255 ignore)')
    parser.add_argument('--methods', metavar='METHOD', nargs='+', default=['auto'],
                        help='scores with refinements, such as rba eam s2+variance_aware')
    parser.add_argument('-o', '--out', metavar='OUT', type=Path, help='folder for the results')
    parser.add_argument('--name', help="the data set's name in the results (default: the layout)")
    parser.add_argument('--max-frames', metavar='N', type=positive, help='take the first N images')
    parser.add_argument('--skip-clean', action='store_true',
                        help='leave out images without an anomaly, as some publications do')
    parser.add_argument('--min-pred-size', metavar='PX', type=positive,
                        help='least pixels of a predicted obstacle (default: by the layout)')
    parser.add_argument('--min-gt-size', metavar='PX', type=positive,
                        help='least pixels of a true obstacle (default: by the layout)')
    parser.add_argument('--seed', type=int, default=0, help='seed of what is random (default 0)')
    parser.add_argument('--keep-scores', action='store_true', help='leave OUT/scores in place')
    parser.add_argument('--compare', metavar=('A', 'B'), nargs=2, type=Path,
                        help='show the differences of two results instead of measuring')
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.evaluation import results
    if arguments.compare:
        before, after = (results.read(path)['results'] for path in arguments.compare)
        print(results.compare(before, after), end='')
        return 0
    if arguments.dataset is None or arguments.out is None:
        raise ValueError('expected DATASET_DIR and -o OUT, or --compare A B; see '
                         "'road-anomaly evaluate --help'")
    from road_anomaly_ros.evaluation.store import Store
    configs = method_configs(arguments.methods, chain_config(arguments))
    data, histogram = chosen_data(arguments)
    store = Store(arguments.out)
    try:
        Evaluation(arguments, data, histogram, configs, store).run()
    except KeyboardInterrupt:
        print(f'interrupted: what is done is in {arguments.out}; the same command continues',
              file=sys.stderr)
        return 130
    except OSError as error:
        raise OSError(error.errno, f'{error.strerror}; what is done is kept and the same command '
                      'continues', error.filename) from None
    finally:
        store.close()
    print(results.markdown(results.read(arguments.out)['results']), end='')
    print(f'results in {arguments.out}: {results.NAME}, table.md, table.csv')
    return 0


def method_configs(names: Sequence[str], config: PipelineConfig) -> dict[str, PipelineConfig]:
    """Return the settings of every method; ValueError for unknown parts and doubled names."""
    found: dict[str, PipelineConfig] = {}
    for name in names:
        if name in found:
            raise ValueError(f'--methods: {name!r} is there twice')
        scorer, *refinements = name.split('+')
        found[name] = config if name == 'auto' else config.replace(
            {'scorer': scorer, 'refinements': tuple(refinements) or ('none',)})
    return found


def chosen_data(arguments: argparse.Namespace) -> tuple[DataSet, Histogram]:
    """Return the checked data set, cut down as asked for, and the histogram of its labels."""
    from road_anomaly_ros.evaluation.datasets import Histogram, open_dataset
    data = open_dataset(arguments.dataset, arguments.layout)
    data = dataclasses.replace(data, samples=data.samples[:arguments.max_frames])
    with _bar('labels', len(data)) as advance:
        counts = []
        for found in data.check():
            counts.append(found)
            advance()
    kept = [index for index, found in enumerate(counts)
            if found.anomaly or not arguments.skip_clean]
    if not kept:
        raise ValueError(f'{arguments.dataset}: none of the {len(data)} images has an anomaly; '
                         'leave --skip-clean away')
    histogram = sum((counts[index] for index in kept), Histogram())
    if data.layout.values and not histogram.anomaly:
        print(f'warning: no pixel of {arguments.dataset} is an anomaly (1), {histogram.ignored} '
              'are ignored (255); AP and its like stay undefined', file=sys.stderr)
    samples = tuple(data.samples[index] for index in kept)
    return dataclasses.replace(data, samples=samples), histogram


class Evaluation:
    """One data set, one model, several methods."""

    def __init__(self, arguments: argparse.Namespace, data: DataSet, histogram: Histogram,
                 configs: dict[str, PipelineConfig], store: Store) -> None:
        from road_anomaly_ros.perception.pipeline import Pipeline
        self._arguments, self._data, self._store = arguments, data, store
        self._name = arguments.name or data.layout.name
        self._histogram = histogram
        self._sizes = (arguments.min_pred_size or data.layout.sizes[0],
                       arguments.min_gt_size or data.layout.sizes[1])
        self._pipeline = Pipeline(next(iter(configs.values())))
        if self._pipeline.needs_anomaly:
            raise ValueError("the segmenter 'external' has no network to be measured; choose "
                             'another one')
        self._refuse_other_classes()
        self._checkpoints = _checkpoints(self._pipeline)
        self._methods = [self._method(name, config) for name, config in configs.items()]

    def _refuse_other_classes(self) -> None:
        from road_anomaly_ros.evaluation.measuring import class_table
        layout, labels = self._data.layout, self._pipeline.labels
        if layout.values or class_table(labels, layout.class_names) is not None:
            return
        raise ValueError(f'layout {layout.name} measures the classes {list(layout.class_names)}, '
                         f'the model knows {list(labels.names)}; choose a model of these classes')

    def _method(self, name: str, config: PipelineConfig) -> Method:
        from road_anomaly_ros.evaluation.measuring import Method
        from road_anomaly_ros.evaluation.store import digest
        try:
            chain = self._pipeline.prepare(config)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from None
        files = [(sample.name, *(_stamp(path) for path in
                                 (sample.image, sample.anomaly, sample.classes)))
                 for sample in self._data.samples]
        key = digest([__version__, self._checkpoints, _head(chain), chain.config.as_dict(),
                      self._data.layout.name, files, self._arguments.seed])
        return Method(name, chain, f'{name}-{key}')

    def run(self) -> None:
        """Score what is missing, then measure every method, each result kept as it comes."""
        from road_anomaly_ros.evaluation import results
        from road_anomaly_ros.evaluation.measuring import measure, score_images
        found = self._earlier()
        waiting = [method for method in self._methods if not self._is_measured(found, method)]
        if waiting:
            self._store.refuse_full_disk(sum(dataclasses.astuple(self._histogram)), len(waiting))
            with _bar('images', len(self._data)) as advance:
                score_images(self._pipeline, self._data, waiting, self._store,
                             seed=self._arguments.seed, advance=advance)
        for method in waiting:
            row, details = measure(self._data, self._store, method.key,
                                   labels=self._pipeline.labels, sizes=self._sizes)
            row = {'dataset': self._name, 'method': method.name, **row}
            found = results.merge(found, self._environment(found, method, details), row)
            results.write(self._store.out, found)
            if not self._arguments.keep_scores:
                self._store.clear(method.key)

    def _earlier(self) -> dict[str, Any]:
        from road_anomaly_ros.evaluation import results
        if (self._store.out / results.NAME).is_file():
            return results.read(self._store.out)
        return {'environment': {}, 'results': []}

    def _is_measured(self, found: dict[str, Any], method: Method) -> bool:
        there = any((row['dataset'], row['method']) == (self._name, method.name)
                    for row in found['results'])
        run = found['environment'].get('runs', {}).get(self._name, {})
        before = run.get('methods', {}).get(method.name, {})
        wanted = (method.key, *self._sizes)
        return there and wanted == tuple(
            before.get(name) for name in ('key', 'min_pred_size', 'min_gt_size'))

    def _environment(self, found: dict[str, Any], method: Method,
                     details: dict[str, Any]) -> dict[str, Any]:
        from road_anomaly_ros.tools import environment
        chain = method.chain.config
        runs = dict(found['environment'].get('runs', {}))
        methods = dict(runs.get(self._name, {}).get('methods', {}))
        methods[method.name] = {'key': method.key, 'options': chain.as_dict(),
                                'checkpoints': {**self._checkpoints, **_head(method.chain)},
                                'machine': environment.machine(self._pipeline.device), **details}
        runs[self._name] = {'layout': self._data.layout.name, 'frames': len(self._data),
                            'pixels': dataclasses.asdict(self._histogram), 'methods': methods}
        return {'machine': environment.machine(self._pipeline.device),
                'versions': environment.versions(), 'seeds': {'torch': self._arguments.seed},
                'segmenter': chain.segmenter, 'model': chain.model,
                'device': str(self._pipeline.device), 'checkpoints': self._checkpoints,
                'runs': runs}


def _checkpoints(pipeline: Pipeline) -> dict[str, str]:
    from road_anomaly_ros.evaluation.store import file_hashes
    return file_hashes(pipeline.model_dir)


def _head(chain: Any) -> dict[str, str]:
    """Return the hashes of the anomaly head that a chain runs."""
    from road_anomaly_ros.evaluation.store import file_hashes
    folder = getattr(chain.scorer_options, 'checkpoint', '')
    return file_hashes(Path(folder)) if folder else {}


def _stamp(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _bar(text: str, total: int) -> Iterator[Any]:
    """Show the progress on a terminal; yields the function to call after each image."""
    import tqdm
    with tqdm.tqdm(desc=text, total=total, unit='image', disable=None) as bar:
        yield bar.update
