# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from runs import SIZE, START, count_frames, rows, run, scene, summary, write_bag, write_video

from road_anomaly_ros import cli
from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.tools import overlay_video, processing, scales, sinks
from road_anomaly_ros.tools.bags import COMPRESSED, IMAGE, BagReader
from road_anomaly_ros.tools.sources import open_source

BOXES = 'vision_msgs/msg/Detection2DArray'


def test_a_video_gives_everything_that_is_promised(tmp_path, capsys):
    out = tmp_path / 'out'
    assert run(write_video(tmp_path / 'in.avi'), out) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        'frames.csv',
        'objects.csv',
        'objects.jsonl',
        'overlay.mp4',
        'snapshots',
        'summary.json',
    ]
    assert count_frames(out / 'overlay.mp4') == 12
    table = rows(out / 'frames.csv')
    assert [row['stamp'] for row in table] == [f'{index * 0.05:.9f}' for index in range(12)]
    assert all(float(row['total_ms']) >= float(row['segment_ms']) > 0 for row in table)
    assert all(float(row['decode_ms']) > 0 and row['draw_ms'] for row in table)
    objects = rows(out / 'objects.csv')
    assert sum(int(row['objects']) for row in table) == len(objects) == summary(out)['objects']
    assert 'results in' in capsys.readouterr().out


def test_the_tables_say_where_the_obstacle_is(tmp_path):
    run(write_video(tmp_path / 'in.avi'), tmp_path / 'out')
    largest = {}
    for row in rows(tmp_path / 'out' / 'objects.csv'):
        before = largest.get(row['frame'])
        if before is None or int(row['area']) > int(before['area']):
            largest[row['frame']] = row
    assert len(largest) == 12
    for index, row in ((int(frame), row) for frame, row in largest.items()):
        assert abs(float(row['center_x']) - (17.5 + index)) < 3
        assert abs(float(row['center_y']) - 33.5) < 3
        assert 100 < int(row['area']) < 400 and row['label'] == 'road'


def test_a_tracker_adds_a_table_of_tracks(tmp_path, capsys):
    out = tmp_path / 'out'
    assert run(write_video(tmp_path / 'in.avi'), out, '--set', 'tracker=kalman') == 0
    boxes = {(row['frame'], row['id']): row for row in rows(out / 'objects.csv')}
    table = rows(out / 'tracks.csv')
    assert all(boxes[row['frame'], row['id']]['x'] == row['x'] for row in table)
    largest = {}
    for row in table:
        before = largest.get(row['frame'])
        row['area'] = int(boxes[row['frame'], row['id']]['area'])
        if before is None or row['area'] > before['area']:
            largest[row['frame']] = row
    assert {row['track_id'] for row in largest.values()} == {largest['0']['track_id']}
    assert [row['confirmed'] for row in largest.values()][0::11] == ['0', '1']
    assert abs(float(largest['11']['velocity_x']) - 20) < 8  # a pixel in 0.05 s
    assert float(largest['11']['age_s']) == pytest.approx(0.55)
    document = summary(out)
    assert document['tracks'] == len({row['track_id'] for row in table})
    assert document['tracker'] == 'kalman' and 'tracks.csv' in document['outputs']
    assert f'{document["tracks"]} tracks, ' in capsys.readouterr().out


def test_the_summary_names_model_options_versions_and_times(tmp_path):
    run(write_video(tmp_path / 'in.avi'), tmp_path / 'out', '--set', 'objects.min_area=7')
    document = summary(tmp_path / 'out')
    assert document['frames'] == 12 and document['problem'] is None and document['fps'] > 0
    assert document['scorer'] == 'plain' and document['segmenter'] == 'synthetic'
    assert document['options']['objects.min_area'] == 7
    assert document['input']['kind'] == 'video' and document['input']['count'] == 12
    assert {'road_anomaly_ros', 'torch', 'numpy', 'python'} <= set(document['versions'])
    assert {'decode', 'segment', 'score', 'objects', 'total', 'draw', 'write'} <= set(
        document['stages_ms']
    )
    for stage in document['stages_ms'].values():
        assert 0 <= stage['p50'] <= stage['p99']
    assert document['interrupted'] is False and document['machine']['cores'] >= 1


def test_one_image_makes_a_picture_and_no_video(tmp_path):
    cv2.imwrite(str(tmp_path / 'in.png'), scene(3)[..., ::-1])
    assert run(tmp_path / 'in.png', tmp_path / 'out') == 0
    assert not (tmp_path / 'out' / 'overlay.mp4').exists()
    picture = cv2.imread(str(tmp_path / 'out' / 'snapshots' / 'frame_000000.png'))
    assert picture.shape == (*SIZE, 3)


