# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly heads: small networks that turn what a frozen segmenter says into a score.

V1 reads four statistics of the semantic map, V2 also the segmenter's features (EoMT study, 3.4,
sizes as in its authors' code). A head belongs to the weights that it was trained on.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from road_anomaly_ros import files
from road_anomaly_ros.perception.contract import PipelineError, Pyramid, scales
from road_anomaly_ros.perception.kernels import cpu
from road_anomaly_ros.perception.kernels.vectors import Features, Taps
from road_anomaly_ros.perception.model_files import weights_digest
from road_anomaly_ros.perception.resources import Stamp, stamp
from road_anomaly_ros.perception.weights import load_state, read_state

try:
    from road_anomaly_ros.perception.kernels import perceptron as loops
except ImportError:  # numba is an optional dependency
    loops = None  # type: ignore[assignment]

WEIGHTS, INFO = 'head.safetensors', 'head.json'
FOLDER = 'heads'  # beside the model's weights, one folder per kind of head
KINDS = ('head_v1', 'head_v2', 'head_v3')
STATISTICS = 4
_STRANGE = 1e4  # the logit of a cell that is not finite
_CELLS = 2048  # that a thread takes at a time
_WIDEST = 1 << 16  # a layer, in channels
_LEAST = 1e-7  # of a class value inside the logarithm


def descriptor(semantic: Tensor) -> Tensor:
    """Return the four statistics [4,...] of a semantic map [K,...] (S >= 0, not normalised).

    max_k S_k; -sum_k c_k log c_k with c = max(S_k, 1e-7), negative where S_k > 1; sum_k S_k;
    1 - max_k S_k. EoMT study, section 3.4.1, without its second softmax (as in the code).
    """
    peak, entropy, total = _statistics(semantic)
    return torch.stack([peak, entropy, total, 1 - peak])


def _statistics(semantic: Tensor) -> Tensor:
    clamped = semantic.clamp_min(_LEAST)
    entropy = torch.linalg.vecdot(clamped, clamped.log(), dim=0).neg_()
    return torch.stack([semantic.amax(0), entropy, semantic.sum(0)])


