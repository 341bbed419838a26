# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where to ask a promptable model: on a grid, or where the anomaly score is suspicious."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from road_anomaly_ros.perception.contract import Prompts

_WORK_SIDE = 192  # longer side of the map on which maxima are looked for
_SPACING = 4  # cells between neighbouring prompts there
_CONTRAST = 4.0  # deviations above the median that count as suspicious
_BAND = 0.25  # of the way from the threshold to the peak: uncertain below it
_MAD_TO_SIGMA = 1.4826
_ROUNDING = 1e-4  # relative differences below this are none


def grid_points(size: tuple[int, int], per_side: int, device: torch.device) -> torch.Tensor:
    """Return the centres x, y of `per_side`² cells of an image (H, W), [N,2] float32."""
    y, x = (((torch.arange(per_side, device=device) + 0.5) / per_side) * length for length in size)
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), -1).reshape(-1, 2)


def choose_points(prompts: Prompts, size: tuple[int, int], most: int) -> torch.Tensor:
    """Return at most `most` points x, y [N,2] float32 in pixels of an image (H, W); none is fine.

    From a score: its local maxima above the threshold, strangest first, then the uncertain ones
    just below. Without a threshold, suspicious is what stands out of the image's own score.
    """
    if prompts.points is not None:
        limit = prompts.points.new_tensor([size[1] - 1, size[0] - 1], dtype=torch.float32)
        return torch.minimum(prompts.points[:most].float().clamp(min=0), limit)
    score = _reduced(prompts.score)  # type: ignore[arg-type]
    threshold = _threshold(score, prompts.threshold)
    peak = score.max()
    uncertain = threshold - _BAND * (peak - threshold)
    candidates = torch.where(_local_maxima(score) & (score > uncertain), score, -torch.inf)
    values, places = candidates.flatten().topk(min(most, candidates.numel()))
    places = places[(values > -torch.inf) & (peak > threshold)]
    cell = places.new_tensor([score.shape[1], 1])
    rows, columns = places // cell[0], places % cell[0]
    return torch.stack(
        [(columns + 0.5) * (size[1] / score.shape[1]), (rows + 0.5) * (size[0] / score.shape[0])],
        -1,
    )


def _reduced(score: torch.Tensor) -> torch.Tensor:
    """Return the score at working size, smoothed; what is not a number is as strange as can be."""
    score = score.float()
    finite = score.isfinite()
    top = torch.where(finite, score, -torch.inf).max()
    score = torch.where(finite | (score == -torch.inf), score, top).clamp(min=-1e6, max=1e6)
    share = min(1.0, _WORK_SIDE / max(score.shape))
    height, width = (max(1, math.ceil(share * length)) for length in score.shape)
    small = F.adaptive_avg_pool2d(score[None], (height, width))
    return F.avg_pool2d(small, 3, stride=1, padding=1, count_include_pad=False)[0]


def _threshold(score: torch.Tensor, given: float) -> torch.Tensor:
    if not math.isnan(given):
        return score.new_tensor(given)
    middle = score.median()
    contrast = _CONTRAST * _MAD_TO_SIGMA * (score - middle).abs().median()
    return middle + torch.maximum(contrast, _ROUNDING * score.abs().max())


def _local_maxima(score: torch.Tensor) -> torch.Tensor:
    """Return bool [h,w]; on a plateau a fixed ripple below any difference that matters decides."""
    count = score.numel()
    index = torch.arange(count, device=score.device, dtype=torch.float32).view(score.shape)
    ripple = torch.frac(index * 0.618034)
    spread = (score.max() - score.min()).clamp(min=1e-6)
    lifted = score + 1e-4 * spread * ripple
    return F.max_pool2d(lifted[None], 2 * _SPACING + 1, 1, _SPACING)[0] == lifted
