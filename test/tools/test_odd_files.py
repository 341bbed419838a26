# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Videos and pictures of odd names and contents, and what comes of them."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image
from runs import SIZE, count_frames, rows, run, scene, summary, write_video

from road_anomaly_ros.tools.sources import open_source


def picture(index):
    """Noise at one brightness per index."""
    noise = np.random.default_rng(index).integers(0, 40, (*SIZE, 3))
    return (noise + 5 * index).astype(np.uint8)


def write_mp4(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 20, SIZE[::-1])
    for index in range(frames):
        writer.write(picture(index))
    writer.release()
    return path


@pytest.mark.parametrize('name', ['2026-11-30T12:30:00.mp4', 'http:x.mp4', '~$drive.mp4'])
def test_names_that_mean_something_to_others_are_names_of_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_mp4(tmp_path / 'clip.mp4', 5).rename(tmp_path / name)
    with open_source(name) as source:
        assert (source.name, len(list(source)), source.problem) == (name, 5, None)


def test_a_name_that_opencv_cannot_bear_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b'Stra\xdfe.mp4')
    write_mp4(tmp_path / 'clip.mp4', 5).rename(path)
    with pytest.raises(ValueError, match='expected a name in UTF-8; rename it'):
        open_source(path)


def write_with_sound(path, frames, seconds):
    """Pictures at 10 Hz beside so much silence."""
    av = pytest.importorskip('av', reason='needs the extra video')
    with av.open(str(path), 'w') as file:
        pictures, sound = file.add_stream('mpeg4', 10), file.add_stream('mp2', 48_000)
        pictures.width, pictures.height = SIZE[::-1]
        pictures.pix_fmt = 'yuv420p'
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index), format='rgb24')
            file.mux(pictures.encode(frame))
        for index in range(seconds * 48_000 // 1152):
            silence = np.zeros((1, 1152), np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format='s16', layout='mono')
            frame.sample_rate, frame.pts = 48_000, index * 1152
            file.mux(sound.encode(frame))
        for stream in (pictures, sound):
            file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize('suffix', ['.mkv', '.ts'])
def test_sound_that_goes_on_is_no_break_of_the_pictures(tmp_path, suffix):
    path = write_with_sound(tmp_path / f'clip{suffix}', 20, 6)
    with open_source(path) as source:
        frames = len(list(source))
        assert (frames, source.problem, source.incomplete) == (20, None, False)


def test_a_break_is_told_though_there_is_sound(tmp_path):
    path = write_with_sound(tmp_path / 'clip.mkv', 60, 6)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(path) as source:
        assert 5 < len(list(source)) < 50 and source.incomplete


def test_another_camera_in_one_video_is_told(tmp_path):
    av = pytest.importorskip('av', reason='needs the extra video')
    path = tmp_path / 'front_and_rear.mkv'
    with av.open(str(path), 'w') as file:
        cameras = [file.add_stream('mpeg4', 10) for _ in range(2)]
        for camera in cameras:
            camera.width, camera.height = SIZE[::-1]
            camera.pix_fmt = 'yuv420p'
        for index in range(4):
            for camera in cameras:
                frame = av.VideoFrame.from_ndarray(picture(index), format='rgb24')
                file.mux(camera.encode(frame))
        for camera in cameras:
            file.mux(camera.encode(None))
    with open_source(path) as source:
        assert len(list(source)) == 4
        assert source.left_out == {'another video track': ['1']}


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('kind', ['u2', 'f4'])
def test_depth_in_files_is_no_photograph(tmp_path, suffix, kind):
    """Metres as float, or millimetres up to 12 m in 16 bits: a near-black picture."""
    if (suffix, kind) == ('.png', 'f4'):
        pytest.skip('PNG holds no floats')
    values = np.linspace(400, 12_000, SIZE[0] * SIZE[1]).reshape(SIZE)
    values = values.astype(kind) if kind == 'u2' else (values / 1000).astype(kind)
    Image.fromarray(values).save(tmp_path / f'0{suffix}')
    cv2.imwrite(str(tmp_path / '1.png'), picture(1))
    with open_source(tmp_path) as source:
        assert [frame.name for frame in source] == ['1.png']
        assert source.refused == {'no photograph': 1}
    with pytest.raises(ValueError, match=r'expected a photograph, got .* depth or other'):
        list(open_source(tmp_path / f'0{suffix}'))


@pytest.mark.parametrize('name', ['a.gif', 'a.png', 'a.tif', 'a.webp'])
def test_of_an_animation_the_first_picture_counts_and_the_rest_is_told(tmp_path, name):
    first, *rest = [Image.fromarray(picture(index)) for index in (0, 9, 18)]
    first.save(tmp_path / name, save_all=True, append_images=rest)
    first.save(tmp_path / 'b.png')
    with open_source(tmp_path) as source:
        frames = list(source)
        assert [frame.name for frame in frames] == [name, 'b.png']
        assert source.left_out == {'all but the first of one file': [name]}
        assert abs(frames[0].image.mean() - picture(0).mean()) < 12


def test_files_of_several_folders_keep_their_folders_in_their_names(tmp_path):
    for day in ('monday', 'tuesday'):
        (tmp_path / day).mkdir()
        cv2.imwrite(str(tmp_path / day / 'a.png'), picture(0))
    assert [frame.name for frame in open_source(tmp_path / '*' / 'a.png')] == [
        'monday/a.png',
        'tuesday/a.png',
    ]
    assert [frame.name for frame in open_source(tmp_path / 'monday' / '*.png')] == ['a.png']


def test_pictures_of_one_name_in_several_folders_all_come_out(tmp_path):
    for number in range(4):
        (tmp_path / f'day_{number}').mkdir()
        cv2.imwrite(str(tmp_path / f'day_{number}' / 'a.png'), scene(number)[..., ::-1])
    assert run(tmp_path / 'day_*' / 'a.png', tmp_path / 'out') == 0
    names = {path.name for path in (tmp_path / 'out' / 'overlays').iterdir()}
    assert names == {f'day_{number}_a.jpg' for number in range(4)}
    table = rows(tmp_path / 'out' / 'frames.csv')
    assert [row['name'] for row in table] == [f'day_{number}/a.png' for number in range(4)]


def test_pictures_of_one_stem_all_come_out(tmp_path):
    (tmp_path / 'in').mkdir()
    for name in ('a.png', 'a.bmp', 'a.bmp.png', 'a.jpg'):
        cv2.imwrite(str(tmp_path / 'in' / name), scene(0)[..., ::-1])
    assert run(tmp_path / 'in', tmp_path / 'out') == 0
    assert len(list((tmp_path / 'out' / 'overlays').iterdir())) == 4


def test_names_that_are_no_utf_8_come_out_as_they_are(tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    name = os.fsdecode(b'Stra\xdfe.png')
    cv2.imwrite(str(tmp_path / 'a.png'), scene(0)[..., ::-1])
    (tmp_path / 'a.png').rename(tmp_path / 'in' / name)
    (tmp_path / 'in' / os.fsdecode(b'M\xfcll.txt')).write_text('no picture')
    assert run(tmp_path / 'in', tmp_path / 'out') == 0
    assert b'Stra\xdfe.png' in (tmp_path / 'out' / 'frames.csv').read_bytes()
    assert summary(tmp_path / 'out')['refused'] == {'no picture': 1}


def test_a_folder_of_results_may_be_called_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(write_video(tmp_path / 'in.avi'), 'results:2026-11-30T12:30') == 0
    assert count_frames(tmp_path / 'results:2026-11-30T12:30' / 'overlay.mp4') == 12
