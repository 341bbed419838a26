# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags as recorders leave them that compress and are killed, and of other writers than ours."""

import cv2
import pytest
import zstandard
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from runs import START, run, scene, write_video

from road_anomaly_ros.tools.bags import (
    IMAGE,
    STORAGES,
    BagReader,
    BagWriter,
    image_message,
    type_store,
)
from road_anomaly_ros.tools.sources import open_source

PLUGINS = dict(zip(STORAGES, (StoragePlugin.MCAP, StoragePlugin.SQLITE3), strict=True))
TOPIC = '/camera'


def serialised(index):
    message = image_message(scene(index), 'rgb8', stamp_ns=START + index, frame_id='front')
    return bytes(type_store().serialize_cdr(message, IMAGE))


def write_part(folder, storage, indices, mode=CompressionMode.NONE):
    writer = Writer(folder, version=8, storage_plugin=PLUGINS[storage])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, IMAGE, typestore=type_store())
        for index in indices:
            writer.write(connection, START + index, serialised(index))
    return folder


def killed_recording(root, storage):
    """Three files of two messages as `ros2 bag record` leaves them that packs each when full."""
    folder = root / 'drive'
    folder.mkdir()
    for number in range(3):
        part = write_part(root / f'part_{number}', storage, range(2 * number, 2 * number + 2))
        (file,) = (path for path in part.iterdir() if path.suffix in ('.mcap', '.db3'))
        target = folder / f'drive_{number}{file.suffix}'
        if number < 2:
            target = target.with_name(f'{target.name}.zstd')
            target.write_bytes(zstandard.ZstdCompressor().compress(file.read_bytes()))
        else:
            target.write_bytes(file.read_bytes())
    return folder


def frames_of(path):
    with open_source(path) as source:
        frames = list(source)
        return [frame.stamp_ns - START for frame in frames], source


@pytest.mark.parametrize('storage', STORAGES)
def test_files_that_were_packed_before_the_kill_are_read(tmp_path, storage):
    folder = killed_recording(tmp_path, storage)
    numbers, source = frames_of(folder)
    assert (numbers, source.problem, source.incomplete) == ([0, 1, 2, 3, 4, 5], None, False)
    for path in folder.glob('drive_2.*'):
        path.unlink()
    assert frames_of(folder)[0] == [0, 1, 2, 3]
    (first,) = folder.glob('drive_0.*.zstd')
    assert frames_of(first)[0] == [0, 1]
    first.unlink()
    assert frames_of(folder)[0] == [2, 3]


def test_a_gap_among_packed_files_is_named(tmp_path):
    folder = killed_recording(tmp_path, 'mcap')
    (folder / 'drive_1.mcap.zstd').unlink()
    numbers, source = frames_of(folder)
    assert numbers == [0, 1, 4, 5] and source.incomplete
    assert 'drive_1.mcap is missing' in source.problem


