# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Obstacles from class-agnostic segments: tables checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception import Pipeline, objects
from road_anomaly_ros.perception.contract import Segments
from road_anomaly_ros.perception.objects import ObjectOptions
from road_anomaly_ros.perception.proposals import propose, suppress

NAN = math.nan


def options(**changes):
    return ObjectOptions(**{'mode': 'segments', 'min_area': 0, 'max_area_frac': 1.0, **changes})


def masks_of(*rows):
    """Masks of one row from texts, '#' inside."""
    return Segments(masks=torch.tensor([[[mark == '#' for mark in row]] for row in rows]))


def find(scores, segments, threshold=0.5, **changes):
    """Return the numbers at the pixels of one row and the rounded scores of the list."""
    score = torch.tensor([scores], dtype=torch.float32)
    chosen = options(**changes)
    found = propose(segments, score, threshold=threshold, options=chosen)
    mask, instances, listed = objects.find(
        score, threshold=threshold, options=chosen, proposals=found
    )
    shown = instances.bool() if len(listed) < chosen.max_objects else mask
    assert torch.equal(mask, shown)
    for item in listed:
        assert item.area == int((instances == item.id).sum())
    return instances[0].tolist(), [round(item.score, 3) for item in listed]


@pytest.mark.parametrize(
    ('scores', 'segments', 'numbers', 'means'),
    [
        # The mean decides, strictly: one strange pixel does not make a segment strange.
        ([0.9, 0.0, 0.0, 0.6, 0.6, 0.0], ['###...', '...##.'], [0, 0, 0, 1, 1, 0], [0.6]),
        ([0.5, 0.5, 0.0, 0.0, 0.0, 0.0], ['##....'], [0, 0, 0, 0, 0, 0], []),
        # Strangest first, whatever their order.
        ([0.6, 0.6, 0.0, 0.9, 0.0, 0.0], ['##....', '...#..'], [2, 2, 0, 1, 0, 0], [0.9, 0.6]),
        # Equal scores: the larger first.
        ([0.6, 0.0, 0.6, 0.6, 0.0, 0.0], ['#.....', '..##..'], [2, 0, 1, 1, 0, 0], [0.6, 0.6]),
        # Neighbours stay two obstacles, which components would join.
        ([0.6, 0.6, 0.9, 0.9, 0.0, 0.0], ['##....', '..##..'], [2, 2, 1, 1, 0, 0], [0.9, 0.6]),
        # IoU 3/4 > 0.7: the less strange one goes; IoU 2/4: both stay, the shared pixels go to the
        # stranger one and the other is what is left of it.
        ([0.6, 0.9, 0.9, 0.9, 0.0, 0.0], ['####..', '.###..'], [0, 1, 1, 1, 0, 0], [0.9]),
        ([0.8, 0.8, 0.9, 0.9, 0.0, 0.0], ['####..', '..##..'], [2, 2, 1, 1, 0, 0], [0.9, 0.8]),
        # Scores that are missing stay out of the mean; a segment of nothing else is strange.
        ([NAN, 0.6, 0.0, NAN, NAN, 0.0], ['##....', '...##.'], [2, 2, 0, 1, 1, 0], [NAN, 0.6]),
        ([0.9] * 6, [], [0] * 6, []),
    ],
)
def test_what_is_strange_as_a_whole(scores, segments, numbers, means):
    given = (
        masks_of(*segments) if segments else Segments(masks=torch.zeros(0, 1, 6, dtype=torch.bool))
    )
    found = find(scores, given)
    assert found[0] == numbers
    assert found[1] == pytest.approx(means, nan_ok=True)


def test_a_partition_gives_what_its_masks_give():
    scores = [0.6, 0.6, 0.9, 0.0, 0.7, NAN]
    index = Segments(index=torch.tensor([[0, 0, 3, 3, 2, -1]], dtype=torch.int32))
    masks = masks_of('##....', '..##..', '....#.')
    assert find(scores, index) == find(scores, masks) == ([2, 2, 0, 0, 1, 0], [0.7, 0.6])


@pytest.mark.parametrize(
    ('least', 'largest', 'areas'),
    [(0, 1.0, [1, 2, 3]), (2, 1.0, [2, 3]), (0, 0.25, [1, 2]), (0, 0.2499, [1]), (9, 1.0, [])],
)
def test_areas_from_the_smallest_to_a_share_of_the_image(least, largest, areas):
    scores, segments = [0.9] * 8, masks_of('#.......', '.##.....', '...###..')
    found, _ = find(scores, segments, min_area=least, reference_area=0, max_area_frac=largest)
    assert sorted(np.bincount(found)[1:].tolist()) == areas


def test_what_is_left_of_a_covered_segment_must_be_large_enough():
    scores, segments = [0.6, 0.9, 0.9, 0.9, 0.0, 0.0], masks_of('####..', '.###..')
    assert find(scores, segments, nms_iou=1.0)[0] == [2, 1, 1, 1, 0, 0]
    assert find(scores, segments, nms_iou=1.0, min_area=2, reference_area=0)[0] == [
        0,
        1,
        1,
        1,
        0,
        0,
    ]


