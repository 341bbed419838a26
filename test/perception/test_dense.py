# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The dense pass in all its forms against golden maps and the materialising reference."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from road_anomaly_ros.perception import dense
from road_anomaly_ros.perception.contract import MaskOutput, PixelOutput, WindowedOutput
from road_anomaly_ros.perception.dense import MaskSource, QueryVectors
from road_anomaly_ros.perception.kernels import cpu
from road_anomaly_ros.perception.registry import options_of
from road_anomaly_ros.perception.scorers import SCORERS, evaluate
from road_anomaly_ros.tools.reference import OF_QUERIES, OF_SEMANTIC, reference_score, semantic_map

REFERENCES = sorted((*OF_SEMANTIC, *OF_QUERIES))
CASES = ('a', 'b', 'allvoid', 'nomask')
PATHS = (
    'torch',
    pytest.param(
        'compiled', marks=pytest.mark.skipif(not cpu.available(), reason='numba is not installed')
    ),
)


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Run the test with the torch blocks and with the compiled loops."""
    if request.param == 'torch':
        monkeypatch.setattr(cpu, 'loops', None)
    return request.param


# Scores of masks that need no weights of their own.
QUERY_OR_SEMANTIC = [
    entry.name
    for entry in SCORERS
    if 'mask' in entry.make.kinds
    and not any(item.name == 'checkpoint' for item in options_of(entry.options))
]


def make_output(queries=7, classes=4, grid=(9, 13), size=(20, 33), scale=4.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    return MaskOutput(
        torch.randn(queries, classes + 1, generator=random) * 2,
        torch.randn(queries, *grid, generator=random) * scale,
        size,
    )


@pytest.mark.parametrize('left', [float('nan'), -3e38, 3e38])
def test_what_lay_in_memory_before_changes_nothing(left):
    """The last rows of an image lie between one mask row and itself."""
    numba = pytest.importorskip('numba', reason='numba is not installed')

    @numba.njit
    def litter(count, value):
        """Leave the value where arrays as the loops ask for are made next."""
        left = [np.full((2, 2, count), value, np.float32) for _ in range(9)]
        return len(left)

    output = make_output(queries=37, grid=(1, 16), size=(4, 64))
    source = MaskSource(output, output.image_size)
    confident = torch.arange(37) % 2 == 0
    litter(37, 0.0)
    expected = evaluate(output, 's2').score, *source.support_overlap(confident)
    for _ in range(5):
        litter(37, left)
        found = (evaluate(output, 's2').score,)
        litter(37, left)
        found += source.support_overlap(confident)
        assert all(map(torch.equal, found, expected))


def all_vectors(source):
    """Every kind of accumulator at once."""
    p = source.probabilities().float()
    queries = len(p)
    accept = torch.linspace(0, 1, queries)
    accept[1::3] = -torch.inf
    chosen = torch.arange(queries) % 2 == 0
    return QueryVectors(
        p[:, :-1],
        keep=True,
        sums={'mass': p[:, :-1].amax(1), 'signed': p[:, 0] - p[:, -1]},
        maxima={'best': p[:, :-1].amax(1), 'none': torch.zeros(queries)},
        votes={'half': (chosen, 0.5), 'low': (~chosen, 0.1)},
        accept=accept,
        temperature=0.3,
        partition=2.0,
        tanh=1.5,
    )


def expected_maps(source, vectors):
    """The accumulators from the stack of all masks."""
    logits = functional.interpolate(source.mask_logits[None], size=source.size, mode='bilinear')[0]
    m = logits.sigmoid()
    semantic = torch.einsum('qk,qhw->khw', vectors.semantic, m)
    maps = {name: torch.einsum('q,qhw->hw', w, m) for name, w in vectors.sums.items()}
    maps |= {name: (w[:, None, None] * m).amax(0) for name, w in vectors.maxima.items()}
    maps |= {
        name: ((m > level) & chosen[:, None, None]).sum(0)
        for name, (chosen, level) in vectors.votes.items()
    }
    active = (m > 0.5) & vectors.accept.isfinite()[:, None, None]
    weight = torch.where(active, (vectors.accept / vectors.temperature)[:, None, None], -torch.inf)
    weight = weight.softmax(0).nan_to_num(0)
    maps['accept'] = (weight * vectors.accept.nan_to_num(neginf=0)[:, None, None]).sum(0)
    maps['covered'] = active.any(0)
    return semantic, maps


def collect(source, vectors):
    """Whole maps of all that the pass hands out, checked to come once per pixel."""
    found, seen = {}, torch.zeros(source.size, dtype=torch.int32)

    def consume(region, block):
        seen[region] += 1
        total, spread = block.partition(vectors.partition)
        maps = {
            **block.maps,
            'partition': total,
            'spread': spread,
            'tanh': block.tanh(vectors.tanh),
            'label': block.label,
            'max_s': block.max_s,
        }
        for name, values in maps.items():
            found.setdefault(name, torch.empty(source.size, dtype=values.dtype))[region] = values
        semantic = found.setdefault('semantic', torch.empty(block.classes, *source.size))
        semantic[:, region[0], region[1]] = block.semantic

    source.visit(vectors, consume)
    assert (seen == 1).all()
    return found


@pytest.mark.parametrize('case', CASES)
def test_semantic_map_and_labels_match_the_published_code(golden, path, case):
    data = golden('semantic_map')[case]
    size = tuple(int(n) for n in data['out_size'])
    output = MaskOutput(
        torch.tensor(data['class_logits']), torch.tensor(data['mask_logits']), size
    )
    for upsample, name in (('logits', 'semantic'), ('semantic', 'semantic_lowres_then_up')):
        semantic = whole_semantic(output, upsample)
        torch.testing.assert_close(semantic, torch.tensor(data[name]), rtol=0, atol=1e-5)
    low = whole_semantic(
        dataclasses.replace(output, image_size=output.mask_logits.shape[1:]), 'logits'
    )
    torch.testing.assert_close(low, torch.tensor(data['semantic_lowres']), rtol=0, atol=1e-5)
    best = torch.tensor(data['semantic']).topk(2, 0).values
    clear = best[0] - best[1] > 1e-6
    labels = evaluate(output, 'plain').labels
    assert torch.equal(labels[clear], torch.tensor(data['argmax'])[clear])


def whole_semantic(output, upsample):
    source = MaskSource(output, output.image_size)
    vectors = QueryVectors(source.probabilities()[:, :-1].float(), keep=True)
    semantic = torch.empty(output.num_classes, *output.image_size)

    def consume(region, block):
        semantic[:, region[0], region[1]] = block.semantic

    (source if upsample == 'logits' else source.low_resolution(vectors)).visit(vectors, consume)
    return semantic


@pytest.mark.parametrize(
    'queries, classes, grid, size',
    [
        (7, 4, (9, 13), (20, 33)),  # no whole ratio
        (30, 11, (9, 40), (36, 160)),  # four times, more than one tile
        (12, 19, (16, 70), (16, 70)),  # no resize
        (5, 3, (40, 300), (13, 140)),  # smaller than the masks
        (1, 1, (1, 1), (1, 1)),
        (3, 2, (1, 5), (7, 300)),
        (2, 254, (3, 3), (5, 5)),
    ],
)
def test_every_accumulator_equals_the_materialising_reference(path, queries, classes, grid, size):
    output = make_output(queries, classes, grid, size)
    source = MaskSource(output, size)
    vectors = all_vectors(source)
    found = collect(source, vectors)
    semantic, expected = expected_maps(source, vectors)
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name].float(), values.float(), rtol=0, atol=1e-5, msg=name
        )
    torch.testing.assert_close(found['semantic'], semantic, rtol=0, atol=1e-5)
    torch.testing.assert_close(found['max_s'], semantic.amax(0), rtol=0, atol=1e-5)
    chosen = found['semantic'].gather(0, found['label'][None].long())[0]
    torch.testing.assert_close(chosen, found['max_s'], rtol=0, atol=0)
    z = (semantic - semantic.amax(0)) / vectors.partition
    torch.testing.assert_close(found['partition'], z.exp().sum(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found['spread'], (z * z.exp()).sum(0), rtol=1e-5, atol=1e-4)
    tanh = (semantic / vectors.tanh).tanh().sum(0)
    torch.testing.assert_close(found['tanh'], tanh, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', REFERENCES)
@pytest.mark.parametrize('scale', (0.1, 4.0, 60.0))
def test_every_score_equals_the_materialising_reference(path, name, scale):
    output = make_output(25, 19, (11, 37), (30, 150), scale)
    score = evaluate(output, name).score
    expected = reference_score(name, output.class_logits, output.mask_logits, output.image_size)
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', REFERENCES)
def test_sums_of_a_hundred_queries_are_those_of_float64(path, name):
    output = make_output(100, 19, (30, 48), (120, 192))
    score = evaluate(output, name).score.double()
    inputs = output.class_logits, output.mask_logits, output.image_size
    exact = reference_score(name, *inputs, torch.float64)
    torch.testing.assert_close(score, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not cpu.available(), reason='numba is not installed')
@settings(max_examples=20, deadline=None)
@given(
    queries=st.integers(0, 9),
    classes=st.integers(1, 6),
    grid=st.tuples(*[st.integers(1, 20)] * 2),
    size=st.tuples(*[st.integers(1, 150)] * 2),
    scale=st.sampled_from((0.1, 5.0, 200.0)),
    seed=st.integers(0, 99),
)
def test_compiled_loops_equal_the_torch_blocks(queries, classes, grid, size, scale, seed):
    source = MaskSource(make_output(queries, classes, grid, size, scale, seed), size)
    vectors = all_vectors(source)
    compiled = collect(source, vectors)
    source._compiled = False
    plain = collect(source, vectors)
    # Where a logit is 0 to rounding, one query more or less is on; such pixels may differ.
    logits = functional.interpolate(source.mask_logits[None], size=size, mode='bilinear')[0]
    steps = torch.tensor([0.5, 0.1]).logit()
    sure = ((logits[:, None] - steps[:, None, None]).abs() > 1e-6 * scale).all(1).all(0)
    for name, values in plain.items():
        if name == 'label':
            continue
        discrete = name in ('half', 'low', 'accept', 'covered')
        ours = compiled[name][sure] if discrete else compiled[name]
        theirs = values[sure] if discrete else values
        torch.testing.assert_close(
            ours.float(), theirs.float(), rtol=2e-5, atol=2e-5 + 1e-6 * scale, msg=name
        )


@pytest.mark.skipif(not cpu.available(), reason='numba is not installed')
@pytest.mark.parametrize('factor', (2, 4, 8))
@pytest.mark.parametrize('scale', (0.1, 8.0, 200.0))
def test_evenly_spaced_rows_equal_the_reference_whatever_the_logits(factor, scale):
    output = make_output(23, 19, (9, 20), (9 * factor, 20 * factor), scale)
    output.mask_logits[::3] *= 0.05  # moderate ones among extreme ones
    score = evaluate(output, 'plain').score
    expected = reference_score('plain', output.class_logits, output.mask_logits, output.image_size)
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('budget', (1, 5_000, 10**9))
def test_the_size_of_the_parts_does_not_matter(path, monkeypatch, budget):
    output = make_output(9, 5, (17, 90), (50, 400))
    expected = evaluate(output, 's2', extras=('s_reject', 's_accept', 'max_s'))
    monkeypatch.setitem(dense._PART_BYTES, 'cpu', budget)
    monkeypatch.setattr(cpu, '_PIXELS', budget)
    result = evaluate(output, 's2', extras=('s_reject', 's_accept', 'max_s'))
    torch.testing.assert_close(result.score, expected.score, rtol=0, atol=1e-6)
    for name, values in expected.extras.items():
        torch.testing.assert_close(result.extras[name], values, rtol=0, atol=1e-6)
    assert torch.equal(result.labels, expected.labels)


@pytest.mark.parametrize('size', [(1024, 2048), (2160, 3840), (7, 100_000)])
def test_no_part_is_larger_than_its_budget(size):
    planes = torch.zeros(100, 3, 5)
    sizes = [values.numel() * 4 for _, values in itertools.islice(dense.walk(planes, size), 3)]
    assert max(sizes) <= dense._PART_BYTES['cpu']
    if cpu.available():
        grid = cpu.Grid.of(planes.shape, size)
        regions = [(rows, grid.columns(tiles)) for rows, tiles in grid.parts(1)]
        pixels = [
            (rows.stop - rows.start) * (across.stop - across.start) for rows, across in regions
        ]
        assert max(pixels) <= cpu._PIXELS and sum(pixels) == size[0] * size[1]


@pytest.mark.skipif(not cpu.available(), reason='numba is not installed')
def test_queries_that_cannot_matter_are_left_out_without_a_trace(monkeypatch):
    output = make_output(40, 19, (12, 60), (48, 240), scale=2.0)
    output.mask_logits[10:] -= 25  # far outside everywhere
    output.mask_logits[20:30, :, :20] += 40  # except on the left
    exact = evaluate(output, 'rba').score
    monkeypatch.setattr(cpu, 'NEGLIGIBLE', 1e-35)
    torch.testing.assert_close(exact, evaluate(output, 'rba').score, rtol=0, atol=40 * 5e-8)


@pytest.mark.parametrize('threads', (1, 2, 5))
def test_the_number_of_threads_does_not_matter(threads):
    output = make_output(9, 5, (17, 90), (50, 400))
    before = torch.get_num_threads()
    expected = evaluate(output, 'max_entropy').score
    try:
        torch.set_num_threads(threads)
        torch.testing.assert_close(
            evaluate(output, 'max_entropy').score, expected, rtol=0, atol=1e-6
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16, torch.float64))
def test_other_precisions_are_computed_in_float32(path, dtype):
    output = make_output()
    other = MaskOutput(
        output.class_logits.to(dtype), output.mask_logits.to(dtype), output.image_size
    )
    rounded = MaskOutput(other.class_logits.float(), other.mask_logits.float(), output.image_size)
    result = evaluate(other, 'rba')
    assert result.score.dtype == torch.float32
    torch.testing.assert_close(result.score, evaluate(rounded, 'rba').score, rtol=0, atol=1e-6)


def test_strided_and_read_only_inputs_are_taken_and_left_alone(path):
    output = make_output()
    wide = torch.zeros(7, 9, 26)
    wide[:, :, ::2] = output.mask_logits
    strided = MaskOutput(output.class_logits.T.contiguous().T, wide[:, :, ::2], output.image_size)
    before = wide.clone()
    torch.testing.assert_close(evaluate(strided, 's2').score, evaluate(output, 's2').score)
    assert torch.equal(wide, before)


def test_an_error_in_an_epilogue_reaches_the_caller(path):
    output = make_output(size=(300, 400))
    source = MaskSource(output, output.image_size)
    vectors = QueryVectors(source.probabilities()[:, :-1].float())

    def broken(block):
        raise RuntimeError('epilogue failed')

    with pytest.raises(RuntimeError, match='epilogue failed'):
        dense.run(source, vectors, broken, ('score',))


def test_pixel_models_feed_the_same_epilogues():
    logits = torch.randn(5, 9, 13)
    result = evaluate(PixelOutput(logits, (20, 33)), 'max_logit')
    large = functional.interpolate(logits[None], size=(20, 33), mode='bilinear')[0]
    torch.testing.assert_close(result.score, -large.amax(0), rtol=0, atol=1e-5)
    assert torch.equal(result.labels.long(), large.argmax(0))


@pytest.mark.parametrize('name', QUERY_OR_SEMANTIC)
def test_the_cheap_order_stays_near_the_exact_one(name):
    smooth = functional.interpolate(torch.randn(1, 12, 3, 4) * 4, size=(24, 32), mode='bilinear')[
        0
    ]
    output = MaskOutput(torch.randn(12, 20) * 3, smooth, (48, 64))
    exact, cheap = (
        evaluate(output, name, upsample=order).score for order in ('logits', 'semantic')
    )
    assert (exact - cheap).abs().mean() < 0.02
    at_native = dataclasses.replace(output, image_size=(24, 32))
    same = [evaluate(at_native, name, upsample=order).score for order in ('logits', 'semantic')]
    torch.testing.assert_close(*same, rtol=0, atol=1e-5)


def test_learned_heads_get_features_at_image_resolution(path):
    output = make_output()
    source = MaskSource(output, output.image_size)
    features = torch.randn(3, 4, 5)
    vectors = QueryVectors(source.probabilities()[:, :-1].float(), keep=True, features=features)
    large = functional.interpolate(features[None], size=output.image_size, mode='bilinear')[0]
    semantic = semantic_map(output.class_logits, output.mask_logits, output.image_size)

    def head(block):
        return {'score': block.semantic.sum(0) + block.features.resized().sum(0)}

    _, maps = dense.run(source, vectors, head, ('score',))
    torch.testing.assert_close(maps['score'], semantic.sum(0) + large.sum(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize('sanitize', [True, False])
def test_more_classes_than_fit_a_byte_keep_their_numbers(sanitize):
    classes = torch.full((2, 301), -9.0)
    classes[0, 299], classes[1, 7] = 9.0, 9.0
    masks = torch.full((2, 1, 2), -9.0)
    masks[0, 0, 0], masks[1, 0, 1] = 9.0, 9.0
    found = evaluate(MaskOutput(classes, masks, (1, 2)), 'plain', sanitize=sanitize)
    assert found.labels.tolist() == [[299, 7]]
    whole = WindowedOutput((MaskOutput(classes, masks, (1, 2)),), ((0, 0),), (1, 2), (1, 2))
    assert evaluate(whole, 'plain', sanitize=sanitize).labels.tolist() == [[299, 7]]
    logits = classes[:, :300].T[:, None].contiguous()
    assert evaluate(PixelOutput(logits, (1, 2)), 'max_logit').labels.tolist() == [[299, 7]]
    byte = evaluate(MaskOutput(classes[:, :256], masks, (1, 2)), 'plain').labels
    assert byte.dtype == torch.uint8 and int(byte[0, 1]) == 7
