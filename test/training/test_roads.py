# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames of every layout, and one line for whatever is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from road_anomaly_ros.training import label_sets, roads

CODES = label_sets.CODES
COLOUR = (200, 120, 30)
# Layout: image, label, the id in the label's upper half, the code that it means.
LAYOUTS = {
    'camvid': ('images/a.png', 'labels/a.png', 8, 'vehicle'),
    'idd_lite': ('images/a.jpg', 'labels/a.png', 6, 'sky'),
    'trainids': ('images/a.webp', 'labels/a.png', 13, 'car'),
    'cityscapes': (
        'leftImg8bit/train/ulm/ulm_0_leftImg8bit.png',
        'gtFine/train/ulm/ulm_0_gtFine_labelIds.png',
        26,
        'car',
    ),
    'idd': (
        'leftImg8bit/train/7/0_leftImg8bit.png',
        'gtFine/train/7/0_gtFine_labellevel3Ids.png',
        9,
        'car',
    ),
    'bdd100k': ('images/10k/train/a.jpg', 'labels/sem_seg/masks/train/a.png', 13, 'car'),
    'vistas': ('training/images/a.jpg', 'training/v1.2/labels/a.png', 55, 'car'),
    'unlabelled': ('a.jpg', '', 255, 'ignore'),
}


def write(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), picture)
    return path


def tiny(folder: Path, layout: str) -> Path:
    """One frame of 16x24: a labelled upper half, nothing below."""
    image, label, index, _ = LAYOUTS[layout]
    write(folder / image, np.full((16, 24, 3), COLOUR, np.uint8))
    if label:
        labels = np.full((16, 24), 255, np.uint8)
        labels[:8] = index
        write(folder / label, labels)
    return folder


def teacher(folder: Path, layout: str, kind: int) -> Path:
    stem = Path(LAYOUTS[layout][0]).stem
    write(folder / f'{stem}.png', np.full((16, 24), kind, np.uint8))
    return folder


@pytest.mark.parametrize('layout', sorted(label_sets.TABLES))
def test_every_layout_is_read(tmp_path, layout):
    tiny(tmp_path / 'data', layout)
    text = f'{layout}:{tmp_path / "data"}'
    if layout == 'unlabelled':
        text += f',teacher={teacher(tmp_path / "teacher", layout, 255)}'
    source = roads.parse_source(text)
    (frame,) = source.frames
    assert np.abs(frame.image.astype(int) - COLOUR).max() < 12 and frame.image.dtype == np.uint8
    expected = np.full((16, 24), 255, np.uint8)
    expected[:8] = CODES[LAYOUTS[layout][3]]
    np.testing.assert_array_equal(frame.codes, expected)
    assert source.name == f'{layout} data' and frame.unknown is None
    assert (source.weight, source.zoom) == (1.0, (0.8, 2.6))


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_a_teacher_is_found_by_the_stem_of_the_image(tmp_path, layout):
    tiny(tmp_path / 'data', layout)
    teacher(tmp_path / 'teacher', layout, 10)
    (frame,) = roads.parse_source(
        f'{layout}:{tmp_path / "data"},teacher={tmp_path / "teacher"}'
    ).frames
    kind = LAYOUTS[layout][3]
    assert (frame.codes[:8] == (10 if kind == 'ignore' else CODES[kind])).all()
    assert (frame.codes[8:] == 10).all()


def test_images_without_labels_and_without_a_teacher_are_counted_and_left_out(tmp_path, capsys):
    tiny(tmp_path / 'data', 'unlabelled')
    write(tmp_path / 'data' / 'b.jpg', np.zeros((16, 24, 3), np.uint8))
    teacher(tmp_path / 'teacher', 'unlabelled', 10)
    source = roads.parse_source(f'unlabelled:{tmp_path / "data"},teacher={tmp_path / "teacher"}')
    assert len(source.frames) == 1 and source.frames[0].image.any()
    said = capsys.readouterr().err
    assert said.startswith('warning: 1 of 2 images in ') and said.endswith(': b.jpg\n')


def test_weight_and_zoom(tmp_path):
    tiny(tmp_path, 'camvid')
    source = roads.parse_source(f'camvid:{tmp_path},zoom=2-2,weight=0.25')
    assert (source.weight, source.zoom) == (0.25, (2.0, 2.0))
    assert roads.parse_source(f'camvid:{tmp_path},zoom=3').zoom == (3.0, 3.0)
    # A crop of 448 pixels shows half of the width of 24.
    assert source.scale(np.random.default_rng(0), source.frames[0]) == pytest.approx(448 * 2 / 24)


def refused(text: str) -> str:
    with pytest.raises(ValueError) as caught:
        roads.parse_source(text)
    message = str(caught.value)
    assert '\n' not in message
    return message


