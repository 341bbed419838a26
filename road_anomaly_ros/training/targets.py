# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the segmenter is taught: query k is class k, and says "nothing" where the class is absent.

Mask2Former matches queries to segments anew in every step (Cheng et al., CVPR 2022, section
3.2.1). A small model spends most of its training on that. With semantic targets there is one
segment per class, so the assignment can be fixed: queries become one-vs-all classifiers, which is
also what rejection scores (RbA, EAM) need. On things of no class every query learns to stay away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from road_anomaly_ros.training import label_sets, parallel
from road_anomaly_ros.training.label_sets import IGNORE

TERMS = {'pixel': 1.0, 'binary': 1.0, 'dice': 1.0, 'presence': 0.3, 'auxiliary': 0.3}
ANOMALY = 2.0  # weight of the anomaly's loss beside those of the classes
POSITIVE = 3.0  # weight of a strange pixel beside a normal one
HARDEST, HARD = 0.01, 0.3  # share of the normal pixels that count once more, and how much
COUNT = len(label_sets.CLASSES)
_LEAST = 4  # sure pixels of a class that count as its presence


def class_weights(frequency: Sequence[float] | Tensor, *, power: float = 0.15) -> Tensor:
    """Return float32 [K] proportional to frequency^-power; their mean over pixels is 1."""
    share = torch.as_tensor(frequency, dtype=torch.float64).clamp_min(1e-4)
    weights = share**-power
    return (weights / (weights * share).sum() * share.sum()).float()


class SegmentationLoss(nn.Module):
    """The loss of class and mask logits against codes (see label_sets), for one run."""

    weights: Tensor
    truth: Tensor
    judged: Tensor
    allowed: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        allowed = torch.from_numpy(label_sets.allowed())
        single = allowed.sum(1) == 1
        # What a query is judged on: its own class and the others, but not the members of a set.
        judged = torch.where(single[:, None], True, ~allowed) & allowed.any(1)[:, None]
        self.register_buffer('weights', weights)
        self.register_buffer('truth', (allowed & single[:, None]).T.float().contiguous())
        self.register_buffer('judged', judged.T.float().contiguous())
        self.register_buffer('allowed', allowed)

    def forward(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        codes: Tensor,
        unknown: Tensor,
        auxiliary: Sequence[Mapping[str, Tensor]] = (),
    ) -> Tensor:
        """Return the scalar loss of one batch.

        class_logits [B,19,20], mask_logits [B,19,h,w], codes int64 [B,H,W], `unknown` bool [B,H,W]
        true on things of no class; `auxiliary`: the earlier layers' outputs as transformers names
        them, judged at half their resolution.
        """
        present = self._present(codes)
        full = F.interpolate(
            mask_logits.float(), size=codes.shape[-2:], mode='bilinear', align_corners=False
        )
        parts = self._mask_losses(full, codes, unknown, dice=True)
        parts['presence'] = _presence_loss(class_logits.float(), present)
        if auxiliary:
            few, strange = codes[:, 1::4, 1::4], unknown[:, 1::4, 1::4]
            losses = []
            for layer in auxiliary:
                logits = layer['masks_queries_logits'][..., ::2, ::2].float()
                terms = self._mask_losses(logits, few, strange, dice=False)
                shown = _presence_loss(layer['class_queries_logits'].float(), present)
                losses.append(sum(terms.values()) + TERMS['presence'] * shown)
            parts['auxiliary'] = torch.stack(losses).mean()
        return torch.stack([TERMS[name] * value for name, value in parts.items()]).sum()

    def _present(self, codes: Tensor) -> Tensor:
        """Return bool [B,K]: the class covers at least _LEAST pixels for sure."""
        flat = codes.flatten(1)
        counts = torch.zeros(len(flat), 256, device=codes.device)
        counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))
        return counts[:, :COUNT] >= _LEAST

    def _mask_losses(
        self, logits: Tensor, codes: Tensor, unknown: Tensor, *, dice: bool
    ) -> dict[str, Tensor]:
        """Return the pixel-wise terms of logits [B,K,h,w].

        `pixel`: class-weighted cross-entropy of the K-way softmax, -log of the sum over the
        allowed classes where there are several. `binary`: one-vs-all logistic loss summed over
        classes. `dice`: soft Dice per class over the whole batch (Milletari et al., 2016, with
        p + t as the denominator), mean over the classes present.
        """
        truth = self.truth[:, codes].transpose(0, 1)
        judged = (self.judged[:, codes] + unknown.float()).transpose(0, 1)
        binary = F.binary_cross_entropy_with_logits(logits, truth, weight=judged, reduction='sum')
        counted = parallel.total((judged.amax(1) > 0).sum()).clamp_min(1)
        binary = parallel.whole(binary) / counted
        found = {'pixel': self._pixel(logits, codes), 'binary': binary}
        if dice:
            probability = logits.sigmoid() * judged
            overlap = parallel.whole((probability * truth).sum((0, 2, 3)))
            total = parallel.whole((probability + truth).sum((0, 2, 3)))
            there = parallel.total(truth.sum((0, 2, 3))) > 0
            loss = (1 - (2 * overlap + 1) / (total + 1))[there]
            found['dice'] = loss.sum() / there.sum().clamp_min(1)
        return found

    def _pixel(self, logits: Tensor, codes: Tensor) -> Tensor:
        logs = F.log_softmax(logits, 1)
        single = torch.where(codes < COUNT, codes, IGNORE)
        total = F.nll_loss(logs, single, self.weights, ignore_index=IGNORE, reduction='sum')
        count = self.weights[single[single < COUNT]].sum()
        several = (codes >= COUNT) & (codes != IGNORE)
        if several.any():
            rows = logs.permute(0, 2, 3, 1)[several]
            outside = ~self.allowed[codes[several]]
            total = total - rows.masked_fill(outside, -torch.inf).logsumexp(1).sum()
            count = count + len(rows)
        return parallel.whole(total) / parallel.total(count).clamp_min(1)


