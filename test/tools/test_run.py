# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import csv
import fcntl
import json
import os
import pty
import resource
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import ROOT

from road_anomaly_ros import cli
from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.tools import processing, sinks
from road_anomaly_ros.tools.bags import COMPRESSED, IMAGE, BagReader, BagWriter, image_message
from road_anomaly_ros.tools.flow import AS_ONE_S, StopOnSignal
from road_anomaly_ros.tools.sources import open_source

SIZE = (48, 64)
SYNTHETIC = ['--set', 'segmenter=synthetic', '--scorer', 'plain']
START = 1_700_000_000_123_456_789
PATIENCE = 300                          # seconds; a loaded machine takes its time to import torch


def scene(index):
    """Grey road under a blue sky with a magenta box that moves: no class has its hue."""
    picture = np.full((*SIZE, 3), 110, np.uint8)
    picture[:18] = (120, 170, 235)
    picture[28:40, 10 + index:26 + index] = (230, 20, 200)
    return picture


def write_video(path, frames=12):
    code = cv2.VideoWriter_fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), code, 20, SIZE[::-1])
    for index in range(frames):
        writer.write(scene(index)[..., ::-1])
    writer.release()
    return path


def write_bag(folder, frames=6):
    writer = BagWriter(folder)
    for index in range(frames):
        stamp = START + index * 100_000_000
        message = image_message(scene(index), 'rgb8', stamp_ns=stamp, frame_id='front')
        writer.write('/camera', IMAGE, message, stamp)
    writer.close()
    return folder


def run(source, out, *options):
    return cli.main(['run', str(source), '-o', str(out), *SYNTHETIC, *options])


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def summary(out):
    return json.loads((out / 'summary.json').read_text())


def count_frames(path):
    capture, frames = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        frames += 1
    return frames


def test_a_video_gives_everything_that_is_promised(tmp_path, capsys):
    out = tmp_path / 'out'
    assert run(write_video(tmp_path / 'in.avi'), out) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        'frames.csv', 'objects.csv', 'overlay.mp4', 'snapshots', 'summary.json']
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


def test_the_summary_names_model_options_versions_and_times(tmp_path):
    run(write_video(tmp_path / 'in.avi'), tmp_path / 'out', '--set', 'objects.min_area=7')
    document = summary(tmp_path / 'out')
    assert document['frames'] == 12 and document['problem'] is None and document['fps'] > 0
    assert document['scorer'] == 'plain' and document['segmenter'] == 'synthetic'
    assert document['options']['objects.min_area'] == 7
    assert document['input']['kind'] == 'video' and document['input']['count'] == 12
    assert {'road_anomaly_ros', 'torch', 'numpy', 'python'} <= set(document['versions'])
    assert {'decode', 'segment', 'score', 'objects', 'total', 'draw', 'write'} <= set(
        document['stages_ms'])
    for stage in document['stages_ms'].values():
        assert 0 <= stage['p50'] <= stage['p99']
    assert document['interrupted'] is False and document['machine']['cores'] >= 1


def test_one_image_makes_a_picture_and_no_video(tmp_path):
    cv2.imwrite(str(tmp_path / 'in.png'), scene(3)[..., ::-1])
    assert run(tmp_path / 'in.png', tmp_path / 'out') == 0
    assert not (tmp_path / 'out' / 'overlay.mp4').exists()
    picture = cv2.imread(str(tmp_path / 'out' / 'snapshots' / 'frame_000000.png'))
    assert picture.shape == (*SIZE, 3)


def test_a_folder_of_pictures_gives_a_picture_for_each(tmp_path):
    (tmp_path / 'in').mkdir()
    names = ('a.png', 'b.jpg', 'b.png', 'c.tif')
    for index, name in enumerate(names):
        cv2.imwrite(str(tmp_path / 'in' / name), scene(index)[..., ::-1])
    assert run(tmp_path / 'in', tmp_path / 'out', '--no-video') == 0
    overlays = tmp_path / 'out' / 'overlays'
    assert sorted(path.name for path in overlays.iterdir()) == [
        'a.jpg', 'b.jpg', 'b.png.jpg', 'c.jpg']
    assert cv2.imread(str(overlays / 'a.jpg')).shape == (*SIZE, 3)
    assert 'overlays' in summary(tmp_path / 'out')['outputs']


