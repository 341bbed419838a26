# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`road-anomaly train segmenter`: teach the built-in Mask2Former on labelled road frames, from scratch."""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from road_anomaly_ros.perception.registry import build_options, option, options_of
from road_anomaly_ros.training import network, parallel, schedule, targets
from road_anomaly_ros.training import optimizer as optim
from road_anomaly_ros.training.data import (
    CAMVID_CLASSES,
    IGNORE,
    CropSampler,
    Frame,
    StepBatches,
    class_frequency,
    read_folder,
    render_frames,
)

EXAMPLES = """examples:
  road-anomaly train segmenter --data camvid -o runs/first
  road-anomaly train segmenter --data camvid --rendered 300 --steps 20000 --minutes 90 -o runs/long
  road-anomaly train segmenter --data camvid --rendered 300 --steps 20000 -o runs/long --resume

The data folder holds train/ and val/, each with images/ and labels/ (PNG, ids in the order of --classes, 255 = ignore).
The output folder receives the model with the best val mIoU (config.json, model.safetensors,
preprocessor_config.json), curve.csv and checkpoint.pt.
"""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Everything that decides the result of a run, beside the data."""

    steps: int = option(12000, 'optimiser steps of the whole run', low=1, high=10_000_000)
    batch: int = option(8, 'crops per step in the middle part of the run', low=1, high=1024)
    height: int = option(352, 'height of the largest crops', low=32, high=4096, unit='px')
    width: int = option(480, 'width of the largest crops', low=32, high=4096, unit='px')
    rate: float = option(1e-3, 'peak learning rate', low=1e-7, high=1.0)
    decay: float = option(.05, 'weight decay', low=0.0, high=1.0)
    clip: float = option(5.0, 'largest gradient norm', low=1e-3, high=1e3)
    average: float = option(.999, 'decay of the averaged weights that are kept', low=0.0, high=1.0)
    rendered: int = option(0, 'rendered road scenes to mix in', low=0, high=100_000)
    rendered_share: float = option(.2, 'share of the crops taken from rendered scenes', low=0.0, high=1.0)
    seed: int = option(0, 'seed of weights, crops and rendered scenes', low=0, high=2 ** 31)
    classes: tuple = option(CAMVID_CLASSES, 'class names in the order of the label ids')


class Trainer:
    """One run: model, averaged model, optimiser and the step reached; saved and continued as a whole."""

    def __init__(self, options: TrainOptions, train: Sequence[Frame], val: Sequence[Frame], out: Path, *,
                 device: torch.device, extra: Sequence[Frame] = (), half: bool = False, workers: int = 0) -> None:
        self.options, self.val, self.out, self.device = options, val, out, device
        self.half, self.workers, self.step, self.best, self.minutes = half, workers, 0, -1.0, 0.0
        torch.manual_seed(options.seed)
        model = network.build_model(options.classes)
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        if half:
            network.half_precision(self.model, device)
        self.optimizers = optim.make_optimizers(self.model, rate=options.rate, decay=options.decay)
        frequency = class_frequency(train, len(options.classes))
        self.weights = targets.class_weights(frequency).to(device)
        self.batches = self._batches(train, extra)

    def _batches(self, train: Sequence[Frame], extra: Sequence[Frame]) -> StepBatches:
        o = self.options
        sampler = CropSampler(train, classes=len(o.classes), extra=extra, extra_share=o.rendered_share)
        curriculum = schedule.stages((o.height, o.width), o.batch)
        rank, count = parallel.world()
        return StepBatches(sampler, lambda step: schedule.spec_at(curriculum, step, o.steps).share(count),
                           seed=o.seed, rank=rank)

    def run(self, *, minutes: float, evaluate_every: float) -> None:
        """Train up to the last step, or for `minutes`; evaluate and save every `evaluate_every` minutes and at the end."""
        o = self.options
        loader = DataLoader(self.batches, batch_size=None, sampler=range(self.step, o.steps),
                            num_workers=self.workers, prefetch_factor=3 if self.workers else None)
        started = told = time.monotonic()
        before, loss = self.minutes, 0.0
        with tqdm(total=o.steps, initial=self.step, desc='train', unit='step', mininterval=2,
                  disable=parallel.world()[0] > 0) as bar:
            for images, labels in loader:
                loss += (float(self._train_step(images, labels)) - loss) / min(self.step + 1, 50)
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f'{loss:.3f}', best=f'{self.best:.3f}', refresh=False)
                now = time.monotonic()
                self.minutes = before + (now - started) / 60
                over = self.step == o.steps or now - started >= minutes * 60
                if parallel.agree(over or now - told >= evaluate_every * 60):
                    self._report(loss)
                    told = time.monotonic()
                    if parallel.agree(over):
                        break

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        o = self.options
        optim.set_rate(self.optimizers, schedule.rate_at(self.step, o.steps, peak=o.rate))
        output = self.model(network.normalise(images, self.device))
        loss = targets.segmentation_loss(output.class_queries_logits, output.masks_queries_logits,
                                         labels.to(self.device), self.weights, auxiliary=output.auxiliary_logits)
        if not torch.isfinite(loss):
            raise ValueError(f'the loss became {float(loss)} in step {self.step}; lower --rate and start again')
        self.model.zero_grad()
        loss.backward()
        parallel.share_step(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), o.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        schedule.average_into(self.average, self.model, self.step, decay=o.average)
        return loss.detach()

    def _report(self, loss: float) -> None:
        ious = evaluate(self.average, self.val, self.device)
        if parallel.world()[0] > 0:
            return
        mean = float(np.nanmean(ious))
        row = [self.step, f'{self.minutes:.1f}', f'{self.optimizers[-1].param_groups[0]["lr"]:.2e}', f'{loss:.4f}',
               f'{mean:.4f}', *(f'{iou:.4f}' for iou in ious)]
        path = self.out / 'curve.csv'
        fresh = not path.exists()
        with path.open('a', newline='') as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(['step', 'minutes', 'rate', 'loss', 'mIoU', *self.options.classes])
            writer.writerow(row)
        if mean > self.best:
            self.best = mean
            processor = network.image_processor(len(ious), (self.val[0].labels.shape[0], self.val[0].labels.shape[1]))
            network.save_folder(self.average, processor, self.out)
        self.save()

    def save(self) -> None:
        """Write OUT/checkpoint.pt; the previous one stays until the new one is complete."""
        state = {'model': self.model.state_dict(), 'average': self.average.state_dict(),
                 'optimizers': [optimizer.state_dict() for optimizer in self.optimizers], 'step': self.step, 'best': self.best,
                 'minutes': self.minutes, 'options': dataclasses.asdict(self.options)}
        partial = self.out / '.checkpoint.partial'
        torch.save(state, partial)
        os.replace(partial, self.out / 'checkpoint.pt')

    def load(self) -> None:
        """Continue from OUT/checkpoint.pt; the network and its classes must be the same."""
        path = self.out / 'checkpoint.pt'
        if not path.is_file():
            raise ValueError(f'{path}: nothing to resume; leave out --resume to start')
        state = torch.load(path, map_location=self.device, weights_only=True)
        if tuple(state['options']['classes']) != tuple(self.options.classes):
            raise ValueError(f'{path}: was trained on the classes {state["options"]["classes"]}')
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        for optimizer, saved in zip(self.optimizers, state['optimizers']):
            optimizer.load_state_dict(saved)
        self.step, self.best, self.minutes = state['step'], state['best'], state['minutes']


@torch.inference_mode()
def evaluate(model: torch.nn.Module, frames: Sequence[Frame], device: torch.device) -> np.ndarray:
    """Return the IoU of every class over all `frames` (float64 [K], NaN where a class occurs nowhere)."""
    count = model.config.num_labels
    confusion = np.zeros((count, count), np.int64)
    rank, members = parallel.world()
    for frame in frames[rank::members]:
        image = torch.from_numpy(frame.image.transpose(2, 0, 1))[None]
        output = model(network.normalise(image, device))
        scores = network.semantic_scores(output.class_queries_logits, output.masks_queries_logits, frame.labels.shape)
        predicted = scores[0].argmax(0).cpu().numpy()
        valid = frame.labels != IGNORE
        pairs = frame.labels[valid].astype(np.int64) * count + predicted[valid]
        confusion += np.bincount(pairs, minlength=count * count).reshape(count, count)
    confusion = parallel.total(torch.from_numpy(confusion)).numpy()
    hit = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return np.divide(hit, union, out=np.full(count, np.nan), where=union > 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `road-anomaly train segmenter` to `parser`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER', help='folder with train/ and val/')
    parser.add_argument('-o', '--out', required=True, type=Path, metavar='OUT', help='output folder')
    parser.add_argument('--resume', action='store_true', help='continue from OUT/checkpoint.pt')
    parser.add_argument('--minutes', type=float, default=float('inf'), help='stop (resumable) after so many minutes')
    parser.add_argument('--evaluate-every', type=float, default=5.0, metavar='MINUTES',
                        help='time between evaluations and checkpoints (default 5)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='cuda or cpu')
    parser.add_argument('--half', action=argparse.BooleanOptionalAction, default=True,
                        help='bfloat16 where it pays (default on)')
    parser.add_argument('--processes', type=int, default=1,
                        help='CPU processes that share every batch (default 1; the number of cores is fastest)')
    parser.add_argument('--workers', type=int, default=0,
                        help='further processes that prepare crops (default 0: none; use some with a GPU)')
    for item in options_of(TrainOptions):
        default = ','.join(item.default) if item.kind is tuple else item.default
        parser.add_argument(f'--{item.name.replace("_", "-")}', default=default, metavar=item.kind.__name__.upper(),
                            help=f'{item.text} (default {default})')


def main(args: argparse.Namespace) -> int:
    """Run the training; 0 when it ended, 2 after a one-line error, 130 after Ctrl-C (the last checkpoint stays)."""
    try:
        options = build_options(TrainOptions, {item.name: getattr(args, item.name)
                                               for item in options_of(TrainOptions)})
        _train(options, args)
    except (ValueError, TypeError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'stopped; continue from the last checkpoint with --resume -o {args.out}', file=sys.stderr)
        return 130
    return 0


def _train(options: TrainOptions, args: Any) -> None:
    count = len(options.classes)
    train, val = (read_folder(args.data / part, classes=count) for part in ('train', 'val'))
    if (args.out / 'checkpoint.pt').exists() and not args.resume:
        raise ValueError(f'{args.out}: holds a run already; continue it with --resume or choose another folder')
    if args.processes < 1 or options.batch < args.processes or (args.device != 'cpu' and args.processes > 1):
        raise ValueError(f'--processes: expected 1 to --batch, and 1 unless the device is cpu, got {args.processes}')
    extra = render_frames(options.rendered, size=train[0].labels.shape, first_seed=1000 + options.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    def work(rank: int) -> None:
        trainer = Trainer(options, train, val, args.out, device=torch.device(args.device), extra=extra,
                          half=args.half, workers=args.workers)
        if args.resume:
            trainer.load()
        trainer.run(minutes=args.minutes, evaluate_every=args.evaluate_every)
        if rank == 0:
            print(f'best val mIoU {trainer.best:.4f} after {trainer.step} steps: {args.out}')
    parallel.launch(work, args.processes)


if __name__ == '__main__':
    _parser = argparse.ArgumentParser(prog='road-anomaly train segmenter', description=__doc__)
    add_arguments(_parser)
    raise SystemExit(main(_parser.parse_args()))