def test_a_file_that_was_being_packed_counts_once(tmp_path):
    folder = killed_recording(tmp_path, 'sqlite3')
    packed = zstandard.ZstdCompressor().compress((folder / 'drive_2.db3').read_bytes())
    (folder / 'drive_2.db3.zstd').write_bytes(packed[: len(packed) // 2])
    numbers, source = frames_of(folder)
    assert (numbers, source.problem) == ([0, 1, 2, 3, 4, 5], None)


def test_a_damaged_packed_file_costs_its_own_messages_only(tmp_path):
    folder = killed_recording(tmp_path, 'mcap')
    packed = folder / 'drive_1.mcap.zstd'
    packed.write_bytes(packed.read_bytes()[:40])
    numbers, source = frames_of(folder)
    assert numbers == [0, 1, 4, 5] and source.incomplete
    assert 'drive_1.mcap.zstd is damaged' in source.problem


@pytest.mark.parametrize('storage', STORAGES)
def test_packed_messages_are_unpacked_without_metadata(tmp_path, storage):
    folder = write_part(tmp_path / 'drive', storage, range(3), CompressionMode.MESSAGE)
    assert frames_of(folder)[0] == [0, 1, 2]
    (folder / 'metadata.yaml').unlink()
    numbers, source = frames_of(folder)
    assert (numbers, dict(source.refused), source.problem) == ([0, 1, 2], {}, None)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_file_that_breaks_off_is_told_by_the_exit_code_without_metadata_too(tmp_path, storage):
    folder = write_part(tmp_path / 'drive', storage, range(150))  # more than a chunk of MCAP
    (folder / 'metadata.yaml').unlink()
    (file,) = folder.iterdir()
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) * 9 // 10])
    assert run(file, tmp_path / 'out') == 1
    with open_source(file) as source:
        assert 0 < len(list(source)) < 150 and source.incomplete


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('name', ['drive#1', 'what?', '50%25', 'a b', 'Straße', '-dash', 'a\nb'])
def test_odd_names_are_no_damage(tmp_path, storage, name):
    write_part(tmp_path / 'plain', storage, range(3)).rename(tmp_path / name)
    numbers, source = frames_of(tmp_path / name)
    assert (numbers, source.problem) == ([0, 1, 2], None)


@pytest.mark.parametrize('name', ['drive#1', 'what?', '50%25'])
def test_names_that_sqlite_takes_for_others_are_never_written(tmp_path, name, capsys):
    with pytest.raises(ValueError, match='choose another one, or mcap as storage'):
        BagWriter(tmp_path / name, 'sqlite3')
    assert list(tmp_path.iterdir()) == []
    video = write_video(tmp_path / 'in.avi')
    assert run(video, tmp_path / name, '--bag', 'sqlite3') == 2
    assert 'means something to SQLite' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [video]
    assert run(video, tmp_path / name, '--bag') == 0


def foreign_mcap(path, profile, schema, encoding):
    with path.open('wb') as file:
        writer = McapWriter(file)
        writer.start(profile)
        definition = type_store().generate_msgdef(IMAGE, ros_version=2)[0].encode()
        kind = writer.register_schema(schema, 'ros2msg', definition)
        channel = writer.register_channel(TOPIC, encoding, kind)
        for index in range(3):
            stamp = START + index
            writer.add_message(channel, stamp, serialised(index), stamp)
        writer.finish()
    return path


def test_an_mcap_of_another_writer_is_read_without_complaint(tmp_path):
    path = foreign_mcap(tmp_path / 'a.mcap', '', IMAGE, 'cdr')
    numbers, source = frames_of(path)
    assert (numbers, source.problem, source.incomplete) == ([0, 1, 2], None, False)


def test_an_mcap_of_other_messages_is_no_damage_but_refused(tmp_path):
    path = foreign_mcap(tmp_path / 'a.mcap', 'ros1', 'sensor_msgs/Image', 'ros1')
    with pytest.raises(ValueError, match=r"found only \['sensor_msgs/Image \(ros1\)'\]"):
        open_source(path)


def test_pictures_beside_a_yaml_of_that_name_are_no_bag(tmp_path):
    (tmp_path / 'metadata.yaml').write_text('author: somebody\n')
    cv2.imwrite(str(tmp_path / '0.png'), scene(0))
    with open_source(tmp_path) as source:
        assert source.kind == 'folder' and len(list(source)) == 1


def test_what_only_looks_packed_stays_as_it_is(tmp_path):
    folder = tmp_path / 'drive'
    with Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(TOPIC, IMAGE, typestore=type_store())
        for data in (b'\x28\xb5\x2f\xfd', b'\x28\xb5\x2f\xfd' + bytes(40)):
            writer.write(connection, START, data)
    reader = BagReader(folder)
    assert [bytes(record.data)[:4] for record in reader.records()] == [b'\x28\xb5\x2f\xfd'] * 2
    reader.close()
