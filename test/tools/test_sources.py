# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import contextlib
import shutil
import sqlite3

import cv2
import numpy as np
import pytest
import yaml

from road_anomaly_ros.tools.bags import (
    COMPRESSED,
    IMAGE,
    STORAGES,
    BagReader,
    BagWriter,
    compressed_message,
    image_message,
)
from road_anomaly_ros.tools.pictures import natural_key
from road_anomaly_ros.tools.sources import open_source

SIZE = (48, 64)
START = 1_700_000_000_123_456_789


def picture(index, size=SIZE):
    """Noise at one brightness per index: incompressible, so that files have bytes to cut off."""
    noise = np.random.default_rng(index).integers(0, 40, (*size, 3))
    return (noise + 5 * index).astype(np.uint8)


def write_video(path, frames, code='mp4v', fps=20.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, SIZE[::-1])
    assert writer.isOpened()
    for index in range(frames):
        writer.write(picture(index)[..., ::-1])
    writer.release()
    return path


def write_bag(folder, frames, storage, topic='/camera/image', encoding='rgb8'):
    writer = BagWriter(folder, storage)
    for index in range(frames):
        stamp = START + index * 100_000_000
        message = image_message(picture(index), encoding, stamp_ns=stamp, frame_id='front')
        writer.write(topic, IMAGE, message, stamp + 7)
    writer.close()
    return folder


def truncate(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    return path


def storage_file(folder):
    return next(file for file in folder.iterdir() if file.suffix in ('.mcap', '.db3'))


# --- video -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name, code', [('clip.mp4', 'mp4v'), ('clip.avi', 'MJPG'), ('clip.mkv', 'mp4v')]
)
def test_video_gives_every_frame_with_its_stamp(tmp_path, name, code):
    source = open_source(write_video(tmp_path / name, 12, code))
    frames = list(source)
    assert (source.kind, source.count, len(frames), source.problem) == ('video', 12, 12, None)
    assert source.fps == pytest.approx(20.0)
    np.testing.assert_allclose([frame.stamp for frame in frames], np.arange(12) / 20, atol=1e-3)
    assert frames[0].image.shape == (*SIZE, 3) and frames[0].image.dtype == np.uint8
    brightness = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(brightness, [picture(i).mean() for i in range(12)], atol=3)


def test_video_colours_are_rgb(tmp_path):
    path, code = tmp_path / 'red.avi', cv2.VideoWriter_fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), code, 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 230), np.uint8))
    writer.release()
    [frame] = open_source(path)
    red, green, blue = frame.image.mean(axis=(0, 1))
    assert red > 200 and green < 40 and blue < 40


def test_video_of_variable_rate_keeps_the_containers_stamps(tmp_path):
    path = tmp_path / 'variable.mkv'
    write_video(path, 6, 'MJPG', fps=10.0)
    raw = bytearray(path.read_bytes())
    _move_matroska_blocks(raw, {1: 130, 2: 170, 3: 333, 4: 420})
    path.write_bytes(raw)
    stamps = [round(frame.stamp, 3) for frame in open_source(path)]
    assert stamps == [0.0, 0.13, 0.17, 0.333, 0.42, 0.5]


def _move_matroska_blocks(raw, times):
    """Give the JPEG blocks of a Matroska file's first track (81) new times, int16 milliseconds."""
    found, at = [], 0
    while (at := raw.find(b'\xff\xd8\xff', at)) >= 0:
        if raw[at - 4] == 0x81:
            found.append(at - 3)
        at += 1
    for index, time in times.items():
        raw[found[index] : found[index] + 2] = time.to_bytes(2, 'big')


def test_truncated_video_is_read_up_to_the_break(tmp_path):
    path = truncate(write_video(tmp_path / 'cut.mkv', 30, 'MJPG'), 0.6)
    source = open_source(path)
    frames = list(source)
    assert 10 < len(frames) < 25
    assert source.problem == f'the video breaks off after {len(frames)} of 30 frames'
    assert [frame.name for frame in frames] == [str(index) for index in range(len(frames))]


