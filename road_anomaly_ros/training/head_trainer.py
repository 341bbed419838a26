# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The training of an anomaly head: steps, checkpoints that continue to the bit, figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from road_anomaly_ros import files
from road_anomaly_ros.perception import heads, scorers
from road_anomaly_ros.perception.devices import select_device
from road_anomaly_ros.perception.heads import AnomalyHead, HeadInfo
from road_anomaly_ros.perception.metrics import PixelMetrics
from road_anomaly_ros.perception.model_files import weights_digest
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.training import checkpoints, parallel
from road_anomaly_ros.training.head_features import (
    Cache,
    Example,
    Joined,
    at_points,
    cache_name,
    fingerprint,
)
from road_anomaly_ros.training.options import HeadTrainOptions
from road_anomaly_ros.training.targets import head_loss

_RISE = 0.1  # share of a cosine run in which the rate rises
_FIGURES = {
    'AP': 'ap',
    'AUROC': 'auroc',
    'FPR95': 'fpr95',
    'F1': 'best_f1',
    'threshold': 'best_threshold',
}
_MEASURED = 64  # images from which mean and deviation are taken


@dataclasses.dataclass(frozen=True)
class Points:
    """Pixels of one image: `inputs` statistics [N,4], `target` [N], `valid` [N]; places in it."""

    statistics: Tensor
    target: Tensor
    valid: Tensor
    rows: Tensor
    columns: Tensor


@parallel.joined()
def train(
    options: HeadTrainOptions,
    *,
    data: Sequence[Path],
    out: Path,
    val: Path | None = None,
    segmenter: str = 'mask2former',
    model: str = 'builtin',
    device: str = 'auto',
    resume: bool = False,
    cache: Path | None = None,
) -> dict[str, float]:
    """Train a head on the images of all `data`, write it to `out`, return its figures on `val`.

    ValueError, in one line, for data, options or a folder that cannot work, before any step.
    """
    checkpoints.check_folder(out, resume, (heads.WEIGHTS, heads.INFO))
    place = select_device(parallel.device_of(device))
    frozen = _frozen(segmenter, model, place)
    features = _features_for(options, frozen)
    before, digest = fingerprint(frozen), weights_digest(frozen.weights)
    parts = []
    with checkpoints.alone(out):
        for folder in data if val is None else (*data, val):
            kept = (cache or out / 'features') / cache_name(folder)
            parts.append(Cache(kept, data=folder, digest=digest, features=features))
            parallel.first_alone(lambda: parts[-1].fill(frozen, place))
            parts[-1].fill(frozen, place)  # for the others: nothing is missing any more
        trained = Joined(parts[: len(data)])
        trainer = Trainer(options, trained, out, digest=digest, features=features, device=place)
        trainer.begin(resume)
        trainer.run()
        if parallel.world()[0] > 0:
            return {}
        if fingerprint(frozen) != before:
            raise RuntimeError('the frozen segmenter changed while its head was trained')
        trainer.save_head()
        return _tell(out, options.kind, None if val is None else parts[-1])


def _tell(out: Path, kind: str, val: Cache | None) -> dict[str, float]:
    figures = {} if val is None else measure(out, kind, val)
    if figures:
        files.write_json(out / 'results.json', figures)
        print(', '.join(f'{name} {value:.4f}' for name, value in figures.items()))
    print(f'{kind} in {out}')
    return figures


def _frozen(segmenter: str, model: str, device: torch.device) -> Any:
    entry = SEGMENTERS[segmenter]
    # An exported graph hands on fewer features than the network itself.
    engine = {'engine': 'torch'} if segmenter == 'mask2former' else {}
    return entry.make(
        model, device=device, precision=torch.float32, options=entry.options(**engine)
    )


def _features_for(options: HeadTrainOptions, segmenter: Any) -> str:
    if options.kind == 'head_v1':
        return ''
    offered = segmenter.feature_maps
    if options.features not in offered:
        raise ValueError(
            f'--features: this segmenter offers {list(offered) or "none"}, got '
            f'{options.features!r}'
        )
    return options.features


