# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The nouns that travel between the stations of the chain, and what each station must offer.

A scorer and a refinement are records of functions: `scorers/base.py` and `refinements/base.py`,
the former because it speaks of the dense pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

UNLABELLED = 255


class PipelineError(RuntimeError):
    """A model, its weights or the device cannot be used; one line with the remedy."""


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of the known classes, and which of them a vehicle may drive on."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]  # RGB, 0..255
    drivable: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise ValueError(
                f'expected one colour per class, got {len(self.names)} names '
                f'and {len(self.colors)} colours'
            )
        if len(self.names) > UNLABELLED:
            raise ValueError(
                f'expected at most {UNLABELLED} classes, as labels have 8 bits, got '
                f'{len(self.names)}; choose a model of fewer classes'
            )
        for index in self.drivable:
            if not 0 <= index < len(self.names):
                raise ValueError(f'drivable class {index} is outside 0..{len(self.names) - 1}')

    def __len__(self) -> int:
        return len(self.names)


def _check_size(image_size: tuple[int, int]) -> None:
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(
            f'expected image_size (H, W) with both at least 1, got {tuple(image_size)}'
        )


@dataclass(frozen=True)
class Pyramid:
    """Feature maps of several resolutions that stand for all of them, resized to one grid.

    They are kept as they are because a head's 1x1 convolution may come before the resizing.
    """

    levels: tuple[torch.Tensor, ...]  # [C_i, h_i, w_i] each, covering exactly the image
    grid: tuple[int, int]  # (gh, gw)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, gh, gw) of all levels side by side on the grid."""
        return sum(len(level) for level in self.levels), *self.grid


def scales(features: torch.Tensor | Pyramid) -> tuple[torch.Tensor, ...]:
    """Return the maps that features consist of, finest first."""
    return features.levels if isinstance(features, Pyramid) else (features,)


@dataclass(frozen=True)
class MaskOutput:
    """What a mask-based segmenter says about one image; the last class means 'no object'."""

    class_logits: torch.Tensor  # [Q, K+1] float
    mask_logits: torch.Tensor  # [Q, h, w] float, covers exactly the image, padding removed
    image_size: tuple[int, int]  # (H, W) of the camera image
    features: torch.Tensor | Pyramid | None = None  # [C, gh, gw] for learned heads
    kind: ClassVar[Literal['mask']] = 'mask'

    def __post_init__(self) -> None:
        masks, classes = self.mask_logits, self.class_logits
        if (
            masks.ndim != 3
            or classes.ndim != 2
            or len(classes) != len(masks)
            or classes.shape[1] < 2
        ):
            raise ValueError(
                f'expected class_logits [Q,K+1] with K >= 1 and mask_logits [Q,h,w], '
                f'got {tuple(classes.shape)} and {tuple(masks.shape)}'
            )
        if min(masks.shape[1:]) < 1:
            raise ValueError(
                f'expected mask_logits with at least one pixel, got {tuple(masks.shape)}'
            )
        _check_size(self.image_size)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.mask_logits.device

    @property
    def num_queries(self) -> int:
        """Q, the number of queries (0 is allowed)."""
        return int(self.class_logits.shape[0])

    @property
    def num_classes(self) -> int:
        """K, the number of known classes without 'no object'."""
        return int(self.class_logits.shape[1]) - 1


@dataclass(frozen=True)
class WindowedOutput:
    """What a mask-based segmenter says about overlapping windows of a resized image.

    The semantic map (and every other accumulator) of each window, at the window's own size, is
    averaged where windows overlap; the result on `scaled_size` is resized to `image_size`.
    """

    windows: tuple[MaskOutput, ...]  # image_size of each: (h, w) of the window
    offsets: tuple[tuple[int, int], ...]  # (top, left) of each in the resized image
    scaled_size: tuple[int, int]  # (H, W) of the resized image
    image_size: tuple[int, int]  # (H, W) of the camera image
    kind: ClassVar[Literal['mask']] = 'mask'

    def __post_init__(self) -> None:
        if not self.windows or len(self.windows) != len(self.offsets):
            raise ValueError(
                f'expected one offset for each of at least one window, got '
                f'{len(self.windows)} windows and {len(self.offsets)} offsets'
            )
        for window, (top, left) in zip(self.windows, self.offsets, strict=True):
            height, width = window.image_size
            if (
                min(top, left) < 0
                or top + height > self.scaled_size[0]
                or left + width > self.scaled_size[1]
            ):
                raise ValueError(
                    f'window {window.image_size} at {(top, left)} lies outside of '
                    f'{self.scaled_size}'
                )
        _check_size(self.image_size)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.windows[0].device

    @property
    def num_queries(self) -> int:
        """Q, the number of queries of each window."""
        return self.windows[0].num_queries

    @property
    def num_classes(self) -> int:
        """K, the number of known classes without 'no object'."""
        return self.windows[0].num_classes


