# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between upload and obstacles nothing waits for the device.

On PyTorch's device `meta` tensors have shapes and no values, so that code written for any device
runs there until it needs a value on the host: `.item()`, `.cpu()`, `bool()`, `nonzero()` and
indexing by a mask all raise. A counter of the operations that copy a value shows that the probe
itself works.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny_models
import torch
from mask_outputs import options_for
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from road_anomaly_ros.perception import arrays, heads, objects
from road_anomaly_ros.perception.contract import (
    FrameResult,
    HostCopies,
    LabelSet,
    MapOutput,
    MaskOutput,
    PixelOutput,
    Segments,
    WindowedOutput,
)
from road_anomaly_ros.perception.drawing import overlay
from road_anomaly_ros.perception.objects import ObjectOptions
from road_anomaly_ros.perception.refinements import REFINEMENTS, RefineContext
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.scorers import SCORERS, evaluate
from road_anomaly_ros.perception.segmenters import SEGMENTERS

META = torch.device('meta')
CLASSES, QUERIES, CHANNELS, SIZE = 4, 6, 3, (40, 56)
LABELS = LabelSet(('road', 'walk', 'car', 'sky'), ((1, 1, 1),) * CLASSES, (0,))
WAITS = {'_local_scalar_dense', 'nonzero', 'masked_select', 'unique2', '_unique2', 'is_nonzero'}


