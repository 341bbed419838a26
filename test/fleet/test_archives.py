# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Archives as they are: linked disks, odd names, things beside each other, damaged indexes."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

pa = pytest.importorskip('pyarrow', reason='needs the extra mine')

from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

from road_anomaly_ros import cli, files  # noqa: E402
from road_anomaly_ros.fleet import mine_export  # noqa: E402
from road_anomaly_ros.fleet.choosing import Shown  # noqa: E402
from road_anomaly_ros.fleet.index import Index  # noqa: E402
from road_anomaly_ros.fleet.listing import BAG, PICTURES, VIDEO, find  # noqa: E402
from road_anomaly_ros.tools.bags import IMAGE, BagReader, image_message, type_store  # noqa: E402

SIZE = (48, 64)
START = 1_700_000_000_000_000_000
TOPIC, OWN = '/front/image', 'my_msgs/msg/Own'


def picture(index):
    return np.full((*SIZE, 3), 60 + 10 * index, np.uint8)


def write_video(path, frames=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, SIZE[::-1])
    for index in range(frames):
        writer.write(picture(index))
    writer.release()
    return path


def write_bag(folder):
    """Three pictures a tenth of a second apart, each with a message of a type of its own."""
    own = get_typestore(Stores.ROS2_HUMBLE)
    own.register(get_types_from_msg('int32 value\n', OWN))
    with Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        pictures = writer.add_connection(TOPIC, IMAGE, typestore=own)
        others = writer.add_connection('/own', OWN, typestore=own)
        for index in range(3):
            stamp = START + index * 100_000_000
            message = image_message(picture(index), 'rgb8', stamp_ns=stamp, frame_id='front')
            writer.write(pictures, stamp, type_store().serialize_cdr(message, IMAGE))
            writer.write(others, stamp, own.serialize_cdr(own.types[OWN](value=index), OWN))
    return folder


def mine(source, out, *more):
    words = ['mine', str(source), '-o', str(out), '--jobs', '1', '--set', 'segmenter=synthetic']
    return cli.main([*words, '--scorer', 'plain', *more])


def kinds(listing, root):
    return [(os.path.relpath(item.uri, root), item.kind) for item in listing.items]


# --- what there is -----------------------------------------------------------------------------


def test_links_to_other_disks_are_followed_once(tmp_path):
    archive, disk = tmp_path / 'archive', tmp_path / 'disk'
    write_video(disk / 'deep' / 'a.avi')
    archive.mkdir()
    (archive / 'one').symlink_to(disk)
    (archive / 'two').symlink_to(disk)
    (disk / 'deep' / 'back').symlink_to(archive)
    listing = find([str(archive)])
    assert kinds(listing, archive) == [('one/deep/a.avi', VIDEO)] and not listing.refused


def test_a_link_that_leads_nowhere_is_told_by_the_exit_code(tmp_path, capsys):
    write_video(tmp_path / 'drives' / 'a.avi')
    (tmp_path / 'drives' / 'b.avi').symlink_to(tmp_path / 'unmounted' / 'b.avi')
    assert mine(tmp_path / 'drives', tmp_path / 'index') == 1
    error = capsys.readouterr().err
    assert 'left out 1: No such file or directory' in error and 'b.avi' in error


def test_a_source_that_is_not_there_is_told_by_the_exit_code(tmp_path, capsys):
    write_video(tmp_path / 'a.avi')
    out = tmp_path / 'index'
    assert mine(tmp_path / 'a.avi', out, '--list', str(tmp_path / 'list.txt')) == 2
    (tmp_path / 'list.txt').write_text(f'{tmp_path}/misspelt\n')
    assert mine(tmp_path / 'a.avi', out, '--list', str(tmp_path / 'list.txt')) == 1
    assert 'nothing there' in capsys.readouterr().err
    assert mine(tmp_path / 'a.avi', out) == 0


def test_a_name_that_is_no_utf_8_costs_its_own_file_only(tmp_path, capsys):
    write_video(tmp_path / 'drives' / 'a.avi')
    write_video(tmp_path / 'drives' / 'b.avi')
    odd = tmp_path / 'drives' / os.fsdecode(b'Stra\xdfe.avi')
    (tmp_path / 'drives' / 'b.avi').rename(odd)
    assert mine(tmp_path / 'drives', tmp_path / 'index') == 1
    assert 'name is no UTF-8' in capsys.readouterr().err
    assert [part.frames for part in Index(tmp_path / 'index').done()] == [3]


def test_what_lies_beside_a_bag_is_mined_too_and_the_bag_once(tmp_path):
    write_bag(tmp_path / 'drive')
    write_video(tmp_path / 'drive' / 'dashcam.avi')
    cv2.imwrite(str(tmp_path / 'drive' / 'a.png'), picture(0))
    listing = find([str(tmp_path)])
    assert sorted(kinds(listing, tmp_path)) == [
        ('drive', BAG),
        ('drive', PICTURES),
        ('drive/dashcam.avi', VIDEO),
    ]
    assert mine(tmp_path / 'drive', tmp_path / 'index') == 0
    assert sorted(part.frames for part in Index(tmp_path / 'index').done()) == [1, 3, 3]


