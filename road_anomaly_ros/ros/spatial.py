# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages in metres: a cloud, markers and a scan of one surveyed frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from sensor_msgs.msg import LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from road_anomaly_ros.perception.geometry import Located, Survey
from road_anomaly_ros.ros import images

try:
    import visualization_msgs.msg as visualization
except ImportError:  # optional: its row is left out, the node says so once
    visualization = None

CLOUD = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('intensity', '<f4'), ('id', '<u4')])
_KINDS = {'<f4': PointField.FLOAT32, '<u4': PointField.UINT32}
_THIN = 0.05  # metres that a marker measures at least
_LIFETIME_S = 1
_RED, _WHITE = (0.95, 0.2, 0.15, 0.75), (1.0, 1.0, 1.0, 1.0)


def header_of(survey: Survey, header: Any) -> Header:
    """Return the header of a frame, in the coordinates of the vehicle."""
    return Header(stamp=header.stamp, frame_id=survey.options.base_frame)


def points(survey: Survey, header: Any) -> PointCloud2:
    """Return the contact line of each obstacle: x, y, z in metres, intensity = score, id."""
    found = survey.obstacles
    counts = [len(one.position.line) for one in found]
    rows = np.zeros(sum(counts), CLOUD)
    if counts:
        lines = np.concatenate([one.position.line for one in found])
        rows['x'], rows['y'], rows['z'] = lines.T
        rows['intensity'] = np.repeat([one.found.score for one in found], counts)
        rows['id'] = np.repeat([one.id for one in found], counts)
    fields = [
        PointField(
            name=name,
            offset=CLOUD.fields[name][1],
            count=1,
            datatype=_KINDS[CLOUD.fields[name][0].str],
        )
        for name in CLOUD.names
    ]
    message = PointCloud2(
        header=header_of(survey, header),
        height=1,
        width=len(rows),
        fields=fields,
        is_bigendian=False,
        point_step=CLOUD.itemsize,
        row_step=rows.nbytes,
        is_dense=True,
    )
    message.data = images.to_bytes(rows.view(np.uint8))
    return message


def scan(survey: Survey, header: Any) -> LaserScan:
    """Return how far the road is free: inf as far as is told, NaN where no road is in view."""
    road = survey.road
    step = (road.bearings[-1] - road.bearings[0]) / (len(road.bearings) - 1)
    return LaserScan(
        header=header_of(survey, header),
        angle_min=float(road.bearings[0]),
        angle_max=float(road.bearings[-1]),
        angle_increment=float(step),
        range_min=0.0,
        range_max=float(road.longest),
        ranges=road.distances.astype(np.float32).tolist(),
    )


def markers(survey: Survey, header: Any) -> Any:
    """Return a box and a text for each obstacle, and that those before are gone."""
    gone = visualization.Marker(
        header=header_of(survey, header), action=visualization.Marker.DELETEALL
    )
    found = [gone]
    for one in survey.obstacles:
        found += [_box(one, survey, header), _label(one, survey, header)]
    return visualization.MarkerArray(markers=found)


def _box(one: Located, survey: Survey, header: Any) -> Any:
    place = one.position
    width = place.width if math.isfinite(place.width) else _THIN
    width, height = max(width, _THIN), max(place.height, _THIN)
    marker = _marker('obstacle', one, survey, header, _RED)
    marker.type = visualization.Marker.CUBE
    # Across the view, its near side where it was measured; how deep it is nobody sees.
    bearing = math.atan2(
        place.left - survey.mounting.left, place.forward - survey.mounting.forward
    )
    depth = min(width, height)
    marker.pose.position = Point(
        x=place.forward + depth / 2 * math.cos(bearing),
        y=place.left + depth / 2 * math.sin(bearing),
        z=height / 2,
    )
    marker.pose.orientation.z = math.sin(bearing / 2)
    marker.pose.orientation.w = math.cos(bearing / 2)
    marker.scale.x, marker.scale.y, marker.scale.z = depth, width, height
    return marker


def _label(one: Located, survey: Survey, header: Any) -> Any:
    place = one.position
    marker = _marker('label', one, survey, header, _WHITE)
    marker.type = visualization.Marker.TEXT_VIEW_FACING
    marker.pose.position = Point(x=place.forward, y=place.left, z=max(place.height, 0.0) + 0.5)
    marker.pose.orientation.w = 1.0
    marker.scale.z = 0.5
    marker.text = label(one)
    return marker


def label(one: Located) -> str:
    """Return number, distance with its bounds and, where it is known, the speed of an obstacle."""
    place = one.position
    words = f'#{one.id} {place.distance:.1f} m ({place.nearest:.1f} to {place.farthest:.1f})'
    if one.closing is None:
        return words
    contact = one.closing.seconds
    words += f', {one.closing.speed:+.1f} m/s'
    return words + (f', {contact:.1f} s' if math.isfinite(contact) else '')


def _marker(space: str, one: Located, survey: Survey, header: Any, color: tuple) -> Any:
    marker = visualization.Marker(
        header=header_of(survey, header),
        ns=space,
        id=one.id % 2**31,
        action=visualization.Marker.ADD,
    )
    marker.color.r, marker.color.g, marker.color.b, marker.color.a = color
    marker.lifetime.sec = _LIFETIME_S
    return marker
