# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One surveyed frame in metres, as the fields of a cloud, of markers and of a scan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from road_anomaly_ros.perception.geometry import Located, Survey

CLOUD = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('intensity', '<f4'), ('id', '<u4')])
_KINDS = {'<u4': 6, '<f4': 7}  # as sensor_msgs/PointField numbers them
_CUBE, _TEXT, _ADD, _DELETE_ALL = 1, 9, 0, 3  # as visualization_msgs/Marker numbers them
_THIN = 0.05  # metres that a marker measures at least
_LIFETIME_S = 1
_COLOR = ('r', 'g', 'b', 'a')
_RED, _WHITE = (0.95, 0.2, 0.15, 0.75), (1.0, 1.0, 1.0, 1.0)


def _header(survey: Survey, header: Any) -> dict[str, Any]:
    """Return the header of a frame, in the coordinates of the vehicle."""
    return {'stamp': header.stamp, 'frame_id': survey.options.base_frame}


def points(survey: Survey, header: Any) -> dict[str, Any]:
    """Return the contact line of each obstacle: x, y, z in metres, intensity = score, id."""
    found = survey.obstacles
    counts = [len(one.position.line) for one in found]
    rows = np.zeros(sum(counts), CLOUD)
    if counts:
        lines = np.concatenate([one.position.line for one in found])
        rows['x'], rows['y'], rows['z'] = lines.T
        rows['intensity'] = np.repeat([one.found.score for one in found], counts)
        rows['id'] = np.repeat([one.id for one in found], counts)
    layout = [(name, *CLOUD.fields[name][:2]) for name in CLOUD.names]
    return {
        'header': _header(survey, header),
        'height': 1,
        'width': len(rows),
        'fields': [
            {'name': name, 'offset': offset, 'count': 1, 'datatype': _KINDS[kind.str]}
            for name, kind, offset in layout
        ],
        'is_bigendian': False,
        'point_step': CLOUD.itemsize,
        'row_step': rows.nbytes,
        'is_dense': True,
        'data': rows.view(np.uint8),
    }


def scan(survey: Survey, header: Any) -> dict[str, Any]:
    """Return how far the road is free: inf as far as is told, NaN where no road is in view."""
    road = survey.road
    step = (road.bearings[-1] - road.bearings[0]) / (len(road.bearings) - 1)
    return {
        'header': _header(survey, header),
        'angle_min': float(road.bearings[0]),
        'angle_max': float(road.bearings[-1]),
        'angle_increment': float(step),
        'range_min': 0.0,
        'range_max': float(road.longest),
        'ranges': road.distances.astype(np.float32).tolist(),
    }


def markers(survey: Survey, header: Any) -> dict[str, Any]:
    """Return a box and a text for each obstacle, and that those before are gone."""
    found = [{'header': _header(survey, header), 'action': _DELETE_ALL}]
    for one in survey.obstacles:
        shared = {'header': _header(survey, header), 'id': one.id % 2**31, 'action': _ADD}
        shared['lifetime'] = {'sec': _LIFETIME_S}
        found += [{**shared, **_box(one, survey)}, {**shared, **_label(one)}]
    return {'markers': found}


def tracks(survey: Survey, header: Any) -> dict[str, Any]:
    """Return each obstacle as a box on the road under the id of its track."""
    about = _header(survey, header)
    found = [_detection(one, survey, about) for one in survey.obstacles]
    return {'header': about, 'detections': found}


def _detection(one: Located, survey: Survey, header: Any) -> dict[str, Any]:
    pose, size = _standing(one, survey)
    # Errors are two standard deviations; x and y in the rows of the covariance [6, 6].
    covariance = np.zeros(36)
    covariance[[0, 7]] = one.position.forward_error, one.position.left_error
    return {
        'header': header,
        'id': str(one.id),
        'bbox': {'center': pose, 'size': size},
        'results': [
            {
                'hypothesis': {'class_id': 'obstacle', 'score': float(one.found.score)},
                'pose': {'pose': pose, 'covariance': ((covariance / 2) ** 2).tolist()},
            }
        ],
    }


def _box(one: Located, survey: Survey) -> dict[str, Any]:
    pose, size = _standing(one, survey)
    color = dict(zip(_COLOR, _RED, strict=True))
    return {'ns': 'obstacle', 'type': _CUBE, 'pose': pose, 'scale': size, 'color': color}


def _standing(one: Located, survey: Survey) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the middle of an obstacle's box on the road and its size in metres."""
    place = one.position
    width = place.width if math.isfinite(place.width) else _THIN
    width, height = max(width, _THIN), max(place.height, _THIN)
    # Across the view, its near side where it was measured; how deep it is nobody sees.
    bearing = math.atan2(
        place.left - survey.mounting.left, place.forward - survey.mounting.forward
    )
    depth = min(width, height)
    x = place.forward + depth / 2 * math.cos(bearing)
    y = place.left + depth / 2 * math.sin(bearing)
    pose = {
        'position': {'x': x, 'y': y, 'z': height / 2},
        'orientation': {'z': math.sin(bearing / 2), 'w': math.cos(bearing / 2)},
    }
    return pose, {'x': depth, 'y': width, 'z': height}


def _label(one: Located) -> dict[str, Any]:
    place = one.position
    above = max(place.height, 0.0) + 0.5
    return {
        'ns': 'label',
        'type': _TEXT,
        'pose': {
            'position': {'x': place.forward, 'y': place.left, 'z': above},
            'orientation': {'w': 1.0},
        },
        'scale': {'z': 0.5},
        'color': dict(zip(_COLOR, _WHITE, strict=True)),
        'text': label(one),
    }


def label(one: Located) -> str:
    """Return number, distance with its bounds and, where it is known, the speed of an obstacle."""
    place = one.position
    words = f'#{one.id} {place.distance:.1f} m ({place.nearest:.1f} to {place.farthest:.1f})'
    if one.closing is None:
        return words
    contact = one.closing.seconds
    words += f', {one.closing.speed:+.1f} m/s'
    return words + (f', {contact:.1f} s' if math.isfinite(contact) else '')
