# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Videos measured as video, on maps and moments that can be counted by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from road_anomaly_ros import cli
from road_anomaly_ros.evaluation import sequences, streaming
from road_anomaly_ros.evaluation.hota import Likeness, hota
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.tools.sources import Frame

STAMPS = [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ('latency', 'expected'),
    [
        (0.0, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]),
        (0.05, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]),
        (0.1, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        # Done at 0.15: frame 1 was waiting and is done at 0.3; then frame 3 until 0.45.
        (0.15, [(0, 1), (1, 3), (3, 4)]),
        (0.25, [(0, 2)]),  # frame 2 is done at 0.5, when the video is over
        (9.0, []),
    ],
)
def test_results_meet_the_truth_of_their_arrival(latency, expected):
    assert streaming.arrivals(STAMPS, [latency] * 5) == expected


def test_quality_of_a_late_result_falls_as_the_thing_moves_on():
    labels = [np.zeros((20, 60), np.uint8) for _ in range(4)]
    for index, label in enumerate(labels):
        label[5:15, 10 * index : 10 * index + 10] = 1
    scores = [label.astype(np.float32) for label in labels]
    now = streaming.quality(scores, labels, [(index, index) for index in range(4)], 0.5)
    late = streaming.quality(scores, labels, [(index, index + 1) for index in range(3)], 0.5)
    assert now == (100.0, 100.0)
    assert late == (pytest.approx(100 * 300 / 3600), 0.0)  # nothing is where it was
    assert all(np.isnan(streaming.quality(scores, labels, [], 0.5)))


def test_consistency_by_hand():
    found = streaming.Consistency()
    columns, rows = np.meshgrid(np.arange(6), np.arange(4))
    score = np.arange(24, dtype=np.float32).reshape(4, 6)
    mask = np.zeros((4, 6), bool)
    mask[1:3, 1:3] = True
    # The picture has moved one column to the right, and so has what was found, but for one pixel.
    moved = np.roll(mask, 1, 1)
    moved[1, 2] = False
    places = np.stack((columns - 1, rows), -1).astype(float)
    found.add((score, mask), (np.roll(score, 1, 1) + 0.5, moved), places, columns > 0)
    assert found.figures() == {'score_change': 0.5, 'mask_consistency': 0.75}


def test_nothing_to_compare_is_undefined():
    assert all(np.isnan(value) for value in streaming.Consistency().figures().values())


def test_the_exact_motion_of_a_drive_finds_the_same_places():
    drive = Drive(DriveOptions(width=160, height=120, frames=40, seed=2))
    before, now = (
        Frame(view.image, 0, '', truth=view.instances, depth=view.depth)
        for view in (drive[20], drive[21])
    )
    places, seen = streaming.exact_motion(drive.camera)(21, before, now)
    assert seen.mean() > 0.3
    warped = cv2.remap(before.image, places.astype(np.float32), None, cv2.INTER_LINEAR)
    error = np.abs(warped.astype(float) - now.image)[seen].mean()
    assert error < 0.7 * np.abs(before.image.astype(float) - now.image)[seen].mean()


def test_optical_flow_finds_a_shift():
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (64, 100, 3), np.uint8), (0, 0), 2)
    before, now = (Frame(np.ascontiguousarray(wide[:, at : at + 80]), 0, '') for at in (4, 7))
    places, seen = streaming.flow_motion(1, before, now)
    shift = places[..., 0] - np.arange(80)
    assert np.median(shift[seen]) == pytest.approx(3, abs=0.3)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize(
    ('frames', 'masks', 'values', 'expected'),
    [
        ('images', 'instances', [0, 2005, 10_000, 1001], [0, 2005, sequences.IGNORED, 1001]),
        ('JPEGImages', 'Annotations', [0, 1, 2, 255], [0, 1, 2, sequences.IGNORED]),
        ('JPEGImages', 'Annotations', [0, 255, 0, 255], [0, 1, 0, 1]),
        ('images', 'labels_masks', [0, 1, 0, 255], [0, 1, 0, sequences.IGNORED]),
    ],
)
def test_masks_are_read_as_their_publishers_mean_them(tmp_path, frames, masks, values, expected):
    kind = np.uint16 if max(values) > 255 else np.uint8
    for name in ('7', '10'):
        write(tmp_path / frames / 'one' / f'{name}.png', np.zeros((1, 4, 3), np.uint8))
        write(tmp_path / masks / 'one' / f'{name}.png', np.array([values], kind))
    (source,) = sequences.open_sequences(str(tmp_path), 20.0)
    found = list(source)
    assert [frame.name for frame in found] == ['7.png', '10.png']
    assert [frame.stamp for frame in found] == [0.0, 0.05]
    assert found[1].truth.tolist() == [expected]
    things, ignored = sequences.split(found[1].truth, source.name)
    assert things.max() < sequences.IGNORED and ignored.sum() == expected.count(sequences.IGNORED)