@pytest.mark.parametrize(
    ('layout', 'settings', 'said'),
    [
        ('', '', "a layout of ['bdd100k', 'camvid'"),
        ('kitti', '', "a layout of ['bdd100k', 'camvid'"),
        ('camvid', ',size=3', "got 'size'"),
        ('camvid', ',weight=-1', 'weight >= 0'),
        ('camvid', ',weight=nan', 'weight >= 0'),
        ('camvid', ',weight=inf', 'weight >= 0'),
        ('camvid', ',weight=much', 'are numbers'),
        ('camvid', ',zoom=2-1', 'LOW <= HIGH'),
        ('camvid', ',zoom=0-1', '0 < LOW'),
        ('camvid', ',zoom=1-nan', 'LOW <= HIGH'),
        ('camvid', ',zoom=wide', 'are numbers'),
        ('camvid', ',teacher=nowhere', 'nowhere: expected PNG files named as the images'),
        ('unlabelled', '', 'needs teacher=FOLDER'),
    ],
)
def test_wrong_words_are_one_line(tmp_path, layout, settings, said):
    tiny(tmp_path, 'camvid')
    text = f'{layout}:{tmp_path}{settings}' if layout else str(tmp_path)
    assert said in refused(text)


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_missing_folders_images_labels_and_teachers_are_one_line(tmp_path, layout):
    folder, taught = tmp_path / 'data', tmp_path / 'teacher'
    settings = f',teacher={taught}' if layout == 'unlabelled' else ''
    text = f'{layout}:{folder}{settings}'
    assert 'expected a folder with images' in refused(text)
    tiny(folder, layout)
    image, label, *_ = LAYOUTS[layout]
    if label:
        (folder / label).unlink()
        message = refused(text)
        assert message.startswith(str(folder / label)) and '1 of 1 are missing' in message
    taught.mkdir()
    (folder / image).unlink()
    message = refused(text)
    assert 'found none' in message and f'the layout {layout!r}' in message
    tiny(folder, layout)
    assert f'{taught}: expected PNG files' in refused(f'{layout}:{folder},teacher={taught}')


def test_damaged_files_and_wrong_labels_are_one_line(tmp_path):
    tiny(tmp_path, 'camvid')
    label = tmp_path / 'labels' / 'a.png'
    for picture, said in (
        (np.full((16, 24), 11, np.uint8), 'ids 0..10 or 255, got [11]'),
        (np.zeros((8, 8), np.uint8), 'of shape (16, 24), got uint8 (8, 8)'),
        (np.zeros((16, 24, 3), np.uint8), 'got uint8 (16, 24, 3)'),
        (np.zeros((16, 24), np.uint16), 'got uint16'),
    ):
        write(label, picture)
        message = refused(f'camvid:{tmp_path}')
        assert message.startswith(str(label)) and said in message
    write(label, np.full((16, 24), 7, np.uint8))
    assert 'ids 0..6 or 255, got [7]' in refused(f'idd_lite:{tmp_path}')
    label.write_bytes(b'no picture')
    assert 'expected a readable label PNG' in refused(f'camvid:{tmp_path}')
    (tmp_path / 'images' / 'a.png').write_bytes(b'no picture')
    assert 'a.png: expected a readable image' in refused(f'camvid:{tmp_path}')


def test_frames_are_read_when_asked_for_and_kept(tmp_path):
    tiny(tmp_path, 'camvid')
    for name in ('images', 'labels'):
        shutil.copy(tmp_path / name / 'a.png', tmp_path / name / 'b.png')
    frames = roads.parse_source(f'camvid:{tmp_path}').frames
    assert len(frames) == 2
    first = frames[0]
    for name in ('images/a.png', 'images/b.png'):
        (tmp_path / name).unlink()
    assert frames[np.int64(0)] is first
    with pytest.raises(ValueError, match=r'b\.png: expected a readable image'):
        frames[1]


def test_rendered_scenes_know_their_obstacles():
    source = roads.rendered_source(2, first_seed=3, weight=0.5, size=(48, 64))
    frames = [source.frames[index] for index in range(2)]
    assert source.weight == 0.5 and [frame.codes.shape for frame in frames] == [(48, 64)] * 2
    assert (frames[0].image != frames[1].image).any()
    for frame in frames:
        road = frame.codes == CODES['road']
        assert road[36:].mean() > 0.5 and not road[:8].any()
        assert frame.unknown.shape == (48, 64) and frame.unknown.mean() < 0.3
    again = roads.rendered_source(1, first_seed=4, weight=1, size=(48, 64)).frames[0]
    np.testing.assert_array_equal(again.image, frames[1].image)