def test_a_folder_of_photos_gives_a_picture_for_each_and_no_video(tmp_path):
    (tmp_path / 'in').mkdir()
    names = ('a.png', 'b.jpg', 'b.png', 'c.tif')
    for index, name in enumerate(names):
        cv2.imwrite(str(tmp_path / 'in' / name), scene(index)[..., ::-1])
    assert run(tmp_path / 'in', tmp_path / 'out') == 0
    assert not (tmp_path / 'out' / 'overlay.mp4').exists()
    overlays = tmp_path / 'out' / 'overlays'
    assert sorted(path.name for path in overlays.iterdir()) == [
        'a.jpg',
        'b.jpg',
        'b.png.jpg',
        'c.jpg',
    ]
    assert cv2.imread(str(overlays / 'a.jpg')).shape == (*SIZE, 3)
    assert 'overlays' in summary(tmp_path / 'out')['outputs']


def test_images_of_many_sizes_share_one_video(tmp_path):
    (tmp_path / 'in').mkdir()
    sizes = [(48, 64), (1, 1), (97, 31), (30, 200)] * 7
    for index, shape in enumerate(sizes):
        cv2.imwrite(str(tmp_path / 'in' / f'{index:02d}.png'), np.full((*shape, 3), 90, np.uint8))
    assert run(tmp_path / 'in', tmp_path / 'out', '--save-scores', 'npz') == 0
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == 28
    for index, shape in enumerate(sizes):
        with np.load(tmp_path / 'out' / 'scores' / f'{index:06d}.npz') as arrays:
            assert arrays['score'].shape == shape and arrays['score'].dtype == np.float32


def test_score_maps_come_back_from_png_and_npz(tmp_path):
    video = write_video(tmp_path / 'in.avi', 2)
    run(video, tmp_path / 'a', '--save-scores', 'png')
    run(video, tmp_path / 'b', '--save-scores', 'npz')
    scale = json.loads((tmp_path / 'a' / 'scores' / 'scale.json').read_text())['maps']
    pipeline = Pipeline.from_config(segmenter='synthetic', scorer='plain')
    for index, frame in enumerate(open_source(video)):
        expected = pipeline(frame.image).score.numpy()
        with np.load(tmp_path / 'b' / 'scores' / f'{index:06d}.npz') as arrays:
            np.testing.assert_array_equal(arrays['score'], expected)
        name = f'{index:06d}.png'
        pixels = cv2.imread(str(tmp_path / 'a' / 'scores' / name), cv2.IMREAD_UNCHANGED)
        low, high = scale[name]['low'], scale[name]['high']
        back = low + (pixels.astype(float) - 1) / 65534 * (high - low)
        np.testing.assert_allclose(back, expected, atol=(high - low) / 65000)


def test_quantized_scores_keep_a_value_for_no_score():
    score = np.array([[-2.0, 0.0, 2.0, np.nan, np.inf]], np.float32)
    pixels, low, high = scales.quantize(score)
    assert pixels.tolist() == [[1, 32768, 65535, 0, 0]] and (low, high) == (-2.0, 2.0)
    assert scales.quantize(np.full((1, 2), np.nan))[0].tolist() == [[0, 0]]
    assert scales.quantize(np.full((1, 2), 3.0))[0].tolist() == [[1, 1]]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_bag_in_bag_out_keeps_stamps_frames_and_values(tmp_path, storage):
    source = write_bag(tmp_path / 'in')
    assert run(source, tmp_path / 'out', '--bag', storage) == 0
    reader = BagReader(tmp_path / 'out' / 'bag')
    assert set(reader.counts) == {
        ('/anomaly_node/semantic/labels', IMAGE),
        ('/anomaly_node/anomaly/score', IMAGE),
        ('/anomaly_node/obstacle/mask', IMAGE),
        ('/anomaly_node/obstacle/instances', IMAGE),
        ('/anomaly_node/obstacle/detections', BOXES),
        ('/anomaly_node/overlay/compressed', COMPRESSED),
    }
    assert set(reader.counts.values()) == {6}
    pipeline = Pipeline.from_config(segmenter='synthetic', scorer='plain')
    results = [pipeline(scene(index)) for index in range(6)]
    names = ('labels', 'score', 'mask', 'instances', 'compressed', 'detections')
    seen = dict.fromkeys(names, 0)
    kinds = {
        'labels': ('mono8', np.uint8),
        'score': ('32FC1', '<f4'),
        'mask': ('mono8', np.uint8),
        'instances': ('16UC1', '<u2'),
    }
    for record in reader.records():
        message, name = reader.decode(record), record.topic.rsplit('/', 1)[1]
        index, seen[name] = seen[name], seen[name] + 1
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert stamp == record.stamp_ns == START + index * 100_000_000
        assert message.header.frame_id == 'front'
        if name in ('compressed', 'detections'):
            continue
        encoding, dtype = kinds[name]
        assert (message.encoding, message.height, message.width) == (encoding, *SIZE)
        values = np.asarray(message.data).view(dtype).reshape(SIZE)
        expected = getattr(results[index], name).numpy()
        np.testing.assert_array_equal(values, expected * 255 if name == 'mask' else expected)
    assert set(seen.values()) == {6}
    reader.close()


