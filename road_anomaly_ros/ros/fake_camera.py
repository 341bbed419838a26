# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node `fake_camera`: a rendered drive as a camera, with ground truth when asked for."""

from __future__ import annotations

import functools
import itertools
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from road_anomaly_ros.perception.geometry import GeometryOptions
from road_anomaly_ros.perception.registry import option, options_of
from road_anomaly_ros.rendering import Drive, DriveOptions, RenderedFrame
from road_anomaly_ros.ros import arguments, images, mounting, outputs, sim_time, topics, usage
from road_anomaly_ros.ros.controls import Controls, camera_qos
from road_anomaly_ros.ros.descriptors import declare
from road_anomaly_ros.ros.player import Cue, Player
from road_anomaly_ros.ros.process import EXIT_BAD_INPUT, run
from road_anomaly_ros.tools import drive_metres, true_obstacles

NAME = 'fake_camera'
EXAMPLES = """
examples:
  fake_camera
  fake_camera --ros-args -p seed:=3 -p fps:=15.0 -r image:=/camera/image_raw
  fake_camera --ros-args -p truth:=true
"""
TRUTH = {'labels': 'mono8', 'instances': '16UC1', 'depth': '32FC1'}  # topics below ~/truth


@dataclass(frozen=True)
class FakeCameraOptions(DriveOptions):
    """The drive, and how it is published."""

    loop: bool = option(True, 'Start again after the last frame; false ends the node there.')
    truth: bool = option(
        False,
        'Publish ground truth: ~/truth/labels (train ids of Cityscapes), ~/truth/instances, '
        '~/truth/depth and, where visualization_msgs is installed, ~/truth/markers.',
    )
    drive_time: bool = option(
        False,
        'Stamp frames by the time of the drive, counted from the first one, instead of by the '
        'moment of sending; for drives that are stepped.',
    )
    frame_id: str = option(
        'camera_optical', 'Coordinate frame of the pictures, an optical one: z looks ahead.'
    )
    jpeg_quality: int = option(90, 'Quality of image/compressed.', low=1, high=100)
    reliable: bool = option(False, 'Offer reliable delivery; cameras usually offer best effort.')
    start_paused: bool = option(False, 'Wait for ~/resume, or for ~/play_next before each frame.')
    wait_for_subscribers: int = option(
        0, 'Subscribers of the pictures to wait for before the first frame.', low=0, high=100
    )


