# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes share a training run: those of one machine, or those that torchrun starts.

Every member computes the loss of the whole batch from its own crops: sums and counts are those of
the group (`whole`, `total`), gradients are summed. So the result does not depend on how many
members there are, but for rounding.

On a CPU, N processes of one thread beat one process of N threads: a thread pool waits for its
slowest member after every operator, hundreds of times per step, processes once per step.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def launch(work: Callable[[int], None], processes: int) -> None:
    """Run `work(rank)` in `processes` forked processes of a group; with one, here and now.

    Forked, so that the data read before is shared. The ValueError of a process is raised here;
    ProcessRaisedException when one fails otherwise. Started by torchrun, this process is a member
    of the group that torchrun describes.
    """
    if by_torchrun() or processes == 1:
        with joined():
            work(world()[0])
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


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """While entered this process is a member of the group that torchrun describes, if one does."""
    if not by_torchrun():
        yield
        return
    dist.init_process_group('cpu:gloo,cuda:nccl' if torch.cuda.is_available() else 'gloo')
    try:
        yield
    finally:
        dist.destroy_process_group()


def by_torchrun() -> bool:
    """Tell whether torchrun, or what sets its variables, started this process."""
    return {'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'} <= set(os.environ)


def device_of(name: str) -> str:
    """Return the device of this process: under torchrun each has a GPU of its own."""
    local = os.environ.get('LOCAL_RANK', '0')
    if by_torchrun() and name in ('auto', 'cuda') and torch.cuda.is_available():
        return f'cuda:{local}'
    return name


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
    """Sum gradients, average running statistics over the group: all members stay equal."""
    count = world()[1]
    if count == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    flat = torch.cat([tensor.reshape(-1) for tensor in (*gradients, *buffers)])
    dist.all_reduce(flat)
    flat[sum(tensor.numel() for tensor in gradients) :] /= count
    parts = flat.split([tensor.numel() for tensor in (*gradients, *buffers)])
    for tensor, part in zip((*gradients, *buffers), parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def share_of(count: int) -> range:
    """Return which of `count` items are this member's; all members' together are all of them."""
    rank, members = world()
    return range(rank * count // members, (rank + 1) * count // members)


def slice_of(count: int) -> slice:
    """Return `share_of` as a slice."""
    share = share_of(count)
    return slice(share.start, share.stop)


def total(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of `values` over the group, without gradient."""
    if world()[1] == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def whole(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of `values` over the group with the gradient of this member's part."""
    if world()[1] == 1:
        return values
    return values + (total(values) - values.detach())


def gathered(values: torch.Tensor) -> torch.Tensor:
    """Return the `values` [N] of all members in a row, without gradient; N is the same for all."""
    count = world()[1]
    if count == 1:
        return values.detach()
    parts = [torch.empty_like(values) for _ in range(count)]
    dist.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def agree(flag: bool) -> bool:
    """Return the first member's `flag`, so that all members take the same branch."""
    if world()[1] == 1:
        return flag
    value = torch.tensor([int(flag)])
    dist.broadcast(value, src=0)
    return bool(value.item())


def check_same(told: Mapping[str, Any]) -> None:
    """Raise ValueError where members were told different things, naming the first of them."""
    count = world()[1]
    if count == 1:
        return
    all_told: list[Any] = [None] * count
    dist.all_gather_object(all_told, dict(told))
    for other, values in enumerate(all_told):
        for name, value in all_told[0].items():
            if values.get(name) != value:
                raise ValueError(
                    f'the processes of a run must be started alike: rank {other} has {name} '
                    f'{values.get(name)!r}, rank 0 has {value!r}'
                )


def first_alone(work: Callable[[], None]) -> None:
    """Let the first member do something that the others find done."""
    if world()[1] == 1:
        work()
        return
    if world()[0] == 0:
        work()
    dist.barrier()