class Trainer:
    """Head, optimiser and the epoch reached; saved and continued as a whole."""

    def __init__(
        self,
        options: HeadTrainOptions,
        cache: Joined,
        out: Path,
        *,
        digest: str,
        features: str,
        device: torch.device,
    ) -> None:
        self.options, self.cache, self.out, self.device = options, cache, out, device
        self.epoch, self.losses = 0, list[float]()
        sample = cache[0].output.features
        channels = int(sample.shape[0]) if features and sample is not None else 0
        self.info = HeadInfo(
            options.kind,
            digest,
            features,
            channels,
            options.projection,
            (options.hidden[0], options.hidden[1]),
        )
        torch.manual_seed(options.seed)
        self.head = self.info.module(options.dropout).to(device).train()
        self.mean, self.deviation = self._spread(channels)
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=options.rate, weight_decay=options.decay
        )

    def _spread(self, channels: int) -> tuple[Tensor, Tensor]:
        """Return mean and deviation [C] of the features, 0 and 1 where they are left alone."""
        if not channels or not self.options.standardise:
            return torch.zeros(channels), torch.ones(channels)
        step = max(1, len(self.cache) // _MEASURED)
        parts = [
            self.cache[number].output.features.float().flatten(1)
            for number in range(0, len(self.cache), step)
        ]
        mean = torch.stack([part.mean(1) for part in parts]).mean(0)
        power = torch.stack([(part - mean[:, None]).square().mean(1) for part in parts]).mean(0)
        return mean, power.sqrt().clamp_min(1e-3)

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return math.ceil(len(self.cache) / self.options.batch)

    def run(self) -> None:
        """Train to the last epoch; every epoch ends with a checkpoint and a line in curve.csv."""
        total = self.options.epochs
        with tqdm(
            total=total * self.steps,
            initial=self.epoch * self.steps,
            desc='train',
            disable=True if parallel.world()[0] else None,
        ) as bar:
            while self.epoch < total:
                order = np.random.default_rng([self.options.seed, self.epoch]).permutation(
                    len(self.cache)
                )
                batches = [
                    order[start : start + self.options.batch]
                    for start in range(0, len(order), self.options.batch)
                ]
                losses = []
                for number, batch in enumerate(batches):
                    losses.append(self._step(self.epoch * self.steps + number, batch))
                    bar.update()
                self.losses.append(float(np.mean(losses)))
                self.epoch += 1
                parallel.first_alone(self.save)

    def _step(self, number: int, batch: Sequence[int]) -> float:
        options = self.options
        for group in self.optimizer.param_groups:
            group['lr'] = rate_at(number, options.epochs * self.steps, options)
        # A member without an image in this step still has its part in the sums.
        empty = torch.zeros(0, device=self.device)
        logits = [empty * sum(part.sum() for part in self.head.parameters())]
        targets, valid = [torch.zeros(0)], [torch.zeros(0)]
        for index in batch[parallel.slice_of(len(batch))]:
            rng = np.random.default_rng([options.seed, number, int(index)])
            torch.manual_seed(int(rng.integers(2**63)))  # of the dropout
            for example in self.cache.examples(int(index)):
                points = draw(example, options.pixels, rng)
                logits.append(self._logits(example, points))
                targets.append(points.target)
                valid.append(points.valid)
        loss = head_loss(
            torch.cat(logits),
            torch.cat(targets).to(self.device),
            torch.cat(valid).to(self.device),
            positive_weight=options.positive_weight,
            ignore_void=options.ignore_void,
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f'the loss became {value} in step {number}; lower --rate')
        self.optimizer.zero_grad()
        loss.backward()
        parallel.share_step(self.head)
        self.optimizer.step()
        return value

    def _logits(self, example: Example, points: Points) -> Tensor:
        projected = None
        if self.info.channels:
            projected = at_points(
                self._project(example.output.features.to(self.device).float()),
                points.rows.to(self.device),
                points.columns.to(self.device),
                example.output.image_size,
            ).T
        return self.head(points.statistics.to(self.device), projected)

    def _project(self, features: Tensor) -> Tensor:
        """Return what the head's projection gives for standardised features, from raw ones."""
        layer = self.head.feature_proj[0]
        weight = layer.weight[:, :, 0, 0] / self.deviation.to(self.device)
        bias = layer.bias - weight @ self.mean.to(self.device)
        return (
            (weight @ features.flatten(1) + bias[:, None]).relu().unflatten(1, features.shape[1:])
        )

    def save(self) -> None:
        """Write curve.csv and checkpoint.pt; what was there stays until the new is complete."""
        state = {
            'head': self.head.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'epoch': self.epoch,
            'losses': self.losses,
            'options': _plain(self.options),
            'segmenter': self.info.segmenter,
            'data': self._marks(),
        }
        files.write(self.out / checkpoints.NAME, lambda file: torch.save(state, file))
        lines = [f'{number},{loss:.6f}\r\n' for number, loss in enumerate(self.losses, 1)]
        files.write(self.out / 'curve.csv', ''.join(['epoch,loss\r\n', *lines]))

    def _marks(self) -> list[str]:
        return [part.mark for part in self.cache.parts]

    def begin(self, resume: bool) -> None:
        """Load what is to be continued; ValueError where the members of the group disagree."""
        if resume:
            self.load()
        told = {**_plain(self.options), 'images': self._marks(), 'epoch': self.epoch}
        parallel.check_same({'segmenter': self.info.segmenter, **told})

    def load(self) -> None:
        """Continue from OUT/checkpoint.pt where there is one; ValueError for another run's."""
        path = self.out / checkpoints.NAME
        if not path.is_file():
            return
        parts = ('head', 'optimizer', 'epoch', 'losses', 'options', 'segmenter')
        state = checkpoints.read(path, self.device, parts)
        for name, value in _plain(self.options).items():
            if state['options'].get(name) != value:
                raise ValueError(
                    f'{path} was trained with {name} {state["options"].get(name)!r}, '
                    f'now {value!r}; choose another folder'
                )
        if state['segmenter'] != self.info.segmenter:
            raise ValueError(f'{path} was trained on another segmenter; choose another folder')
        if state.get('data', self._marks()) != self._marks():
            raise ValueError(f'{path} was trained on other images; choose another folder')
        self.head.load_state_dict(state['head'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.epoch, self.losses = state['epoch'], list(state['losses'])

    def save_head(self) -> None:
        """Write the head for raw features, with what it was trained on, to OUT."""
        found = AnomalyHead(
            self.info.channels, projection=self.info.projection, hidden=self.info.hidden
        )
        found.load_state_dict(
            {name: value.cpu() for name, value in self.head.state_dict().items()}
        )
        if self.info.channels:
            layer = found.feature_proj[0]
            with torch.no_grad():
                layer.weight.div_(self.deviation[None, :, None, None])
                layer.bias.sub_(layer.weight[:, :, 0, 0] @ self.mean)
        training = {**_plain(self.options), 'frames': len(self.cache), 'loss': self.losses[-1]}
        heads.save_head(self.out, dataclasses.replace(self.info, training=training), found)


def rate_at(step: int, total: int, options: HeadTrainOptions) -> float:
    """Return the learning rate of a step of a run of `total` steps."""
    if options.schedule == 'constant':
        return options.rate
    rise = max(1, round(_RISE * total))
    if step < rise:
        return options.rate * (step + 1) / rise
    return options.rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def draw(example: Example, count: int, rng: np.random.Generator) -> Points:
    """Return `count` pixels of an image drawn evenly, or all of them for 0."""
    height, width = example.mask.shape
    chosen = np.arange(height * width) if count == 0 else rng.integers(height * width, size=count)
    rows, columns = (torch.from_numpy(part) for part in np.divmod(chosen, width))
    truth = example.mask[rows, columns]
    logits = at_points(example.output.mask_logits.float(), rows, columns, (height, width))
    known = example.output.class_logits.softmax(-1)[:, :-1]
    statistics = heads.descriptor(known.T @ logits.sigmoid()).T
    return Points(statistics, (truth == 1).float(), (truth != 255).float(), rows, columns)


def measure(folder: Path, kind: str, cache: Cache, stride: int = 2) -> dict[str, float]:
    """Return AP, AUROC, FPR95 and best F1 of a head, through the scorer that the node runs."""
    metric, options = PixelMetrics(), {'checkpoint': str(folder)}
    resources = Resources(torch.device('cpu'))  # where the cached outputs lie
    for number in tqdm(range(len(cache)), 'measure', disable=None):
        for example in cache.examples(number):
            with torch.inference_mode():
                score = scorers.evaluate(example.output, kind, options, resources=resources).score
            metric.update(
                score[::stride, ::stride].numpy(), example.mask[::stride, ::stride].numpy()
            )
    found = metric.compute()
    return {name: found[key] for name, key in _FIGURES.items()}


def _plain(options: HeadTrainOptions) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(options).items()
    }