@dataclass(frozen=True)
class PixelOutput:
    """What a per-pixel segmenter says about one image."""

    logits: torch.Tensor  # [C, h, w] float, covers exactly the image
    image_size: tuple[int, int]  # (H, W) of the camera image
    features: torch.Tensor | None = None  # [F, gh, gw]
    kind: ClassVar[Literal['pixel']] = 'pixel'

    def __post_init__(self) -> None:
        if self.logits.ndim != 3 or min(self.logits.shape) < 1:
            raise ValueError(f'expected logits [C,h,w], got {tuple(self.logits.shape)}')
        _check_size(self.image_size)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.logits.device

    @property
    def num_classes(self) -> int:
        """C, the number of channels."""
        return int(self.logits.shape[0])


@dataclass(frozen=True)
class MapOutput:
    """An anomaly map made by someone else: a score without classes, queries or logits."""

    score: torch.Tensor  # [h, w] float32, covers exactly the image
    image_size: tuple[int, int]  # (H, W) of the camera image
    kind: ClassVar[Literal['map']] = 'map'

    def __post_init__(self) -> None:
        if self.score.ndim != 2 or min(self.score.shape) < 1:
            raise ValueError(f'expected a score [h,w], got {tuple(self.score.shape)}')
        _check_size(self.image_size)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.score.device


Output: TypeAlias = MaskOutput | WindowedOutput | PixelOutput | MapOutput


class Segmenter(Protocol):
    """A network with all of its geometry and normalisation: images as a camera gives them in.

    One file of `segmenters/` each, whose `load(model, *, device, precision, options)` returns it.
    """

    labels: LabelSet  # its known classes
    model_dir: Path | None  # where calibration and heads of the model lie; None without a model
    weights: Path | None  # the file, or the directory, of its weights; None without any
    feature_maps: tuple[str, ...]  # that it can hand on to learned heads

    @property
    def kind(self) -> Literal['mask', 'pixel']:
        """The kind of its outputs."""

    def __call__(
        self, images: Sequence[torch.Tensor], *, features: str = ''
    ) -> Sequence[MaskOutput | WindowedOutput | PixelOutput]:
        """Return one output per uint8 RGB image [3,H,W], covering exactly its field of view.

        `features` names one of `feature_maps` to hand on; '' is what the options say.
        """


class ForeignMaps(Protocol):
    """In the place of a segmenter: takes the score that someone else made of each image."""

    labels: LabelSet
    model_dir: Path | None
    weights: Path | None
    feature_maps: tuple[str, ...]

    @property
    def kind(self) -> Literal['map']:
        """The kind of its outputs."""

    def __call__(
        self, images: Sequence[torch.Tensor], maps: Sequence[torch.Tensor | np.ndarray]
    ) -> Sequence[MapOutput]:
        """Return one output per uint8 RGB image [3,H,W] and map [h,w], higher is stranger."""


@dataclass(frozen=True)
class RawOutput:
    """What a network says about a batch; the mask features are those the masks are made of."""

    class_logits: torch.Tensor  # [B, Q, K+1]
    mask_logits: torch.Tensor  # [B, Q, h, w]
    mask_features: torch.Tensor  # [B, C, h, w]
    stages: Sequence[torch.Tensor]  # [B, C', h', w'] of the backbone, fine to coarse


class Engine(Protocol):
    """What computes a network: torch, or an exported graph in another runtime."""

    def __call__(self, pixels: torch.Tensor) -> RawOutput:
        """Return the raw output of normalised images [B,3,H,W], on their device."""


@dataclass(frozen=True)
class Segments:
    """Class-agnostic regions of one image: a partition (`index`) or overlapping `masks`."""

    masks: torch.Tensor | None = None  # [N, h, w] bool, any resolution, covers the whole image
    index: torch.Tensor | None = None  # [h, w] int32, 0 .. N-1, -1 = in no segment
    scores: torch.Tensor | None = None  # [N] float32 quality, higher is better

    def __post_init__(self) -> None:
        if (self.masks is None) == (self.index is None):
            raise ValueError('expected either masks [N,h,w] or index [h,w], got both or neither')
        given = self.masks if self.masks is not None else self.index
        ndim = 3 if self.masks is not None else 2
        if given is not None and given.ndim != ndim:
            raise ValueError(f'expected masks [N,h,w] or index [h,w], got {tuple(given.shape)}')


@dataclass(frozen=True)
class Prompts:
    """Where a promptable segment source is to look: at points, or where a score is suspicious."""

    score: torch.Tensor | None = None  # [H, W] float, higher is stranger
    threshold: float = math.nan  # suspicious from here on; NaN: by contrast
    points: torch.Tensor | None = None  # [N, 2] float x, y in pixels of the image

    def __post_init__(self) -> None:
        if (self.score is None) == (self.points is None):
            raise ValueError('expected either a score [H,W] or points [N,2], got both or neither')
        if self.score is not None and (self.score.ndim != 2 or min(self.score.shape) < 1):
            raise ValueError(f'expected a score [H,W], got {tuple(self.score.shape)}')
        if self.points is not None and (self.points.ndim != 2 or self.points.shape[1] != 2):
            raise ValueError(f'expected points [N,2], got {tuple(self.points.shape)}')