class Waits(TorchDispatchMode):
    """Notes every operation that copies a value to the host or needs one to know a size."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = function._schema.name.partition('::')[2]
        given = [value for value in arguments if isinstance(value, torch.Tensor)]
        away = bool(given) and given[0].device.type != 'cpu'
        # A copy to the device that is not said to go on alone is waited for as well.
        up = name == '_to_copy' and not away and bool(given) and given[0].dim()
        up = up and torch.device(keywords.get('device') or 'cpu').type != 'cpu'
        if up and not keywords.get('non_blocking'):
            self.names.append('up')
        home = (
            name == '_to_copy'
            and torch.device(keywords.get('device') or given[0].device).type == 'cpu'
        )
        masked = name in ('index', 'index_put_', 'index_put') and any(
            value.dtype in (torch.bool, torch.uint8) for value in arguments[1] if value is not None
        )
        if away and (name in WAITS or home or masked):
            self.names.append(name)
        return function(*arguments, **keywords)


def mask_output(device=META, size=SIZE):
    generator = torch.Generator().manual_seed(0)
    return MaskOutput(
        torch.randn(QUERIES, CLASSES + 1, generator=generator).to(device),
        torch.randn(QUERIES, 10, 14, generator=generator).to(device),
        size,
        torch.randn(CHANNELS, 5, 7, generator=generator).to(device),
    )


def outputs_for(scorer):
    kinds = SCORERS[scorer].make.kinds
    if 'map' in kinds:
        return [MapOutput(torch.empty(10, 14, device=META), SIZE)]
    found = []
    if 'mask' in kinds:
        found += [
            mask_output(),
            WindowedOutput((mask_output(size=(20, 20)),) * 2, ((0, 0), (0, 8)), (20, 28), SIZE),
        ]
    if 'pixel' in kinds:
        found.append(PixelOutput(torch.empty(CLASSES, 10, 14, device=META), SIZE))
    return found


@pytest.fixture
def options(scorer, tmp_path):
    """Options under which the scorer accepts the outputs above; a head gets random weights."""
    if not scorer.startswith('head_'):
        return options_for(scorer, CLASSES)
    channels = 0 if scorer == 'head_v1' else CHANNELS
    info = heads.HeadInfo(
        scorer, segmenter='0' * 64, features='pyramid' if channels else '', channels=channels
    )
    grid = scorer == 'head_v3'
    made = heads.GridHead(channels, info.hidden) if grid else info.module()
    heads.save_head(tmp_path / scorer, info, made)
    return {'checkpoint': str(tmp_path / scorer)}


@pytest.mark.parametrize('upsample', ['logits', 'semantic'])
@pytest.mark.parametrize('scorer', SCORERS.names())
def test_no_scorer_waits(scorer, upsample, options):
    kept = Resources(META)
    for output in outputs_for(scorer):
        evaluate(output, scorer, options, resources=kept)  # loading may wait
        with Waits() as waits:
            found = evaluate(output, scorer, options, upsample=upsample, resources=kept)
        assert waits.names == []
        assert found.score.device == found.labels.device == META
        assert tuple(found.score.shape) == tuple(found.labels.shape) == SIZE


def segments(kind):
    if kind == 'masks':
        return Segments(masks=torch.empty(5, *SIZE, dtype=torch.bool, device=META))
    if kind == 'coarse masks':
        return Segments(masks=torch.empty(5, 10, 14, dtype=torch.bool, device=META))
    return Segments(index=torch.empty(10, 14, dtype=torch.int32, device=META))


@pytest.mark.parametrize('kind', ['masks', 'coarse masks', 'index'])
# vlm_points asks in a thread of its own, see test_vlm.py.
@pytest.mark.parametrize('name', sorted(set(REFINEMENTS.names()) - {'vlm_points'}))
def test_no_refinement_waits(name, kind):
    entry = REFINEMENTS[name]
    variants = (
        [{'segment_overlap': 'average'}, {'variance': 'normalised'}]
        if name == 'variance_aware'
        else []
    )
    for changes in [{}, *variants]:
        context = RefineContext(
            torch.empty(3, *SIZE, dtype=torch.uint8, device=META),
            torch.empty(SIZE, dtype=torch.uint8, device=META),
            LABELS,
            lambda *_: segments(kind),
        )
        with Waits() as waits:
            score = entry.make(torch.empty(SIZE, device=META), context, entry.options(**changes))
        assert waits.names == []
        assert score.device == META and tuple(score.shape) == SIZE


@pytest.mark.parametrize('kind', ['mask2former', 'mask2former swin', 'eomt', 'segformer'])
def test_no_network_waits(kind, tmp_path):
    name, _, backbone = kind.partition(' ')
    more = {'backbone': backbone} if backbone else {}
    getattr(tiny_models, name)(tmp_path, **more)
    entry = SEGMENTERS[name]
    network = entry.make(
        str(tmp_path), device=torch.device('cpu'), precision=torch.float32, options=entry.options()
    )._network.to(META)
    side = 32 if name == 'eomt' else 64
    pixels = torch.empty(1, 3, side, side, device=META)
    network(pixel_values=pixels)  # what depends on sizes is made once
    with Waits() as waits, torch.no_grad():
        network(pixel_values=pixels)
    assert waits.names == []


def test_the_probe_sees_copies_to_the_device():
    values = torch.zeros(3)
    with Waits() as waits:
        values.to(META, non_blocking=True)
        assert waits.names == []
        values.to(META)
    assert waits.names == ['up']


@pytest.mark.parametrize(
    ('waiting', 'name'),
    [
        (lambda values: float(values[0]), '_local_scalar_dense'),
        (lambda values: bool((values > 0).any()), '_local_scalar_dense'),
        (lambda values: (values > 0).nonzero(), 'nonzero'),
        (lambda values: values[values > 0], 'index'),
        (lambda values: values.cpu(), '_to_copy'),
        (lambda values: values.tolist(), '_to_copy'),
    ],
)
def test_the_probe_sees_what_waits(waiting, name):
    with Waits() as waits, pytest.raises((RuntimeError, NotImplementedError)):
        waiting(torch.empty(3, device=META))
    assert waits.names[0] == name


class Away(torch.Tensor):
    """A tensor with values that says it lies on META."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=META
        )

    def __init__(self, values):
        self.values = values

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        raise AssertionError(f'{function} outside of Journeys')


