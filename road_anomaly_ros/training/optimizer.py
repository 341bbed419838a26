# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Two optimisers for one network: Muon for the 3x3 convolutions, AdamW for the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BACKBONE = 0.2  # rate of the pretrained backbone beside that of the rest


class Muon(torch.optim.Optimizer):
    """Momentum whose every update is a nearly orthogonal matrix (Jordan et al., 2024).

    Kernels count as matrices [out, in*k*k]. The update is scaled by 0.2 sqrt(max(out, in*k*k)),
    which gives it the size of an AdamW update (Liu et al., 2025), so that both optimisers follow
    one schedule.
    """

    def __init__(
        self, params, *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {'lr': lr, 'momentum': momentum, 'weight_decay': weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group['params']:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state['momentum'] = torch.zeros_like(weight)
        state['momentum'].lerp_(gradient, 1 - group['momentum'])
        matrix = gradient.lerp(state['momentum'], group['momentum']).flatten(1)
        update = orthogonalise(matrix).reshape(weight.shape)
        weight.mul_(1 - group['lr'] * group['weight_decay'])
        weight.add_(update, alpha=-group['lr'] * 0.2 * max(matrix.shape) ** 0.5)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return [m,n] with all singular values near 1: five Newton-Schulz steps in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.bfloat16() if matrix.shape[0] <= matrix.shape[1] else matrix.T.bfloat16()
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * (square @ square)) @ wide
    return (wide if matrix.shape[0] <= matrix.shape[1] else wide.T).to(matrix.dtype)


def make_optimizers(model: nn.Module, *, rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """Return the optimisers of `model`; norms, biases and query embeddings are not decayed.

    The pretrained backbone moves at a fifth of the rate of the rest.
    """
    kernels, slow, slow_rest, matrices, rest = [], [], [], [], []
    for name, weight in model.named_parameters():
        if '_backbone.' in name:
            (slow if weight.ndim > 1 else slow_rest).append(weight)
        elif weight.ndim == 4 and weight.shape[-1] == 3:
            kernels.append(weight)
        elif weight.ndim > 1 and 'embed' not in name and 'queries' not in name:
            matrices.append(weight)
        else:
            rest.append(weight)
    groups = [
        {'params': matrices, 'weight_decay': decay, 'share': 1.0},
        {'params': slow, 'weight_decay': decay, 'share': _BACKBONE},
        {'params': slow_rest, 'weight_decay': 0.0, 'share': _BACKBONE},
        {'params': rest, 'weight_decay': 0.0, 'share': 1.0},
    ]
    muon = Muon(kernels, lr=2 * rate, weight_decay=decay)
    muon.param_groups[0]['share'] = 2.0
    return [muon, torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))]


def set_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of this step, of which every group takes its share."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group['lr'] = group['share'] * rate