def test_segments_need_evidence_and_what_the_row_asks_for():
    # Above 0.5: 0.1, 0.8 and 0.4 in all.
    scores, segments = [0.6, 0.9, 0.9, 0.7, 0.7, 0.0], masks_of('#.....', '.##...', '...##.')
    chosen = {'min_evidence': 0.3, 'reference_area': 0}
    assert find(scores, segments, **chosen)[0] == [0, 1, 1, 2, 2, 0]
    score = torch.tensor([scores, [0.0] * 6, [0.0] * 6, scores])
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 0, 1:3] = masks[1, 3, 1:3] = True  # feet at 1/4 and 1
    taken = options(min_area=3, reference_area=0, far_area=0.5, horizon=0.25)
    found = propose(Segments(masks=masks), score, threshold=0.5, options=taken)
    assert found.count == 2
    (item,) = objects.find(score, threshold=0.5, options=taken, proposals=found)[2]
    assert item.box == (1, 0, 2, 1)


@pytest.mark.parametrize(
    ('segments', 'numbers'),
    [
        # Half of the component is not more than half: both stay, the segment keeps its pixels.
        (['##....'], [1, 1, 2, 2, 0, 0]),
        # Three of four: the component is replaced, its last pixel is free.
        (['###...'], [1, 1, 1, 0, 0, 0]),
        # A segment that is not strange replaces nothing.
        (['..####'], [1, 1, 1, 1, 0, 0]),
        ([], [1, 1, 1, 1, 0, 0]),
    ],
)
def test_a_component_mostly_in_a_segment_is_replaced_by_it(segments, numbers):
    scores = [0.9, 0.9, 0.8, 0.8, 0.0, 0.0]
    given = (
        masks_of(*segments) if segments else Segments(masks=torch.zeros(0, 1, 6, dtype=torch.bool))
    )
    if segments == ['..####']:
        assert find(scores, given)[0] == [0] * 6
    assert find(scores, given, mode='both')[0] == numbers


def test_coarser_masks_cover_the_image_and_count_its_pixels():
    score = torch.zeros(4, 6)
    score[:2, 2:4] = 0.9
    masks = torch.tensor([[[False, True, False], [False, False, False]]])
    chosen = options(min_area=4, reference_area=0)
    found = propose(Segments(masks=masks), score, threshold=0.5, options=chosen)
    _, _, (item,) = objects.find(score, threshold=0.5, options=chosen, proposals=found)
    assert item.box == (2, 0, 2, 2) and item.area == 4


def test_the_order_does_not_depend_on_that_of_the_masks():
    rng = np.random.default_rng(3)
    score = torch.from_numpy(rng.random((20, 30), dtype=np.float32))
    masks = torch.zeros(40, 20, 30, dtype=torch.bool)
    for mask in masks:
        top, left = rng.integers(0, 16), rng.integers(0, 24)
        mask[top : top + rng.integers(2, 6), left : left + rng.integers(2, 6)] = True
    chosen = options()
    lists = []
    for order in (torch.arange(40), torch.from_numpy(rng.permutation(40))):
        found = propose(Segments(masks=masks[order]), score, threshold=0.4, options=chosen)
        lists.append(objects.find(score, threshold=0.4, options=chosen, proposals=found)[2])
    assert len(lists[0]) > 5 and lists[0] == lists[1]


def greedy(masks, iou):
    """The definition: one after the other."""
    kept = []
    for number, mask in enumerate(masks):
        if all((mask & masks[k]).sum() <= iou * (mask | masks[k]).sum() for k in kept):
            kept.append(number)
    return kept


@pytest.mark.parametrize('seed', range(8))
def test_suppression_is_the_greedy_one(seed):
    rng = np.random.default_rng(seed)
    length = rng.integers(0, 30)
    begins, ends = rng.integers(0, 20, length), rng.integers(20, 40, length)
    places = np.arange(40)
    masks = (places >= begins[:, None]) & (places < ends[:, None])
    stays = suppress(torch.from_numpy(masks), 0.6)
    assert stays.nonzero().flatten().tolist() == greedy(masks, 0.6)


def test_a_mode_without_segments_is_refused():
    with pytest.raises(ValueError, match='choose a segment source'):
        objects.find(torch.zeros(2, 2), threshold=0.5, options=options())


def test_through_the_chain(image):
    from road_anomaly_ros.perception.segments import watershed

    settings = {'segmenter': 'synthetic', 'objects.threshold': 0.4, 'objects.min_area': 30}
    pipeline = Pipeline.from_config(settings, **{'objects.mode': 'segments'})
    result = pipeline(image)
    assert result.notes == ()
    index = watershed.load(device='cpu', options=watershed.Options())(result.image).index
    index = torch.nn.functional.interpolate(
        index[None, None].float(), result.size, mode='nearest'
    )[0, 0]
    assert len(result.objects) > 0
    for item in result.objects:
        assert len(index[result.instances == item.id].unique()) == 1
        assert item.score > 0.4


def test_a_source_that_fails_costs_the_segments_only(image, monkeypatch):
    from road_anomaly_ros.perception.segments import _images

    def fail(self, image, prompts=None):
        raise RuntimeError('no room')

    monkeypatch.setattr(_images.Partition, '__call__', fail)
    settings = {'segmenter': 'synthetic', 'objects.threshold': 0.4}
    result = Pipeline.from_config(settings, **{'objects.mode': 'both'})(image)
    assert result.notes == ('objects from segments skipped: no room',)
    expected = Pipeline.from_config(settings)(image)
    assert torch.equal(result.instances, expected.instances)