class FakeCamera(Node):
    """Publishes `image`, `image/compressed` and `camera_info` at the rate of the drive.

    Stamps are the moments of sending, or with `drive_time` those of the drive. Pictures are made
    only while somebody listens. `stop` is set after the last frame of a drive that does not loop.
    Where the camera is mounted is logged and, with tf2_ros, sent as a static transform; while it
    drives it nods a little around that.
    """

    def __init__(self, stop: threading.Event | None = None, **node_arguments: Any) -> None:
        super().__init__(NAME, **node_arguments)
        options = declare(self, FakeCameraOptions)
        self._options = options
        self._drive = Drive(options)
        qos = functools.partial(camera_qos, reliable=options.reliable)
        self._image = self.create_publisher(Image, 'image', qos())
        self._jpeg = self.create_publisher(
            CompressedImage, topics.compressed(self, 'image'), qos()
        )
        self._info = self.create_publisher(CameraInfo, 'camera_info', qos())
        self._truth = {
            name: self.create_publisher(Image, f'~/truth/{name}', qos(reliable=True))
            for name in TRUTH
            if options.truth
        }
        self._marker_kind: Any = topics.message_class('visualization_msgs/msg/MarkerArray')
        self._boxes = None
        if options.truth and self._marker_kind is not None:
            self._boxes = self.create_publisher(
                self._marker_kind, '~/truth/markers', qos(reliable=True)
            )
        self._begun: Any = None  # when the first frame was sent
        self._transform = self._say_mounting()
        self._player = Player(
            self._cues(),
            paused=options.start_paused,
            live=True,
            ended=stop.set if stop and not options.loop else lambda: None,
        )
        self.controls = Controls(
            self, self._player, [self._image, self._jpeg], options.wait_for_subscribers
        )

    def _say_mounting(self) -> Any:
        place = drive_metres.mounting(self._drive)
        self.get_logger().info(
            f'mounted as geometry.camera_height:={place.height:.2f} '
            f'geometry.camera_pitch:={math.degrees(place.pitch):.2f} geometry.camera_roll:=0.0'
        )
        return mounting.announce(self, place, GeometryOptions().base_frame, self._options.frame_id)

    def _cues(self) -> Iterator[Cue]:
        numbers = itertools.count() if self._options.loop else range(self._options.frames)
        for number in numbers:
            index = number % self._options.frames
            # Made ahead while somebody listens, else not before somebody does.
            view = self._drive[index] if self._heard() else None
            time = round(number * 1e9 / self._options.fps)
            yield Cue(time, time, functools.partial(self._send, number, view))

    def _heard(self) -> bool:
        publishers = (self._image, self._jpeg, *self._truth.values(), self._boxes)
        return any(one is not None and one.get_subscription_count() for one in publishers)

    def _stamp(self, number: int) -> Any:
        timeless = sim_time.missing(self)
        if timeless:
            self.get_logger().warning(f'stamps are zero: {timeless}', once=True)
        now = self.get_clock().now()
        self._begun = self._begun or now
        if not self._options.drive_time:
            return now.to_msg()
        since = Duration(nanoseconds=round(number * 1e9 / self._options.fps))
        return (self._begun + since).to_msg()

    def _send(self, number: int, view: RenderedFrame | None) -> None:
        index = number % self._options.frames
        header = Header(stamp=self._stamp(number), frame_id=self._options.frame_id)
        self._info.publish(
            camera_info(
                self._drive.camera(index).matrix, self._options.width, self._options.height, header
            )
        )
        if not self._heard():
            return
        view = view or self._drive[index]
        for name, publisher in self._truth.items():
            if publisher.get_subscription_count():
                publisher.publish(images.to_message(getattr(view, name), TRUTH[name], header))
        if self._boxes is not None and self._boxes.get_subscription_count():
            boxes = true_obstacles.markers(view, self._drive.camera(index), header.stamp)
            self._boxes.publish(outputs.fill(self._marker_kind(), boxes))
        if self._image.get_subscription_count():
            self._image.publish(images.to_message(view.image, 'rgb8', header))
        if self._jpeg.get_subscription_count():
            self._jpeg.publish(images.to_jpeg(view.image, header, self._options.jpeg_quality))

    def close(self) -> None:
        """Stop sending and say what was sent."""
        self.controls.close()


def camera_info(matrix: np.ndarray, width: int, height: int, header: Header) -> CameraInfo:
    """Return the calibration of a camera without distortion; `matrix` is K, float [3, 3]."""
    projection = np.hstack([matrix, np.zeros((3, 1))])
    return CameraInfo(
        header=header,
        width=width,
        height=height,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=matrix.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=projection.ravel().tolist(),
    )


def node_main(args: Sequence[str] | None = None) -> int:
    """Run the executable `fake_camera`; returns its exit code."""
    words = sys.argv[1:] if args is None else args
    if usage.asked(words):
        print(
            usage.text(
                NAME,
                'A rendered drive as a camera: image, image/compressed and camera_info.',
                EXAMPLES,
                options_of(FakeCameraOptions),
            ),
            end='',
        )
        return 0
    try:
        arguments.refuse_stray(NAME, words)
    except ValueError as error:
        print(f'{NAME}: {error}', file=sys.stderr)
        return EXIT_BAD_INPUT
    return run(FakeCamera, args=args)


if __name__ == '__main__':
    sys.exit(node_main())