class SegmentSource(Protocol):
    """Class-agnostic segments of an image, for refinements and obstacles.

    One file of `segments/` each, whose `load(*, device, options, resources)` returns it.
    """

    of_image_only: bool  # prompts change nothing, so that several scores may share segments

    def __call__(self, image: torch.Tensor, prompts: Prompts | None = None) -> Segments:
        """Return the segments of a uint8 RGB image [3,H,W], on its device."""


@dataclass(frozen=True)
class AnomalyObject:
    """One obstacle: a connected region of high score, in pixels of the camera image."""

    id: int  # value in FrameResult.instances, 1 .. n in order of score
    box: tuple[int, int, int, int]  # x, y, width, height
    centroid: tuple[float, float]  # x, y
    area: int  # pixels
    score: float  # mean of the score inside; higher is stranger
    score_max: float
    score_p95: float
    label: int  # most frequent known class on the ring around it, 255 if none
    track_id: int = 0  # the same for one thing before one camera over time, 0 = not tracked
    confirmed: bool = True  # by evidence over time; without tracking one frame is enough
    age_s: float = 0.0  # seconds since its track began
    velocity: tuple[float, float] | None = None  # x, y of its centre in pixels per second
    name: str = ''  # what a vision-language model calls it, '' where none was asked
    distance: float | None = None  # metres over the road, where the camera's place is known


@dataclass(frozen=True)
class Sight:
    """What a tracker is told of one frame: where something may be, and how strange that is."""

    objects: tuple[AnomalyObject, ...]
    evidence: tuple[float, ...]  # log-odds of each to be a thing, 0 for one at the threshold
    stamp: float  # seconds
    size: tuple[int, int]  # (H, W) of the image


class Tracker(Protocol):
    """Follows the things before one camera from frame to frame; has a state.

    One file of `tracking/` each, whose `load(*, options)` returns it.
    """

    next_id: int  # of the next track
    left_out: int  # of the last sight: objects beyond those that can be followed

    def update(self, sight: Sight) -> tuple[AnomalyObject, ...]:
        """Return the objects of a sight, in order, with what is known of their tracks."""


class HostCopies:
    """The host's copies of maps on a device, so that each moves at most once."""

    def __init__(self) -> None:
        # By identity, which tensors outlive here: comparing their values would wait for them.
        self._kept: dict[int, tuple[torch.Tensor, NDArray[Any]]] = {}

    def holds(self, tensor: torch.Tensor) -> bool:
        """Tell whether a map is here already; on the CPU all are."""
        return tensor.device.type == 'cpu' or id(tensor) in self._kept

    def keep(self, tensor: torch.Tensor, array: NDArray[Any]) -> torch.Tensor:
        """Note that `array` holds the values of a map, and return the map."""
        if tensor.device.type != 'cpu':
            self._kept[id(tensor)] = tensor, array
        return tensor

    def __call__(self, tensor: torch.Tensor) -> NDArray[Any]:
        """Return a map as an array that is not to be written to."""
        if not self.holds(tensor):
            self.keep(tensor, tensor.detach().cpu().numpy())
        known = self._kept.get(id(tensor))
        return tensor.detach().numpy() if known is None else known[1]


class Pictures(Protocol):
    """The intermediate pictures of one frame, made when asked for."""

    def draw(self, name: str) -> NDArray[np.uint8]:
        """Return one picture, RGB [H, W, 3]; ValueError where the chain cannot make it."""


@dataclass(frozen=True)
class FrameResult:
    """All that the chain says about one image; tensors lie on the pipeline's device."""

    image: torch.Tensor  # [3, H, W] uint8 RGB, the input
    labels: torch.Tensor  # [H, W] uint8 class ids, 255 = unlabelled
    score: torch.Tensor  # [H, W] float32, higher is stranger
    mask: torch.Tensor  # [H, W] bool, obstacle pixels
    instances: torch.Tensor  # [H, W] int32, 0 = none, else AnomalyObject.id
    objects: tuple[AnomalyObject, ...]
    label_set: LabelSet
    scorer: str
    threshold: float  # of the score, obstacles lie strictly above
    threshold_source: str  # 'option', 'promise', 'calibration' or 'default'
    display_range: tuple[float, float]  # score shown as the dark and the bright end of the heatmap
    stamp: float | None = None  # seconds, as handed in
    timings: Mapping[str, float] = field(default_factory=dict)  # milliseconds per stage
    sanitized: int = 0  # non-finite inputs repaired in this frame
    notes: tuple[str, ...] = ()  # one line per stage that was skipped or failed
    stages: Pictures | None = None  # where the pipeline is told to keep them

    host: HostCopies = field(default_factory=HostCopies, repr=False, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    def array(self, name: str) -> NDArray[Any]:
        """Return the field `name`, 'image' or a map, on the host; it is not to be written to."""
        return self.host(getattr(self, name))