@pytest.mark.parametrize('content', [b'', b'this is no video', None])
def test_what_is_no_video_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / 'broken.mp4'
    if content is None:
        truncate(write_video(path, 10), 0.5)  # an MP4 loses its index with its end
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match='expected a video') as caught:
        list(open_source(path))
    assert '\n' not in str(caught.value)


# --- images ------------------------------------------------------------------------------------


def test_natural_order_counts_like_a_person():
    names = ['f10.png', 'f2.png', 'F1.png', 'f02b.png', 'a.png', '7.png']
    assert sorted(names, key=natural_key) == [
        '7.png',
        'a.png',
        'F1.png',
        'f2.png',
        'f02b.png',
        'f10.png',
    ]


def test_folder_is_read_in_natural_order_and_sizes_may_differ(tmp_path):
    for index in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f'im{index}.png'), picture(index, (10 + index, 20)))
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'inner').mkdir()
    source = open_source(tmp_path)
    frames = list(source)
    assert source.kind == 'folder' and source.count == 3
    assert [frame.name for frame in frames] == ['im1.png', 'im2.png', 'im10.png']
    assert [frame.image.shape for frame in frames] == [(11, 20, 3), (12, 20, 3), (20, 20, 3)]
    np.testing.assert_allclose([frame.stamp for frame in frames], [0, 0.1, 0.2])
    np.testing.assert_array_equal(frames[0].image, picture(1, (11, 20))[..., ::-1])


@pytest.mark.parametrize(
    'pixels',
    [
        np.full((5, 7), 90, np.uint8),
        np.full((5, 7, 4), 90, np.uint8),
        np.full((5, 7), 90 * 257, np.uint16),
        np.full((1, 1, 3), 90, np.uint8),
    ],
)
def test_grey_alpha_sixteen_bit_and_tiny_images_become_rgb(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / 'image.png'), pixels)
    source = open_source(tmp_path / 'image.png')
    [frame] = source
    assert source.kind == 'image'
    np.testing.assert_array_equal(frame.image, np.full((*pixels.shape[:2], 3), 90, np.uint8))


def test_damaged_images_of_a_folder_are_counted_and_left_out(tmp_path):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f'{index}.jpg'), picture(index))
    truncate(tmp_path / '1.jpg', 0.3)
    source = open_source(tmp_path)
    frames = list(source)
    assert [frame.name for frame in frames] == ['0.jpg', '2.jpg']
    assert source.refused == {'undecodable': 1}
    assert frames[1].stamp == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r'1\.jpg'):
        list(open_source(tmp_path / '1.jpg'))


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    cv2.imwrite(str(tmp_path / 'a.png'), picture(0))
    assert len(list(open_source('~/a.png'))) == 1 and len(list(open_source('~'))) == 1


def test_a_recording_that_was_cut_off_is_pointed_to(tmp_path):
    write_bag(tmp_path / '.drive.partial' / 'drive', 2, 'mcap')
    with pytest.raises(ValueError, match=r'cut off lies in .*drive\.partial/drive'):
        open_source(tmp_path / 'drive')


def test_missing_paths_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match='found nothing at'):
        open_source(tmp_path / 'absent.mp4')
    with pytest.raises(ValueError, match='expected images in the folder'):
        open_source(tmp_path)


# --- bags --------------------------------------------------------------------------------------


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('single', [False, True])
def test_bag_gives_pixels_stamps_and_frames_of_the_headers(tmp_path, storage, single):
    folder = write_bag(tmp_path / 'bag', 5, storage)
    source = open_source(storage_file(folder) if single else folder)
    frames = list(source)
    assert (source.kind, source.count, source.topic) == ('bag', 5, '/camera/image')
    assert source.fps == pytest.approx(10.0) and source.problem is None
    assert [frame.stamp_ns for frame in frames] == [START + i * 100_000_000 for i in range(5)]
    assert {frame.frame_id for frame in frames} == {'front'}
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, picture(index))
    source.close()


