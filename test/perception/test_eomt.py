# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import tiny_models
import torch

from road_anomaly_ros.perception import scorers
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.segmenters import eomt

CPU = torch.device('cpu')


def load(folder, **values):
    return eomt.load(
        str(folder), device=CPU, precision=torch.float32, options=eomt.Options(**values)
    )


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))


@pytest.fixture(scope='module', params=[True, False], ids=['masked', 'annealed'])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('eomt')
    return folder, tiny_models.eomt(folder, masked=request.param)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp('eomt')
    return folder, tiny_models.eomt(folder)


@pytest.mark.parametrize('size', [(32, 64), (64, 128), (80, 32), (32, 32)])
def test_windows_and_semantic_map_equal_those_of_transformers(checkpoint, size):
    folder, model = checkpoint
    image = picture(*size)
    processor = tiny_models.processor('Eomt', folder)
    inputs = processor(image, return_tensors='pt')
    with torch.inference_mode():
        raw = model(**inputs)
    output = load(folder)([image])[0]
    starts = [int(offset[1]) for offset in inputs['patch_offsets']]
    assert [max(offset) for offset in output.offsets] == starts
    for window, classes, masks in zip(
        output.windows, raw.class_queries_logits, raw.masks_queries_logits, strict=True
    ):
        torch.testing.assert_close(window.class_logits, classes, atol=1e-4, rtol=0)
        torch.testing.assert_close(window.mask_logits, masks, atol=1e-4, rtol=0)
    labels, *scores = tiny_models.semantic_map(
        processor, raw, size, size={'shortest_edge': 32, 'longest_edge': None}
    )
    found = scorers.evaluate(output, 'plain', {}, extras=('max_s',))
    assert (found.labels == labels).float().mean() > 0.999
    if scores:
        torch.testing.assert_close(found.extras['max_s'], scores[0].amax(0), atol=1e-4, rtol=0)


def test_a_batch_says_what_its_images_say_alone(tiny):
    segmenter = load(tiny[0], window_batch=2)
    images = [picture(20, 40, 1), picture(40, 20, 2), picture(20, 40, 3)]
    for image, output in zip(images, segmenter(images), strict=True):
        alone = segmenter([image])[0]
        assert output.offsets == alone.offsets
        for window, other in zip(output.windows, alone.windows, strict=True):
            torch.testing.assert_close(window.mask_logits, other.mask_logits, atol=1e-4, rtol=0)


def test_lower_precision_stays_close(tiny):
    image = picture(32, 48)
    exact = load(tiny[0])([image])[0].windows[0].class_logits
    mixed = (
        eomt.load(str(tiny[0]), device=CPU, precision=torch.bfloat16, options=eomt.Options())(
            [image]
        )[0]
        .windows[0]
        .class_logits
    )
    assert (mixed.softmax(-1) - exact.softmax(-1)).abs().max() < 0.1


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (2160, 3840)])
def test_any_size_goes_through(tiny, size):
    output = load(tiny[0])([picture(*size)])[0]
    assert output.image_size == size
    assert scorers.evaluate(output, 'rba', {}, size=(8, 8)).score.isfinite().all()


def test_a_strip_is_refused_in_one_line(tiny):
    with pytest.raises(ValueError, match='1:32'):
        load(tiny[0])([picture(1, 700)])
    assert len(load(tiny[0], keep_aspect=False)([picture(1, 700)])[0].windows) == 1


def test_features_are_the_patch_tokens(tiny):
    image = picture(32, 32)
    assert load(tiny[0])([image])[0].windows[0].features is None
    window = load(tiny[0], features='encoder')([image])[0].windows[0]
    assert window.features.shape == (32, 4, 4)


def original(model):
    """The state dict of the same weights as the authors' repository names them."""
    block = {
        'attention.out_proj': 'attn.proj',
        'layer_scale1.lambda1': 'ls1.gamma',
        'layer_scale2.lambda1': 'ls2.gamma',
    }
    fixed = {
        'embeddings.cls_token': 'encoder.backbone.cls_token',
        'embeddings.register_tokens': 'encoder.backbone.reg_token',
        'embeddings.position_embeddings.weight': 'encoder.backbone.pos_embed',
        'embeddings.patch_embeddings.projection': 'encoder.backbone.patch_embed.proj',
        'layernorm.': 'encoder.backbone.norm.',
        'query.': 'q.',
        'class_predictor': 'class_head',
        'mask_head.fc1': 'mask_head.0',
        'mask_head.fc2': 'mask_head.2',
        'mask_head.fc3': 'mask_head.4',
        'upscale_block.block': 'upscale',
        'layernorm2d': 'norm',
        'layers.': 'encoder.backbone.blocks.',
    }
    state, found = model.state_dict(), {}
    for key, value in state.items():
        if '.k_proj.' in key or '.v_proj.' in key or key.startswith('criterion'):
            continue
        if '.q_proj.' in key:
            value = torch.cat(
                [state[key.replace('q_proj', name)] for name in ('q_proj', 'k_proj', 'v_proj')]
            )
            key = key.replace('attention.q_proj', 'attn.qkv')
        for old, new in {**block, **fixed}.items():
            key = key.replace(old, new) if old != 'layernorm.' or key.startswith(old) else key
        found[f'network.{key}'] = value[None] if key.endswith('pos_embed') else value
    found['network.encoder.pixel_mean'] = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
    found['network.encoder.pixel_std'] = torch.full((1, 3, 1, 1), 0.25)
    found['criterion.empty_weight'] = torch.ones(5)
    return found


@pytest.fixture
def narrow_heads(monkeypatch):
    """The tiny model has heads of 16 channels instead of 64."""
    monkeypatch.setattr('road_anomaly_ros.perception.segmenters._eomt_layout._HEAD_WIDTH', 16)


@pytest.mark.parametrize('place', ['directory', 'file'])
def test_the_original_layout_is_converted(tiny, tmp_path, narrow_heads, place):
    path = tmp_path / 'pytorch_model.bin'
    torch.save(original(tiny[1]), path)
    image = picture(20, 45)
    segmenter = load(path if place == 'file' else tmp_path)
    output = segmenter([image])[0]
    (tiny[0] / 'preprocessor_config.json').write_text(
        '{"size": {"shortest_edge": 32}, "image_mean": [0.4, 0.5, 0.6],'
        ' "image_std": [0.25, 0.25, 0.25]}'
    )
    expected = load(tiny[0])([image])[0]
    for window, other in zip(output.windows, expected.windows, strict=True):
        torch.testing.assert_close(window.class_logits, other.class_logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(window.mask_logits, other.mask_logits, atol=1e-5, rtol=0)
    assert segmenter.labels.names == ('class 0', 'class 1', 'class 2', 'class 3')


def test_keys_without_counterpart_are_listed(tiny, tmp_path, narrow_heads):
    state = original(tiny[1])
    state['network.encoder.backbone.blocks.0.attn.q_norm.weight'] = torch.ones(3)
    del state['network.mask_head.2.bias']
    torch.save(state, tmp_path / 'pytorch_model.bin')
    with pytest.raises(PipelineError) as caught:
        load(tmp_path)
    assert 'mask_head.fc2.bias' in str(caught.value) and 'q_norm' in str(caught.value)
    del state['network.class_head.weight']
    torch.save(state, tmp_path / 'pytorch_model.bin')
    with pytest.raises(PipelineError, match=r'class_head\.weight'):
        load(tmp_path)


def test_other_models_are_refused(tmp_path):
    tiny_models.mask2former(tmp_path)
    with pytest.raises(PipelineError, match=r"'mask2former', expected one of"):
        load(tmp_path)
