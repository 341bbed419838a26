# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The cut-paste generator against the published formulas, and its folder on disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from road_anomaly_ros import cli
from road_anomaly_ros.perception.labels import CAMVID, CITYSCAPES
from road_anomaly_ros.training.generator import blend, placement, restyle, variation, writer
from road_anomaly_ros.training.generator.backgrounds import read_backgrounds
from road_anomaly_ros.training.generator.compose import Generator, image_seed
from road_anomaly_ros.training.generator.cutouts import CocoCutouts, FolderCutouts, mask_of
from road_anomaly_ros.training.generator.options import GeneratorOptions
from road_anomaly_ros.training.generator.view import Cut, View, drawn_cut, shown
from road_anomaly_ros.training.generator.writer import Sources, synthesize

sys.path.insert(0, str(Path(__file__).parent))
import scenes

OPTIONS = GeneratorOptions(instances_max=2, image_format='png')


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(scenes.camvid(tmp_path / 'camvid'), scenes.cutouts(tmp_path / 'cutouts'))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.mark.parametrize('case', ['lab_mean', 'rgb_meanstd', 'nofeather'])
def test_blending_equals_the_published_code(golden, case):
    want = golden('synthetic_blend')[case]
    alpha = blend.feather(want['alpha'], int(want['feather_px']))
    np.testing.assert_allclose(alpha, want['feathered'], atol=1e-6)
    (x, y), (height, width) = want['top_left_xy'], alpha.shape
    image = want['background'].copy()
    patch = blend.match_colour(
        want['patch'],
        image[y : y + height, x : x + width],
        lab=bool(want['match_lab']),
        mean=bool(want['match_mean']),
        std=bool(want['match_std']),
    )
    blend.composite(image, patch, alpha, (x, y))
    for found, name in ((patch, 'matched_patch'), (image, 'composite')):
        assert np.abs(found.astype(int) - want[name]).max() <= 1, name
    full = np.zeros(image.shape[:2], np.float32)
    full[y : y + height, x : x + width] = alpha
    np.testing.assert_array_equal(full, want['alpha_full'])
    np.testing.assert_array_equal(full > 0.5, want['gt'] > 0)


def test_published_sizes(golden):
    for city_h, city_w, patch_h, patch_w, y, scale, out_h, out_w in golden('synthetic_blend')[''][
        'geometry_rows'
    ]:
        found = placement.published_size(
            (int(city_h), int(city_w)), (int(patch_h), int(patch_w)), int(y), GeneratorOptions()
        )
        assert found.scale == pytest.approx(scale, abs=1e-9)
        assert (found.height, found.width) == (out_h, out_w)


def test_size_falls_linearly_towards_the_horizon():
    options = GeneratorOptions(horizon=0.5)
    heights = [
        placement.perspective_size((201, 400), (50, 25), foot, 0.5, options).height
        for foot in (140, 160, 180, 200)
    ]
    assert heights == [20, 30, 40, 50]


def test_seed_is_the_head_of_a_sha256():
    import hashlib

    want = int(hashlib.sha256(b'7::12').hexdigest()[:8], 16)
    assert image_seed(7, '12') == want


def test_objects_stand_on_the_target_and_spare_what_is_forbidden(sources):
    generator = sources.generator(dataclasses.replace(OPTIONS, target_labels=('road',)))
    drawn = [generator[index] for index in range(30)]
    assert sum(bool(sample.record['objects']) for sample in drawn) > 20
    for sample in drawn:
        assert not ((sample.mask == 1) & (sample.labels == scenes.CAR)).any()
        np.testing.assert_array_equal(sample.mask == 1, sample.instances > 0)
        np.testing.assert_array_equal(
            (sample.labels == 255) & (sample.instances == 0), sample.mask == 255
        )
        for item in sample.record['objects']:
            x, y, width, height = item['box']
            foot = sample.labels[y + height - 1, x : x + width]
            assert item['on'] == 'road' and (foot == scenes.ROAD).any()
            assert item['visible'] == (sample.instances == item['id']).sum()


def test_near_objects_cover_far_ones(sources):
    generator = sources.generator(dataclasses.replace(OPTIONS, instances_min=6, instances_max=6))
    for index in range(6):
        boxes = [item['box'] for item in generator[index].record['objects']]
        feet = [y + height for _, y, _, height in boxes]
        assert feet == sorted(feet) and len(feet) > 1


def test_pixels_outside_of_object_and_shadow_stay_as_they_were(sources):
    generator = sources.generator(dataclasses.replace(OPTIONS, shadow=0.0, feather_px=0))
    for index in range(6):
        image = generator.backgrounds.scenes[index % 3].read().image
        sample = generator[index]
        outside = sample.mask != 1
        np.testing.assert_array_equal(sample.image[outside], image[outside])
        assert not outside.all() or not sample.record['objects']


