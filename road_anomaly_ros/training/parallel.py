# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes on one machine share a training run.

On a CPU, N processes of one thread beat one process of N threads: a thread pool waits for its
slowest member after every operator, hundreds of times per step, processes once per step.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn


def launch(work: Callable[[int], None], processes: int) -> None:
    """Run `work(rank)` in `processes` forked processes of a group; with one, here and now.

    Forked, so that the data read before is shared. The ValueError of a process is raised here;
    ProcessRaisedException when one fails otherwise.
    """
    if processes == 1:
        work(0)
        return
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, 'said')
        try:
            torch.multiprocessing.start_processes(
                _member,
                (work, processes, f'file://{folder}/group', said),
                nprocs=processes,
                start_method='fork',
            )
        except (
            torch.multiprocessing.ProcessRaisedException,
            torch.multiprocessing.ProcessExitedException,
        ):
            if said.is_file():
                raise ValueError(said.read_text(encoding='utf-8')) from None
            raise


def _member(
    rank: int, work: Callable[[int], None], processes: int, address: str, said: Path
) -> None:
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    dist.init_process_group('gloo', init_method=address, rank=rank, world_size=processes)
    try:
        work(rank)
    except ValueError as error:
        said.write_text(str(error), encoding='utf-8')
        raise
    finally:
        dist.destroy_process_group()


def world() -> tuple[int, int]:
    """Return (rank, number of processes) of this process; (0, 1) outside a group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@torch.no_grad()
def share_step(model: nn.Module) -> None:
    """Average gradients and running statistics over the group: all members stay equal."""
    count = world()[1]
    if count == 1:
        return
    tensors = [p.grad for p in model.parameters() if p.grad is not None]
    tensors += [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= count
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def total(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of `values` over the group."""
    if world()[1] > 1:
        dist.all_reduce(values)
    return values


def agree(flag: bool) -> bool:
    """Return the first member's `flag`, so that all members take the same branch."""
    if world()[1] == 1:
        return flag
    value = torch.tensor([int(flag)])
    dist.broadcast(value, src=0)
    return bool(value.item())