def test_resize_and_limit(tmp_path):
    video = write_video(tmp_path / 'in.avi')
    run(video, tmp_path / 'out', '--resize', '32x24', '--max-frames', '5')
    table = rows(tmp_path / 'out' / 'frames.csv')
    assert len(table) == 5 and {(row['width'], row['height']) for row in table} == {('32', '24')}
    assert summary(tmp_path / 'out')['input']['resize'] == [32, 24]


def test_options_come_from_a_file_and_set_wins(tmp_path):
    (tmp_path / 'chain.yaml').write_text(
        'segmenter: synthetic\nscorer: rba\nobjects: {min_area: 3, threshold: -0.2}\n'
    )
    arguments = [
        'run',
        str(write_video(tmp_path / 'in.avi', 2)),
        '-o',
        str(tmp_path / 'out'),
        '--config',
        str(tmp_path / 'chain.yaml'),
        '--set',
        'objects.min_area=5',
    ]
    assert cli.main(arguments) == 0
    options = summary(tmp_path / 'out')['options']
    assert (options['scorer'], options['objects.min_area']) == ('rba', 5)
    assert options['objects.threshold'] == -0.2


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    'options, words',
    [
        (['--set', 'scorer.plain'], 'expected NAME=VALUE'),
        (['--set', 'objects.min_ara=3'], 'unknown option'),
        (['--scorer', 'enrgy'], 'unknown scorer'),
        (['--resize', '12'], 'WIDTHxHEIGHT'),
        (['--max-frames', '0'], 'at least 1'),
        (['--topic', '/x'], 'in a bag only'),
        (['--device', 'toaster'], 'toaster'),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(tmp_path, capsys, options, words):
    video = write_video(tmp_path / 'in.avi', 2)
    assert run(video, tmp_path / 'out', *options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_truncated_video_is_processed_up_to_the_break(tmp_path, capsys):
    video = write_video(tmp_path / 'in.avi', 40)
    raw = video.read_bytes()
    video.write_bytes(raw[: len(raw) * 6 // 10])
    assert run(video, tmp_path / 'out') == 1
    document = summary(tmp_path / 'out')
    assert 10 < document['frames'] < 40 and 'breaks off after' in document['problem']
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == document['frames']
    assert 'breaks off' in capsys.readouterr().err


def test_a_bag_that_lacks_messages_is_told_by_the_exit_code(tmp_path, capsys):
    bag = write_bag(tmp_path / 'in')
    text = (bag / 'metadata.yaml').read_text()
    (bag / 'metadata.yaml').write_text(text.replace('message_count: 6', 'message_count: 9'))
    assert run(bag, tmp_path / 'out') == 1
    assert summary(tmp_path / 'out')['problem'] == '6 of 9 messages can be read'
    assert '6 of 9 messages can be read' in capsys.readouterr().err


def test_damaged_images_are_counted_in_the_summary(tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / 'in' / f'{index}.png'), scene(index))
    (tmp_path / 'in' / '1.png').write_bytes(b'damaged')
    assert run(tmp_path / 'in', tmp_path / 'out') == 0
    assert summary(tmp_path / 'out')['refused'] == {'undecodable': 1}
    assert [row['name'] for row in rows(tmp_path / 'out' / 'frames.csv')] == ['0.png', '2.png']
    assert '1 pictures left out (undecodable)' in capsys.readouterr().err
    for index in (0, 2):
        (tmp_path / 'in' / f'{index}.png').write_bytes(b'damaged too')
    assert run(tmp_path / 'in', tmp_path / 'none') == 2
    assert '3 undecodable' in capsys.readouterr().err and not (tmp_path / 'none').exists()


def test_an_earlier_run_is_replaced_and_other_files_are_kept(tmp_path):
    out, video = tmp_path / 'out', write_video(tmp_path / 'in.avi', 3)
    assert run(video, out, '--bag') == 0
    (out / 'notes.txt').write_text('mine')
    assert run(video, out, '--no-video', '--max-frames', '2') == 0
    assert sorted(path.name for path in out.iterdir()) == [
        'frames.csv',
        'notes.txt',
        'objects.csv',
        'objects.jsonl',
        'snapshots',
        'summary.json',
    ]
    assert summary(out)['frames'] == 2 and (out / 'notes.txt').read_text() == 'mine'


def test_files_of_our_names_that_are_not_ours_are_never_replaced(tmp_path, capsys):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'frames.csv').write_text('precious')
    assert run(write_video(tmp_path / 'in.avi', 2), out) == 2
    assert 'not from an earlier run' in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ['frames.csv']
    assert (out / 'frames.csv').read_text() == 'precious'
    (tmp_path / 'file').write_text('')
    assert run(tmp_path / 'in.avi', tmp_path / 'file') == 2


def test_two_runs_cannot_write_to_one_folder(tmp_path, capsys):
    from road_anomaly_ros.tools.staging import Staging

    first = Staging(tmp_path / 'out', [])
    assert run(write_video(tmp_path / 'in.avi', 2), tmp_path / 'out') == 2
    assert 'another run is writing there' in capsys.readouterr().err
    first.discard()
    assert run(tmp_path / 'in.avi', tmp_path / 'out') == 0


def test_leftovers_of_a_killed_run_are_cleared_and_named(tmp_path, capsys):
    partial = tmp_path / 'out' / '.partial'
    partial.mkdir(parents=True)
    (partial / 'overlay.mp4').write_bytes(b'half')
    assert run(write_video(tmp_path / 'in.avi', 2), tmp_path / 'out') == 0
    assert not partial.exists()
    assert f'{partial} of a run that was killed is removed' in capsys.readouterr().err


def test_a_failing_frame_keeps_those_before_it(tmp_path, monkeypatch, capsys):
    calls = []
    original = Pipeline.__call__

    def failing(self, image, stamp=None, **options):
        calls.append(stamp)
        if len(calls) == 6:  # the first call warms up
            raise ValueError('frame five is cursed')
        return original(self, image, stamp, **options)

    monkeypatch.setattr(Pipeline, '__call__', failing)
    assert run(write_video(tmp_path / 'in.avi'), tmp_path / 'out') == 2
    document = summary(tmp_path / 'out')
    assert document['frames'] == 4 and document['problem'] == 'frame five is cursed'
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == 4
    assert 'frame five is cursed' in capsys.readouterr().err


def test_a_disk_that_runs_full_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    free = iter([2**40] * 4 + [2**20] * 99)
    monkeypatch.setattr(
        processing.shutil, 'disk_usage', lambda _: SimpleNamespace(free=next(free))
    )
    assert run(write_video(tmp_path / 'in.avi'), tmp_path / 'out') == 2
    assert 'the disk is full, stopped after 5 frames' in capsys.readouterr().err
    document = summary(tmp_path / 'out')
    assert document['frames'] == 5 and 'the disk is full' in document['problem']
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == 5


def test_snapshots_are_the_first_frame_and_the_strongest_far_apart(tmp_path):
    class Fake:
        def __init__(self, index, strength):
            self.index, self.strength = index, strength
            self.overlay = np.full((4, 4, 3), index, np.uint8)
            self.result = self
            self.objects = (1,) if strength else ()

    sink = sinks.SnapshotSink(tmp_path / 'snapshots', keep=2, apart=3)
    for index, strength in enumerate([0, 5, 9, 8, 0, 0, 7, 6, 0, 0, 1]):
        sink.write(Fake(index, strength))
    sink.finish()
    assert sorted(path.name for path in (tmp_path / 'snapshots').iterdir()) == [
        'frame_000000.png',
        'frame_000002.png',
        'frame_000006.png',
    ]


def test_fit_scales_down_and_centres_on_black():
    fitted = overlay_video.fit(np.full((20, 10, 3), 200, np.uint8), (20, 10))
    assert fitted.shape == (10, 20, 3)
    assert (fitted[:, :7] == 0).all() and (fitted[:, 8:12] == 200).all()
    assert (fitted[:, 13:] == 0).all()


def test_highway_clip_end_to_end(shared, tmp_path):
    clip = shared / 'data' / 'dashcam' / 'highway_960x540_25fps.mp4'
    assert run(clip, tmp_path / 'out', '--max-frames', '4') == 0
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == 4
    assert [row['stamp'] for row in rows(tmp_path / 'out' / 'frames.csv')] == [
        '0.000000000',
        '0.040000000',
        '0.080000000',
        '0.120000000',
    ]
