# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A network's forward pass as a CUDA graph: recorded once for each shape of input, then replayed.

A large network is a thousand kernels, which Python launches more slowly than a GPU computes the
smaller ones. A graph launches them all at once, from memory of its own. It is only replayed where
it said, of an image that it was not recorded with, what the network says; else, and wherever
recording fails, the network runs as it always did.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from road_anomaly_ros.perception.resources import Resources, is_out_of_memory

KIND = 'cuda_graph'  # among what resources keep, and among their faults
KEPT = 4  # graphs, each of which holds the memory of a forward pass
IDLE = 64  # images after which a graph that none of them needed makes room for another
AGAIN = 2  # images of a shape that make it worth a graph
_SHAPES = 64  # of which it is known how often they came
_WARM_UP = 3  # passes before recording, in which libraries choose their kernels
_TOLERANCE = 0.02  # parts of the largest value; a graph that reads what is gone errs by all of it

Forward = Callable[..., Sequence[Tensor]]
Key = tuple[Hashable, ...]

_resources: ContextVar[Resources | None] = ContextVar('resources of graphs', default=None)
_recording = threading.Lock()  # torch records one graph at a time in a process


def available(device: torch.device) -> bool:
    """Tell whether a device has graphs."""
    return device.type == 'cuda'


@contextmanager
def allowed(resources: Resources, wanted: bool) -> Iterator[None]:
    """Let `run` replay graphs, which `resources` keep; those that are not wanted are let go of."""
    if not wanted:
        resources.drop(KIND)
    token = _resources.set(resources if wanted else None)
    try:
        yield
    finally:
        _resources.reset(token)


def run(network: object, forward: Forward, pixels: Tensor, *fixed: Hashable) -> Sequence[Tensor]:
    """Return forward(pixels, *fixed), tensors of the caller's own; by replay where allowed.

    `forward` runs `network`, depends on the values of `pixels` alone and decides nothing by them.
    """
    resources = _resources.get()
    device = pixels.device
    if resources is None or not available(device) or not isinstance(network, nn.Module):
        return forward(pixels, *fixed)
    if resources.refuses(KIND):
        return forward(pixels, *fixed)
    return resources.get(KIND, device, Graphs)(resources, forward, pixels, *fixed)


class Graphs:
    """The graphs of one pipeline, those of the last shapes that came more than once."""

    def __init__(self) -> None:
        self._kept: dict[Key, _Graph] = {}  # that used last comes last
        self._seen: dict[Key, int] = {}
        self._images = 0
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(
        self, resources: Resources, forward: Forward, pixels: Tensor, *fixed: Hashable
    ) -> Sequence[Tensor]:
        """Do what `run` does; a failure to record is noted in `resources`."""
        key = (forward, tuple(pixels.shape), pixels.dtype, *fixed)
        with self._lock:
            self._images += 1
            graph = self._kept.pop(key, None)
            try:
                found = (forward if graph is None else graph)(pixels, *fixed)
            except Exception as error:
                if is_out_of_memory(error):  # what was missing may be what graphs hold
                    self._kept.clear()
                raise
            if graph is None and self._is_worth(key) and _recording.acquire(blocking=False):
                try:
                    graph = _recorded(resources, forward, pixels, fixed, found)
                finally:
                    _recording.release()
                if graph is None:
                    self._kept.clear()
            if graph is not None:
                self._kept[key] = graph
                graph.used = self._images
            return found

    def _is_worth(self, key: Key) -> bool:
        """Tell whether a shape came often enough and there is room for its graph."""
        if len(self._seen) >= _SHAPES:
            self._seen.clear()
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] < AGAIN:
            return False
        if len(self._kept) >= KEPT:
            oldest = next(iter(self._kept))
            # More cameras of different sizes than there is room for would record without end.
            if self._images - self._kept[oldest].used < IDLE:
                return False
            del self._kept[oldest]
        return True


def _recorded(
    resources: Resources,
    forward: Forward,
    pixels: Tensor,
    fixed: Sequence[Hashable],
    expected: Sequence[Tensor],
) -> _Graph | None:
    """Return the graph of a forward pass, None and a fault where there can be none."""
    before = sys.exc_info()[1]
    try:
        graph = _Graph(forward, pixels, fixed)
        _refuse_other(graph(pixels), expected)
    except Exception as error:  # of torch, CUDA and its libraries
        first: BaseException = error
        # What ends a recording that has failed fails as well, and says less.
        while first.__context__ not in (None, before):
            first = first.__context__  # type: ignore[assignment]
        resources.fail(KIND, first)
        return None
    return graph


class _Graph:
    """One recorded forward pass, with all that it reads and where it writes."""

    used = 0  # the number of the image that it was last used for

    def __init__(self, forward: Forward, pixels: Tensor, fixed: Sequence[Hashable]) -> None:
        # No picture, so that one that was remembered in the place of the input shows.
        noise = torch.arange(pixels.numel(), device=pixels.device).sin().view(pixels.shape)
        self._pixels = torch.empty_like(pixels).copy_(noise)
        stream, ours = torch.cuda.Stream(pixels.device), torch.cuda.current_stream(pixels.device)
        stream.wait_stream(ours)
        self._graph = torch.cuda.CUDAGraph()
        # Around all, as a recording that fails to begin or to end leaves its stream in force.
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                forward(self._pixels, *fixed)
            # The mode leaves other threads free to load what they like meanwhile.
            record = torch.cuda.graph(
                self._graph, stream=stream, capture_error_mode='thread_local'
            )
            with record, _Read() as read:
                self._found = forward(self._pixels, *fixed)
        ours.wait_stream(stream)
        self._read = read.storages

    def __call__(self, pixels: Tensor, *_: Hashable) -> list[Tensor]:
        """Return what the forward pass gives for other pixels, as copies: a replay overwrites."""
        self._pixels.copy_(pixels)
        self._graph.replay()
        return [part.clone() for part in self._found]


class _Read(TorchDispatchMode):
    """Holds the memory that a pass reads and did not make: a graph knows addresses alone.

    RuntimeError for a pass that reads memory of the host, which is gone when it is replayed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Any] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        given = _tensors((arguments, keywords))
        found = function(*arguments, **keywords)
        made = _tensors(found)
        for part in given:
            if (
                part.device.type == 'cpu'
                and part.dim()
                and any(other.device != part.device for other in made)
            ):
                raise RuntimeError(f'{function} reads memory of the host')
            storage = part.untyped_storage()
            if storage._cdata not in self._made:
                self.storages[storage._cdata] = storage
        self._made.update(part.untyped_storage()._cdata for part in made)
        return found


def _tensors(tree: object) -> list[Tensor]:
    return [part for part in tree_leaves(tree) if isinstance(part, Tensor)]


def _refuse_other(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Raise ValueError where outputs are not those expected."""
    for mine, wanted in zip(found, expected, strict=True):
        mine, wanted = mine.float(), wanted.float()
        largest = float(wanted.nan_to_num(0.0, 0.0, 0.0).abs().max()) if wanted.numel() else 0.0
        if not torch.allclose(mine, wanted, rtol=0.0, atol=_TOLERANCE * largest, equal_nan=True):
            apart = float((mine - wanted).abs().max())
            raise ValueError(
                f'expected what the network says, got {apart:.2g} beside values up to '
                f'{largest:.2g}'
            )