def _presence_loss(class_logits: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of class_logits [B,K,K+1]: class k where present, else the last, "nothing"."""
    count = present.shape[1]
    own = torch.arange(count, device=present.device).expand_as(present)
    target = torch.where(present, own, torch.full_like(own, count))
    loss = F.cross_entropy(class_logits.flatten(0, 1), target.flatten(), reduction='sum')
    return parallel.whole(loss) / parallel.total(torch.tensor(float(target.numel())))


def anomaly_loss(logit: Tensor, anomaly: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of the anomaly's logit [B,h,w] against `anomaly` [B,H,W], 255 = ignored.

    Logistic; strange pixels count POSITIVE times their `weight` [B,H,W], and the worst share
    HARDEST of the normal ones once more, since it is those that a ranking stumbles over.
    """
    logit = F.interpolate(
        logit[:, None].float(), size=anomaly.shape[-2:], mode='bilinear', align_corners=False
    )[:, 0]
    valid, strange = anomaly != IGNORE, anomaly == 1
    loss = F.binary_cross_entropy_with_logits(logit, strange.float(), reduction='none')
    scale = torch.where(strange, POSITIVE * weight.float(), 1.0) * valid
    mean = parallel.whole((loss * scale).sum()) / parallel.total(valid.sum()).clamp_min(1)
    return mean + HARD * _worst(loss[valid & ~strange])


def _worst(losses: Tensor) -> Tensor:
    """Return the mean of the HARDEST share of the group's losses [N]; 0 where there is none."""
    everywhere = int(parallel.total(torch.tensor(losses.numel())))
    count = max(1, round(HARDEST * everywhere))
    mine = losses.topk(min(count, losses.numel())).values
    if not everywhere:
        return losses.sum()
    # What is the worst is known once the worst of all members lie side by side.
    padded = F.pad(mine.detach(), (0, count - mine.numel()), value=-torch.inf)
    limit = parallel.gathered(padded).topk(count).values[-1]
    return parallel.whole(mine[mine >= limit].sum()) / count


def head_loss(
    logit: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    positive_weight: float = 10.0,
    ignore_void: bool = True,
) -> Tensor:
    """Return the mean binary cross entropy of logits against targets 0 or 1, any shape.

    Positives count `positive_weight` times. `ignore_void` takes the mean over `valid` pixels,
    sum(l v) / (sum v + 1e-6), as V2's code does; otherwise over all, as V1's does.
    """
    weight = torch.tensor(positive_weight, device=logit.device)
    loss = F.binary_cross_entropy_with_logits(
        logit, target.to(logit.dtype), pos_weight=weight, reduction='none'
    )
    if not ignore_void:
        valid = torch.ones_like(loss)
    count = parallel.total(valid.sum()) + (1e-6 if ignore_void else 0.0)
    return parallel.whole((loss * valid).sum()) / count