def resized(features: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return features [C,h,w] on another grid, float32, bilinear with half-pixel centres."""
    if tuple(features.shape[1:]) == grid:
        return features.float()
    # The batch of one must have a stride by which torch sees that channels lie innermost.
    batch = features.float().permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, size=grid, mode='bilinear')[0]


def stacked(features: Tensor | Pyramid) -> Tensor:
    """Return features as one map [C,gh,gw], the levels of a pyramid resized and side by side."""
    if not isinstance(features, Pyramid):
        return features
    return torch.cat([resized(level, features.grid) for level in features.levels])


class AnomalyHead(nn.Module):
    """Per-pixel MLP over the statistics, and over projected features where `channels` > 0.

    `channels` is that of the features, `projection` the channels they are reduced to by a 1x1
    convolution and a ReLU at their own resolution, `hidden` the widths of the two hidden layers.
    """

    feature_proj: nn.Sequential
    mlp: nn.Sequential

    def __init__(
        self,
        channels: int = 0,
        *,
        projection: int = 32,
        hidden: tuple[int, int] = (64, 32),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels = channels
        if channels:
            self.feature_proj = nn.Sequential(nn.Conv2d(channels, projection, 1), nn.ReLU())
        inputs = STATISTICS + (projection if channels else 0)
        self.mlp = nn.Sequential(
            nn.Linear(inputs, hidden[0]),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden[1], 1),
        )

    def project(self, features: Tensor) -> Tensor:
        """Return the projected features [P,gh,gw] of [C,gh,gw], to be resized to the map."""
        weight, bias = self.feature_proj.parameters()
        tokens = features.flatten(1).T.float()  # a view where channels lie innermost
        found = F.linear(tokens, weight[:, :, 0, 0], bias).relu()
        return found.T.unflatten(1, features.shape[1:])

    def forward(self, statistics: Tensor, projected: Tensor | None = None) -> Tensor:
        """Return the logit [N] of pixels with `statistics` [N,4] and `projected` [N,P]."""
        inputs = statistics if projected is None else torch.cat([statistics, projected], -1)
        found: Tensor = self.mlp(inputs)
        return found.squeeze(-1)


class GridHead(nn.Module):
    """Per-cell MLP over features [B,C,h,w] alone; its logit is resized as mask logits are.

    Ours, after the EoMT study's V2 (section 3.4.2), for features that are trained together with
    it: then they say what the statistics of the semantic map would add.
    """

    HIDDEN = (64, 32)

    def __init__(self, channels: int, hidden: tuple[int, int] = HIDDEN) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden[0], 1),
            nn.ReLU(),
            nn.Conv2d(hidden[0], hidden[1], 1),
            nn.ReLU(),
            nn.Conv2d(hidden[1], 1, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the logit [B,1,h,w] of features [B,C,h,w]; higher is stranger."""
        found: Tensor = self.mlp(features)
        return found


@dataclasses.dataclass(frozen=True)
class HeadInfo:
    """What head.json says: sizes, the features that are read, the weights the head belongs to."""

    kind: str  # one of KINDS
    segmenter: str  # SHA-256 of the segmenter's weights
    features: str = ''  # name of the segmenter's map, '' for V1
    channels: int = 0
    projection: int = 32
    hidden: tuple[int, int] = (64, 32)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def module(self, dropout: float = 0.1) -> AnomalyHead:
        """Return a head of these sizes with fresh weights."""
        return AnomalyHead(
            self.channels, projection=self.projection, hidden=self.hidden, dropout=dropout
        )


def _compiled(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Any, ...]:
    """Return weights and biases of three layers for the compiled loops, () where there are none.

    Both hidden layers are rounded up to whole groups of four.
    """
    (first, bias), (second, second_bias), (last, last_bias) = layers
    if loops is None or first.device.type != 'cpu':
        return ()
    more, too = -len(bias) % 4, -len(second_bias) % 4
    parts = (
        F.pad(torch.cat([first, bias.view(-1, 1)], 1), (0, 0, 0, more)),
        F.pad(second, (0, more, 0, too)),
        F.pad(second_bias.flatten(), (0, too)),
        F.pad(last[0], (0, too)),
    )
    arrays = [part.contiguous().numpy() for part in parts]
    return loops.Layers(*[*arrays, last_bias.flatten().numpy()[0]])


class RunningHead:
    """A loaded head, arranged for the blocks of the dense pass.

    What the features add to the first hidden layer is computed at their own resolution: resizing
    and the layer are both linear, so that their order does not matter before the ReLU.
    """

    reads_semantic = True

    def __init__(self, info: HeadInfo, head: AnomalyHead, source: Path) -> None:
        self.info, self.source = info, source
        self._head = head.eval().requires_grad_(False)
        state = {name: value.detach().float() for name, value in head.state_dict().items()}
        weight = state['mlp.0.weight']
        # 1 - peak is no statistic of its own for a linear layer.
        self._first = torch.cat([(weight[:, 0] - weight[:, 3])[:, None], weight[:, 1:3]], 1)
        self._bias = state['mlp.0.bias'] + weight[:, 3]
        self._visual = weight[:, STATISTICS:].contiguous()
        self._second, self._second_bias = state['mlp.3.weight'], state['mlp.3.bias']
        self._last, self._last_bias = state['mlp.6.weight'], state['mlp.6.bias']
        rest = (self._second, self._second_bias), (self._last, self._last_bias)
        self._compiled = _compiled([(self._first, self._bias), *rest])
        if info.channels:
            self._projection = self._wide(state['feature_proj.0.weight'][:, :, 0, 0].T)
            self._projection_bias = self._wide(state['feature_proj.0.bias'])

    def _wide(self, columns: Tensor) -> Tensor:
        """Return columns [...,P] in whole vectors where the compiled product takes them."""
        return F.pad(columns, (0, -columns.shape[-1] % 16 if self._compiled else 0)).contiguous()

    @property
    def device(self) -> torch.device:
        """Where the head computes."""
        return self._first.device

    def to(self, device: torch.device) -> RunningHead:
        """Return the head on `device`; this one stays where it is, for a fallback to the CPU."""
        if self._first.device == device:
            return self
        return RunningHead(self.info, copy.deepcopy(self._head).to(device), self.source)

    def visual(self, features: Tensor | Pyramid | None) -> Tensor | None:
        """Return what features [C,gh,gw] add to the first layer, [h1,gh,gw]; None for V1.

        On the CPU h1 is rounded up to whole groups of four. A cell that is not finite adds 0.

        ValueError where the segmenter gave none or others than the head was trained on.
        """
        if not self.info.channels:
            return None
        features = check_features(self.info, self.source, features)
        projected = self._project(features)[:, : self.info.projection]
        added = (self._visual @ projected.T).nan_to_num(0.0)
        more = -len(added) % 4 if self._compiled and added.device.type == 'cpu' else 0
        return F.pad(added, (0, 0, 0, more)).unflatten(1, features.shape[1:])

    def _project(self, features: Tensor | Pyramid) -> Tensor:
        """Return what the head's method `project` does, [gh gw, P or more].

        Levels coarser than the grid are projected before they are resized, the others after.
        """
        grid = tuple(features.shape[1:])
        levels = scales(features)
        weights = self._projection.split([len(level) for level in levels])
        total = self._projection_bias.repeat(grid[0] * grid[1], 1)
        fine = []
        for level, weight in zip(levels, weights, strict=True):
            cells = level.permute(1, 2, 0).float()  # a view where channels lie innermost
            if cells.shape[0] * cells.shape[1] >= len(total):
                fine.append((self._on_grid(cells, grid), weight))
            else:
                found = total.new_zeros(*cells.shape[:2], total.shape[1])
                self._add_products([(cells.flatten(0, 1), weight)], found.flatten(0, 1))
                total += self._on_grid(found, grid)
        self._add_products(fine, total)
        return total.relu_()

    def _on_grid(self, cells: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return cells [h,w,C] on the grid, [gh gw, C]."""
        if tuple(cells.shape[:2]) == grid:
            return cells.flatten(0, 1)
        if self._compiled and cells.device.type == 'cpu':
            return cpu.resized_cells(cells, grid)
        return resized(cells.permute(2, 0, 1), grid).permute(1, 2, 0).flatten(0, 1)

    def _add_products(self, pairs: list[tuple[Tensor, Tensor]], out: Tensor) -> None:
        layout = all(tokens.is_contiguous() for tokens, _ in pairs)
        if self._compiled and out.device.type == 'cpu' and layout:
            cpu.add_products(pairs, out)
            return
        for tokens, weight in pairs:
            out.addmm_(tokens, weight)

    def logits(self, semantic: Tensor, visual: Features | None = None) -> Tensor:
        """Return the logit float32 [r,c] of a block's semantic map [K,r,c]; higher is stranger.

        `visual` is the block's part of what the method of that name gave.
        """
        if self._compiled and semantic.device.type == 'cpu':
            return self._looped(semantic, visual)
        planes = _statistics(semantic).flatten(1)
        hidden = torch.addmm(self._bias[:, None], self._first, planes)
        if visual is not None:
            hidden += visual.resized().flatten(1)
        hidden = torch.addmm(self._second_bias[:, None], self._second, hidden.relu_()).relu_()
        found = torch.addmm(self._last_bias[:, None], self._last, hidden)
        return found.view(semantic.shape[1:])

    def _looped(self, semantic: Tensor, visual: Features | None) -> Tensor:
        found = torch.empty(semantic.shape[1:])
        if visual is None:
            visual = Features(torch.empty((0, 1, 1)), Taps.of(1, len(found)), slice(0, 1))
        low, high, share = (part.numpy() for part in vars(visual.rows).values())
        wide, left, width = visual.wide.numpy(), visual.columns.start, found.shape[1]
        added = loops.Visual(wide, low, high, share, left, width)
        loops.logits(semantic.contiguous().numpy(), added, self._compiled, found.numpy())
        return found


class RunningGridHead:
    """A loaded `GridHead`, arranged for the blocks of the dense pass as `RunningHead` is."""

    reads_semantic = False

    def __init__(self, info: HeadInfo, head: GridHead, source: Path) -> None:
        self.info, self.source = info, source
        self._head = head.eval().requires_grad_(False)
        layers = [layer for layer in head.mlp if isinstance(layer, nn.Conv2d)]
        self._layers = [
            (layer.weight[:, :, 0, 0].float(), layer.bias[:, None].float())
            for layer in layers
            if layer.bias is not None
        ]
        self._compiled = _compiled(self._layers)

    @property
    def device(self) -> torch.device:
        """Where the head computes."""
        return self._layers[0][0].device

    def to(self, device: torch.device) -> RunningGridHead:
        """Return the head on `device`; this one stays where it is, for a fallback to the CPU."""
        if self.device == device:
            return self
        return RunningGridHead(self.info, copy.deepcopy(self._head).to(device), self.source)

    def visual(self, features: Tensor | Pyramid | None) -> Tensor:
        """Return the logit [1,gh,gw] of features [C,gh,gw]; a cell that is not finite is strange.

        Of the levels of a pyramid, on the grid of the first, it lies half way between their mean,
        which ranks best, and their maximum, which keeps what only one of them sees above zero.

        ValueError where the segmenter gave none or others than the head was trained on.
        """
        features = check_features(self.info, self.source, features)
        levels = scales(features)
        found = [self._logit(level) for level in levels]
        if len(found) == 1:
            return found[0]
        grid = tuple(found[0].shape[1:])
        both = torch.stack([found[0], *(resized(coarse, grid) for coarse in found[1:])])
        return (both.mean(0) + both.amax(0)) / 2

    def _logit(self, features: Tensor) -> Tensor:
        found = features.flatten(1).float()
        if self._compiled and features.device.type == 'cpu':
            return self._looped(found.contiguous()).unflatten(1, features.shape[1:])
        for weight, bias in self._layers[:-1]:
            found = torch.addmm(bias, weight, found).relu_()
        weight, bias = self._layers[-1]
        logit = torch.addmm(bias, weight, found).nan_to_num_(nan=_STRANGE)
        return logit.unflatten(1, features.shape[1:])

    def _looped(self, features: Tensor) -> Tensor:
        found = torch.empty(1, features.shape[1])
        given, out = features.numpy(), found[0].numpy()

        def work(begin: int, end: int) -> None:
            loops.of_cells(given, self._compiled, begin, end, out)

        cpu.by_lines(work, features.shape[1], _CELLS)
        return found

    def logits(self, semantic: Tensor, visual: Features | None = None) -> Tensor:
        """Return the logit float32 [r,c] of a block, resized from the features' grid."""
        if visual is None:
            raise ValueError(f'{self.source} reads the features {self.info.features!r}')
        return visual.resized()[0]


Running = RunningHead | RunningGridHead


def check_features(
    info: HeadInfo, source: Path, features: Tensor | Pyramid | None
) -> Tensor | Pyramid:
    """Return a segmenter's features; ValueError for none or others than a head was trained on."""
    if features is None:
        raise ValueError(
            f'{source} reads the features {info.features!r}, but the segmenter gave none'
        )
    for level in scales(features) if info.kind == 'head_v3' else (features,):
        if level.shape[0] != info.channels:
            raise ValueError(
                f'{source}: expected features of {info.channels} channels, got {level.shape[0]}'
            )
    return features


def save_head(folder: Path, info: HeadInfo, head: AnomalyHead | GridHead) -> None:
    """Write head.safetensors and head.json into `folder`; each appears only when complete."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    files.write(folder / WEIGHTS, save(state))
    files.write_json(folder / INFO, dataclasses.asdict(info))


def find_head(kind: str, checkpoint: str, model_dir: Path | None) -> Path:
    """Return the folder of a head: `checkpoint`, or where it is '' the one beside the model.

    ValueError, with the remedy, where there is none.
    """
    if checkpoint:
        path = files.home(checkpoint)
        path = path.parent if path.is_file() else path
    elif model_dir is None:
        raise ValueError(f'checkpoint: this model comes without a {kind}; name the folder of one')
    else:
        path = model_dir / FOLDER / kind
    if not (path / WEIGHTS).is_file() or not (path / INFO).is_file():
        hint = '' if checkpoint else ", or train one with 'road-anomaly train head'"
        raise ValueError(
            f'checkpoint: expected a folder with {WEIGHTS} and {INFO}, found none at '
            f'{path}; name one{hint}'
        )
    return path


def stamp_of(folder: Path) -> tuple[Stamp, ...]:
    """Return what changes when a head is written anew; PipelineError where there is none."""
    try:
        return stamp([folder / WEIGHTS, folder / INFO])
    except OSError as error:
        raise PipelineError(
            f'{error.filename}: {error.strerror}; expected a head with {WEIGHTS} and {INFO}'
        ) from None


def load_head(folder: str | Path) -> Running:
    """Load a head's folder onto the CPU; PipelineError, one line, where it is damaged."""
    path = Path(folder).resolve()
    stamp_of(path)
    info = read_info(path / INFO)
    if info.kind == 'head_v3':
        grid = GridHead(info.channels, info.hidden)
        state = read_state(path / WEIGHTS)
        return RunningGridHead(info, load_state(grid, state, path / WEIGHTS), path)
    head = load_state(info.module(), read_state(path / WEIGHTS), path / WEIGHTS)
    return RunningHead(info, head, path)


def _sane(info: HeadInfo) -> bool:
    """Tell whether the sizes are such that memory for them may be asked for."""
    sizes = (info.channels, info.projection, *info.hidden)
    whole = all(type(size) is int and 0 <= size <= _WIDEST for size in sizes)
    projected = info.projection > 0 or info.kind == 'head_v3'  # which projects nothing
    return whole and len(info.hidden) == 2 and min(info.hidden) > 0 and projected


def read_info(path: Path) -> HeadInfo:
    """Read head.json; PipelineError, one line, where it is none."""
    try:
        tree = json.loads(path.read_text(encoding='utf-8'))
        info = HeadInfo(**{**tree, 'hidden': tuple(int(width) for width in tree['hidden'])})
        if _sane(info) and info.kind in KINDS and bool(info.channels) == (info.kind != 'head_v1'):
            return info
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    raise PipelineError(
        f'{path} describes no anomaly head; expected JSON with kind (one of '
        f'{list(KINDS)}), segmenter, features, channels, projection and hidden'
    )


def check_head(
    info: HeadInfo, folder: Path, kind: str, weights: Path | None, maps: tuple[str, ...]
) -> None:
    """Refuse a head of another kind, for other weights, or for features that are not there."""
    if info.kind != kind:
        raise ValueError(f'checkpoint: expected a {kind}, {folder} holds a {info.kind}')
    digest = weights_digest(weights)
    if info.segmenter != digest:
        raise ValueError(
            f'checkpoint: {folder} was trained on another segmenter (weights '
            f'{info.segmenter[:12] or "none"}, this model has '
            f'{digest[:12] or "none"}); train one for this model '
            "with 'road-anomaly train head'"
        )
    if info.features and info.features not in maps:
        raise ValueError(
            f'checkpoint: {folder} reads the features {info.features!r}, but this '
            f'segmenter offers {list(maps) or "none"}; choose another head, or an engine of the '
            'segmenter that offers them'
        )
