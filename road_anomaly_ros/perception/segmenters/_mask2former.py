# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mask2Former's forward pass for inference, over the layers of the transformers model.

Equal to the model's own to rounding, without what only training needs: mask logits are formed once
at the end (inside, only at the size of the attention masks), what depends on the input's size
alone is computed once, batch norms are folded into the convolutions, no attention map is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from road_anomaly_ros.perception.contract import RawOutput
from road_anomaly_ros.perception.engines.base import Constants, PerSize, Size
from road_anomaly_ros.remarks import Remark, one_line

_LEVELS = 3
_PROBE = (64, 64)  # pixels; whatever the forward pass reads of a model, it reads at any size
# The convolutions of a block and the norms behind them, by the attribute that tells the block.
_PAIRS = {
    'convolution': (('convolution', 'normalization'),),
    'conv_stem': (('conv_stem', 'bn1'),),
    'conv_pwl': (('conv_pw', 'bn1'), ('conv_dw', 'bn2'), ('conv_pwl', 'bn3')),
    'conv_dw': (('conv_dw', 'bn1'), ('conv_pw', 'bn2')),
}

Branches = Sequence[tuple[nn.MultiheadAttention, int]]


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Replace each pair of convolution and batch norm by one convolution, in place.

    Pairs are known by their names in transformers' ResNet and in timm's EfficientNet, whose norms
    also hold the activation that follows.
    """
    for block in network.modules():
        kind = next((kind for kind in _PAIRS if hasattr(block, kind)), '')
        for names in _PAIRS.get(kind, ()):
            convolution, norm = (getattr(block, name, None) for name in names)
            if (
                isinstance(convolution, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and norm.running_mean is not None
                and norm.running_var is not None
            ):
                weight, bias = fuse_conv_bn_weights(
                    convolution.weight,
                    convolution.bias,
                    norm.running_mean,
                    norm.running_var,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
                convolution.weight, convolution.bias = weight, bias
                setattr(block, names[1], getattr(norm, 'act', nn.Identity()))
    return network


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention of tokens [B,N,C] on themselves (Zhu et al., eq. 3).

    Points lie innermost, so that sampling, softmax and sum run over contiguous memory.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.heads, self.points = layer.n_heads, layer.n_points
        shape = (self.heads, _LEVELS, self.points, 2)

        def planes(values: torch.Tensor) -> torch.Tensor:
            axes = (0, 1, 3, 2, *range(4, values.ndim + 3))
            return values.detach().unflatten(0, shape).permute(axes).flatten(0, 3)

        offsets, weights = layer.sampling_offsets, layer.attention_weights
        self.weight = nn.Parameter(torch.cat([planes(offsets.weight), weights.weight.detach()]))
        bias = torch.cat([planes(offsets.bias), weights.bias.detach()])
        self.bias = nn.Parameter(bias[None, :, None])
        self.split = offsets.bias.numel()
        self.value_proj, self.output_proj = layer.value_proj, layer.output_proj

    def forward(
        self,
        tokens: torch.Tensor,
        queries: torch.Tensor,
        sizes: Sequence[Size],
        scale: torch.Tensor,
        reference: torch.Tensor,
    ) -> torch.Tensor:
        """Return [B,N,C]; `scale` [L,2,1,1] and `reference` [L,2,1,N] map offsets to -1 .. 1."""
        batch, count, channels = tokens.shape
        values = self.value_proj(tokens).transpose(1, 2).contiguous()
        values = values.view(batch * self.heads, channels // self.heads, count)
        planes = torch.baddbmm(
            self.bias, self.weight.expand(batch, -1, -1), queries.transpose(1, 2)
        ).float()
        offsets, weights = planes.split((self.split, planes.shape[1] - self.split), dim=1)
        offsets = offsets.reshape(batch * self.heads, _LEVELS, 2, self.points, count)
        weights = weights.reshape(batch * self.heads, 1, _LEVELS * self.points, count)
        grid = torch.addcmul(reference, offsets, scale).permute(0, 1, 3, 4, 2)
        weights = weights.softmax(2).split(self.points, dim=2)
        found = torch.zeros_like(values, dtype=grid.dtype)
        start = 0
        for level, (height, width) in enumerate(sizes):
            plane = values[..., start : start + height * width].reshape(
                *values.shape[:2], height, width
            )
            samples = F.grid_sample(
                plane.to(grid.dtype),
                grid[:, level],
                mode='bilinear',
                padding_mode='zeros',
                align_corners=False,
            )
            found += samples.mul_(weights[level]).sum(2)
            start += height * width
        return self.output_proj(found.view(batch, channels, count).transpose(1, 2))


class PixelDecoder(nn.Module):
    """Backbone features to per-pixel mask features and three levels of tokens."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.inner = decoder
        self.attentions = nn.ModuleList(
            DeformableAttention(layer.self_attn) for layer in decoder.encoder.layers
        )

    def forward(
        self, features: Sequence[torch.Tensor], constants: Constants
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return mask features [B,C,h,w] (stride 4) and levels [B,C,h,w] of strides 32, 16, 8."""
        inputs = [
            projection(feature)
            for projection, feature in zip(
                self.inner.input_projections, features[::-1], strict=False
            )
        ]
        sizes = tuple((level.shape[2], level.shape[3]) for level in inputs)
        scale, reference = constants.scale, constants.reference
        positions = torch.cat(
            [
                places + level
                for places, level in zip(constants.places, self.inner.level_embed, strict=True)
            ],
            1,
        )
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in inputs], 1)
        for attention, layer in zip(self.attentions, self.inner.encoder.layers, strict=True):
            moved = attention(tokens, tokens + positions, sizes, scale, reference)
            tokens = layer.self_attn_layer_norm(tokens + moved)
            tokens = layer.final_layer_norm(tokens + layer.fc2(F.relu(layer.fc1(tokens))))
        levels, planes, start = [], tokens.transpose(1, 2), 0
        for height, width in sizes:  # in a form that traces for any size
            part = planes[..., start : start + height * width]
            levels.append(part.reshape(*planes.shape[:2], height, width))
            start += height * width
        return self.inner.mask_projection(self._pyramid(features, levels[-1])), levels

    def _pyramid(self, features: Sequence[torch.Tensor], finest: torch.Tensor) -> torch.Tensor:
        steps = zip(
            self.inner.lateral_convolutions,
            self.inner.output_convolutions,
            features[: self.inner.num_fpn_levels][::-1],
            strict=True,
        )
        for lateral, output, feature in steps:
            side = lateral(feature)
            finest = output(
                side
                + F.interpolate(finest, size=side.shape[-2:], mode='bilinear', align_corners=False)
            )
        return finest


class MaskedAttention(nn.Module):
    """Cross attention of the queries [B,Q,C] to the tokens of one level, in one or two branches.

    Each branch is a `torch.nn.MultiheadAttention` with the sign of the mask logits that it attends
    to: +1 inside the query's own mask (Mask2Former), -1 outside of it (the background branch of
    Mask2Anomaly). A query whose branch sees nothing attends to everything.
    """

    def __init__(self, branches: Branches) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branch for branch, _ in branches)
        self.signs = tuple(sign for _, sign in branches)

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask_logits: torch.Tensor,
    ) -> torch.Tensor:
        """Return the sum of the branches [B,Q,C]; `mask_logits` [B,Q,N] of the previous layer."""
        total: Any = 0
        for branch, sign in zip(self.branches, self.signs, strict=True):
            seen = visible(mask_logits, sign)[:, None]
            total = total + _attend(branch, queries, keys, values, seen)
        return total


def visible(mask_logits: torch.Tensor, sign: int) -> torch.Tensor:
    """Return bool [...,N]: where a query looks inside (+1) or outside (-1) of its mask.

    A logit of exactly 0 is seen from both sides; who sees nothing looks everywhere.
    """
    seen = mask_logits >= 0 if sign > 0 else mask_logits <= 0
    return seen | ~seen.any(-1, keepdim=True)


def _attend(
    layer: Any, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    parts = [
        F.linear(tokens, weight, bias).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for tokens, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
    ]
    found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=seen)
    return layer.out_proj(found.transpose(1, 2).flatten(2))


def _self_attend(layer: Any, queries: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    placed = queries + positions
    parts = [
        projection(tokens).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for projection, tokens in (
            (layer.q_proj, placed),
            (layer.k_proj, placed),
            (layer.v_proj, queries),
        )
    ]
    found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
    return layer.out_proj(found.transpose(1, 2).flatten(2))


class QueryDecoder(nn.Module):
    """Queries that look at the levels in turn and end as class and mask logits."""

    def __init__(
        self, module: Any, classifier: nn.Module, branches: Callable[[Any], Branches]
    ) -> None:
        super().__init__()
        self.inner, self.classifier = module, classifier
        self.layers = module.decoder.layers
        self.attentions = nn.ModuleList(MaskedAttention(branches(layer)) for layer in self.layers)

    def forward(
        self,
        levels: Sequence[torch.Tensor],
        mask_features: torch.Tensor,
        places: Sequence[torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class and mask logits for levels [B,C,h,w] and mask features [B,C,H,W].

        `places` are the sine embeddings [1,N,C] of each level.
        """
        memory = [self._memory(index, level, places[index]) for index, level in enumerate(levels)]
        coarse = [
            F.interpolate(
                mask_features, size=level.shape[-2:], mode='bilinear', align_corners=False
            ).flatten(2)
            for level in levels
        ]
        batch = mask_features.shape[0]
        own_places = self.inner.queries_embedder.weight.expand(batch, -1, -1)
        queries = self.inner.queries_features.weight.expand(batch, -1, -1)
        for index, layer in enumerate(self.layers):
            level = index % _LEVELS
            mask_logits = torch.matmul(self._mask_embedding(queries), coarse[level])
            queries = _decode(
                layer, self.attentions[index], queries, own_places, *memory[level], mask_logits
            )
        normed = self.inner.decoder.layernorm(queries)
        masks = torch.einsum('bqc,bchw->bqhw', self._mask_embedding(queries), mask_features)
        return self.classifier(normed), masks

    def _memory(
        self, index: int, level: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values [B,N,C] of one level."""
        tokens = self.inner.input_projections[index](level).flatten(2).transpose(1, 2)
        values = tokens + self.inner.level_embed.weight[index]
        return values + places, values

    def _mask_embedding(self, queries: torch.Tensor) -> torch.Tensor:
        return self.inner.decoder.mask_predictor.mask_embedder(
            self.inner.decoder.layernorm(queries)
        )


def _decode(
    layer: Any,
    attention: nn.Module,
    queries: torch.Tensor,
    places: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask_logits: torch.Tensor,
) -> torch.Tensor:
    """One layer: masked attention, self attention, two linear layers; norms before or after."""

    def masked(tokens: torch.Tensor) -> torch.Tensor:
        return attention(tokens + places, keys, values, mask_logits)

    def among(tokens: torch.Tensor) -> torch.Tensor:
        return _self_attend(layer.self_attn, tokens, places)

    def forward(tokens: torch.Tensor) -> torch.Tensor:
        return layer.fc2(layer.activation_fn(layer.fc1(tokens)))

    steps = (
        (masked, layer.cross_attn_layer_norm),
        (among, layer.self_attn_layer_norm),
        (forward, layer.final_layer_norm),
    )
    for step, norm in steps:
        before = layer.pre_norm
        queries = queries + step(norm(queries)) if before else norm(queries + step(queries))
    return queries


def masked_branches(layer: Any) -> Branches:
    """Return the one branch of Mask2Former's masked attention."""
    return ((layer.cross_attn, 1),)


class Network(nn.Module):
    """The whole forward pass over a loaded `Mask2FormerForUniversalSegmentation`.

    `folded` changes the model: its batch norms become part of its convolutions.
    """

    def __init__(
        self,
        model: Any,
        branches: Callable[[Any], Branches] = masked_branches,
        *,
        folded: bool = True,
    ) -> None:
        super().__init__()
        pixels = model.model.pixel_level_module
        self.backbone = fold_batch_norms(pixels.encoder) if folded else pixels.encoder
        self.pixel_decoder = PixelDecoder(pixels.decoder)
        self.query_decoder = QueryDecoder(
            model.model.transformer_module, model.class_predictor, branches
        )
        self.channels = int(model.config.feature_size)
        self._constants = PerSize(Constants.of)
        self.eval()

    def forward(self, pixel_values: torch.Tensor, constants: Constants | None = None) -> RawOutput:
        """Return the raw output of normalised images [B,3,H,W].

        `constants` are those of the levels' sizes; without them they are made, and kept.
        """
        features = self.backbone(pixel_values).feature_maps
        if constants is None:
            sizes = tuple(tuple(level.shape[-2:]) for level in features[: -_LEVELS - 1 : -1])
            constants = self._constants(sizes, self.channels, pixel_values.device)
        mask_features, levels = self.pixel_decoder(features, constants)
        classes, masks = self.query_decoder(levels, mask_features, constants.places)
        return RawOutput(classes, masks, mask_features, features)


class PublicForward(nn.Module):
    """The model's own forward pass, slower and with every attention map kept."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> RawOutput:
        """Return the raw output of normalised images [B,3,H,W]."""
        found = self.model(pixel_values=pixel_values, output_hidden_states=True)
        return RawOutput(
            found.class_queries_logits,
            found.masks_queries_logits,
            found.pixel_decoder_last_hidden_state,
            found.encoder_hidden_states,
        )


def fastest(model: Any) -> nn.Module:
    """Return `Network` over a model, its own forward pass where that misses some part of it.

    Other versions of transformers may name parts otherwise; a Remark tells which is missing.
    """
    try:
        with torch.inference_mode():
            Network(model, folded=False)(torch.zeros(1, 3, *_PROBE))
    except (AttributeError, TypeError) as error:
        warnings.warn(
            f'the fast path of Mask2Former does not know transformers {version("transformers")} '
            f"({one_line(error)}); the model's own forward pass is taken, which is slower",
            Remark,
            stacklevel=2,
        )
        return PublicForward(model.eval())
    return Network(model)