def test_negative_frames_have_no_object(sources):
    for changes in ({'clean_ratio': 1.0}, {'p_has_anomaly': 0.0}):
        sample = sources.generator(dataclasses.replace(OPTIONS, **changes))[0]
        assert not sample.record['objects'] and not (sample.mask == 1).any()


@pytest.mark.parametrize(
    'changes',
    [{'vary': 1.0}, {'procedural': 1.0}, {'scale_from_paste_y': False, 'contact': 'box'}],
)
def test_every_kind_of_object_can_be_drawn(sources, changes):
    generator = sources.generator(dataclasses.replace(OPTIONS, area_max=0.3, **changes))
    assert any(generator[index].record['objects'] for index in range(12))


def test_drawn_objects_differ(rng):
    donor = np.zeros((10, 10, 3), np.uint8), np.ones((10, 10), np.float32)
    shapes = [variation.drawn(rng, donor) for _ in range(8)]
    assert len({(colours.shape, float(alpha.sum())) for colours, alpha in shapes}) == 8
    assert all((alpha > 0.5).any() for _, alpha in shapes)


def test_same_settings_give_equal_bytes_whatever_the_processes(sources, tmp_path):
    for name, processes in (('one', 1), ('two', 2)):
        assert synthesize(sources, OPTIONS, 20, tmp_path / name, processes=processes) == 20
    assert files_of(tmp_path / 'one') == files_of(tmp_path / 'two')
    other = sources.generator(dataclasses.replace(OPTIONS, seed=1))[0]
    assert not np.array_equal(other.image, sources.generator(OPTIONS)[0].image)


def test_a_stopped_run_is_continued(sources, tmp_path):
    synthesize(sources, OPTIONS, 8, tmp_path / 'whole')

    def stop(count: int) -> None:
        if len(list((tmp_path / 'parts' / 'images').iterdir())) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(sources, OPTIONS, 8, tmp_path / 'parts', advance=stop)
    done = writer.read_records(tmp_path / 'parts')
    assert sorted(done) == [0, 1, 2]
    before = (tmp_path / 'parts' / 'images' / '000001.png').stat().st_mtime_ns
    synthesize(sources, OPTIONS, 8, tmp_path / 'parts')
    assert (tmp_path / 'parts' / 'images' / '000001.png').stat().st_mtime_ns == before
    assert files_of(tmp_path / 'parts') == files_of(tmp_path / 'whole')


def test_a_crash_leaves_a_journal_that_is_read(sources, tmp_path):
    out = tmp_path / 'out'
    synthesize(sources, OPTIONS, 3, out)
    lines = (out / 'manifest.jsonl').read_text().splitlines()
    (out / 'manifest.jsonl').unlink()
    (out / '.journal.jsonl').write_text('\n'.join([*lines[:2], lines[2][:20]]))
    assert sorted(writer.read_records(out)) == [0, 1]
    synthesize(sources, OPTIONS, 3, out)
    assert (out / 'manifest.jsonl').read_text().splitlines() == lines
    assert not (out / '.journal.jsonl').exists()


def test_a_full_disk_keeps_what_is_complete(sources, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if '000002' in path.name:
            write(path, data[:3])
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        return write(path, data)

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match='No space left'):
        synthesize(sources, OPTIONS, 5, tmp_path / 'out')
    assert sorted(writer.read_records(tmp_path / 'out')) == [0, 1]
    assert not list((tmp_path / 'out').rglob('*.partial'))
    monkeypatch.undo()
    assert synthesize(sources, OPTIONS, 5, tmp_path / 'out') == 5


def test_other_settings_are_refused(sources, tmp_path):
    synthesize(sources, OPTIONS, 1, tmp_path / 'out')
    with pytest.raises(ValueError, match=r'other settings \(feather_px: 1, now 2\)'):
        synthesize(sources, dataclasses.replace(OPTIONS, feather_px=2), 1, tmp_path / 'out')


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
def test_classes_of_camvid_by_name(sources, name, ids):
    """What CamVid counts among its cars is one; a verge among its trees is no place to stand."""
    assert read_backgrounds(sources.backgrounds).ids(name) == ids


def test_drawn_images_say_what_their_label_ids_mean(sources, tmp_path):
    """Folders from before they did are continued, but not those of rendered scenes."""
    out, rendered = tmp_path / 'out', tmp_path / 'rendered'
    synthesize(sources, OPTIONS, 1, out)
    synthesize(Sources(RENDERED), OPTIONS, 1, rendered)
    for folder, names in ((out, CAMVID), (rendered, CITYSCAPES)):
        config = yaml.safe_load((folder / writer.CONFIG).read_text())
        assert config.pop('classes') == dict(enumerate(names))
        (folder / writer.CONFIG).write_text(yaml.safe_dump(config))
    assert synthesize(sources, OPTIONS, 2, out) == 2
    with pytest.raises(ValueError, match=r'other settings \(classes: None, now'):
        synthesize(Sources(RENDERED), OPTIONS, 2, rendered)


