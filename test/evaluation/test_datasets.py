# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
from PIL import Image

from road_anomaly_ros.evaluation.datasets import Histogram, open_dataset, read_label, relabelled
from road_anomaly_ros.evaluation.layouts import LAYOUTS, layout_named
from road_anomaly_ros.perception.labels import CITYSCAPES_IDS

SIZE = (24, 32)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def label(*values):
    """Bands of rows, one per value."""
    return np.repeat(np.uint8(values), SIZE[0] // len(values))[:, None].repeat(SIZE[1], 1)


def picture():
    return np.full((*SIZE, 3), 90, np.uint8)


def pair(root, image, truth, values, images='images', labels='labels_masks'):
    write(root / images / image, picture())
    write(root / labels / truth, label(*values))


def build(root, layout):
    """One image of the layout as its publishers store it."""
    lost = 'leftImg8bit/test/04_Weg/04_Weg_000000_000030_leftImg8bit.png'
    if layout in ('folder', 'fishyscapes_static'):
        pair(root, 'a.png', 'a.png', (0, 1, 255))
    elif layout == 'synthetic':
        pair(root, '000000.jpg', '000000.png', (0, 1, 255))
        write(root / 'labels' / '000000.png', label(0, 3, 4))
        (root / 'instances').mkdir()
        (root / 'config.yaml').write_text('layout: camvid\n')
    elif layout == 'road_anomaly':
        write(root / 'frames' / 'animals01.jpg', picture())
        write(root / 'frames' / 'animals01.labels' / 'labels_semantic.png', label(0, 2, 0))
    elif layout == 'road_anomaly21':
        pair(root, 'validation0000.jpg', 'validation0000_labels_semantic.png', (0, 1, 255))
        write(root / 'images' / 'airplane0001.jpg', picture())
    elif layout == 'road_obstacle21':
        pair(root, 'validation_1.webp', 'validation_1_labels_semantic.png', (0, 1, 255))
    elif layout == 'fishyscapes_lost_and_found':
        write(root / lost, picture())
        write(root / '0000_04_Weg_000000_000030_labels.png', label(0, 1, 255))
    elif layout == 'lost_and_found':
        write(root / lost, picture())
        write(
            root / 'gtCoarse/test/04_Weg/04_Weg_000000_000030_gtCoarse_labelIds.png',
            label(1, 7, 0),
        )
    elif layout == 'cityscapes':
        write(root / 'leftImg8bit/val/ulm/ulm_0_leftImg8bit.png', picture())
        write(root / 'gtFine/val/ulm/ulm_0_gtFine_labelIds.png', label(7, 33, 4))
    else:
        last = len(LAYOUTS[layout].class_names) - 1
        pair(root, 'a.jpg', 'a.png', (0, last, 255), labels='labels')
    return root


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_is_found_and_read(tmp_path, layout):
    data = open_dataset(build(tmp_path, layout), layout)
    assert len(data) == 1
    assert data.samples[0].read_image().shape == (*SIZE, 3)
    truth, known = data.anomaly(0), data.classes(0)
    third = SIZE[0] // 3 * SIZE[1]
    if layout in ('cityscapes', 'trainids', 'camvid', 'idd_lite'):
        assert truth is None
        np.testing.assert_array_equal(known, label(0, len(data.layout.class_names) - 1, 255))
        assert list(data.check()) == [Histogram()]
        return
    last = 0 if layout == 'road_anomaly' else 255
    np.testing.assert_array_equal(truth, label(0, 1, last))
    ignored = 0 if layout == 'road_anomaly' else third
    assert list(data.check()) == [Histogram(2 * third - ignored, third, ignored)]
    if layout == 'synthetic':
        np.testing.assert_array_equal(known, label(0, 255, 255))
    else:
        assert known is None


@pytest.mark.parametrize(
    ('layout', 'known'),
    [
        ('trainids', {0: 'road', 1: 'sidewalk', 6: 'traffic light', 10: 'sky', 18: 'bicycle'}),
        ('camvid', {0: 'sky', 2: 'pole', 4: 'pavement', 8: 'car', 10: 'bicyclist'}),
        ('idd_lite', {0: 'drivable', 2: 'living things', 3: 'vehicles', 6: 'sky'}),
    ],
)
def test_class_ids_of_a_layout_are_those_of_its_publishers(layout, known):
    names = LAYOUTS[layout].class_names
    assert {index: names[index] for index in known} == known


def test_drawn_images_bring_the_names_of_their_classes(tmp_path):
    """Ids as Cityscapes stores them have gaps; what lies in one has no class."""
    build(tmp_path, 'synthetic')
    write(tmp_path / 'labels' / '000000.png', label(7, 8, 26))
    write(tmp_path / 'labels_masks' / '000000.png', label(0, 0, 0))
    (tmp_path / 'config.yaml').write_text('layout: x\nclasses: {7: road, 26: car}\n')
    data = open_dataset(tmp_path, 'synthetic')
    assert data.layout.class_names == ('road', 'car')
    np.testing.assert_array_equal(data.classes(0), label(0, 255, 1))
    (tmp_path / 'config.yaml').write_text('layout: cityscapes\n')
    assert open_dataset(tmp_path, 'synthetic').classes(0) is None


@pytest.mark.parametrize('text', ['classes: [road]', '- 3', 'classes: {road: 1}', '{', ''])
def test_damaged_settings_of_drawn_images_are_one_line(tmp_path, text):
    build(tmp_path, 'synthetic')
    (tmp_path / 'config.yaml').write_text(text)
    with pytest.raises(ValueError, match="the settings of 'road-anomaly synthesize'") as caught:
        open_dataset(tmp_path, 'synthetic')
    assert '\n' not in str(caught.value)


def test_class_ids_of_cityscapes_are_the_published_ones():
    assert len(CITYSCAPES_IDS) == 19
    names, values = LAYOUTS['cityscapes'].class_names, LAYOUTS['cityscapes'].class_values
    assert {names[values[raw]] for raw in (7, 23, 26, 33)} == {'road', 'sky', 'car', 'bicycle'}


@pytest.mark.parametrize(
    ('layout', 'case'),
    [
        ('road_anomaly', 'm2a_RoadAnomaly'),
        ('lost_and_found', 'smiyc_lost_and_found'),
        ('road_anomaly21', 'smiyc_tracks'),
        ('road_obstacle21', 'smiyc_tracks'),
    ],
)
def test_golden_labels(golden, layout, case):
    arrays = golden('labels')['']
    raw, wanted, values = arrays['raw'], arrays[case], LAYOUTS[layout].values
    known = np.isin(raw, list(values))
    found = relabelled(raw[known], values)
    np.testing.assert_array_equal(found, np.where(wanted <= 1, wanted, 255)[known])
    assert (wanted[~known] > 1).all()  # what we refuse, the published code ignores


def test_golden_fishyscapes_ignores_255_and_never_calls_it_an_anomaly(golden):
    arrays = golden('labels')['']
    known = np.isin(arrays['raw'], (0, 1, 255))
    found = relabelled(arrays['raw'][known], LAYOUTS['fishyscapes_static'].values)
    np.testing.assert_array_equal(found, arrays['any_nonzero_void255'][known])
    assert (found != arrays['only_255_is_ood'][known]).any()


@pytest.mark.parametrize(
    ('break_it', 'expected'),
    [
        (
            lambda root: (root / 'labels_masks/a.png').unlink(),
            r'a\.png: expected a label for a\.png',
        ),
        (
            lambda root: write(root / 'labels_masks/a.png', label(0, 1)[:8]),
            'expected the size of its image, 32x24, got 32x8',
        ),
        (
            lambda root: write(root / 'labels_masks/a.png', label(0, 2, 200)),
            r'a\.png: expected the values 0, 1, 255, got \[2, 200\]; is this the right --layout',
        ),
        (
            lambda root: write(
                root / 'labels_masks/a.png', np.dstack([label(0, 1)] * 2 + [label(1, 0)])
            ),
            'expected label ids in one channel',
        ),
        (
            lambda root: (root / 'images/a.png').write_bytes(b'no picture'),
            'expected a readable image',
        ),
    ],
)
def test_labels_that_cannot_be_right_are_one_line(tmp_path, break_it, expected):
    data_root = build(tmp_path, 'folder')
    break_it(data_root)
    with pytest.raises(ValueError, match=expected) as caught:
        list(open_dataset(data_root, 'folder').check())
    assert '\n' not in str(caught.value)


def test_wrong_layouts_name_the_right_one(tmp_path):
    with pytest.raises(ValueError, match='choose --layout cityscapes'):
        open_dataset(build(tmp_path / 'a', 'cityscapes'), 'folder')
    with pytest.raises(ValueError, match=r'unknown layout .x.; choose one of'):
        open_dataset(tmp_path, 'x')
    with pytest.raises(ValueError, match='found nothing'):
        open_dataset(tmp_path / 'none', 'folder')
    (tmp_path / 'b' / 'images').mkdir(parents=True)
    (tmp_path / 'b' / 'labels_masks').mkdir()
    with pytest.raises(ValueError, match='found no image of that kind'):
        open_dataset(tmp_path / 'b', 'folder')


def test_labels_may_be_palettes_one_bit_or_equal_channels(tmp_path):
    wanted = label(0, 1)
    indexed = Image.fromarray(wanted).convert('P')
    indexed.putdata(wanted.ravel().tolist())
    indexed.putpalette([200, 10, 10, 10, 200, 10])
    indexed.save(tmp_path / 'palette.png')
    Image.fromarray(wanted.astype(bool)).save(tmp_path / 'bits.png')
    Image.fromarray(np.dstack([wanted] * 3)).save(tmp_path / 'grey.png')
    for name in ('palette', 'bits', 'grey'):
        np.testing.assert_array_equal(read_label(tmp_path / f'{name}.png'), wanted)


@pytest.mark.parametrize(
    ('folder', 'layout', 'image', 'truth', 'strange'),
    [
        ('RoadAnomaly', 'road_anomaly', '0.jpg', '0.png', 2),
        ('RoadAnomaly21', 'road_anomaly21', '0.png', '0.png', 1),
        ('RoadObsticle21', 'road_obstacle21', '0.webp', '0.png', 1),
        ('FS_LostFound_full', 'fishyscapes_lost_and_found', '0.png', '0.png', 1),
        ('fs_static', 'fishyscapes_static', '0.jpg', '0.bmp', 1),
        ('FS-Static_val', 'fishyscapes_static', '0.jpg', '0_labels.webp', 1),
    ],
)
def test_folders_as_mirrors_keep_them(tmp_path, folder, layout, image, truth, strange):
    assert layout_named(folder) == layout
    root = tmp_path / folder
    write(root / 'images' / image, picture())
    (root / 'labels_masks').mkdir()
    last = 0 if layout == 'road_anomaly' else 255
    Image.fromarray(label(0, strange, last)).save(
        root / 'labels_masks' / truth, **({'lossless': True} if truth.endswith('webp') else {})
    )
    data = open_dataset(root, layout)
    (only,) = data.check()
    assert only.anomaly == SIZE[0] // 3 * SIZE[1]
    np.testing.assert_array_equal(data.anomaly(0), label(0, 1, last))


def test_names_that_tell_no_layout():
    assert [layout_named(name) for name in ('', 'data', 'RoadObstacle22')] == [None] * 3
    assert [layout_named(name) for name in LAYOUTS] == list(LAYOUTS)


def test_the_real_anomalies_at_hand_are_read(shared):
    for name, strange in (('road_anomaly', 2), ('fishyscapes_static', 1)):
        folder = shared / 'data' / 'real_anomalies' / name
        if not folder.is_dir():
            pytest.skip(f'{folder} is not there')
        data = open_dataset(folder, layout_named(name))
        first = data.samples[0]
        assert first.image.suffix == '.jpg' and first.anomaly.suffix == '.png'
        raw = read_label(first.anomaly)
        np.testing.assert_array_equal(data.anomaly(0) == 1, raw == strange)
        assert (raw == strange).any() or name == 'fishyscapes_static'


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('a.tif', np.float32([[0, 0.7]])),
        ('a.tif', np.float32([[0, np.nan]])),
        ('a.tif', np.int32([[0, 65536]])),
        ('a.tif', np.int32([[0, -255]])),
    ],
)
def test_values_that_are_no_ids_are_never_taken_for_others(tmp_path, name, values):
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(ValueError, match='expected ids from 0 to 65535 as labels'):
        read_label(tmp_path / name)


