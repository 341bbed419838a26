# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the cut-paste generator draws from: backgrounds, rendered scenes and cut-outs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from road_anomaly_ros.perception.labels import CITYSCAPES
from road_anomaly_ros.training.generator.backgrounds import read_backgrounds
from road_anomaly_ros.training.generator.compose import Generator
from road_anomaly_ros.training.generator.cutouts import CocoCutouts, FolderCutouts, mask_of
from road_anomaly_ros.training.generator.options import GeneratorOptions
from road_anomaly_ros.training.generator.view import Cut, View, drawn_cut, shown
from road_anomaly_ros.training.generator.writer import Sources

sys.path.insert(0, str(Path(__file__).parent))
import scenes

OPTIONS = GeneratorOptions(instances_max=2, image_format='png')
RENDERED = 'rendered:3?scenes=2&width=96&height=72'


def test_cutouts_in_one_folder_per_kind_webp_beside_png(tmp_path):
    flat = scenes.cutouts(tmp_path / 'flat')
    nested = tmp_path / 'nested'
    for kind, suffix in (('disc', 'webp'), ('box', 'png'), ('triangle', 'WEBP')):
        (nested / kind).mkdir(parents=True)
        picture = cv2.imread(str(flat / f'{kind}_0.png'), cv2.IMREAD_UNCHANGED)
        _, data = cv2.imencode(f'.{suffix.lower()}', picture, (cv2.IMWRITE_WEBP_QUALITY, 101))
        (nested / kind / f'000.{suffix}').write_bytes(data.tobytes())
    (nested / 'about.txt').write_text('none of them')
    found = {FolderCutouts(folder): folder for folder in (flat, nested)}
    names = [[one.name(index) for index in range(len(one))] for one in found]
    assert names == [['box_0', 'disc_0', 'triangle_0'], ['box/000', 'disc/000', 'triangle/000']]
    for index in range(3):
        (colours, alpha), (same, shape) = (one[index] for one in found)
        np.testing.assert_array_equal(alpha, shape)
        np.testing.assert_array_equal(colours[alpha > 0], same[shape > 0])
    with pytest.raises(ValueError, match=r'expected RGBA cut-outs \(PNG or WebP\), found none'):
        FolderCutouts(scenes.camvid(tmp_path / 'none') / 'nothing')


def test_cityscapes_layout(tmp_path):
    scenes.cityscapes(tmp_path)
    for folder in (tmp_path, tmp_path / 'leftImg8bit' / 'train'):
        found = read_backgrounds(folder)
        assert found.layout == 'cityscapes' and found.ids('road') == (7,)
        labels = found.scenes[0].read().labels
        np.testing.assert_array_equal(found.unlabelled(labels), labels == 1)
    cutouts = FolderCutouts(scenes.cutouts(tmp_path / 'cutouts'))
    sample = Generator(found, cutouts, GeneratorOptions(seed=2))[0]
    assert sample.record['objects'] and (sample.mask == 255).any()


def test_folders_of_other_ids_are_named_before_their_path(tmp_path):
    """IDD-Lite's id 3 is vehicles, CamVid's the road: nothing may be pasted on cars."""
    folder = scenes.camvid(tmp_path / 'x')
    groups = read_backgrounds(f'idd_lite:{folder}')
    assert groups.layout == 'idd_lite' and groups.names[3] == 'vehicles'
    assert [groups.ids(name) for name in ('road', 'sidewalk', 'bus', 'person', 'cow')] == [
        (0,),
        (1,),
        (3,),
        (2,),
        (),
    ]
    train_ids = read_backgrounds(f'trainids:{folder}')
    assert train_ids.ids('bus') == (15,) and train_ids.scenes == groups.scenes
    with pytest.raises(ValueError, match='images/ and labels/ in it, as idd_lite: asks for'):
        read_backgrounds(f'idd_lite:{tmp_path}')


@pytest.mark.parametrize(
    ('name', 'ids'),
    [
        ('road', (3,)),
        ('sidewalk', (4,)),
        ('pavement', (4,)),
        ('bus', (8,)),
        ('bicycle', (10,)),
        ('rider', (10,)),
        ('tree', (5,)),
        ('terrain', ()),
        ('cow', ()),
        ('7', (7,)),
        ('-1', (-1,)),
    ],
)
def test_classes_of_camvid_by_name(tmp_path, name, ids):
    """What CamVid counts among its cars is one; a verge among its trees is no place to stand."""
    assert read_backgrounds(scenes.camvid(tmp_path / 'x')).ids(name) == ids


