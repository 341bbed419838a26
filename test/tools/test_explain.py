# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pictures and the page that explain one frame, made by the command itself."""

from __future__ import annotations

import dataclasses
import json
import re

import cv2
import numpy as np
import pytest
import tiny_models
import torch

from road_anomaly_ros import cli
from road_anomaly_ros.perception import Pipeline, rules
from road_anomaly_ros.perception.contract import LabelSet, MaskOutput, Segments, WindowedOutput
from road_anomaly_ros.perception.object_options import ObjectOptions
from road_anomaly_ros.perception.scorers.s2 import S2Options
from road_anomaly_ros.tools import explanation
from road_anomaly_ros.tools.stages import partition

SYNTHETIC = ['--set', 'segmenter=synthetic', '--scorer', 's2']
STAGES = [
    'image',
    'overlay',
    'classes',
    'rejection',
    'selection',
    'fused',
    'score',
    'refined',
    'segments',
]


@pytest.fixture
def picture(tmp_path, image):
    path = tmp_path / 'frame.png'
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def run(*words):
    return cli.main(['explain', *map(str, words)])


def test_a_page_and_a_picture_of_every_stage(picture, image, tmp_path, capsys):
    out = tmp_path / 'why'
    assert run(picture, '-o', out, *SYNTHETIC) == 0
    assert str(out / 'index.html') in capsys.readouterr().out
    summary = json.loads((out / 'summary.json').read_text())
    assert sorted(summary['outputs']) == sorted(file.name for file in out.iterdir())
    for name in STAGES:
        assert cv2.imread(str(out / f'{name}.png')).shape == image.shape
    assert (cv2.imread(str(out / 'image.png'))[..., ::-1] == image).all()
    page = (out / 'index.html').read_text()
    assert page.count('<img') == len(summary['outputs']) - 2
    assert set(re.findall(r'src="([^,]+),', page)) == {'data:image/jpeg;base64'}
    assert 'http' not in page


def test_stages_are_those_of_the_score(picture, tmp_path, image):
    run(picture, '-o', tmp_path / 'why', *SYNTHETIC)
    pipeline = Pipeline.from_config({'segmenter': 'synthetic', 'scorer': 's2'})
    from road_anomaly_ros.perception import drawing

    found = cv2.imread(str(tmp_path / 'why/fused.png'))[..., ::-1]
    raw = Pipeline.from_config({'segmenter': 'synthetic', 'scorer': 's2', 'refinements': 'none'})
    assert (found == drawing.heatmap(raw(image).score, (0.0, 1.0))).all()
    before = pipeline.chain
    explanation.explain(pipeline, image)
    assert pipeline.chain == before


def test_another_frame_of_a_folder(tmp_path, image):
    folder = tmp_path / 'drive'
    folder.mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f'{index}.png'), np.roll(image, index, 1)[..., ::-1])
    assert run(folder, '-o', tmp_path / 'why', '--frame', 1, *SYNTHETIC) == 0
    shown = cv2.imread(str(tmp_path / 'why/image.png'))[..., ::-1]
    assert (shown == np.roll(image, 1, 1)).all()


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        (['nothing.png', '-o', 'why'], 'nothing.png'),
        (['frame.png', '-o', 'why', '--frame', '1'], 'at least 2 frames'),
        (['frame.png', '-o', 'frame.png'], 'expected a folder'),
        (['frame.png', '-o', 'why', '--scorer', 'enrgy'], 'choose one of'),
        (['frame.png', '-o', 'why', '--set', 'segmenter=external'], 'anomaly map'),
        (['frame.png'], '-o'),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    words, complaint, picture, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count('\n') == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ['frame.png']


def test_a_network_through_the_real_loading_code(picture, tmp_path):
    tiny_models.mask2former(tmp_path / 'model')
    out = tmp_path / 'why'
    assert run(picture, '-o', out, '--model', tmp_path / 'model', '--scorer', 'rba') == 0
    assert (out / 'rejection.png').is_file() and (out / 'query_most_1.png').is_file()


def test_a_pixel_model_explains_what_it_can(picture, tmp_path, capsys):
    tiny_models.segformer(tmp_path / 'model')
    out = tmp_path / 'why'
    assert (
        run(
            picture,
            '-o',
            out,
            '--model',
            tmp_path / 'model',
            '--scorer',
            'msp',
            '--set',
            'segmenter=segformer',
        )
        == 0
    )
    assert 'no queries' in capsys.readouterr().out
    names = {file.stem for file in out.iterdir()}
    assert {'score', 'refined', 'segments'} <= names and 'rejection' not in names


def queries_of(probabilities, masks, size=(4, 6)):
    """Queries with class probabilities [Q][K+1] and masks [Q] of marks over one row."""
    logits = torch.tensor([[[9.0 if mark == '#' else -9.0 for mark in row]] * 2 for row in masks])
    output = MaskOutput(torch.tensor(probabilities).log(), logits, size)
    return explanation.ranked(output, S2Options())


def test_queries_are_ranked_by_what_no_sure_mask_covers():
    sure, torn, covered = [0.999, 0.0005, 0.0005], [0.45, 0.45, 0.1], [0.5, 0.4, 0.1]
    empty = [0.45, 0.45, 0.1]
    ranking = queries_of([sure, torn, covered, empty], ['##....', '....##', '##....', '......'])
    assert [query.number for query in ranking] == [1, 0, 2]
    best = ranking[0]
    assert best.score == pytest.approx(1.0, abs=1e-4) and best.overlap == pytest.approx(0.0)
    assert best.share == pytest.approx(1 / 3)
    assert best.mask.shape == (4, 6) and best.mask[:, 5].min() > 250 and best.mask[:, 0].max() < 5
    assert ranking[-1].overlap == pytest.approx(1.0)