def test_images_of_many_sizes_share_one_video(tmp_path):
    (tmp_path / 'in').mkdir()
    sizes = [(48, 64), (1, 1), (97, 31), (30, 200)]
    for index, shape in enumerate(sizes):
        cv2.imwrite(str(tmp_path / 'in' / f'{index}.png'), np.full((*shape, 3), 90, np.uint8))
    assert run(tmp_path / 'in', tmp_path / 'out', '--save-scores', 'npz') == 0
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == 4
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
    pixels, low, high = sinks.quantize(score)
    assert pixels.tolist() == [[1, 32768, 65535, 0, 0]] and (low, high) == (-2.0, 2.0)
    assert sinks.quantize(np.full((1, 2), np.nan))[0].tolist() == [[0, 0]]
    assert sinks.quantize(np.full((1, 2), 3.0))[0].tolist() == [[1, 1]]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_bag_in_bag_out_keeps_stamps_frames_and_values(tmp_path, storage):
    source = write_bag(tmp_path / 'in')
    assert run(source, tmp_path / 'out', '--bag', storage) == 0
    reader = BagReader(tmp_path / 'out' / 'bag')
    assert set(reader.counts) == {
        ('/anomaly_node/semantic/labels', IMAGE), ('/anomaly_node/anomaly/score', IMAGE),
        ('/anomaly_node/obstacle/mask', IMAGE), ('/anomaly_node/obstacle/instances', IMAGE),
        ('/anomaly_node/overlay/compressed', COMPRESSED)}
    assert set(reader.counts.values()) == {6}
    pipeline = Pipeline.from_config(segmenter='synthetic', scorer='plain')
    results = [pipeline(scene(index)) for index in range(6)]
    seen = dict.fromkeys(('labels', 'score', 'mask', 'instances', 'compressed'), 0)
    kinds = {'labels': ('mono8', np.uint8), 'score': ('32FC1', '<f4'), 'mask': ('mono8', np.uint8),
             'instances': ('16UC1', '<u2')}
    for record in reader.records():
        message, name = reader.decode(record), record.topic.rsplit('/', 1)[1]
        index, seen[name] = seen[name], seen[name] + 1
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert stamp == record.stamp_ns == START + index * 100_000_000
        assert message.header.frame_id == 'front'
        if name == 'compressed':
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
        'segmenter: synthetic\nscorer: rba\nobjects: {min_area: 3, threshold: -0.2}\n')
    arguments = ['run', str(write_video(tmp_path / 'in.avi', 2)), '-o', str(tmp_path / 'out'),
                 '--config', str(tmp_path / 'chain.yaml'), '--set', 'objects.min_area=5']
    assert cli.main(arguments) == 0
    options = summary(tmp_path / 'out')['options']
    assert (options['scorer'], options['objects.min_area']) == ('rba', 5)
    assert options['objects.threshold'] == -0.2


# --- what goes wrong ---------------------------------------------------------------------------