def test_masks_of_another_size_and_folders_without_any_are_refused(tmp_path, capsys):
    write(tmp_path / 'images' / 'a.png', np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(ValueError, match='or a folder with pictures in images/ and instances/'):
        sequences.open_sequences(str(tmp_path))
    write(tmp_path / 'labels_masks' / 'a.png', np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match='the size of its frame, 6x4, got 4x4'):
        list(sequences.open_sequences(str(tmp_path))[0])
    with pytest.raises(ValueError, match='expected a drive'):
        sequences.open_sequences(str(tmp_path), named=True)  # nobody says which is which
    assert cli.main(['evaluate', str(tmp_path), '--video', '--tracks']) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_a_video_is_measured_from_end_to_end(tmp_path, capsys):
    folder, out = tmp_path / 'clip', tmp_path / 'out'
    for index in range(3):
        picture = np.full((48, 64, 3), 90, np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        mask[20:40, 10 + index : 30 + index] = 1
        write(folder / 'images' / f'{index}.png', picture)
        write(folder / 'labels_masks' / f'{index}.png', mask)
    words = ['--dataset', 'rendered:1?frames=3&width=64&height=48', '--dataset', str(folder)]
    words += ['--video', '--latency', '100', '-o', str(out), '--scorer', 'plain']
    assert cli.main(['evaluate', *words, '--set', 'segmenter=synthetic']) == 0
    assert '| streaming_AP |' in capsys.readouterr().out
    drive, clip = json.loads((out / streaming.NAME).read_text())['videos']
    assert (drive['motion'], clip['motion']) == (streaming.EXACT, streaming.FLOW)
    assert clip['latency_ms'] == pytest.approx(100) and clip['latency'] == 'given'
    assert (clip['frames'], clip['processed']) == (3, 2)
    assert cli.main(['report', str(out), '-o', str(out / 'report.html')]) == 0
    page = (out / 'report.html').read_text()
    assert 'Results in time' in page and str(folder / 'images') in page
    (out / streaming.NAME).write_text('{}')
    assert cli.main(['report', str(out), '-o', str(out / 'report.html')]) == 2
    assert 'was it written by road-anomaly evaluate' in capsys.readouterr().err


def test_another_video_adds_to_what_was_measured(tmp_path, capsys):
    def measured(drive, *more):
        words = ['evaluate', f'rendered:{drive}?frames=2&width=64&height=48', '--video']
        words += ['--latency', '100', '-o', str(tmp_path), '--scorer', 'plain', *more]
        assert cli.main([*words, '--set', 'segmenter=synthetic']) == 0
        document = json.loads((tmp_path / streaming.NAME).read_text())
        return [row['video'].partition('?')[0] for row in document['videos']]

    assert measured(1) == ['rendered:1']
    assert measured(2) == ['rendered:1', 'rendered:2']
    assert measured(1) == ['rendered:2', 'rendered:1']
    assert 'warning' not in capsys.readouterr().err
    assert measured(3, '--set', 'objects.min_area=900') == ['rendered:3']
    assert 'it is kept as video.json.earlier' in capsys.readouterr().err
    earlier = json.loads((tmp_path / 'video.json.earlier').read_text())
    assert len(earlier['videos']) == 2


def test_sequences_without_masks_are_named(tmp_path, capsys):
    for name in ('a', 'b'):
        write(tmp_path / 'JPEGImages' / name / '0.png', np.zeros((4, 6, 3), np.uint8))
    write(tmp_path / 'Annotations' / 'a' / '0.png', np.zeros((4, 6), np.uint8))
    (source,) = sequences.open_sequences(str(tmp_path))
    assert source.name.endswith('JPEGImages/a')
    error = capsys.readouterr().err
    assert '1 sequences without masks are left out' in error and 'JPEGImages/b' in error


def test_hota_by_hand():
    full, half = np.ones((1, 1)), np.full((1, 1), 0.5)
    assert hota([Likeness([7], [3], full)] * 4) == {'HOTA': 1.0, 'DetA': 1.0, 'AssA': 1.0}
    # Half an overlap counts up to an alpha of 0.5: ten of nineteen.
    assert hota([Likeness([7], [3], half)])['HOTA'] == pytest.approx(10 / 19)
    # Another id half way: all is found, each half of the track is tied by 4 / (8 + 4 - 4).
    switched = hota([Likeness([7], [3], full)] * 4 + [Likeness([7], [4], full)] * 4)
    assert switched == pytest.approx({'HOTA': 0.5**0.5, 'DetA': 1.0, 'AssA': 0.5})
    nothing = Likeness([], [], np.zeros((0, 0)))
    assert np.isnan(hota([nothing])['HOTA'])
    assert hota([Likeness([7], [], np.zeros((1, 0)))])['HOTA'] == 0.0