def test_a_header_without_stamp_takes_the_time_of_recording(tmp_path):
    writer = BagWriter(tmp_path / 'bag')
    message = image_message(picture(0), 'rgb8', stamp_ns=0, frame_id='')
    writer.write('/image', IMAGE, message, START)
    writer.close()
    [frame] = open_source(tmp_path / 'bag')
    assert frame.stamp_ns == START


def test_bag_with_compressed_images_and_some_that_are_damaged(tmp_path):
    writer = BagWriter(tmp_path / 'bag', 'sqlite3')
    png = cv2.imencode('.png', picture(3)[..., ::-1])[1].reshape(-1)
    jpeg = cv2.imencode('.jpg', picture(3))[1].reshape(-1)
    for stamp, data in enumerate((png, jpeg[:100], jpeg[:-300], png), start=1):
        message = compressed_message(data, 'png', stamp_ns=stamp, frame_id='front')
        writer.write('/image/compressed', COMPRESSED, message, stamp)
    writer.write_raw('/image/compressed', COMPRESSED, b'\x00\x01\x00\x00abc', 9)
    writer.close()
    source = open_source(tmp_path / 'bag')
    frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [1, 4]
    np.testing.assert_array_equal(frames[0].image, picture(3))
    assert source.refused == {'undecodable': 3}


@pytest.mark.parametrize(
    'encoding', ['16UC1', '32FC1', '16UC1; compressedDepth png', '16UC1; png compressed ']
)
def test_depth_is_no_photograph(tmp_path, encoding):
    depth = np.full(SIZE, 1500, np.uint16)
    writer = BagWriter(tmp_path / 'bag')
    if ';' in encoding:
        png = cv2.imencode('.png', depth)[1].reshape(-1)
        writer.write(
            '/depth',
            COMPRESSED,
            compressed_message(png, encoding, stamp_ns=1, frame_id='front'),
            1,
        )
    else:
        array = depth if encoding == '16UC1' else depth.astype(np.float32)
        writer.write(
            '/depth', IMAGE, image_message(array, encoding, stamp_ns=1, frame_id='front'), 1
        )
    writer.close()
    with pytest.raises(ValueError, match=r'expected a photograph.*this bag has none'):
        open_source(tmp_path / 'bag')
    both = BagWriter(tmp_path / 'both')
    reader = BagReader(tmp_path / 'bag')
    for record in reader.records():
        both.write_raw(record.topic, record.kind, record.data, 1)
    message = image_message(picture(0), 'rgb8', stamp_ns=1, frame_id='front')
    both.write('/color', IMAGE, message, 1)
    both.close()
    assert open_source(tmp_path / 'both').topic == '/color'
    with pytest.raises(ValueError, match=r"/depth: expected a photograph.*it has \['/color'\]"):
        open_source(tmp_path / 'both', topic='/depth')


def test_depth_among_pictures_is_counted(tmp_path):
    writer = BagWriter(tmp_path / 'bag')
    for stamp, (array, encoding) in enumerate(
        [(picture(0), 'rgb8'), (np.full(SIZE, 1500, np.uint16), '16UC1')], start=1
    ):
        writer.write(
            '/image',
            IMAGE,
            image_message(array, encoding, stamp_ns=stamp, frame_id='front'),
            stamp,
        )
    writer.close()
    source = open_source(tmp_path / 'bag')
    assert len(list(source)) == 1 and source.left_out == {'encoding': ['1']}