def test_a_foreign_yaml_makes_no_bag_of_a_folder_of_videos(tmp_path):
    write_video(tmp_path / 'a.avi')
    (tmp_path / 'metadata.yaml').write_text('licence: CC-BY\n')
    assert kinds(find([str(tmp_path)]), tmp_path) == [('a.avi', VIDEO)]


# --- the index ---------------------------------------------------------------------------------


def test_two_runs_cannot_write_to_one_index(tmp_path, capsys):
    write_video(tmp_path / 'a.avi')
    with files.alone(tmp_path / 'index'):
        assert mine(tmp_path / 'a.avi', tmp_path / 'index') == 2
    assert 'another run is writing there' in capsys.readouterr().err
    assert mine(tmp_path / 'a.avi', tmp_path / 'index') == 0


def test_damaged_parts_are_made_anew(tmp_path, capsys):
    write_video(tmp_path / 'a.avi')
    write_video(tmp_path / 'b.avi')
    out, index = tmp_path / 'index', Index(tmp_path / 'index')
    words = tmp_path / '*.avi', out
    assert mine(*words) == 0
    first, _ = sorted(index.parts.iterdir())
    first.write_bytes(b'')
    (index.failed / 'x-000000000.json').write_text('{')
    assert cli.main(['mine', 'report', str(out), '-o', str(tmp_path / 'page.html')]) == 2
    assert f'{first} is damaged; run road-anomaly mine again' in capsys.readouterr().err
    assert mine(*words) == 0
    assert f'warning: {first} is damaged and made anew' in capsys.readouterr().err
    assert len(list(index.done())) == 2


@pytest.mark.parametrize('text', ['', '[1]', '{"name": "a site"}'])
def test_a_foreign_index_json_is_one_line(tmp_path, capsys, text):
    write_video(tmp_path / 'a.avi')
    (tmp_path / 'index').mkdir()
    (tmp_path / 'index' / 'index.json').write_text(text)
    assert mine(tmp_path / 'a.avi', tmp_path / 'index') == 2
    assert 'expected an index made by road-anomaly mine' in capsys.readouterr().err


# --- clips -------------------------------------------------------------------------------------


def cut(file, out, topic='', begin=0.0, end=0.15):
    row = {'file': str(file), 'topic': topic, 'first': begin, 'last': end, 'frames': 2}
    return out / mine_export._cut(Shown(row), out, '0001', begin, end)


def test_clips_of_bags_keep_types_that_only_the_bag_knows(tmp_path):
    clip = cut(write_bag(tmp_path / 'drive'), tmp_path, TOPIC)
    reader = BagReader(clip)
    records = list(reader.records())
    values = [reader.decode(record).value for record in records if record.kind == OWN]
    reader.close()
    assert values == [0, 1] and len(records) == 4


def test_clips_of_bags_tell_what_nobody_knows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(BagReader, 'types', lambda *_: type_store())
    clip = cut(write_bag(tmp_path / 'drive'), tmp_path, TOPIC)
    reader = BagReader(clip)
    assert {record.topic for record in reader.records()} == {TOPIC}
    reader.close()
    assert f'{clip.name} lacks /own: of unknown types' in capsys.readouterr().err


def test_a_clip_of_nothing_is_no_clip(tmp_path):
    bag, video = write_bag(tmp_path / 'drive'), write_video(tmp_path / 'a.avi')
    (tmp_path / 'photos').mkdir()
    cv2.imwrite(str(tmp_path / 'photos' / 'a.png'), picture(0))
    for file, topic, word in (
        (bag, '/gone', 'has no message on /gone'),
        (video, '', 'has no frame there'),
        (tmp_path / 'photos', '', 'has no picture there'),
        (tmp_path / 'a.bag', TOPIC, 'make a rosbag2 of it with rosbags-convert'),
    ):
        Path(tmp_path / 'a.bag').write_bytes(b'#ROSBAG V2.0\n')
        with pytest.raises(ValueError, match=word):
            cut(file, tmp_path, topic, 7.0, 8.0)


def test_pictures_beside_a_bag_are_copied(tmp_path):
    folder = write_bag(tmp_path / 'drive')
    cv2.imwrite(str(folder / 'a.png'), picture(0))
    clip = cut(folder, tmp_path)
    assert [path.name for path in clip.iterdir()] == ['a.png']


def test_failures_of_another_run_are_told_by_the_exit_code(tmp_path, capsys):
    write_video(tmp_path / 'a.avi')
    (tmp_path / 'b.avi').write_bytes(b'no video')
    assert mine(tmp_path / 'b.avi', tmp_path / 'index') == 1
    assert mine(tmp_path / 'a.avi', tmp_path / 'index') == 1
    assert 'failed: ' in capsys.readouterr().err
