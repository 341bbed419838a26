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

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from road_anomaly_ros.perception.weights import select_device
from road_anomaly_ros.training import network, optimizer, parallel, schedule, targets
from road_anomaly_ros.training.data import (
    IGNORE,
    CropSampler,
    Frame,
    StepBatches,
    class_frequency,
    read_folder,
    render_frames,
)
from road_anomaly_ros.training.segmenter import TrainOptions

CHECKPOINT = 'checkpoint.pt'
_LOSS_MEMORY = 50


def train(options: TrainOptions, *, data: Path, out: Path, resume: bool = False,
          device: str = 'auto', half: bool = True, processes: int = 1, workers: int = 0,
          minutes: float = float('inf'), evaluate_every: float = 6.0) -> None:
    """Train on `data`/train, choose on `data`/val, leave model, curve and checkpoint in `out`.

    ValueError, in one line, for data, options or a folder that cannot work, before any step.
    """
    place, count = select_device(device), len(options.classes)
    frames, val = (read_folder(data / part, classes=count) for part in ('train', 'val'))
    _check_run(options, out, resume, place, processes)
    out.mkdir(parents=True, exist_ok=True)
    extra = render_frames(options.rendered, size=frames[0].labels.shape,
                          first_seed=1000 + options.seed, cache=out / 'rendered.npz')

    def work(rank: int) -> None:
        trainer = Trainer(options, frames, val, out, extra=extra, device=place, half=half)
        if resume:
            trainer.load()
        trainer.run(minutes=minutes, evaluate_every=evaluate_every, workers=workers)
        if rank == 0:
            print(f'best val mIoU {trainer.best:.4f} in {trainer.step} of {options.steps} steps: '
                  f'{out}')
    parallel.launch(work, processes)


def _check_run(options: TrainOptions, out: Path, resume: bool, device: torch.device,
               processes: int) -> None:
    path = out / CHECKPOINT
    if path.exists() and not resume:
        raise ValueError(f'{out} holds a run already; continue it with --resume or choose '
                         'another folder')
    if resume and not path.is_file():
        raise ValueError(f'expected {path} to resume from; leave out --resume to start anew')
    most = options.batch if device.type == 'cpu' else 1
    if not 1 <= processes <= most:
        raise ValueError(f'--processes: expected 1 to --batch on the CPU, else 1, got {processes}')


