# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Video topics: every picture where all came, none that builds on what never came."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import videos
from runs import rows, run, summary
from videos import GROUP, START, STEP, number

from road_anomaly_ros.tools.bags import COMPRESSED
from road_anomaly_ros.tools.encodings import ImageRefused
from road_anomaly_ros.tools.sources import open_source
from road_anomaly_ros.tools.video_topics import (
    FFMPEG,
    FOXGLOVE,
    Packet,
    VideoDecoder,
    packet_of,
    to_rgb,
)

CODECS = {'h264': 'libx264', 'hevc': 'libx265'}


@pytest.fixture(scope='module')
def streams():
    return {codec: videos.packets(encoder) for codec, encoder in CODECS.items()}


def shown(codec, packets):
    """Return which pictures are shown, and which messages are counted out."""
    decoder, found, refused = VideoDecoder(), [], []
    for index, data in packets:
        try:
            found += decoder.decode(Packet(codec, data, 0, ''), index)
        except ImageRefused as refusal:
            assert refusal.reason == 'keyframe'
            refused.append(index)
    found += decoder.finish()
    assert [number(to_rgb(picture)) for _, picture in found] == [index for index, _ in found]
    return [index for index, _ in found], sorted([*refused, *decoder.lost])


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize(
    ('lost', 'missing'),
    [
        ((), ()),
        ((0, 1, 2), range(3, 8)),  # begins between two key frames
        ((3,), range(4, 8)),  # a picture that others build on
        ((8,), range(9, 16)),  # a key frame
        ((15,), ()),  # the last before a key frame
        ((7, 8), range(9, 16)),
    ],
)
def test_what_builds_on_lost_pictures_is_waited_out_and_counted(streams, codec, lost, missing):
    came = [pair for pair in enumerate(streams[codec]) if pair[0] not in lost]
    expected = [index for index, _ in came if index not in missing]
    assert shown(codec, came) == (expected, list(missing))


def test_pictures_that_are_shown_in_another_order_than_sent_keep_their_names():
    options = {'tune': 'film', 'bf': '2'}
    sent = list(enumerate(videos.packets(**options)))
    decoder, found = VideoDecoder(), []
    for index, data in sent:
        found += decoder.decode(Packet('h264', data, 0, ''), index)
    found += decoder.finish()
    assert [number(to_rgb(picture)) for _, picture in found] == list(range(20))
    assert sorted(index for index, _ in found) == list(range(20)) and not decoder.lost
    assert [index for index, _ in found] != list(range(20))


@pytest.mark.parametrize('profile', ['baseline', 'high'])
def test_the_numbers_of_h264_are_read_in_every_profile(profile):
    sent = list(enumerate(videos.packets(profile=profile)))
    assert shown('h264', sent)[1] == []
    assert shown('h264', sent[:3] + sent[4:])[1] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ('kind', 'storage', 'codec'),
    [
        (COMPRESSED, 'mcap', 'h264'),
        (FFMPEG, 'sqlite3', 'hevc'),
        (FOXGLOVE, 'mcap', 'h264'),
        (FOXGLOVE, 'sqlite3', 'h265'),
    ],
)
def test_a_bag_gives_the_pictures_of_its_video(tmp_path, streams, kind, storage, codec):
    data = streams['hevc' if codec == 'h265' else codec]
    source = open_source(videos.write_bag(tmp_path / 'bag', kind, data, codec, storage))
    frames = list(source)
    assert [number(frame.image) for frame in frames] == list(range(20)) and source.fps == 20
    assert [frame.stamp_ns for frame in frames] == [START + index * STEP for index in range(20)]
    assert {frame.frame_id for frame in frames} == {'front'} and not source.refused
    assert [frame.name for frame in frames] == [str(index) for index in range(20)]


def test_a_bag_of_video_goes_through_run(tmp_path, streams, capsys):
    data = streams['h264'][3:]  # recorded from the middle of a group on
    bag = videos.write_bag(tmp_path / 'bag', FFMPEG, data)
    assert run(bag, tmp_path / 'out') == 0
    assert len(rows(tmp_path / 'out' / 'frames.csv')) == 20 - GROUP
    assert summary(tmp_path / 'out')['refused'] == {'keyframe': GROUP - 3}
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line == 'warning: 5 pictures left out (keyframe): 0, 1, 2, 3, 4'


@pytest.mark.parametrize(
    ('fields', 'expected'),
    [
        ({'format': 'jpeg', 'data': b'\xff\xd8\xff'}, None),
        ({'format': 'rgb8; jpeg compressed bgr8', 'data': b'\xff\xd8\xff'}, None),
        ({'format': 'h264', 'data': b'\0\0\0\1\x67'}, 'h264'),
        ({'format': 'H.265', 'data': b''}, 'hevc'),
        ({'format': '', 'data': b'\0\0\1\x67'}, 'h264'),
        ({'encoding': 'rgb8', 'data': b'\0\0\1\x67'}, None),
        ({'encoding': 'libx264;yuv420p;bgr8;bgr8', 'pts': 0, 'data': b''}, 'h264'),
        ({'encoding': 'hevc_nvenc', 'pts': 0, 'data': b''}, 'hevc'),
    ],
)
def test_a_message_says_which_codec_it_holds(fields, expected):
    stamp = SimpleNamespace(sec=2, nanosec=3)
    about = SimpleNamespace(stamp=stamp, frame_id='front')
    packet = packet_of(SimpleNamespace(header=about, **fields))
    assert (packet and packet.codec) == expected
    if packet:
        assert packet == (expected, fields['data'], 2_000_000_003, 'front')


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'encoding': 'hevc;yuv420p;gray;16UC1', 'pts': 0}, 'depth or other measurements'),
        ({'encoding': 'theora', 'pts': 0}, "expected a video of .*, got 'theora'"),
        ({'format': '', 'timestamp': None}, "expected a video of .*, got ''"),
    ],
)
def test_other_streams_are_refused_in_one_line(fields, words):
    with pytest.raises(ImageRefused, match=words) as caught:
        packet_of(SimpleNamespace(data=b'', **fields))
    assert caught.value.reason == 'encoding' and '\n' not in str(caught.value)


def test_without_pyav_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(ImageRefused, match=r"pip install 'road_anomaly_ros\[video\]'"):
        VideoDecoder().decode(Packet('h264', b'', 0, ''), 0)


def test_damaged_packets_are_refused_and_the_rest_is_shown(streams, rng):
    decoder, reasons, count = VideoDecoder(), set(), 0
    for index, data in enumerate(streams['h264'] * 6):
        damaged = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(damaged), 0 if index >= 100 else 3)
        damaged[places] = rng.integers(0, 256, len(places))
        try:
            count += len(decoder.decode(Packet('h264', damaged.tobytes(), 0, ''), index))
        except ImageRefused as refusal:
            reasons.add(refusal.reason)
    assert reasons <= {'keyframe', 'undecodable'} and count >= 20


def test_a_later_start_still_decodes_what_its_pictures_build_on(tmp_path, streams):
    source = open_source(videos.write_bag(tmp_path / 'bag', FFMPEG, streams['h264']))
    source.start = 5
    assert [number(frame.image) for frame in source] == list(range(5, 20))
