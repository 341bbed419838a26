# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn
from torch.nn import functional

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.segmenters import mask2anomaly
from road_anomaly_ros.perception.segmenters._mask2former import MaskedAttention, visible

CPU = torch.device('cpu')


def load(path, **values):
    return mask2anomaly.load(
        str(path), device=CPU, precision=torch.float32, options=mask2anomaly.Options(**values)
    )


def picture(height, width):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))


def test_golden_global_masked_attention(golden):
    vectors = {
        key: torch.from_numpy(value)
        for key, value in golden('global_masked_attention')['a'].items()
    }
    size = tuple(vectors['target_size'].tolist())
    logits = functional.interpolate(
        vectors['mask_logits'][None], size=size, mode='bilinear'
    ).flatten(2)
    for sign, name in ((1, 'fg'), (-1, 'bg')):
        assert torch.equal(visible(logits, sign)[0], vectors[f'blocked_{name}'] == 0)
    width, heads = vectors['tgt'].shape[1], int(vectors['num_heads'])
    branches = []
    for sign, name in ((1, 'foreground'), (-1, 'background')):
        branch = nn.MultiheadAttention(width, heads)
        prefix = f'w_multihead_attn_{name}_'
        branch.load_state_dict(
            {key: vectors[prefix + key.replace('.', '_')] for key in branch.state_dict()}
        )
        branches.append((branch, sign))
    memory = vectors['memory'][None]
    found = MaskedAttention(branches)(
        (vectors['tgt'] + vectors['query_pos'])[None], memory + vectors['pos'], memory, logits
    )
    out = functional.layer_norm(
        vectors['tgt'] + found[0], (width,), vectors['w_norm_weight'], vectors['w_norm_bias']
    )
    torch.testing.assert_close(out, vectors['out'], atol=1e-5, rtol=0)


class BothBranches(nn.Module):
    """The two attentions of the authors' layer, called as transformers calls its one."""

    def __init__(self, foreground, background):
        super().__init__()
        self.foreground, self.background = foreground, background

    def forward(self, query, key, value, attn_mask, key_padding_mask):
        blocked = attn_mask.bool()
        other = ~blocked
        other &= ~other.all(-1, keepdim=True)
        found = [
            branch(query, key, value, attn_mask=mask)[0]
            for branch, mask in ((self.foreground, blocked), (self.background, other))
        ]
        return found[0] + found[1], None


def tiny(layer_type='bottleneck', background=True):
    from transformers import ResNetConfig

    torch.manual_seed(0)
    model = tiny_models.new_mask2former(
        ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8, 16, 16],
            depths=[2, 1, 1, 1],
            layer_type=layer_type,
            out_features=['stage1', 'stage2', 'stage3', 'stage4'],
        )
    )
    for layer in model.model.transformer_module.decoder.layers:
        if background:
            layer.cross_attn = BothBranches(layer.cross_attn, nn.MultiheadAttention(32, 4))
    return tiny_models.roughen(model)