class Trainer:
    """Model, averaged model, optimisers and the step reached; saved and continued as a whole."""

    def __init__(self, options: TrainOptions, frames: Sequence[Frame], val: Sequence[Frame],
                 out: Path, *, extra: Sequence[Frame] = (),
                 device: torch.device, half: bool = False) -> None:
        self.options, self.val, self.out, self.device = options, val, out, device
        self.step, self.best, self.minutes, self.loss = 0, -1.0, 0.0, 0.0
        torch.manual_seed(options.seed)
        model = network.build_model(options.classes)
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        if half:
            network.half_precision(self.model, device)
        self.optimizers = optimizer.make_optimizers(self.model, rate=options.rate,
                                                    decay=options.decay)
        frequency = class_frequency(frames, len(options.classes))
        self.weights = targets.class_weights(frequency).to(device)
        self.batches = self._make_batches(frames, extra)
        self._stop = False

    def _make_batches(self, frames: Sequence[Frame], extra: Sequence[Frame]) -> StepBatches:
        o = self.options
        rank, members = parallel.world()
        sampler = CropSampler(frames, classes=len(o.classes), extra=extra,
                              extra_share=o.rendered_share, mix_share=o.mixed)
        curriculum = schedule.stages((o.height, o.width), o.batch)
        return StepBatches(
            sampler, lambda step: schedule.spec_at(curriculum, step, o.steps).share(members),
            seed=o.seed, rank=rank)

    def run(self, *, minutes: float = float('inf'), evaluate_every: float = 6.0,
            workers: int = 0) -> None:
        """Train to the last step, for `minutes`, or until a signal; evaluate, save, and end."""
        signal.signal(signal.SIGINT, self._ask_to_stop)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        loader = DataLoader(self.batches, batch_size=None, num_workers=workers,
                            sampler=range(self.step, self.options.steps))
        began = told = time.monotonic()
        before = self.minutes
        with tqdm(total=self.options.steps, initial=self.step, desc='train', unit='step',
                  mininterval=2, disable=parallel.world()[0] > 0) as bar:
            for images, labels in loader:
                self.advance(images, labels)
                bar.update()
                bar.set_postfix(loss=f'{self.loss:.3f}', best=f'{self.best:.3f}', refresh=False)
                now = time.monotonic()
                self.minutes = before + (now - began) / 60
                over = (self._stop or self.step == self.options.steps
                        or now - began >= minutes * 60)
                if parallel.agree(over or now - told >= evaluate_every * 60):
                    self.report()
                    told = time.monotonic()
                    if parallel.agree(over):
                        break

    def _ask_to_stop(self, *_: object) -> None:
        self._stop = True

    def advance(self, images: Tensor, labels: Tensor) -> None:
        """Make one step with images uint8 [B,3,h,w] and labels uint8 [B,3,h/2,w/2]."""
        rate = schedule.rate_at(self.step, self.options.steps, peak=self.options.rate)
        optimizer.set_rate(self.optimizers, rate)
        output = self.model(network.normalise(images, self.device))
        loss = targets.segmentation_loss(
            output.class_queries_logits, output.masks_queries_logits, labels.to(self.device),
            self.weights, auxiliary=output.auxiliary_logits)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise ValueError(f'the loss became {value} in step {self.step}; lower --rate')
        self.model.zero_grad()
        loss.backward()
        parallel.share_step(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        for part in self.optimizers:
            part.step()
        schedule.average_into(self.average, self.model, self.step, decay=self.options.average)
        self.loss += (value - self.loss) / min(self.step + 1, _LOSS_MEMORY)
        self.step += 1

    def report(self) -> None:
        """Evaluate the averaged model, add a line to curve.csv, keep it if best, save the run."""
        ious = evaluate(self.average, self.val, self.device)
        if parallel.world()[0] > 0:
            return
        mean = float(np.nanmean(ious))
        self._add_to_curve(mean, ious)
        if mean > self.best:
            self.best = mean
            height, width = self.val[0].labels.shape
            network.save_folder(
                self.average, network.image_processor(len(ious), (height, width)), self.out)
        self.save()

    def _add_to_curve(self, mean: float, ious: np.ndarray) -> None:
        path = self.out / 'curve.csv'
        fresh = not path.exists()
        rate = schedule.rate_at(self.step - 1, self.options.steps, peak=self.options.rate)
        with path.open('a', newline='') as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(['step', 'minutes', 'rate', 'loss', 'mIoU', *self.options.classes])
            writer.writerow([self.step, f'{self.minutes:.1f}', f'{rate:.2e}', f'{self.loss:.4f}',
                             f'{mean:.4f}', *(f'{iou:.4f}' for iou in ious)])

    def save(self) -> None:
        """Write OUT/checkpoint.pt; the one before stays until the new one is complete."""
        state = {'model': self.model.state_dict(), 'average': self.average.state_dict(),
                 'optimizers': [part.state_dict() for part in self.optimizers],
                 'step': self.step, 'best': self.best, 'minutes': self.minutes,
                 'loss': self.loss, 'options': dataclasses.asdict(self.options)}
        partial = self.out / f'.{CHECKPOINT}.partial'
        torch.save(state, partial)
        os.replace(partial, self.out / CHECKPOINT)

    def load(self) -> None:
        """Continue from OUT/checkpoint.pt; ValueError when it belongs to other classes."""
        path = self.out / CHECKPOINT
        state = torch.load(path, map_location=self.device, weights_only=True)
        if tuple(state['options']['classes']) != tuple(self.options.classes):
            raise ValueError(f'{path} was trained on the classes {state["options"]["classes"]}')
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        for part, saved in zip(self.optimizers, state['optimizers'], strict=True):
            part.load_state_dict(saved)
        self.step, self.best, self.minutes = state['step'], state['best'], state['minutes']
        self.loss = state.get('loss', 0.0)


@torch.inference_mode()
def evaluate(model: nn.Module, frames: Sequence[Frame], device: torch.device) -> np.ndarray:
    """Return the IoU of every class over all `frames`: float64 [K], NaN where it occurs nowhere.

    Labels are the arg max of the semantic map at the frame's own size, as in the perception chain.
    """
    count = model.config.num_labels
    confusion = np.zeros((count, count), np.int64)
    rank, members = parallel.world()
    for frame in frames[rank::members]:
        image = torch.from_numpy(np.ascontiguousarray(frame.image.transpose(2, 0, 1)))[None]
        output = model(network.normalise(image, device))
        scores = network.semantic_scores(output.class_queries_logits, output.masks_queries_logits,
                                         frame.labels.shape)
        predicted = scores[0].argmax(0).cpu().numpy()
        valid = frame.labels != IGNORE
        pairs = frame.labels[valid].astype(np.int64) * count + predicted[valid]
        confusion += np.bincount(pairs, minlength=count * count).reshape(count, count)
    confusion = parallel.total(torch.from_numpy(confusion)).numpy()
    hit = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return np.divide(hit, union, out=np.full(count, np.nan), where=union > 0)