def test_the_topic_is_chosen_or_the_only_one(tmp_path):
    writer = BagWriter(tmp_path / 'bag')
    for topic in ('/left', '/right'):
        message = image_message(picture(ord(topic[1]) % 7), 'rgb8', stamp_ns=1, frame_id=topic)
        writer.write(topic, IMAGE, message, 1)
    writer.close()
    with pytest.raises(ValueError, match=r"--topic with one of \['/left', '/right'\]"):
        open_source(tmp_path / 'bag')
    with pytest.raises(ValueError, match=r"no image topic '/up'; choose one of"):
        open_source(tmp_path / 'bag', topic='/up')
    [frame] = open_source(tmp_path / 'bag', topic='/right')
    assert frame.frame_id == '/right'
    with pytest.raises(ValueError, match='in a bag only'):
        cv2.imwrite(str(tmp_path / 'a.png'), picture(0))
        open_source(tmp_path / 'a.png', topic='/left')


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('share', [0.45, 0.8, 0.999])
def test_truncated_bag_is_read_up_to_the_break(tmp_path, storage, share):
    folder = write_bag(tmp_path / 'bag', 300, storage)
    truncate(storage_file(folder), share)
    source = open_source(folder)
    frames = list(source)
    assert len(frames) > 300 * share * 0.7
    for index in (0, len(frames) - 1):
        np.testing.assert_array_equal(frames[index].image, picture(index))
        assert frames[index].stamp_ns == START + index * 100_000_000
    assert 'breaks off' in source.problem and '\n' not in source.problem


@pytest.mark.parametrize('storage', STORAGES)
def test_bag_without_metadata_is_read_whole(tmp_path, storage):
    folder = write_bag(tmp_path / 'bag', 4, storage)
    (folder / 'metadata.yaml').unlink()
    source = open_source(folder)
    assert len(list(source)) == 4 and source.problem is None


@pytest.mark.parametrize('name', ['bag.mcap', 'bag.db3'])
def test_what_is_no_bag_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b'nothing of the kind' * 50)
    with pytest.raises(ValueError, match='nothing can be read') as caught:
        open_source(tmp_path / name)
    assert '\n' not in str(caught.value)


def test_bag_without_images_names_what_it_holds(tmp_path):
    writer = BagWriter(tmp_path / 'bag')
    writer.write_raw('/chatter', 'std_msgs/msg/String', b'\x00\x01\x00\x00\x01\x00\x00\x00\x00', 1)
    writer.close()
    with pytest.raises(ValueError, match='std_msgs/msg/String'):
        open_source(tmp_path / 'bag')
    reader = BagReader(tmp_path / 'bag')
    [record] = reader.records()
    assert (record.topic, record.stamp_ns, reader.decode(record).data) == ('/chatter', 1, '')
    reader.close()


def write_split_bag(folder, storage, files=3, frames=4):
    """A bag in several files, as a recorder with a limit of size writes it."""
    folder.mkdir()
    trees = []
    for number in range(files):
        part = folder.with_name(f'{folder.name}_{number}')
        writer = BagWriter(part, storage)
        for index in range(frames * number, frames * (number + 1)):
            stamp = START + index * 100_000_000
            message = image_message(picture(index), 'rgb8', stamp_ns=stamp, frame_id='front')
            writer.write('/camera/image', IMAGE, message, stamp)
        writer.close()
        trees.append(yaml.safe_load((part / 'metadata.yaml').read_text()))
        storage_file(part).rename(folder / storage_file(part).name)
    tree = trees[0]['rosbag2_bagfile_information']
    tree['relative_file_paths'] = sorted(path.name for path in folder.iterdir())
    tree['message_count'] = files * frames
    tree['topics_with_message_count'][0]['message_count'] = files * frames
    tree['files'] = []
    (folder / 'metadata.yaml').write_text(yaml.safe_dump(trees[0]))
    return folder


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('gone', [0, 1, 2])
def test_a_split_bag_without_one_of_its_files_says_so(tmp_path, storage, gone):
    folder = write_split_bag(tmp_path / 'drive', storage)
    whole = open_source(folder)
    assert (len(list(whole)), whole.count, whole.problem) == (12, 12, None)
    whole.close()
    [lost] = folder.glob(f'drive_{gone}.*')
    lost.unlink()
    source = open_source(folder)
    assert source.count == 8
    assert [int(frame.stamp_ns - START) // 100_000_000 for frame in source] == [
        index for index in range(12) if index // 4 != gone
    ]
    assert source.problem == (
        f'{lost.name} is missing, 2 files of the bag are there; 8 of 12 messages can be read'
    )
    source.close()


