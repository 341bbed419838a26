# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import re

import pytest
import yaml
from conftest import ROOT

from road_anomaly_ros.evaluation.layouts import LAYOUTS
from road_anomaly_ros.evaluation.reference import FOLDER, find_folder, load, published
from road_anomaly_ros.perception.refinements import REFINEMENTS
from road_anomaly_ros.perception.scorers import SCORERS

PAPERS = {
    'eomt_heads.yaml': 's1_eomt_anomaly_heads.txt',
    'query_uncertainty.yaml': 's2_query_level_uncertainty.txt',
    'objectomaly.yaml': 's3_objectomaly.txt',
}


def test_cells_name_known_data_sets_metrics_and_methods():
    cells = load()
    assert len(cells) > 300
    assert {cell.data for cell in cells} <= set(LAYOUTS)
    assert {cell.metric for cell in cells} == {'AP', 'FPR95', 'sIoU', 'PPV', 'F1', 'mIoU'}
    for chain in {cell.chain for cell in cells} - {None}:
        scorer, *steps = chain.split('+')
        assert scorer in SCORERS and all(step in REFINEMENTS for step in steps)


def test_printed_cells_are_found_beside_a_measured_one():
    cells = load()
    found = published(cells, 'fishyscapes_static', 'head_v2', 'AP')
    assert [(cell.table, cell.row, cell.value) for cell in found] == [
        (4, 'Feature-Enriched Head (V2)', 96.66)
    ]
    found = published(cells, 'road_obstacle21', 's2+variance_aware', 'FPR95')
    assert [(cell.table, cell.value) for cell in found] == [(3, 0.09), (4, 0.09)]
    dashes = [
        cell for cell in published(cells, 'fishyscapes_static', 'rba', 'AP') if cell.value is None
    ]
    assert [cell.row for cell in dashes] == ['RbA (paper)']


@pytest.mark.parametrize('name', PAPERS)
def test_every_row_stands_in_the_paper(shared, name):
    """The figures of a row follow each other in one line of the paper's text."""
    lines = [
        ' '.join(re.findall(r'(?<![\w.])\d+(?:\.\d+)?(?![\w])', line))
        for line in (shared / 'papers' / PAPERS[name]).read_text('utf-8').splitlines()
    ]
    tree = yaml.safe_load((ROOT / FOLDER / name).read_text('utf-8'))
    for table in tree['tables']:
        for row in table['rows']:
            plain = [float(value) for value in row['values'] if value is not None]
            assert any(_follow(plain, line) for line in lines), (table['table'], row)


def _follow(wanted, line):
    found = [float(number) for number in line.split()]
    return any(found[start : start + len(wanted)] == wanted for start in range(len(found)))


def test_a_broken_table_is_one_line(tmp_path):
    with pytest.raises(ValueError, match='found none'):
        load(tmp_path)
    text = (find_folder() / 'objectomaly.yaml').read_text('utf-8')
    (tmp_path / 'a.yaml').write_text(text.replace('88.55, ', '', 1))
    with pytest.raises(ValueError, match=r"row 'RPL': expected 6 values, got 5"):
        load(tmp_path)