class Journeys(TorchDispatchMode):
    """Computes with tensors of the kind above and notes the types of all that move."""

    def __init__(self):
        super().__init__()
        self.up, self.down = [], []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        whole = tree_leaves((arguments, keywords))
        away = any(isinstance(value, Away) for value in whole)
        there = away if keywords.get('device') is None else keywords['device'] == META
        arguments, keywords = tree_map_only(
            Away, lambda value: value.values, (arguments, keywords)
        )
        if 'device' in keywords:
            keywords = {**keywords, 'device': torch.device('cpu')}
        found = function(*arguments, **keywords)
        moved = [value.dtype for value in whole if isinstance(value, torch.Tensor)][:1]
        if there != away and moved:
            (self.up if there else self.down).append(*moved)
        return tree_map_only(torch.Tensor, Away, found) if there else found


def test_a_frame_without_obstacles_brings_nothing_to_the_device():
    with Journeys() as journeys:
        found = objects.find(Away(torch.zeros(SIZE)), threshold=2.0)
    assert journeys.up == [] and len(journeys.down) == 1
    assert found[0].device == found[1].device == META and found[2] == ()
    assert found[0].dtype == torch.bool and found[1].dtype == torch.int32
    assert not found[0].values.any() and not found[1].values.any()


def test_every_map_moves_once_at_most():
    random = np.random.default_rng(0)
    score = torch.from_numpy(random.random((40, 56), np.float32))
    score[8:20, 8:20] = 3.0
    options = ObjectOptions(min_area=9, reference_area=0)
    level = {'threshold': 2.0, 'low_threshold': 1.5, 'options': options}
    expected = objects.find(score, **level)
    with Journeys() as journeys:
        host = HostCopies()
        maps = Away(score), Away(torch.zeros(SIZE, dtype=torch.uint8))
        mask, instances, found = objects.find(maps[0], labels=maps[1], host=host, **level)
        assert mask.device == instances.device == META
        assert len(journeys.down) == 1 and journeys.up == [torch.bool, torch.int32]
        image = Away(torch.zeros(3, *SIZE, dtype=torch.uint8))
        rest = found, LABELS, 'plain', 2.0, 'option', (0.0, 3.0)
        result = FrameResult(image, maps[1], maps[0], mask, instances, *rest, host=host)
        for _ in range(2):
            result = dataclasses.replace(result, stamp=1.0)
            assert np.array_equal(result.array('score'), score)
            assert np.array_equal(result.array('labels'), maps[1].values)
            assert np.array_equal(result.array('mask'), expected[0])
            assert np.array_equal(result.array('instances'), expected[1])
        assert len(journeys.down) == 1
        overlay(result), overlay(result)
        # Besides, a picture once and heat, which is made anew, come down as bytes.
        assert journeys.down[1:] == [torch.uint8] * 3 and len(journeys.up) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('tensor', [False, True])
def test_an_image_may_be_written_to_once_it_was_uploaded(tensor):
    picture = np.full((1024, 2048, 3), 7, np.uint8)
    given = torch.from_numpy(picture).permute(2, 0, 1).pin_memory() if tensor else picture
    torch.cuda._sleep(10**8)  # the copy has to stand in line
    torch.cuda.set_sync_debug_mode('error')
    try:
        there = arrays.upload(given, torch.device('cuda'))
    finally:
        torch.cuda.set_sync_debug_mode('default')
    given[:] = 9
    assert bool((there == 7).all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize(
    'scorer', [name for name in SCORERS.names() if 'mask' in SCORERS[name].make.kinds]
)
def test_no_scorer_waits_on_a_gpu(scorer, options):
    output = mask_output(torch.device('cuda'))
    evaluate(output, scorer, options)  # compiling a kernel may wait
    torch.cuda.set_sync_debug_mode('error')
    try:
        evaluate(output, scorer, options)
    finally:
        torch.cuda.set_sync_debug_mode('default')