def test_whole_numbers_of_any_kind_are_ids(tmp_path):
    for kind in ('f4', 'i4', 'u2'):
        Image.fromarray(np.array([[0, 1, 300]], kind)).save(tmp_path / f'{kind}.tif')
        assert read_label(tmp_path / f'{kind}.tif').tolist() == [[0, 1, 300]]


def test_a_damaged_label_is_one_line(tmp_path, rng):
    write(tmp_path / 'a.png', rng.integers(0, 2, SIZE, np.uint8))
    raw = bytearray((tmp_path / 'a.png').read_bytes())
    raw[60] ^= 0xFF
    (tmp_path / 'a.png').write_bytes(raw)
    with pytest.raises(ValueError, match='expected a readable label picture'):
        read_label(tmp_path / 'a.png')


def test_labels_without_their_images_are_named(tmp_path):
    root = tmp_path / 'set'
    pair(root, 'a_1.png', 'a_1.png', (0, 1))
    for name in ('a_1_color.png', 'a_2.png', 'b_1_labels_semantic.png', '.hidden.png'):
        write(root / 'labels_masks' / name, label(0, 1))
    unused = open_dataset(root, 'folder').unused()
    assert [path.name for path in unused] == ['a_2.png', 'b_1_labels_semantic.png']


@pytest.mark.parametrize('layout', ['road_anomaly', 'cityscapes', 'lost_and_found'])
def test_what_publishers_put_beside_labels_is_not_named(tmp_path, layout):
    root = build(tmp_path / layout, layout)
    (sample,) = open_dataset(root, layout).samples
    beside = sample.anomaly or sample.classes
    for ending in ('_color.png', '_polygons.json'):
        beside.with_name(f'{beside.stem}{ending}').write_bytes(b'')
    assert open_dataset(root, layout).unused() == []
