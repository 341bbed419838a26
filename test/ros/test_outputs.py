# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The table of topics: what each pixel means, under whose header, and only for listeners."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='no rclpy installed')

from diagnostic_msgs.msg import DiagnosticArray, KeyValue
from ros_graph import Graph, header, image_message, obstacle_picture, send_until, wait_for
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from road_anomaly_ros.perception import Pipeline, drawing
from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult, LabelSet
from road_anomaly_ros.ros import health, images, outputs, tables
from road_anomaly_ros.tools import results, stages
from road_anomaly_ros.tools.bags import IMAGE, BagReader
from road_anomaly_ros.tools.sinks import BagSink, Done
from road_anomaly_ros.tools.sources import Frame

LABELS = LabelSet(('road', 'sky'), ((128, 64, 128), (70, 130, 180)), (0,))
OBSTACLE = AnomalyObject(
    id=1,
    box=(1, 0, 2, 3),
    centroid=(1.5, 1.0),
    area=4,
    score=0.75,
    score_max=0.9,
    score_p95=0.9,
    label=0,
)


def frame_result():
    """Three rows, four columns: sky above road, an obstacle of four pixels, one unlabelled."""
    labels = torch.tensor([[1, 1, 1, 255], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.uint8)
    score = torch.tensor([[0.0, 0.9, 0.7, 0.1], [0.0, 0.8, 0.0, 0.0], [0.0, 0.6, 0.0, -3.5]])
    mask = score > 0.5
    return FrameResult(
        image=torch.full((3, 3, 4), 90, dtype=torch.uint8),
        labels=labels,
        score=score,
        mask=mask,
        instances=mask.int() * 70000,
        objects=(OBSTACLE,),
        label_set=LABELS,
        scorer='plain',
        threshold=0.5,
        threshold_source='default',
        display_range=(0.0, 1.0),
    )


def shown():
    return results.Shown(frame_result(), drawing.overlay)


def row(topic):
    return next(row for row in results.OUTPUTS if row.topic == topic)


def built(topic):
    output = row(topic)
    picture = output.build(shown())
    message = images.to_message(picture, output.form, header())
    assert (message.height, message.width) == (3, 4)
    return picture


def test_labels_are_class_ids():
    np.testing.assert_array_equal(built('semantic/labels')[0], [1, 1, 1, 255])


def test_colours_are_those_of_the_classes():
    found = built('semantic/color')
    assert tuple(found[1, 0]) == LABELS.colors[0] and tuple(found[0, 0]) == LABELS.colors[1]


def test_scores_are_not_rescaled():
    found = built('anomaly/score')
    assert found.dtype == np.float32 and found[2, 3] == np.float32(-3.5)


def test_the_heatmap_is_brighter_where_it_is_stranger():
    found = built('anomaly/heatmap').astype(int).sum(2)
    assert found[0, 1] > found[1, 0]


def test_the_mask_is_0_or_255():
    found = built('obstacle/mask')
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 255}
    assert (found == 255).sum() == 4


def test_instance_numbers_never_wrap():
    assert set(np.unique(built('obstacle/instances'))) == {0, 65535}


def test_every_topic_has_a_text_and_only_pictures_are_compressed():
    assert all(row.text.endswith('.') for row in results.OUTPUTS)
    assert {row.topic for row in results.OUTPUTS if row.jpeg} == {
        'semantic/color',
        'anomaly/heatmap',
        'overlay',
    }
    assert {row.topic for row in results.OUTPUTS if row.png} == {
        'semantic/labels',
        'obstacle/mask',
        'obstacle/instances',
    }
    assert len(outputs.topics()) == 13
    assert '~/left/overlay/compressed' in outputs.topics('left')
    assert set(outputs.topics(debug=True)) - set(outputs.topics()) == {
        f'~/debug/{name}' for name in stages.TEXTS
    }


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


