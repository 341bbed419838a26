# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The scores as their authors compute them, stack of masks and all: what ours is measured against.

Every mask is resized to the image, every sigmoid is stored, every score reads the whole semantic
map. This is for benchmarks and tests only; the chain itself never does it. In float32 it errs as
much as what it shall judge (sums of a hundred masks by 1e-5), so that values are compared with
its float64 form, and times with its float32 form.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-8


def upsampled_masks(
    mask_logits: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return mask probabilities [Q,H,W]: logits resized bilinearly, then the sigmoid."""
    logits = functional.interpolate(
        mask_logits.to(dtype)[None], size=size, mode='bilinear', align_corners=False
    )[0]
    return logits.sigmoid()


def semantic_map(
    class_logits: Tensor,
    mask_logits: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return S [K,H,W], the sum over queries of class probability times mask probability."""
    known = class_logits.to(dtype).softmax(-1)[:, :-1]
    return torch.einsum('qk,qhw->khw', known, upsampled_masks(mask_logits, size, dtype))


def reference_score(
    name: str,
    class_logits: Tensor,
    mask_logits: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the score `name` with its default options [H,W]; KeyError if unknown."""
    if name in OF_SEMANTIC:
        return OF_SEMANTIC[name](semantic_map(class_logits, mask_logits, size, dtype))
    probabilities = class_logits.to(dtype).softmax(-1)
    return OF_QUERIES[name](probabilities, upsampled_masks(mask_logits, size, dtype))


def _entropy(semantic: Tensor) -> Tensor:
    q = semantic.softmax(0).clamp_min(1e-12)
    return -(q * q.log()).sum(0) / max(float(torch.tensor(float(len(q))).log()), 1e-30)


def _s2_reject(probabilities: Tensor, masks: Tensor) -> Tensor:
    return 1 - (masks * probabilities[:, :-1].amax(1)[:, None, None]).amax(0)


def _eam(probabilities: Tensor, masks: Tensor) -> Tensor:
    return 1 - (masks * probabilities[:, :-1].amax(1)[:, None, None]).sum(0)


def _s2(probabilities: Tensor, masks: Tensor) -> Tensor:
    known = probabilities[:, :-1].double()
    p_fg = known / (known.sum(1, keepdim=True) + EPS)
    classes = torch.tensor(float(known.shape[1]), dtype=torch.float64)
    entropy = (
        -(p_fg * (p_fg + EPS).log()).sum(1) / classes.log()
        if known.shape[1] > 1
        else 0 * known[:, 0]
    )
    entropy = entropy.clamp(0, 1)
    support = masks > 0.5
    region = support[entropy < 0.01].any(0)
    overlap = (support & region).sum((1, 2)) / (support.sum((1, 2)) + EPS)
    adjusted = (entropy * (1 - overlap))[:, None, None]
    weight = torch.where(support, adjusted, -torch.inf).softmax(0).nan_to_num(0)
    accept = (weight * adjusted).sum(0)
    return (0.6 * _s2_reject(probabilities, masks) + 0.4 * accept).to(masks.dtype)


def _maskomaly(probabilities: Tensor, masks: Tensor) -> Tensor:
    best, label = probabilities.max(1)
    known = label < probabilities.shape[1] - 1
    sure = (known & (best > 0.7)).float() * best
    reject = 1 - (masks * sure[:, None, None]).amax(0)
    border = ((masks > 0.1) & known[:, None, None]).sum(0) >= 2
    return reject.masked_fill(border, 0.0)


def _mask2anomaly(probabilities: Tensor, masks: Tensor) -> Tensor:
    best, label = probabilities.max(1)
    kept = (best > 0.95) & (label > 1) & (label < 11)
    stuff = (best * kept)[:, None, None] * masks
    semantic = torch.einsum('qk,qhw->khw', probabilities[:, :-1], masks)
    score = 1 - torch.cat([semantic, stuff]).amax(0)
    return score * ~(stuff.amax(0) >= 0.5) if kept.sum() > 1 else score


OF_SEMANTIC: dict[str, Callable[[Tensor], Tensor]] = {
    'plain': lambda s: 1 - s.amax(0),
    'msp': lambda s: 1 - s.softmax(0).amax(0),
    'max_logit': lambda s: -s.amax(0),
    'max_entropy': _entropy,
    'rba': lambda s: -s.tanh().sum(0),
    'rba_s1': lambda s: -s.relu().tanh().sum(0),
    'nls': lambda s: -s.sum(0),
    'energy': lambda s: -s.logsumexp(0),
}
OF_QUERIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    's2_reject': _s2_reject,
    'eam': _eam,
    's2': _s2,
    'maskomaly': _maskomaly,
    'mask2anomaly': _mask2anomaly,
}
