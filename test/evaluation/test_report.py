# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import html.parser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
from tiny_scenes import CHAIN, command, write_scenes

from road_anomaly_ros.evaluation import charts, frames, sections
from road_anomaly_ros.evaluation.material import gather

BROWSER = shutil.which('chromium')
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--enable-logging=stderr',
    '--window-size=1300,2400',
)
SECTIONS = [
    'summary',
    'results',
    'papers',
    'curves',
    'sweeps',
    'frames',
    'failures',
    'time',
    'calibration',
    'environment',
]
CALIBRATION = """
scorers: {plain: {threshold: 0.5, low_threshold: 0.4, display: [0, 1], source: by hand}}
promise: {false_per_minute: 2.5, confidence: 0.95}
"""


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Results and a sweep of the tiny scenes, under a layout that the papers measure too."""
    folder = tmp_path_factory.mktemp('report')
    data = write_scenes(folder / 'data', np.random.default_rng(0))
    common = (data, '--layout', 'road_anomaly21', *CHAIN, '--min-gt-size', 20)
    assert (
        command(
            'evaluate',
            *common,
            '-o',
            folder / 'results',
            '--methods',
            'plain',
            'rba',
            's2+variance_aware',
        )
        == 0
    )
    assert (
        command(
            'sweep',
            *common,
            '-o',
            folder / 'sweep',
            '--method',
            's2',
            '--vary',
            'scorers.s2.lam=0.2,0.6,1',
        )
        == 0
    )
    (folder / 'calibration.yaml').write_text(CALIBRATION)
    (folder / 'bench.json').write_text(
        json.dumps(
            {
                'chain': [
                    {
                        'size': [64, 48],
                        'scorer': 'plain',
                        'stages': {'total': {'p50': 68.25, 'p99': 90.0}},
                    }
                ]
            }
        )
    )
    return folder


@pytest.fixture(scope='module')
def page(measured):
    """The whole page as a file."""
    out = measured / 'out.html'
    assert (
        command(
            'report',
            measured / 'results',
            measured / 'sweep',
            '-o',
            out,
            '--frames',
            1,
            '--calibration',
            measured / 'calibration.yaml',
            '--bench',
            measured / 'bench.json',
        )
        == 0
    )
    return out


class _Reader(html.parser.HTMLParser):
    """Collects sections, loaded addresses and tags that are open at the end."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.loads, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if 'id' in found:
            self.ids.append(found['id'])
        self.loads += [found[name] for name in ('src', 'href') if name in found]
        if tag not in ('meta', 'link', 'img', 'br'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(page):
    text = page.read_text(encoding='utf-8')
    reader = _Reader(text)
    assert reader.ids == SECTIONS and not reader.open
    assert all(address.startswith(('#', 'data:')) for address in reader.loads)
    assert not re.search(r'https?://|<script|url\(|@import', text)
    assert text.count('data:image/jpeg;base64,') == 3


def test_measured_figures_stand_beside_the_printed_ones(page, measured):
    rows = {
        row['method']: row
        for row in json.loads((measured / 'results' / 'results.json').read_text())['results']
    }
    text = page.read_text(encoding='utf-8')
    ap = rows['rba']['AP']
    assert f'>{ap:.2f}</td>' in text
    assert f'>86.10 ({ap - 86.1:+.1f})</td>' in text
    assert 'false_per_minute' in text and '68.2 / 90.0' in text
    assert 'scorers.s2.lam' in text


def test_the_curves_of_the_readme_stand_alone(measured):
    group = gather([measured / 'results']).groups[0]
    root = ElementTree.fromstring(sections.precision_chart(group, alone=True))
    space = '{http://www.w3.org/2000/svg}'
    assert root.tag == f'{space}svg' and root.find(f'{space}style') is not None
    texts = [text.text for text in root.iter(f'{space}text')]
    assert {'plain', 'rba', 's2+variance_aware', 'recall, %'} <= set(texts)


@pytest.mark.skipif(BROWSER is None, reason='chromium is not installed')
def test_a_real_browser_shows_it_without_complaint(page, tmp_path):
    shot = tmp_path / 'page.png'
    done = subprocess.run(
        [
            BROWSER,
            *FLAGS,
            f'--user-data-dir={tmp_path / "profile"}',
            f'--screenshot={shot}',
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert 'CONSOLE' not in done.stderr
    picture = cv2.imread(str(shot), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (2400, 1300)
    shown = (picture < 128) if picture.mean() > 128 else (picture > 128)
    assert (shown.reshape(24, 100, 1300).any(axis=(1, 2))).sum() >= 20  # text down the page
    tree = subprocess.run(
        [BROWSER, *FLAGS, f'--user-data-dir={tmp_path / "other"}', '--dump-dom', page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert tree.stdout.count('<table') == page.read_text(encoding='utf-8').count('<table') >= 8


def test_frames_are_left_out_in_one_line_when_the_data_set_is_gone(measured, tmp_path, capsys):
    out = tmp_path / 'out'
    assert command('report', measured / 'results', '-o', out, '--data', tmp_path / 'none') == 0
    text = (out / 'report.html').read_text(encoding='utf-8')
    assert 'No pictures: ' in text and 'found nothing' in text and 'image/jpeg' not in text


@pytest.mark.parametrize(
    ('name', 'content', 'expected'),
    [
        ('results.json', '[]', 'was it written by road-anomaly evaluate?'),
        ('sweep.json', '{}', 'was it written by road-anomaly sweep?'),
        ('', '', 'found nothing'),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, name, content, expected):
    folder = tmp_path / 'results'
    if name:
        folder.mkdir()
        (folder / name).write_text(content)
    assert command('report', folder, '-o', tmp_path / 'out.html') == 2
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1
    assert not (tmp_path / 'out.html').exists()


def test_damaged_details_cost_their_curves_only(measured, tmp_path):
    copy = tmp_path / 'results'
    shutil.copytree(measured / 'results', copy)
    for path in (copy / 'details').glob('*.json'):
        path.write_text('{')
    material = gather([copy])
    assert len(material.groups[0].rows) == 3
    assert sections.curves(material) == '' and 'plain' in sections.tables(material)


def test_curve_points_by_hand():
    found = {'curve': {'true': [1, 3, 4], 'false': [0, 1, 6]}, 'anomaly': 4, 'known': 10}
    precision, roc = sections.curve_points(found)
    assert precision == [(0.0, 100.0), (25.0, 100.0), (75.0, 75.0), (100.0, 40.0)]
    assert roc == [(0.0, 25.0), (0.1, 75.0), (0.6, 100.0), (1.0, 100.0)]
    chart = charts.line_chart(
        [charts.Line('a', [(0, 0), (100, 50)], 0)],
        x=charts.linear(0, 100),
        y=charts.percent(),
        title='t',
        size=(264, 170),
    )
    assert 'points="50.0,128.0 250.0,78.0"' in chart  # 200 x 100 px from (50, 28)


def test_frames_of_each_kind_are_different_ones():
    figures = [
        {'index': index, 'ap': ap, 'false': false}
        for index, (ap, false) in enumerate([(10.0, 5), (90.0, 1), (None, 9), (50.0, 0)])
    ]
    assert [(kind, frame['index']) for kind, frame in frames.choose(figures, 1)] == [
        ('worst', 0),
        ('best', 1),
        ('false', 2),
    ]