@pytest.fixture
def counted(monkeypatch):
    """Count how often each row is built."""
    counts = {}

    def count(row):
        def build(*source):
            counts[row.topic] = counts.get(row.topic, 0) + 1
            return row.build(*source)

        return dataclasses.replace(row, build=build)

    monkeypatch.setattr(results, 'OUTPUTS', tuple(count(row) for row in results.OUTPUTS))
    return counts


def test_only_what_is_listened_to_is_built(graph, counted):
    node = graph.anomaly_node()
    masks = graph.collect(Image, 'anomaly_node/obstacle/mask')
    publisher = graph.publisher(Image, 'image')
    send_until(publisher, image_message, lambda: masks, 'a mask')
    assert set(counted) == {'obstacle/mask'}
    processed = node.cameras[''].stats.processed
    send_until(
        publisher,
        image_message,
        lambda: node.cameras[''].stats.processed > processed + 3,
        'more frames',
    )
    assert set(counted) == {'obstacle/mask'}


def test_debug_topics_exist_only_when_asked_for(graph):
    node = graph.anomaly_node()
    name = node.resolve_topic_name('~/debug/fused')
    assert name not in dict(node.get_topic_names_and_types())
    publisher = graph.publisher(Image, 'image')
    kept = []
    run = node._engine.run

    def spy(*inputs):
        chain, results = run(*inputs)
        kept.extend(result.stages for result in results)
        return chain, results

    node._engine.run = spy
    send_until(publisher, image_message, lambda: kept, 'a frame')
    assert set(kept) == {None}


def test_debug_topics_show_the_stages_of_the_same_frame(graph, counted, image):
    """Each is drawn only for who listens, and equals what the library draws."""
    node = graph.anomaly_node(debug_topics=True, scorer='s2')
    found = {
        name: graph.collect(Image, f'anomaly_node/debug/{name}')
        for name in ('fused', 'score', 'segments')
    }
    publisher = graph.publisher(Image, 'image')
    send_until(
        publisher,
        lambda: image_message(image, frame_id='roof'),
        lambda: all(found.values()),
        'the stages',
    )
    assert set(counted) == {f'debug/{name}' for name in found}
    pipeline = Pipeline.from_config({'segmenter': 'synthetic', 'scorer': 's2'})
    pipeline.stages = stages.Stages
    expected = pipeline(image).stages
    for name, messages in found.items():
        assert messages[-1].header.frame_id == 'roof' and messages[-1].encoding == 'rgb8'
        np.testing.assert_array_equal(images.to_array(messages[-1]), expected.draw(name))
    assert node.cameras[''].stats.failed == 0


def test_a_stage_that_cannot_be_made_costs_only_its_topic(graph, image, monkeypatch):
    from road_anomaly_ros.perception.segments import _images

    def fail(self, image, prompts=None):
        raise RuntimeError('no room')

    monkeypatch.setattr(_images.Partition, '__call__', fail)
    node = graph.anomaly_node(debug_topics=True, refinements=['none'])
    broken = graph.collect(Image, 'anomaly_node/debug/segments')
    labels = graph.collect(Image, 'anomaly_node/semantic/labels')
    wait_for(lambda: graph.client.count_publishers('anomaly_node/debug/segments'), 'the topic')
    publisher = graph.publisher(Image, 'image')
    send_until(publisher, lambda: image_message(image), lambda: len(labels) > 2, 'labels')
    wait_for(
        lambda: 'no room' in ' '.join(node.cameras[''].stats.recent().values()), 'a complaint'
    )
    assert broken == [] and node.cameras[''].stats.failed == 0


def test_raw_and_compressed_share_one_drawing(graph, counted):
    graph.anomaly_node()
    raw = graph.collect(Image, 'anomaly_node/overlay')
    small = graph.collect(CompressedImage, 'anomaly_node/overlay/compressed')
    publisher = graph.publisher(Image, 'image')
    send_until(publisher, image_message, lambda: raw and small, 'both overlays')
    count = len({message.header.stamp.sec for message in [*raw, *small]})
    assert counted['overlay'] >= count
    shown, packed = images.to_array(raw[0]).astype(int), images.to_array(small[0]).astype(int)
    assert np.abs(shown - packed).mean() < 6


