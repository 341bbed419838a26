# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One training run: steps, evaluation, checkpoints that continue to the bit."""

from __future__ import annotations

import copy
import csv
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from road_anomaly_ros import files
from road_anomaly_ros.perception.devices import select_device
from road_anomaly_ros.perception.metrics import MeanIoU
from road_anomaly_ros.tools.flow import polite_signals
from road_anomaly_ros.training import (
    checkpoints,
    label_sets,
    network,
    optimizer,
    outliers,
    parallel,
    roads,
    schedule,
    targets,
)
from road_anomaly_ros.training.data import Batch, CropSampler, CropSpec, StepBatches
from road_anomaly_ros.training.generator.cutouts import FolderCutouts
from road_anomaly_ros.training.options import TrainOptions

_LOSS_MEMORY = 50
_FREQUENCY_FRAMES = 400


def train(
    options: TrainOptions,
    *,
    out: Path,
    resume: bool = False,
    device: str = 'auto',
    half: bool = True,
    processes: int = 1,
    workers: int = 0,
    minutes: float = float('inf'),
    evaluate_every: float = 6.0,
) -> None:
    """Train on the options' data, leave model, curve and checkpoint in `out`.

    ValueError, in one line, for data, options or a folder that cannot work, before any step.
    """
    place = select_device(parallel.device_of(device))
    _check_run(options, out, resume, place, processes)
    sources = _sources(options)
    cutouts = [FolderCutouts(files.home(folder)) for folder in options.outliers]
    val = [roads.parse_source(text) for text in options.val]
    paster = outliers.Paster(cutouts, outliers.known_things(_labelled(sources)))

    def work(rank: int) -> None:
        trainer = Trainer(options, sources, paster, val, out, device=place, half=half)
        if resume:
            trainer.load()
        frames = {source.name: len(source.frames) for source in sources}
        told = {f'--{name}': value for name, value in _told(options).items()}
        parallel.check_same({**told, 'frames': frames, 'step': trainer.step})
        trainer.run(minutes=minutes, evaluate_every=evaluate_every, workers=workers)
        if rank == 0:
            print(
                f'mIoU {trainer.miou:.4f} on the validation frames after {trainer.step} of '
                f'{options.steps} steps: {out}'
            )

    with checkpoints.alone(out):
        parallel.launch(work, processes)


def _sources(options: TrainOptions) -> list[roads.Source]:
    sources = [roads.parse_source(text) for text in options.data]
    if options.rendered:
        rendered = roads.rendered_source(
            options.rendered,
            first_seed=1000 + options.seed,
            weight=options.rendered_weight,
            obstacles=bool(options.outliers),
        )
        sources.append(rendered)
    if not any(source.weight for source in sources):
        raise ValueError('--data: expected frames with a weight above 0, got none')
    return sources


def _labelled(sources: Sequence[roads.Source]) -> list[roads.Source]:
    """Return the recorded sources with labels of their own, whose outlines are to be trusted."""
    return [source for source in sources if not source.name.startswith(('unlabelled', 'rendered'))]


def _check_run(
    options: TrainOptions, out: Path, resume: bool, device: torch.device, processes: int
) -> None:
    path = out / checkpoints.NAME
    checkpoints.check_folder(out, resume, network.FILES)
    if resume and not path.is_file():
        raise ValueError(f'expected {path} to resume from; leave out --resume to start anew')
    alone = device.type != 'cpu' or parallel.by_torchrun()
    if not 1 <= processes <= (1 if alone else options.batch):
        raise ValueError(
            '--processes: expected 1 to --batch on the CPU, else 1 (torchrun gives each GPU a '
            f'process), got {processes}'
        )
    members = int(os.environ['WORLD_SIZE']) if parallel.by_torchrun() else processes
    if members > options.batch:
        raise ValueError(f'--batch: expected a crop for each of {members} processes at least')


