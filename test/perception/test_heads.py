# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly heads: golden vectors, the running form, the scorers, and heads that do not belong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch

from road_anomaly_ros.perception import dense, heads, model_files, scorers
from road_anomaly_ros.perception.contract import MaskOutput, PipelineError, Pyramid, WindowedOutput
from road_anomaly_ros.perception.heads import AnomalyHead, HeadInfo, RunningHead
from road_anomaly_ros.perception.kernels.vectors import Features, Taps
from road_anomaly_ros.perception.pipeline import Pipeline


def tensor(case: dict, name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(case[name]))


def golden_head(case: dict) -> AnomalyHead:
    def key(name: str) -> str:
        parts = name.removeprefix('w_').split('_')
        return f'{"_".join(parts[:-2])}.{parts[-2]}.{parts[-1]}'

    state = {key(name): tensor(case, name) for name in case if name.startswith('w_')}
    channels = state.get('feature_proj.0.weight', torch.zeros(0, 0)).shape[1]
    head = AnomalyHead(channels)
    head.load_state_dict(state)
    return head.eval()


def store(folder: Path, head: AnomalyHead, kind: str = 'head_v2', **changes) -> Path:
    info = HeadInfo(kind, '', 'pyramid' if head.channels else '', head.channels)
    heads.save_head(folder, dataclasses.replace(info, **changes), head)
    return folder


def output_of(case: dict, *, size: tuple[int, int] | None = None) -> MaskOutput:
    return MaskOutput(
        tensor(case, 'class_logits'),
        tensor(case, 'mask_logits'),
        size or tuple(int(length) for length in case['out_size']),
        tensor(case, 'features'),
    )


@pytest.mark.parametrize('kind', ['v1', 'v2'])
@pytest.mark.parametrize('sanitize', [True, False])
def test_scorer_equals_the_authors_classes(golden, tmp_path, kind, sanitize):
    cases = golden('anomaly_heads')
    want = cases[f'a_{kind}']
    folder = store(tmp_path, golden_head(want), f'head_{kind}')
    found = scorers.evaluate(
        output_of(cases['a']),
        f'head_{kind}',
        {'checkpoint': str(folder)},
        extras=['logit'],
        sanitize=sanitize,
    )
    logit = tensor(want, 'logit')
    torch.testing.assert_close(found.extras['logit'], logit, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.score, logit.sigmoid(), atol=1e-4, rtol=0)


def test_descriptor_equals_the_authors(golden):
    cases = golden('anomaly_heads')
    case = cases['a']
    masks = torch.nn.functional.interpolate(
        tensor(case, 'mask_logits')[None], size=tuple(case['out_size'].tolist()), mode='bilinear'
    )
    known = tensor(case, 'class_logits').softmax(-1)[:, :-1]
    semantic = torch.einsum('qk,qhw->khw', known, masks[0].sigmoid())
    found = heads.descriptor(semantic).permute(1, 2, 0)
    torch.testing.assert_close(found, tensor(cases['a_v1'], 'descriptor'), atol=5e-5, rtol=0)


def test_descriptor_by_hand():
    found = heads.descriptor(torch.tensor([[0.0, 0.5, 2.0], [0.0, 0.25, 0.0]]))
    third = -2 * np.log(2) - 1e-7 * np.log(1e-7)
    want = [
        [0, 0.5, 2],
        [2 * 1e-7 * 16.118096, 0.5 * np.log(2) + 0.25 * np.log(4), third],
        [0, 0.75, 2],
        [1, 0.5, -1],
    ]
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float32))


def test_sizes_are_those_of_the_paper():
    sizes = [
        sum(value.numel() for value in AnomalyHead(channels).parameters()) for channels in (0, 768)
    ]
    assert sizes == [2433, 29089]