RENDERED = 'rendered:3?scenes=2&width=96&height=72'


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


def test_rendered_scenes_from_the_command_line(tmp_path):
    words = ['synthesize', '--backgrounds', RENDERED, '--count', '2', '--processes', '1']
    assert cli.main([*words, '-o', str(tmp_path / 'out')]) == 0
    assert sorted(path.name for path in (tmp_path / 'out' / 'labels').iterdir()) == [
        '000000.png',
        '000001.png',
    ]
    assert all(
        not json.loads(line)['objects']
        for line in (tmp_path / 'out' / 'manifest.jsonl').read_text().splitlines()
    )
    assert cli.main([*words, '--annotations', 'a.json', '-o', str(tmp_path / 'other')]) == 2


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


def test_looks_change_and_the_truth_stays(sources):
    plain = sources.generator(OPTIONS)[1]
    for name in ('restyle', 'weather'):
        changed = sources.generator(dataclasses.replace(OPTIONS, **{name: 1.0}))[1]
        assert (changed.image != plain.image).mean() > 0.3, name
        for part in ('mask', 'instances', 'labels'):
            np.testing.assert_array_equal(getattr(changed, part), getattr(plain, part))
        assert changed.record == plain.record


def test_restyling_changes_classes_as_wholes():
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 1
    image = np.full((40, 60, 3), (90, 120, 70), np.uint8)
    moved = [
        restyle.restyled(np.random.default_rng(seed), image, labels) != image for seed in range(20)
    ]
    halves = {(bool(part[:, :25].any()), bool(part[:, 35:].any())) for part in moved}
    assert halves == {(False, False), (False, True), (True, False), (True, True)}


def test_haze_lies_over_what_is_far():
    image = np.zeros((50, 10, 3), np.float32)
    hazed = restyle._hazed(np.random.default_rng(0), image, 0.4)[:, 0, 0]
    assert hazed[0] == hazed[19] > hazed[30] > hazed[49] == 0


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


@pytest.mark.parametrize(
    ('breakage', 'message'),
    [
        (
            lambda root: (root / 'camvid' / 'labels' / 'scene1.png').unlink(),
            'a label map for every',
        ),
        (
            lambda root: cv2.imwrite(
                str(root / 'camvid' / 'labels' / 'scene0.png'), np.zeros((4, 4), np.uint8)
            ),
            'expected uint8 labels of shape',
        ),
        (
            lambda root: (root / 'camvid' / 'labels').rename(root / 'camvid' / 'other'),
            'CamVid layout',
        ),
        (
            lambda root: [path.unlink() for path in (root / 'cutouts').iterdir()],
            'RGBA cut-outs (PNG or WebP)',
        ),
        (
            lambda root: [path.unlink() for path in (root / 'camvid' / 'images').iterdir()],
            'found none',
        ),
    ],
)
def test_bad_folders_give_one_line(sources, tmp_path, capsys, breakage, message):
    breakage(tmp_path)
    code = cli.main(
        [
            'synthesize',
            '--backgrounds',
            str(sources.backgrounds),
            '--objects',
            str(sources.objects),
            '--count',
            '2',
            '--processes',
            '1',
            '-o',
            str(tmp_path / 'out'),
        ]
    )
    error = capsys.readouterr().err
    assert code == 2 and message in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'instances_min': 3, 'instances_max': 1}, 'instances_min <= instances_max'),
        ({'target_labels': ('road:much',)}, 'NAME:WEIGHT'),
        ({'target_labels': ('road:0',)}, 'positive weight'),
    ],
)
def test_options_that_cannot_work(values, message):
    with pytest.raises(ValueError, match=message):
        GeneratorOptions(**values)


def test_command_says_what_is_done_and_stops_in_order(sources, tmp_path, capsys, monkeypatch):
    words = [
        'synthesize',
        '--backgrounds',
        str(sources.backgrounds),
        '--objects',
        str(sources.objects),
        '--count',
        '2',
        '--processes',
        '1',
        '--seed',
        '3',
        '-o',
        str(tmp_path / 'out'),
    ]
    assert cli.main(words) == 0
    assert '2 images in' in capsys.readouterr().out
    assert len(writer.read_records(tmp_path / 'out')) == 2
    image, mask = writer.read_sample(tmp_path / 'out', writer.read_records(tmp_path / 'out')[0])
    assert image.shape == (*scenes.SIZE, 3) and set(np.unique(mask)) <= {0, 1, 255}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, '_draw', interrupt)
    words[words.index('2')] = '3'
    assert cli.main(words) == 130
    assert 'the same command' in capsys.readouterr().err
    assert len((tmp_path / 'out' / 'manifest.jsonl').read_text().splitlines()) == 2
