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
from PIL import Image

from road_anomaly_ros import cli, files
from road_anomaly_ros.perception.labels import CAMVID, CITYSCAPES
from road_anomaly_ros.training import roads
from road_anomaly_ros.training.generator import blend, placement, restyle, variation, writer
from road_anomaly_ros.training.generator.backgrounds import read_backgrounds
from road_anomaly_ros.training.generator.compose import image_seed
from road_anomaly_ros.training.generator.cutouts import CocoCutouts
from road_anomaly_ros.training.generator.options import GeneratorOptions
from road_anomaly_ros.training.generator.writer import Sources, synthesize

sys.path.insert(0, str(Path(__file__).parent))
import scenes

OPTIONS = GeneratorOptions(instances_max=2, image_format='png')
RENDERED = 'rendered:3?scenes=2&width=96&height=72'


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


def command(sources, folder):
    """Words that make two images in `folder`/out."""
    places = ['--backgrounds', str(sources.backgrounds), '--objects', str(sources.objects)]
    rest = ['--count', '2', '--processes', '1', '-o', str(folder / 'out')]
    return ['synthesize', *places, *rest]


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
    code = cli.main(command(sources, tmp_path))
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
    words = [*command(sources, tmp_path), '--seed', '3']
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


def test_a_folder_of_other_pictures_is_left_alone(sources, tmp_path):
    out = tmp_path / 'kitti'
    (out / 'images').mkdir(parents=True)
    (out / 'images' / '000000.png').write_bytes(b'precious')
    with pytest.raises(ValueError, match='holds files of something else'):
        synthesize(sources, OPTIONS, 1, out)
    assert (out / 'images' / '000000.png').read_bytes() == b'precious'


@pytest.mark.parametrize('text', ['[1]', 'a: [', 'layout: camvid\nlayout: idd_lite\n'])
def test_damaged_settings_are_one_line(sources, tmp_path, text):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'config.yaml').write_text(text)
    with pytest.raises(ValueError, match=r'config\.yaml') as raised:
        synthesize(sources, OPTIONS, 1, tmp_path / 'out')
    assert '\n' not in str(raised.value)


def test_two_runs_cannot_draw_into_one_folder(sources, tmp_path):
    with (
        files.alone(tmp_path / 'out'),
        pytest.raises(ValueError, match='another run is writing there'),
    ):
        synthesize(sources, OPTIONS, 1, tmp_path / 'out')


def test_backgrounds_lie_as_their_labels_do(tmp_path):
    """A camera that hangs upside down says so in its pictures, not in the labels."""
    folder = scenes.camvid(tmp_path / 'camvid', 1)
    stored = cv2.cvtColor(cv2.imread(str(folder / 'images' / 'scene0.png')), cv2.COLOR_BGR2RGB)
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.fromarray(stored).save(folder / 'images' / 'scene0.png', exif=turned)
    (scene,) = read_backgrounds(folder).scenes
    np.testing.assert_array_equal(scene.read().image, stored)
    np.testing.assert_array_equal(roads.read_frames('camvid', folder)[0].image, stored)


def test_annotations_that_lack_something_are_one_line(tmp_path):
    tree = {
        'images': [],
        'annotations': [{'id': 1, 'category_id': 1, 'image_id': 7, 'bbox': [0, 0, 1, 1]}],
        'categories': [{'id': 1, 'name': 'dog'}],
    }
    (tmp_path / 'a.json').write_text(json.dumps(tree))
    with pytest.raises(ValueError, match='expected instances of COCO, one lacks its 7'):
        CocoCutouts(tmp_path / 'a.json', tmp_path)
