# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the segmenter is taught: query k is class k, and says "nothing" where the class is absent.

Mask2Former matches queries to segments anew in every step (Cheng et al., CVPR 2022, section
3.2.1). A small model from scratch spends most of its training on that. With semantic targets
there is one segment per class, so the assignment can be fixed: queries become one-vs-all
classifiers, which is also what rejection scores (RbA, EAM) need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from road_anomaly_ros.training.data import IGNORE

TERMS = {'pixel': 1.0, 'binary': 1.0, 'dice': 1.0, 'presence': 0.3, 'auxiliary': 0.4}


def class_weights(frequency: Sequence[float] | Tensor, *, power: float = 0.15) -> Tensor:
    """Return float32 [K] proportional to frequency^-power; their mean over pixels is 1."""
    share = torch.as_tensor(frequency, dtype=torch.float64).clamp_min(1e-4)
    weights = share**-power
    return (weights / (weights * share).sum() * share.sum()).float()


def present_classes(labels: Tensor, classes: int, *, least: int = 4) -> Tensor:
    """Return bool [B,K]: the class covers at least `least` pixels of labels [B,h,w]."""
    flat = labels.flatten(1).long()
    counts = torch.zeros(len(flat), 256, device=labels.device).scatter_add_(
        1, flat, torch.ones_like(flat, dtype=torch.float32)
    )
    return counts[:, :classes] >= least


def presence_loss(class_logits: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of class_logits [B,K,K+1]: class k where present, else the last, "nothing"."""
    count = present.shape[1]
    own = torch.arange(count, device=present.device).expand_as(present)
    target = torch.where(present, own, torch.full_like(own, count))
    return F.cross_entropy(class_logits.flatten(0, 1), target.flatten())


def blended_targets(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return soft targets float32 [B,K,h,w] and hard labels int64 [B,h,w] of labels [B,3,h,w].

    `labels` holds first label, second label and share of the first (255 = all). Where two classes
    blend, each is claimed by the square of its share, not the share itself: neither the largest
    mask nor the sum of all (which is what RbA and EAM look at) vouches for such a pixel, and its
    hard label is 255. A pixel whose labels are not both known has all-zero targets.
    """
    first, second, share = labels.long().unbind(1)
    valid = (first != IGNORE) & (second != IGNORE)
    same = first == second
    part = torch.where(same, 1.0, share.float() / 255)
    truth = torch.zeros(len(first), classes, *first.shape[1:], device=labels.device)
    for label, weight in ((first, part), (second, 1 - part)):
        truth.scatter_add_(1, label.clamp_max(classes - 1)[:, None],
                           (weight.square() * valid)[:, None])
    return truth, torch.where(valid & same, first, torch.full_like(first, IGNORE))


def mask_losses(logits: Tensor, truth: Tensor, hard: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return the pixel-wise terms of logits [B,K,h,w] against `truth`, `hard` of blended_targets.

    `pixel`: class-weighted cross-entropy of the K-way softmax, which is what mIoU looks at.
    `binary`: one-vs-all logistic loss summed over classes, which keeps masks low on what no class
    claims. `dice`: soft Dice per class over the whole batch, mean over the classes present
    (Milletari et al., 2016, with p + t as the denominator).
    """
    valid = truth.sum(1, keepdim=True) > 0
    pixel = F.cross_entropy(logits, hard, weight=weights, ignore_index=IGNORE, reduction='sum')
    counted = F.pad(weights, (0, IGNORE + 1 - len(weights)))[hard].sum().clamp_min(1e-6)
    binary = F.binary_cross_entropy_with_logits(logits, truth, reduction='none') * valid
    probability = logits.sigmoid() * valid
    overlap, total = (probability * truth).sum((0, 2, 3)), (probability + truth).sum((0, 2, 3))
    there = truth.sum((0, 2, 3)) > 0
    dice = (1 - (2 * overlap + 1) / (total + 1))[there]
    return {
        'pixel': pixel / counted,
        'binary': binary.sum() / valid.sum().clamp_min(1),
        'dice': dice.sum() / there.sum().clamp_min(1),
    }


def segmentation_loss(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, weights: Tensor,
                      *, auxiliary: Sequence[Mapping[str, Tensor]] = ()) -> Tensor:
    """Return the scalar loss of one batch.

    class_logits [B,K,K+1], mask_logits [B,K,h,w], labels uint8 [B,3,H,W] (see blended_targets),
    weights [K]; `auxiliary`: the earlier layers' outputs as transformers names them, judged at
    their own resolution.
    """
    classes = mask_logits.shape[1]
    truth, hard = blended_targets(labels, classes)
    present = present_classes(hard, classes)
    full = F.interpolate(mask_logits.float(), size=hard.shape[-2:], mode='bilinear',
                         align_corners=False)
    parts = mask_losses(full, truth, hard, weights)
    parts['presence'] = presence_loss(class_logits.float(), present)
    if auxiliary:
        coarse = F.interpolate(labels.float(), size=mask_logits.shape[-2:])
        aims = blended_targets(coarse, classes)
        losses = [_layer_loss(layer, aims, present, weights) for layer in auxiliary]
        parts['auxiliary'] = torch.stack(losses).mean()
    return torch.stack([TERMS[name] * value for name, value in parts.items()]).sum()


def _layer_loss(layer: Mapping[str, Tensor], aims: tuple[Tensor, Tensor], present: Tensor,
                weights: Tensor) -> Tensor:
    parts = mask_losses(layer['masks_queries_logits'].float(), *aims, weights)
    presence = presence_loss(layer['class_queries_logits'].float(), present)
    return parts['pixel'] + parts['binary'] + TERMS['presence'] * presence