def test_every_output_has_the_header_and_the_size_of_its_image(graph):
    graph.anomaly_node()
    found = {
        name: graph.collect(
            Image if kind.endswith('/Image') else CompressedImage,
            name.replace('~', 'anomaly_node'),
        )
        for name, kind in outputs.topics().items()
    }
    publisher = graph.publisher(Image, 'image')
    moments = iter(range(1, 10000))
    send_until(
        publisher,
        lambda: image_message(seconds=next(moments) + 0.25, frame_id='roof'),
        lambda: all(found.values()),
        'every output',
    )
    for name, messages in found.items():
        message = messages[-1]
        assert message.header.frame_id == 'roof' and message.header.stamp.nanosec == 250_000_000
        size = (
            (message.height, message.width)
            if isinstance(message, Image)
            else unpacked(message).shape[:2]
        )
        assert size == (48, 64), name


def unpacked(message):
    """Return what a CompressedImage holds, as it is."""
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(('kind', 'encoding'), [(np.uint8, 'mono8'), (np.uint16, '16UC1')])
def test_maps_are_compressed_without_loss(rng, kind, encoding):
    picture = rng.integers(0, np.iinfo(kind).max + 1, (5, 7), kind)
    message = images.to_png(picture, encoding, header())
    found = unpacked(message)
    assert np.array_equal(found, picture) and found.dtype == kind
    assert message.format == f'{encoding}; png compressed {encoding}'


def test_obstacles_come_with_their_masks_as_text(graph):
    graph.anomaly_node()
    texts = graph.collect(String, 'anomaly_node/obstacle/rle', 10)
    publisher = graph.publisher(Image, 'image')
    picture = image_message(obstacle_picture(), seconds=2.5, frame_id='roof')
    send_until(publisher, lambda: picture, lambda: texts, 'a text')
    found = json.loads(texts[0].data)
    assert (found['stamp'], found['frame_id']) == ('2.500000000', 'roof')
    assert found['objects'] and found['objects'][0]['segmentation']['size'] == [48, 64]


@pytest.mark.parametrize('topic', [row.topic for row in results.OUTPUTS if not row.debug])
def test_an_output_that_fails_costs_only_itself(graph, monkeypatch, capfd, topic):
    """Whatever it is: it is counted for every frame and said once."""

    def fail(*source):
        raise RuntimeError('no colours')

    # Types of messages that are not always installed give way to one that is.
    rows = tuple(
        dataclasses.replace(
            row,
            build=fail if row.topic == topic else row.build if not row.package else lambda *_: {},
            form='diagnostic_msgs/DiagnosticArray' if row.package else row.form,
            source=row.source if row.source is LabelSet else results.Shown,
        )
        for row in results.OUTPUTS
        if not row.debug
    )
    monkeypatch.setattr(results, 'OUTPUTS', rows)
    node = graph.anomaly_node()
    found = {
        row.topic: graph.collect(
            DiagnosticArray if row.package else Image,
            f'anomaly_node/{row.topic}',
            outputs.qos(latched=row.source is LabelSet),
        )
        for row in rows
    }
    others = [messages for name, messages in found.items() if name != topic]
    stats = node.cameras[''].stats
    publisher = graph.publisher(Image, 'image')
    send_until(
        publisher,
        image_message,
        lambda: all(others) and stats.processed > 3 and stats.left_out[topic],
        'all other outputs',
    )
    assert found[topic] == [] and stats.failed == 0 and set(stats.left_out) == {topic}
    assert f'output left out: {topic}: no colours' in stats.recent().values()
    assert capfd.readouterr().err.count('no colours') == 1
    assert health.camera_values(stats)[f'left_out_{topic}'] == str(stats.left_out[topic])