def test_a_split_bag_without_metadata_shows_its_gap(tmp_path):
    folder = write_split_bag(tmp_path / 'drive', 'mcap')
    (folder / 'metadata.yaml').unlink()
    source = open_source(folder)
    assert (len(list(source)), source.problem) == (12, None)
    (folder / 'drive_1.mcap').unlink()
    source = open_source(folder)
    assert len(list(source)) == 8 and 'drive_1.mcap is missing' in source.problem


def test_a_split_bag_with_an_empty_and_a_missing_file_names_both(tmp_path):
    folder = write_split_bag(tmp_path / 'drive', 'mcap')
    (folder / 'drive_0.mcap').write_bytes(b'')
    (folder / 'drive_2.mcap').unlink()
    source = open_source(folder)
    assert len(list(source)) == 4
    assert 'drive_0.mcap is damaged' in source.problem
    assert 'drive_2.mcap is missing' in source.problem and '4 of 12 messages' in source.problem


def test_files_that_metadata_do_not_name_or_that_hold_less_are_told(tmp_path):
    folder = write_split_bag(tmp_path / 'drive', 'sqlite3')
    shutil.copy(folder / 'drive_0.db3', folder / 'drive_3.db3')
    source = open_source(folder)
    assert len(list(source)) == 12
    assert source.problem == 'drive_3.db3 left out, metadata.yaml does not name it'
    (folder / 'drive_3.db3').unlink()
    with contextlib.closing(sqlite3.connect(folder / 'drive_1.db3')) as database:
        database.execute('DELETE FROM messages WHERE id > 1')
        database.commit()
    source = open_source(folder)
    assert len(list(source)) == 9 and source.problem == '9 of 12 messages can be read'
    (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information: [')
    source = open_source(folder)
    assert len(list(source)) == 9 and 'metadata.yaml is damaged' in source.problem


# --- real footage ------------------------------------------------------------------------------


def test_highway_clip(shared):
    source = open_source(shared / 'data' / 'dashcam' / 'highway_960x540_25fps.mp4')
    seen = [(frame.stamp, frame.image.shape) for frame in source]
    stamps = [stamp for stamp, _ in seen]
    assert len(stamps) == source.count == 221 and {shape for _, shape in seen} == {(540, 960, 3)}
    np.testing.assert_allclose(np.diff(stamps), 0.04, atol=1e-6)
    assert source.problem is None


@pytest.mark.parametrize('kind', ['video', 'folder', 'bag', 'rendered'])
def test_a_source_may_begin_later(tmp_path, kind):
    path = 'rendered:3?frames=6&width=96&height=64'
    if kind == 'video':
        path = write_video(tmp_path / 'clip.mp4', 6)
    elif kind == 'bag':
        path = write_bag(tmp_path / 'bag', 6, 'mcap')
    elif kind == 'folder':
        path = tmp_path
        for index in range(6):
            cv2.imwrite(str(tmp_path / f'{index}.png'), picture(index))
    whole, later = list(open_source(path)), open_source(path)
    later.start = 2
    frames = list(later)
    assert [frame.name for frame in frames] == [frame.name for frame in whole[2:]]
    assert [frame.stamp_ns for frame in frames] == [frame.stamp_ns for frame in whole[2:]]
    assert all((a.image == b.image).all() for a, b in zip(frames, whole[2:], strict=True))
    assert later.problem is None