class Trainer:
    """Model, averaged model, optimisers and the step reached; saved and continued as a whole."""

    def __init__(
        self,
        options: TrainOptions,
        sources: Sequence[roads.Source],
        paster: outliers.Paster,
        val: Sequence[roads.Source],
        out: Path,
        *,
        device: torch.device,
        half: bool = False,
    ) -> None:
        self.options, self.val, self.out, self.device = options, val, out, device
        self.step, self.miou, self.minutes = 0, 0.0, 0.0
        self.losses = {'classes': 0.0, 'anomaly': 0.0}
        torch.manual_seed(options.seed)
        model = network.RoadNetwork(options.backbone)
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        if half:
            network.half_precision(self.model, device)
        self.optimizers = optimizer.make_optimizers(
            self.model, rate=options.rate, decay=options.decay
        )
        weights = targets.class_weights(class_frequency(sources))
        self.criterion = targets.SegmentationLoss(weights).to(device)
        self._stop = False
        spec = CropSpec(
            (options.height, options.width), options.outlier_share if options.outliers else 0.0
        )
        sampler = CropSampler(sources, paster, spec)
        self.batches = StepBatches(sampler, parallel.share_of(options.batch), seed=options.seed)

    def run(
        self, *, minutes: float = float('inf'), evaluate_every: float = 6.0, workers: int = 0
    ) -> None:
        """Train to the last step, for `minutes`, or until a signal; evaluate, save, and end."""
        before = {number: signal.signal(number, self._ask_to_stop) for number in polite_signals()}
        try:
            self._run(minutes * 60, evaluate_every * 60, workers)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(self, seconds: float, evaluate_every: float, workers: int) -> None:
        loader = DataLoader(
            self.batches,
            batch_size=None,
            num_workers=workers,
            sampler=range(self.step, self.options.steps),
        )
        began = told = time.monotonic()
        before = self.minutes
        with tqdm(
            total=self.options.steps,
            initial=self.step,
            desc='train',
            unit='step',
            mininterval=2,
            disable=parallel.world()[0] > 0,
        ) as bar:
            for batch in loader:
                self.advance(batch)
                bar.update()
                bar.set_postfix(
                    **{name: f'{value:.3f}' for name, value in self.losses.items()}, refresh=False
                )
                now = time.monotonic()
                self.minutes = before + (now - began) / 60
                over = self._stop or self.step == self.options.steps or now - began >= seconds
                if parallel.agree(over or now - told >= evaluate_every):
                    self.report()
                    told = time.monotonic()
                    if parallel.agree(over):
                        break

    def _ask_to_stop(self, *_: object) -> None:
        self._stop = True

    def advance(self, batch: Batch) -> None:
        """Make one step."""
        rate = schedule.rate_at(
            self.step, self.options.steps, peak=self.options.rate, fall=self.options.fall
        )
        optimizer.set_rate(self.optimizers, rate)
        output, logit = self.model(network.normalise(batch.image, self.device))
        codes, anomaly = (plane.to(self.device) for plane in (batch.codes, batch.anomaly))
        classes = self.criterion(
            output.class_queries_logits,
            output.masks_queries_logits,
            codes.long(),
            anomaly == 1,
            output.auxiliary_logits or (),
        )
        strange = targets.anomaly_loss(logit, anomaly, batch.weight.to(self.device))
        loss = classes + targets.ANOMALY * strange if self.options.outliers else classes
        if not torch.isfinite(loss.detach()):
            raise ValueError(
                f'the loss became {float(loss.detach())} in step {self.step}; lower --rate'
            )
        self.model.zero_grad()
        loss.backward()
        parallel.share_step(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        for part in self.optimizers:
            part.step()
        schedule.average_into(self.average, self.model, self.step, decay=self.options.average)
        for name, value in (('classes', classes), ('anomaly', strange)):
            self.losses[name] += (float(value.detach()) - self.losses[name]) / min(
                self.step + 1, _LOSS_MEMORY
            )
        self.step += 1

    def report(self) -> None:
        """Evaluate the averaged model, add a line to curve.csv, write model and checkpoint."""
        found = [evaluate(self.average, source, self.device) for source in self.val]
        if parallel.world()[0] > 0:
            return
        self.miou = float(np.mean([np.nanmean(ious) for ious in found])) if found else 0.0
        self._add_to_curve([float(np.nanmean(ious)) for ious in found])
        network.save_folder(
            self.average,
            network.image_processor(
                len(label_sets.CLASSES), (self.options.short_side, self.options.short_side * 2)
            ),
            self.out,
            {**_told(self.options), 'steps_done': self.step},
        )
        self.save()

    def _add_to_curve(self, mious: Sequence[float]) -> None:
        path = self.out / 'curve.csv'
        fresh = not path.exists()
        rate = schedule.rate_at(
            self.step - 1, self.options.steps, peak=self.options.rate, fall=self.options.fall
        )
        measured = [f'mIoU {source.name}' for source in self.val]
        head = ['step', 'minutes', 'rate', *self.losses, *measured]
        row = [self.step, f'{self.minutes:.1f}', f'{rate:.2e}']
        row += [f'{value:.4f}' for value in (*self.losses.values(), *mious)]
        with path.open('a', newline='') as file:
            csv.writer(file).writerows([head, row] if fresh else [row])

    def save(self) -> None:
        """Write OUT/checkpoint.pt; the one before stays until the new one is complete."""
        state = {
            'model': self.model.state_dict(),
            'average': self.average.state_dict(),
            'optimizers': [part.state_dict() for part in self.optimizers],
            'step': self.step,
            'minutes': self.minutes,
            'losses': self.losses,
            'miou': self.miou,
            'options': dataclasses.asdict(self.options),
        }
        files.write(self.out / checkpoints.NAME, lambda file: torch.save(state, file))

    def load(self) -> None:
        """Continue from OUT/checkpoint.pt; ValueError when it belongs to a run of other options.

        Only the number of steps may differ (see schedule.rate_at).
        """
        path = self.out / checkpoints.NAME
        parts = ('model', 'average', 'optimizers', 'step', 'minutes', 'losses', 'options')
        state = checkpoints.read(path, self.device, parts)
        mine = dataclasses.asdict(self.options)
        other = sorted(
            name
            for name, value in mine.items()
            if name != 'steps' and state['options'].get(name) != value
        )
        if other:
            raise ValueError(
                f'{path} was trained with another --{other[0].replace("_", "-")} '
                f'({state["options"].get(other[0])}); give the same, or begin anew'
            )
        falling = state['step'] > min(mine['steps'], state['options']['steps']) - mine['fall']
        if mine['steps'] != state['options']['steps'] and falling:
            raise ValueError(
                f'{path}: the rate has begun to fall towards step '
                f'{state["options"]["steps"]}; give --steps as before'
            )
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        for part, saved in zip(self.optimizers, state['optimizers'], strict=True):
            part.load_state_dict(saved)
        self.step, self.minutes, self.losses = state['step'], state['minutes'], state['losses']
        self.miou = state.get('miou', 0.0)


def _told(options: TrainOptions) -> dict[str, Any]:
    """Return the options as a model tells them to others: without where folders lie."""
    found = dataclasses.asdict(options)
    for name in ('data', 'val', 'outliers'):
        found[name] = [_without_place(text) for text in found[name]]
    return found


def _without_place(text: str) -> str:
    parts = []
    for part in text.split(','):
        head, sign, path = part.rpartition('=' if '=' in part else ':')
        names = Path(path).parts[-2:] if '/' in path else (path,)
        parts.append(f'{head}{sign}{"/".join(names)}')
    return ','.join(parts)


def class_frequency(sources: Sequence[roads.Source]) -> np.ndarray:
    """Return the share of every class among the surely labelled pixels of some frames."""
    counts = np.zeros(len(label_sets.CLASSES))
    for source in _labelled(sources) or sources:
        for index in range(0, len(source.frames), 1 + len(source.frames) // _FREQUENCY_FRAMES):
            counts += np.bincount(source.frames[index].codes.ravel(), minlength=256)[: len(counts)]
    return counts / max(counts.sum(), 1)


@torch.inference_mode()
def evaluate(model: nn.Module, source: roads.Source, device: torch.device) -> np.ndarray:
    """Return the IoU [255] of every label of a source over its frames, NaN where it is none.

    A prediction is the arg max of the semantic map at the frame's own size. It counts as the
    frame's label where that allows the class, else as the first label that does.
    """
    allowed, metric = label_sets.allowed(), MeanIoU(label_sets.IGNORE)
    home = _home(allowed, source)
    rank, members = parallel.world()
    for index in range(rank, len(source.frames), members):
        frame = source.frames[index]
        predicted, truth = predict(model, frame.image, device), frame.codes
        metric.update(np.where(allowed[truth, predicted], truth, home[predicted]), truth)
    metric.table = parallel.total(torch.from_numpy(metric.table)).numpy()
    return np.where(metric.table.any(1), metric.compute()['iou'], np.nan)


def _home(allowed: np.ndarray, source: roads.Source) -> np.ndarray:
    """Return, for every class, the first code of the source's layout that allows it."""
    codes = np.unique(label_sets.TABLES[source.name.split()[0]])
    codes = codes[codes != label_sets.IGNORE]
    return np.array(
        [
            next((code for code in codes if allowed[code, kind]), 254)
            for kind in range(allowed.shape[1])
        ]
    )


def predict(model: nn.Module, image: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the class of every pixel of an RGB frame uint8 [H,W,3], int64 [H,W]."""
    height, width = image.shape[:2]
    sides = tuple(-(-side // 32) * 32 for side in (height, width))
    tensor: Tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    pixels = nn.functional.interpolate(
        network.normalise(tensor, device), size=sides, mode='bilinear', align_corners=False
    )
    output, _ = model(pixels)
    scores = network.semantic_scores(
        output.class_queries_logits, output.masks_queries_logits, (height, width)
    )
    return scores[0].argmax(0).cpu().numpy()
