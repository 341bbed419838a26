# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Masks as run lengths, and the lines of objects.jsonl; the overlays as video."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest
from runs import SIZE, rows, run, scene, summary, write_video

from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.remarks import Remark
from road_anomaly_ros.tools.overlay_video import VideoSink
from road_anomaly_ros.tools.rle import encode
from road_anomaly_ros.tools.sinks import Done
from road_anomaly_ros.tools.sources import Frame


@pytest.mark.parametrize(
    ('mask', 'at', 'counts'),
    [  # an image of 3 rows and 4 columns; characters are 48 + the count where it is below 16
        ([[1]], (0, 0), '01;'),  # 0 outside, 1 inside, 11 outside
        ([[1]], (3, 2), ';1'),  # the last pixel
        ([[0]], (1, 1), '<'),  # nothing inside
        ([[1, 1], [1, 1], [1, 1]], (1, 0), '363'),  # two whole columns are one run
        ([[1, 1]], (1, 1), '41202'),  # 4, 1, 2, 1, 4: from the fourth on less the last but one
        ([[1] * 4] * 3, (0, 0), '0<'),
    ],
)
def test_run_lengths_are_those_counted_by_hand(mask, at, counts):
    found = encode(np.array(mask, bool), at, (3, 4))
    assert found == {'size': [3, 4], 'counts': counts}


def test_run_lengths_are_those_of_pycocotools(rng):
    coco = pytest.importorskip('pycocotools.mask', reason='needs pycocotools')
    for _ in range(300):
        height, width = rng.integers(1, 90, 2)
        y, x = rng.integers(0, height), rng.integers(0, width)
        shape = rng.integers(1, height - y + 1), rng.integers(1, width - x + 1)
        mask = rng.random(shape) < rng.choice([0, 0.05, 0.5, 0.95, 1])
        whole = np.zeros((height, width), np.uint8, order='F')
        whole[y : y + shape[0], x : x + shape[1]] = mask
        found = encode(mask, (int(x), int(y)), (int(height), int(width)))
        assert found['counts'].encode() == coco.encode(whole)['counts']
        assert np.array_equal(coco.decode(found), whole)


def test_every_obstacle_of_a_run_has_its_mask(tmp_path):
    coco = pytest.importorskip('pycocotools.mask', reason='needs pycocotools')
    out = tmp_path / 'out'
    assert run(write_video(tmp_path / 'in.avi'), out, '--set', 'tracker=kalman') == 0
    lines = [json.loads(line) for line in (out / 'objects.jsonl').read_text().splitlines()]
    assert [line['frame'] for line in lines] == list(range(12))
    assert [line['stamp'] for line in lines] == [row['stamp'] for row in rows(out / 'frames.csv')]
    found = [item for line in lines for item in line['objects']]
    table = rows(out / 'objects.csv')
    assert len(found) == len(table) > 0
    for item, row in zip(found, table, strict=True):
        assert (
            item['bbox']
            == [int(row[name]) for name in 'xywh']
            == list(coco.toBbox(item['segmentation']))
        )
        assert item['area'] == int(row['area']) == coco.area(item['segmentation'])
        assert item['track_id'] >= 1 and item['around'] == (row['label'] or None)
    assert summary(out)['video_codec'] == 'h264'


@pytest.fixture
def result():
    return Pipeline.from_config(segmenter='synthetic', scorer='plain')(scene(0))


def done(index, stamp_ns, result):
    brightness = np.full((*SIZE, 3), 10 * index, np.uint8)
    frame = Frame(brightness, stamp_ns, str(index))
    return Done(result, lambda _: brightness, index, frame)


def test_a_live_overlay_keeps_the_times_of_its_pictures(tmp_path, result):
    av = pytest.importorskip('av', reason='needs the extra video')
    sink = VideoSink(tmp_path / 'overlay.mp4', None)
    for index, stamp in enumerate((5.0, 5.1, 5.5, 5.5, 7.25)):
        sink.write(done(index, round(stamp * 1e9), result))
    sink.finish()
    with av.open(str(tmp_path / 'overlay.mp4')) as file:
        [stream] = file.streams.video
        frames = list(file.decode(stream))
        assert stream.codec_context.name == 'h264' and frames[0].format.name == 'yuv420p'
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.5, 0.5, 2.25], abs=1e-3)
    found = [frame.to_ndarray(format='rgb24').mean() for frame in frames]
    assert found == pytest.approx([0, 10, 20, 30, 40], abs=3)


def test_without_pyav_the_overlay_is_mpeg_4_and_says_so(tmp_path, result, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    sink = VideoSink(tmp_path / 'overlay.mp4', 20.0)
    with pytest.warns(Remark, match=r"browsers do not play; for H.264 pip install '.*\[video\]'"):
        sink.write(done(0, 0, result))
    sink.finish()
    assert sink.figures() == {'video_codec': 'mpeg4'}
    assert cv2.VideoCapture(str(tmp_path / 'overlay.mp4')).get(cv2.CAP_PROP_FRAME_COUNT) == 1