@pytest.mark.parametrize('compiled', [True, False])
@pytest.mark.parametrize('hidden', [(64, 32), (6, 3)])
def test_running_form_equals_the_module(rng, compiled, hidden, monkeypatch):
    if not compiled:
        monkeypatch.setattr(heads, 'loops', None)
    elif heads.loops is None:
        pytest.skip('numba is not installed')
    torch.manual_seed(0)
    head = AnomalyHead(5, hidden=hidden).eval()
    running = RunningHead(HeadInfo('head_v2', '', 'pyramid', 5, hidden=hidden), head, Path('x'))
    semantic = torch.from_numpy(rng.random((4, 21, 130)).astype(np.float32)) * 1.5
    semantic[:, :3] = 0
    features = torch.from_numpy(rng.normal(size=(5, 7, 9)).astype(np.float32))

    projected = torch.nn.functional.interpolate(
        head.project(features)[None].detach(), size=(21, 130), mode='bilinear'
    )[0]
    with torch.no_grad():
        want = head(heads.descriptor(semantic).flatten(1).T, projected.flatten(1).T)
    found, columns = [], Taps.of(9, 130)
    wide = dense.resize(running.visual(features), Taps.of(7, 7), columns).contiguous()
    for part in (slice(0, 64), slice(64, 130)):
        block = semantic[:, :, part]
        found.append(running.logits(block, Features(wide, Taps.of(7, 21), part)))
    torch.testing.assert_close(torch.cat(found, 1).flatten(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('compiled', [True, False])
@pytest.mark.parametrize('innermost', [True, False], ids=['channels', 'columns'])
def test_a_pyramid_is_projected_like_its_stacked_map(rng, compiled, innermost, monkeypatch):
    if not compiled:
        monkeypatch.setattr(heads, 'loops', None)
    elif heads.loops is None:
        pytest.skip('numba is not installed')
    shapes = ((3, 26, 34), (4, 13, 17), (5, 7, 9), (6, 1, 2), (2, 40, 11))
    levels = [torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
    if innermost:
        levels = [level.permute(1, 2, 0).contiguous().permute(2, 0, 1) for level in levels]
    features = Pyramid(tuple(levels), (13, 17))
    whole = torch.cat(
        [
            torch.nn.functional.interpolate(level[None], size=(13, 17), mode='bilinear')
            for level in levels
        ],
        1,
    )[0]
    torch.testing.assert_close(heads.stacked(features), whole)
    assert features.shape == tuple(whole.shape)
    torch.manual_seed(0)
    head = AnomalyHead(20, projection=24, hidden=(8, 4)).eval()
    running = RunningHead(
        HeadInfo('head_v2', '', 'pyramid', 20, projection=24, hidden=(8, 4)), head, Path('x')
    )
    want = torch.einsum('hp,pyx->hyx', head.mlp[0].weight[:, 4:], head.project(whole)).detach()
    torch.testing.assert_close(running.visual(features), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(running.visual(whole), want, atol=1e-5, rtol=1e-5)
    for level, value in ((0, torch.nan), (2, torch.inf), (3, -torch.inf)):
        levels[level][0, 0, 0] = value
        assert running.visual(features).isfinite().all()
        assert not torch.equal(running.visual(features), want)


def test_windows_are_merged_by_their_mean_logit(golden, tmp_path):
    cases = golden('anomaly_heads')
    folder = store(tmp_path, golden_head(cases['a_v2']))
    part = output_of(cases['a'], size=(16, 24))
    other = dataclasses.replace(part, mask_logits=part.mask_logits.flip(0))
    output = WindowedOutput((part, other), ((0, 0), (0, 12)), (16, 36), (16, 36))
    options = {'checkpoint': str(folder)}
    pair = [
        scorers.evaluate(window, 'head_v2', options, extras=['logit']).extras['logit']
        for window in (part, other)
    ]
    want = torch.cat(
        [pair[0][:, :12], (pair[0][:, 12:] + pair[1][:, :12]) / 2, pair[1][:, 12:]], 1
    )
    found = scorers.evaluate(output, 'head_v2', options).score
    torch.testing.assert_close(found, want.sigmoid(), atol=1e-5, rtol=1e-5)


def test_broken_values_become_a_finite_score(golden, tmp_path):
    cases = golden('anomaly_heads')
    folder = store(tmp_path, golden_head(cases['a_v1']), 'head_v1')
    output = output_of(cases['a'])
    output.mask_logits[3] = float('nan')
    output.class_logits[5, 2] = float('nan')
    found = scorers.evaluate(output, 'head_v1', {'checkpoint': str(folder)})
    assert bool(found.score.isfinite().all()) and int(found.sanitized) > 0


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> Path:
    """A tiny model with heads of both kinds beside it."""
    folder = tmp_path_factory.mktemp('model')
    tiny_models.mask2former(folder)
    torch.manual_seed(1)
    digest = model_files.weights_digest(folder)
    store(folder / 'heads' / 'head_v1', AnomalyHead(), 'head_v1', segmenter=digest)
    # Channels of the pyramid: the backbone's four stages and the pixel decoder's map.
    store(folder / 'heads' / 'head_v2', AnomalyHead(8 + 8 + 16 + 16 + 32), segmenter=digest)
    return folder


@pytest.mark.parametrize('kind', ['head_v1', 'head_v2'])
def test_the_head_beside_the_model_is_the_default(model, image, kind):
    pipeline = Pipeline.from_config(model=str(model), scorer=kind, device='cpu')
    found = pipeline(image)
    assert found.threshold == 0.5 and found.score.shape == image.shape[:2]
    assert float(found.score.std()) > 0


def test_the_scorer_can_change_while_it_runs(model, image):
    """Features are asked for as long as a head needs them, and not longer."""
    pipeline = Pipeline.from_config(model=str(model), scorer='plain', device='cpu')
    plain = pipeline(image).score
    pipeline.reconfigure(pipeline.config.replace({'scorer': 'head_v2'}))
    head = pipeline(image).score
    pipeline.reconfigure(pipeline.config.replace({'scorer': 'plain'}))
    torch.testing.assert_close(pipeline(image).score, plain)
    assert not torch.allclose(head, plain)


def test_labels_do_not_depend_on_the_head(model, image):
    labels = [
        Pipeline.from_config(model=str(model), scorer=name, device='cpu')(image).labels
        for name in ('plain', 'head_v1', 'head_v2')
    ]
    assert torch.equal(labels[0], labels[1]) and torch.equal(labels[0], labels[2])


def test_a_head_of_another_segmenter_is_refused(model, tmp_path):
    folder = store(tmp_path, AnomalyHead(), 'head_v1', segmenter='5' * 64)
    with pytest.raises(
        ValueError,
        match=r'scorers\.head_v1\.checkpoint: .* another segmenter.*'
        'road-anomaly train head',
    ) as caught:
        Pipeline.from_config(
            model=str(model),
            scorer='head_v1',
            device='cpu',
            **{'scorers.head_v1.checkpoint': str(folder)},
        )
    assert '\n' not in str(caught.value)


def test_wrong_kinds_features_and_places_are_refused(model, tmp_path):
    digest = model_files.weights_digest(model)
    store(tmp_path / 'v1', AnomalyHead(), 'head_v1', segmenter=digest)
    store(tmp_path / 'soul', AnomalyHead(8), segmenter=digest, features='soul')
    for kind, folder, message in (
        ('head_v2', 'v1', 'expected a head_v2'),
        ('head_v2', 'soul', "reads the features 'soul'"),
        ('head_v1', 'nowhere', 'found none at'),
    ):
        with pytest.raises(ValueError, match=message):
            Pipeline.from_config(
                model=str(model),
                scorer=kind,
                device='cpu',
                **{f'scorers.{kind}.checkpoint': str(tmp_path / folder)},
            )


def test_a_segmenter_without_features_is_told_so():
    with pytest.raises(ValueError, match='comes without a head_v2'):
        Pipeline.from_config(segmenter='synthetic', scorer='head_v2', device='cpu')


def test_damaged_heads_give_one_line(tmp_path):
    folder = store(tmp_path / 'a', AnomalyHead(), 'head_v1')
    (folder / heads.WEIGHTS).write_bytes(b'nothing')
    with pytest.raises(PipelineError, match='could not be read'):
        heads.load_head(folder)
    folder = store(tmp_path / 'b', AnomalyHead(), 'head_v1', hidden=(8, 8))
    with pytest.raises(PipelineError, match='do not fit'):
        heads.load_head(folder)
    (folder / heads.INFO).write_text(json.dumps({'kind': 'head_v1'}))
    with pytest.raises(PipelineError, match='describes no anomaly head'):
        heads.load_head(folder)


def test_features_that_are_missing_or_others_are_named(golden, tmp_path):
    cases = golden('anomaly_heads')
    folder = store(tmp_path, golden_head(cases['a_v2']))
    output = output_of(cases['a'])
    for features, message in ((None, 'gave none'), (output.features[:3], '24 channels, got 3')):
        with pytest.raises(ValueError, match=message):
            scorers.evaluate(
                dataclasses.replace(output, features=features),
                'head_v2',
                {'checkpoint': str(folder)},
            )


def test_digest_follows_the_weights(tmp_path):
    (tmp_path / 'model.safetensors').write_bytes(b'one')
    first = model_files.weights_digest(tmp_path)
    (tmp_path / 'model.safetensors').write_bytes(b'other')
    assert len(first) == 64 and model_files.weights_digest(tmp_path) != first
    assert model_files.weights_digest(None) == ''


def test_a_head_on_another_device_leaves_the_one_on_the_cpu_alone(tmp_path):
    """After a fallback to the CPU the cached head must still work there."""
    info = heads.HeadInfo('head_v2', '0' * 64, 'pyramid', 3)
    heads.save_head(tmp_path, info, info.module())
    head, features = heads.load_head(tmp_path), torch.ones(3, 2, 2)
    before = head.visual(features)
    assert head.to(torch.device('meta')).visual(features.to('meta')).device.type == 'meta'
    assert torch.equal(head.visual(features), before)