def test_queries_of_windows_lie_where_the_window_lies():
    window = MaskOutput(torch.tensor([[0.0, 0.0, -9.0]]), torch.full((1, 2, 2), 9.0), (4, 4))
    output = WindowedOutput((window, window), ((0, 0), (0, 4)), (4, 8), (8, 16))
    first, second = explanation.ranked(output, S2Options())
    assert first.mask[:, 0].min() > 250 and first.mask[:, 15].max() == 0
    assert second.mask[:, 0].max() == 0 and second.mask[:, 15].min() > 250


def test_a_card_holds_the_mask_and_the_classes(image):
    query = explanation.Query(7, [0.1, 0.6, 0.3], np.zeros((48, 64), np.uint8), 0.0, 0.5, 0.0, 0.5)
    labels = LabelSet(('road', 'sky'), ((10, 200, 30), (40, 50, 250)))
    card = explanation.query_card(query, image, labels)
    assert card.shape[0] >= 48 and card.shape[1] > 64
    lengths = [int((card == color).all(axis=2).any(axis=0).sum()) for color in labels.colors]
    assert lengths[1] == pytest.approx(6 * lengths[0], abs=3)


def test_overlapping_masks_show_the_smallest():
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    masks[0, 1, 1] = True
    masks[1, :2] = True
    shown = partition(Segments(masks=masks))
    assert shown.tolist() == [[1, 1, 1], [1, 0, 1], [-1, -1, -1]]
    assert partition(Segments(masks=masks[:0])).tolist() == [[-1] * 3] * 3


# --- what the page says --------------------------------------------------------------------------


def test_another_frame_of_a_folder_with_a_damaged_file_says_what_is_there(tmp_path, image, capsys):
    folder = tmp_path / 'drive'
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f'{index}.png'), image[..., ::-1])
    (folder / '1.png').write_bytes(b'damaged')
    assert run(folder, '-o', tmp_path / 'why', '--frame', 2, *SYNTHETIC) == 2
    error = capsys.readouterr().err
    assert 'got 2 (1 undecodable: 1.png left out)' in error
    assert run(folder, '-o', tmp_path / 'why', '--frame', -1, *SYNTHETIC) == 2


def test_the_page_names_units_papers_and_what_the_chain_does_not_use(picture, tmp_path):
    run(
        picture,
        '-o',
        tmp_path / 'why',
        *SYNTHETIC,
        '--set',
        'objects.threshold=0.3',
        '--set',
        'objects.min_area=0',
    )
    page = (tmp_path / 'why' / 'index.html').read_text()
    assert 'area (pixels)' in page and 'eq. 1 of &quot;Zero-Shot' in page
    used, _, others = page.partition('For comparison')
    assert 'alt="Rejection' in used and 'alt="Rejection' not in others
    assert 'class-agnostic segments from' in others and 'class-agnostic segments from' not in used
    run(picture, '-o', tmp_path / 'other', '--set', 'segmenter=synthetic', '--scorer', 'rba')
    page = (tmp_path / 'other' / 'index.html').read_text()
    assert 'alt="Rejection' in page.partition('For comparison')[2]


@pytest.mark.parametrize(
    ('options', 'rule'),
    [
        ({'objects.threshold': 0.95}, 'not above the threshold 0.95'),
        (
            {'objects.min_area': 5000, 'objects.reference_area': 0},
            'objects.min_area=5000: smaller',
        ),
        (
            {'objects.min_area': 400, 'objects.reference_area': 0, 'objects.far_area': 0.5},
            'smaller than the 228 pixels that are asked for in an image of this size at its row',
        ),
        (
            {'objects.min_evidence': 100.0, 'objects.reference_area': 0},
            'objects.min_evidence=100: its scores lie above the threshold by less than the 100',
        ),
        ({'objects.mode': 'segments'}, 'objects.mode=segments: it lies in no segment of 0 pixels'),
        ({'objects.opening': 99}, 'objects.opening=99 removes'),
        ({'objects.on_drivable': 'stands', 'objects.contact': 1.0}, 'objects.on_drivable=stands'),
    ],
)
def test_bright_regions_that_are_no_obstacles_name_the_rule(options, rule, monkeypatch):
    base = {'objects.min_area': 0, 'objects.threshold': 0.6, 'objects.low_threshold': 0.5}
    pipeline = Pipeline.from_config(
        {'segmenter': 'synthetic', 'scorer': 'plain', 'refinements': 'none', **base, **options}
    )
    result = explanation.framed(pipeline, np.full((48, 64, 3), 90, np.uint8))
    score = torch.zeros(48, 64)
    score[20:30, 20:30] = 0.9
    labels = torch.full((48, 64), pipeline.labels.names.index('sky'), dtype=torch.uint8)
    result = dataclasses.replace(
        result, score=score, labels=labels, mask=torch.zeros(48, 64, dtype=torch.bool)
    )
    (row,) = explanation.rejected(pipeline, result)
    assert rule in row['rule']
    assert (row['box'], row['area']) == ((20, 20, 10, 10), 100)
    shown = torch.zeros(48, 64, dtype=torch.bool)
    shown[25, 25] = True
    assert explanation.rejected(pipeline, dataclasses.replace(result, mask=shown)) == []


def test_no_knob_of_obstacles_is_without_a_rule():
    named = {name for rule in rules.RULES for name in (*rule.off, *rule.knobs)}
    of_segments, of_the_list = {'mode', 'max_area_frac', 'nms_iou'}, {'max_objects'}
    known = {field.name for field in dataclasses.fields(ObjectOptions)}
    assert named | of_segments | of_the_list == known