def test_rendered_scenes_are_backgrounds_too(tmp_path):
    cutouts = scenes.cutouts(tmp_path / 'cutouts')
    generator = Sources(RENDERED, cutouts).generator(OPTIONS)
    assert generator.backgrounds.layout == 'rendered'
    assert generator.backgrounds.names == dict(enumerate(CITYSCAPES))
    assert generator.backgrounds.ids('road') == (0,)
    first, second, again = (generator[index] for index in range(3))
    assert first.image.shape == (72, 96, 3)
    assert first.record['background'] == again.record['background'] == 'rendered 3 96x72 clear'
    assert second.record['background'] == 'rendered 4 96x72 clear'
    assert first.record['objects'] and (first.mask == 1).any()
    for text, message in (
        ('rendered:x', 'seed'),
        ('rendered:3?moon=1', 'moon'),
        ('rendered:3?scenes=0', 'scenes'),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            read_backgrounds(text)


def test_obstacles_of_the_renderer_are_the_truth(tmp_path):
    from road_anomaly_ros.training.generator.rendered import render

    sources = Sources(f'{RENDERED}&obstacles=true')
    samples = [sources.generator(OPTIONS)[index] for index in range(2)]
    assert any((sample.mask == 1).any() for sample in samples)
    for seed, sample in zip((3, 4), samples, strict=True):
        frame = render(seed, (72, 96), obstacles=True)
        np.testing.assert_array_equal(sample.image, frame.image)
        np.testing.assert_array_equal(sample.mask == 1, frame.instances > 0)
        np.testing.assert_array_equal(
            sample.mask == 255, (frame.labels == 255) & (frame.instances == 0)
        )
        counts = [
            np.count_nonzero(frame.instances == number)
            for number in np.unique(frame.instances)[1:]
        ]
        assert [item['visible'] for item in sample.record['objects']] == counts


def test_things_are_pasted_beside_those_of_the_scene(tmp_path):
    cutouts = scenes.cutouts(tmp_path / 'cutouts')
    own = Sources(f'{RENDERED}&obstacles=true').generator(OPTIONS)
    both = Sources(f'{RENDERED}&obstacles=true', cutouts).generator(OPTIONS)
    for index in range(2):
        before, after = own[index], both[index]
        names = [item['object'] for item in after.record['objects']]
        assert len(names) > len(before.record['objects']) == names.count('of the scene')
        assert [item['id'] for item in after.record['objects']] == list(range(1, len(names) + 1))
        np.testing.assert_array_equal(after.mask == 1, after.instances > 0)


def test_mirrored_and_magnified_backgrounds_keep_image_and_labels_together():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (6, 8), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    image = np.repeat(labels[..., None] * 40, 3, 2)
    for _ in range(10):
        cut = drawn_cut(rng, labels.shape, zoom=3.0, mirror=0.5)
        assert 20 <= cut.height <= 60 and cut.left + cut.width <= 80
        seen = shown(View(image, labels, labels), cut)
        assert seen.image.shape == image.shape
        same = np.abs(seen.image[..., 0] - seen.labels * 40.0) < 1
        assert same.mean() > 0.7  # all but the soft edges between classes
    whole = shown(View(image, labels, labels), Cut(0, 0, 60, 80, True))
    np.testing.assert_array_equal(whole.labels, labels[:, ::-1])
    assert Cut(20, 0, 31, 80, False).horizon(0.5, 61) == pytest.approx(10 / 30)


def coco(folder: Path) -> Path:
    cv2.imwrite(str(folder / 'a.png'), np.full((40, 50, 3), 200, np.uint8))
    box = [10, 10, 30, 10, 30, 24, 10, 24]
    things = [
        (1, 1, [box], [10, 10, 20, 14], 0),
        (2, 2, [box], [10, 10, 20, 14], 0),
        (3, 1, [box], [45, 10, 20, 14], 0),
        (4, 1, [[1, 1, 2, 1, 2, 2]], [1, 1, 1, 1], 0),
        (5, 1, {'counts': [0, 2000], 'size': [40, 50]}, [0, 0, 50, 40], 1),
    ]
    tree = {
        'images': [{'id': 7, 'file_name': 'a.png', 'height': 40, 'width': 50}],
        'categories': [{'id': 1, 'name': 'dog'}, {'id': 2, 'name': 'car'}],
        'annotations': [
            {
                'id': index,
                'image_id': 7,
                'category_id': kind,
                'iscrowd': crowd,
                'segmentation': outline,
                'bbox': bbox,
            }
            for index, kind, outline, bbox, crowd in things
        ],
    }
    path = folder / 'instances.json'
    path.write_text(json.dumps(tree))
    return path


def test_coco_instances_pass_the_published_filters(tmp_path):
    found = CocoCutouts(coco(tmp_path), tmp_path)
    assert [found.name(index) for index in range(len(found))] == ['dog_1']
    colours, alpha = found[0]
    assert colours.shape == (15, 21, 3) and alpha.all()
    with pytest.raises(ValueError, match='none of the categories'):
        CocoCutouts(tmp_path / 'instances.json', tmp_path, ('piano',))


def test_run_lengths_are_read_in_column_order():
    mask = mask_of({'counts': [1, 2, 3], 'size': [3, 2]}, (3, 2))
    np.testing.assert_array_equal(mask, [[0, 0], [1, 0], [1, 0]])