@pytest.mark.parametrize('options, words', [
    (['--set', 'scorer.plain'], 'expected NAME=VALUE'),
    (['--set', 'objects.min_ara=3'], 'unknown option'),
    (['--scorer', 'enrgy'], 'unknown scorer'),
    (['--resize', '12'], 'WIDTHxHEIGHT'),
    (['--max-frames', '0'], 'at least 1'),
    (['--topic', '/x'], 'in a bag only'),
    (['--device', 'toaster'], 'toaster'),
])
def test_wrong_options_are_one_line_and_leave_nothing(tmp_path, capsys, options, words):
    video = write_video(tmp_path / 'in.avi', 2)
    assert run(video, tmp_path / 'out', *options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_truncated_video_is_processed_up_to_the_break(tmp_path, capsys):
    video = write_video(tmp_path / 'in.avi', 40)
    raw = video.read_bytes()
    video.write_bytes(raw[:len(raw) * 6 // 10])
    assert run(video, tmp_path / 'out') == 0
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
        'frames.csv', 'notes.txt', 'objects.csv', 'snapshots', 'summary.json']
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
        if len(calls) == 6:             # the first call warms up
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
    monkeypatch.setattr(processing.shutil, 'disk_usage',
                        lambda _: SimpleNamespace(free=next(free)))
    assert run(write_video(tmp_path / 'in.avi'), tmp_path / 'out') == 2
    assert 'the disk is full, stopped after 5 frames' in capsys.readouterr().err
    document = summary(tmp_path / 'out')
    assert document['frames'] == 5 and 'the disk is full' in document['problem']
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == 5


def start(tmp_path, frames, *options, limit=None):
    """Start `road-anomaly run` on the rendered drive as a process of its own."""
    command = [sys.executable, '-m', 'road_anomaly_ros.cli', 'run',
               f'rendered:3?frames={frames}&width=64&height=48', '-o', str(tmp_path / 'out'),
               *SYNTHETIC, *options]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    before = None if limit is None else lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (limit, limit))
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, preexec_fn=before,
                            stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_is_done_and_says_so(tmp_path, number):
    process = start(tmp_path, 100_000)
    table = tmp_path / 'out' / '.partial' / 'frames.csv'
    deadline = time.monotonic() + PATIENCE
    while not table.exists() or table.read_text().count('\n') <= 5:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, 'no frame was done in time'
        threading.Event().wait(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    document = summary(tmp_path / 'out')
    assert document['interrupted'] is True and 5 <= document['frames'] < 100_000
    assert f'the first {document["frames"]} frames are done and kept' in error
    assert 'Traceback' not in error
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == document['frames']
    assert len(rows(tmp_path / 'out' / 'frames.csv')) == document['frames']
    assert not table.parent.exists()


def test_a_terminal_that_is_closed_loses_nothing(tmp_path):
    """As when an ssh session breaks: SIGHUP comes, and every word to the terminal fails."""
    master, slave = pty.openpty()
    command = [sys.executable, '-m', 'road_anomaly_ros.cli', 'run',
               'rendered:3?frames=100000&width=64&height=48', '-o', str(tmp_path / 'out'),
               *SYNTHETIC]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(slave)
    table = tmp_path / 'out' / '.partial' / 'frames.csv'
    deadline = time.monotonic() + PATIENCE
    while not table.exists() or table.read_text().count('\n') <= 5:
        assert process.poll() is None and time.monotonic() < deadline
        select.select([master], [], [], 0.05)[0] and os.read(master, 1 << 16)
    os.close(master)
    assert process.wait(PATIENCE) == 128 + signal.SIGHUP
    document = summary(tmp_path / 'out')
    assert document['interrupted'] is True and document['problem'] is None
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == document['frames'] >= 5


# Nothing in Python can interrupt this main thread: it is in a library.
STUCK = """
import hashlib, sys
from road_anomaly_ros.tools.flow import StopOnSignal
with StopOnSignal(interrupt=sys.argv[1] == 'interrupt'):
    print('in', flush=True)
    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)
"""


@pytest.mark.parametrize('mode', ['interrupt', 'note'])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_at_once(number, mode):
    process = subprocess.Popen([sys.executable, '-c', STUCK, mode], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'in\n'
    process.send_signal(signal.SIGINT)
    time.sleep(2 * AS_ONE_S)                        # sooner it would be the same one, passed on
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (128 + number, '')


def test_signals_that_come_together_are_one():
    with StopOnSignal() as stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert stop.signal == signal.SIGTERM


def test_an_output_that_outgrows_the_disk_is_dropped_and_named(tmp_path):
    process = start(tmp_path, 60, '--set', 'drawing.legend=false', limit=40_000)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and 'Traceback' not in error
    document = summary(tmp_path / 'out')
    assert document['problem'] and 'overlay.mp4' not in document['outputs']
    assert not (tmp_path / 'out' / 'overlay.mp4').exists()
    assert len(rows(tmp_path / 'out' / 'frames.csv')) == document['frames'] > 0


# --- pieces ------------------------------------------------------------------------------------

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
        'frame_000000.png', 'frame_000002.png', 'frame_000006.png']


def test_fit_scales_down_and_centres_on_black():
    fitted = sinks.fit(np.full((20, 10, 3), 200, np.uint8), (20, 10))
    assert fitted.shape == (10, 20, 3)
    assert (fitted[:, :7] == 0).all() and (fitted[:, 8:12] == 200).all()
    assert (fitted[:, 13:] == 0).all()


def test_highway_clip_end_to_end(shared, tmp_path):
    clip = shared / 'data' / 'dashcam' / 'highway_960x540_25fps.mp4'
    assert run(clip, tmp_path / 'out', '--max-frames', '4') == 0
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == 4
    assert [row['stamp'] for row in rows(tmp_path / 'out' / 'frames.csv')] == [
        '0.000000000', '0.040000000', '0.080000000', '0.120000000']