PREDICTOR, PIXELS = 'sem_seg_head.predictor.', 'sem_seg_head.pixel_decoder.'
RESNET = r'^model\.pixel_level_module\.encoder\.'
DECODER = r'^model\.pixel_level_module\.decoder\.'
QUERIES = r'^model\.transformer_module\.'
LAYER = QUERIES + r'decoder\.layers\.(\d+)\.'
DETECTRON2_NAMES = [
    (rf'{RESNET}embedder\.embedder\.convolution', 'backbone.stem.conv1'),
    (rf'{RESNET}embedder\.embedder\.normalization', 'backbone.stem.conv1.norm'),
    (
        rf'{RESNET}encoder\.stages\.(\d)\.layers\.(\d+)\.',
        lambda m: f'backbone.res{int(m[1]) + 2}.{m[2]}.',
    ),
    (r'\.layer\.(\d)\.convolution', lambda m: f'.conv{int(m[1]) + 1}'),
    (r'\.layer\.(\d)\.normalization', lambda m: f'.conv{int(m[1]) + 1}.norm'),
    (r'\.shortcut\.convolution', '.shortcut'),
    (r'\.shortcut\.normalization', '.shortcut.norm'),
    (rf'{DECODER}encoder\.layers', f'{PIXELS}transformer.encoder.layers'),
    (rf'{DECODER}level_embed', f'{PIXELS}transformer.level_embed'),
    (DECODER, PIXELS),
    (r'input_projections', 'input_proj'),
    (r'mask_projection', 'mask_features'),
    (r'\.(adapter|layer)_1\.0', r'.\1_1'),
    (r'\.(adapter|layer)_1\.1', r'.\1_1.norm'),
    (r'(transformer\.encoder\.layers\.\d+)\.self_attn_layer_norm', r'\1.norm1'),
    (r'(transformer\.encoder\.layers\.\d+)\.final_layer_norm', r'\1.norm2'),
    (r'(transformer\.encoder\.layers\.\d+)\.fc', r'\1.linear'),
    (rf'{LAYER}self_attn\.', rf'{PREDICTOR}transformer_self_attention_layers.\1.self_attn.'),
    (rf'{LAYER}self_attn_layer_norm', rf'{PREDICTOR}transformer_self_attention_layers.\1.norm'),
    (
        rf'{LAYER}cross_attn\.(foreground|background)',
        rf'{PREDICTOR}transformer_cross_attention_layers.\1.multihead_attn_\2',
    ),
    (
        rf'{LAYER}cross_attn\.',
        rf'{PREDICTOR}transformer_cross_attention_layers.\1.multihead_attn.',
    ),
    (rf'{LAYER}cross_attn_layer_norm', rf'{PREDICTOR}transformer_cross_attention_layers.\1.norm'),
    (rf'{LAYER}fc', rf'{PREDICTOR}transformer_ffn_layers.\1.linear'),
    (rf'{LAYER}final_layer_norm', rf'{PREDICTOR}transformer_ffn_layers.\1.norm'),
    (rf'{QUERIES}decoder\.layernorm', f'{PREDICTOR}decoder_norm'),
    (
        rf'{QUERIES}decoder\.mask_predictor\.mask_embedder\.(\d)\.0',
        rf'{PREDICTOR}mask_embed.layers.\1',
    ),
    (rf'{QUERIES}queries_embedder', f'{PREDICTOR}query_embed'),
    (rf'{QUERIES}queries_features', f'{PREDICTOR}query_feat'),
    (rf'{QUERIES}level_embed', f'{PREDICTOR}level_embed'),
    (r'^class_predictor', f'{PREDICTOR}class_embed'),
]


def detectron2_layout(model):
    """The state dict of the same weights as detectron2 names them."""
    state, found = model.state_dict(), {}
    for key, value in state.items():
        if re.search(r'decoder\.layers.*self_attn\.[kv]_proj|num_batches_tracked', key):
            continue
        if re.search(r'transformer_module.*self_attn\.q_proj', key):
            value = torch.cat([state[key.replace('q_proj', f'{name}_proj')] for name in 'qkv'])
            key = key.replace('q_proj.', 'in_proj_')
        for pattern, new in DETECTRON2_NAMES:
            key = re.sub(pattern, new, key)
        found[key] = value
    return found


def save(model, path):
    state = detectron2_layout(model)
    layers = 'sem_seg_head.predictor.transformer_cross_attention_layers'
    state |= {f'{layers}.{i}.fusion_layer.bias': torch.zeros(1) for i in range(4)}
    torch.save({'model': state, 'iteration': 9}, path)


@pytest.mark.parametrize('layer_type', ['bottleneck', 'basic'])
@pytest.mark.parametrize('background', [True, False])
def test_a_detectron2_checkpoint_equals_its_model(tmp_path, layer_type, background):
    model = tiny(layer_type, background)
    save(model, tmp_path / 'model.pth')
    segmenter = load(tmp_path, short_side=64)
    image = picture(64, 96)
    with torch.inference_mode():
        expected = model(pixel_values=segmenter._preprocessing(image[None]))
    output = segmenter([image])[0]
    torch.testing.assert_close(
        output.class_logits, expected.class_queries_logits[0], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        output.mask_logits, expected.masks_queries_logits[0], atol=1e-4, rtol=0
    )


def test_padding_never_reaches_the_masks(tmp_path):
    save(tiny(), tmp_path / 'model.pth')
    # The long side is held at 128: 51.2 rows, stretched to 52 (whole cells) and padded to 64.
    output = load(tmp_path / 'model.pth', short_side=64)([picture(40, 100)])[0]
    assert output.mask_logits.shape == (5, 13, 32)
    assert output.image_size == (40, 100)


def test_labels_and_errors(tmp_path):
    model = tiny()
    state = detectron2_layout(model)
    torch.save(state, tmp_path / 'a.pth')
    assert load(tmp_path).labels.names[0] == 'class 0'
    state['backbone.res2.0.conv9.weight'] = torch.ones(1)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(PipelineError, match=r'1 unexpected .*conv9'):
        load(tmp_path)
    del state['sem_seg_head.predictor.class_embed.weight']
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(PipelineError, match=r'class_embed\.weight'):
        load(tmp_path)
    torch.save(state, tmp_path / 'b.pth')
    with pytest.raises(PipelineError, match='holds 2'):
        load(tmp_path)
    with pytest.raises(PipelineError, match='builtin'):
        load('builtin')
    with pytest.raises(PipelineError, match='no file'):
        load('some/name')