def test_a_row_is_all_that_a_new_output_needs(graph, monkeypatch, tmp_path):
    """A picture and a message of any type, over DDS and in the bag."""

    def mask(shown):
        return shown.result.mask.numpy().astype(np.uint8) * 51

    def name(shown, header):
        return {'header': header, 'status': [{'name': shown.result.scorer}]}

    toys = (
        results.Output('toy', 'mono8', 'Toy.', mask, recorded=True),
        results.Output('toys', 'diagnostic_msgs/DiagnosticArray', 'Toys.', name),
    )
    monkeypatch.setattr(results, 'OUTPUTS', (*results.OUTPUTS, *toys))
    graph.anomaly_node()
    pictures = graph.collect(Image, 'anomaly_node/toy')
    names = graph.collect(DiagnosticArray, 'anomaly_node/toys')
    publisher = graph.publisher(Image, 'image')
    send_until(
        publisher,
        lambda: image_message(obstacle_picture(), frame_id='roof'),
        lambda: pictures and names,
        'the toys',
    )
    assert set(pictures[-1].data) == {0, 51} and pictures[-1].header.frame_id == 'roof'
    assert names[-1].status[0].name == 'plain' and names[-1].header.frame_id == 'roof'
    assert '`~/toy`' in tables.topics() and '`~/toys`' in tables.topics()
    sink = BagSink(tmp_path / 'bag', 'mcap')
    frame = Frame(np.zeros((3, 4, 3), np.uint8), 7, 'frame', 'roof')
    sink.write(Done(frame_result(), drawing.overlay, 0, frame))
    sink.finish()
    reader = BagReader(tmp_path / 'bag')
    assert '/anomaly_node/toy' in reader.topics([IMAGE])
    reader.close()


def test_quality_changes_the_size_of_the_jpeg(rng):
    picture = rng.integers(0, 255, (64, 64, 3), np.uint8)
    sizes = [len(images.to_jpeg(picture, header(), quality).data) for quality in (10, 95)]
    assert sizes[0] < sizes[1] / 2


def test_boxes_and_class_names_are_written_out():
    """As fields, before they are filled: vision_msgs is not always installed."""
    head = header()
    found = row('obstacle/detections').build(shown(), head)
    (box,) = found['detections']
    assert found['header'] == box['header'] == head and box['id'] == '1'
    followed = dataclasses.replace(OBSTACLE, track_id=41)
    both = dataclasses.replace(frame_result(), objects=(followed,))
    again = row('obstacle/detections').build(results.Shown(both, None), head)
    assert again['detections'][0]['id'] == '41'  # the same from frame to frame
    assert box['bbox'] == {
        'center': {'position': {'x': 2.0, 'y': 1.5}},
        'size_x': 2.0,
        'size_y': 3.0,
    }
    assert box['results'] == [{'hypothesis': {'class_id': 'obstacle', 'score': 0.75}}]
    info = row('semantic/label_info').build(LABELS, head)
    assert info['class_map'] == [
        {'class_id': 0, 'class_name': 'road'},
        {'class_id': 1, 'class_name': 'sky'},
    ]


def test_fields_of_messages_are_filled_as_deep_as_they_are_named():
    report = outputs.fill(
        DiagnosticArray(),
        {
            'header': {'stamp': {'sec': 3}, 'frame_id': 'roof'},
            'status': [{'name': 'a', 'values': [{'key': 'k', 'value': 'v'}]}, {'name': 'b'}],
        },
    )
    assert report.header.stamp.sec == 3 and report.header.frame_id == 'roof'
    assert [status.name for status in report.status] == ['a', 'b']
    assert report.status[0].values == [KeyValue(key='k', value='v')]
    assert bytes(outputs.fill(Image(), {'data': np.arange(3, dtype=np.uint8)}).data) == b'\0\1\2'
    with pytest.raises(AttributeError):
        outputs.fill(Image(), {'colour': 'red'})
