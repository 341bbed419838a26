# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets, one model, several methods: what `evaluate`, `sweep` and `benchmark` share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tqdm

from road_anomaly_ros import __version__
from road_anomaly_ros.evaluation import details, helpers, results
from road_anomaly_ros.evaluation.datasets import DataSet, Histogram, open_dataset
from road_anomaly_ros.evaluation.measuring import Method, measure, score_images, shared_classes
from road_anomaly_ros.evaluation.store import Store, digest, file_hashes
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.tools import environment
from road_anomaly_ros.tools.pictures import some

INTERRUPTED = 130
_FORM_OF_SCORES = 2  # changes when the store or the details hold other things
_UNFIT = r'[^\w.+=-]'  # in the name of a folder
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class Job:
    """What is measured, and where the results go."""

    dataset: Path
    layout: str
    out: Path
    name: str = ''
    max_frames: int | None = None
    skip_clean: bool = False
    min_pred_size: int | None = None
    min_gt_size: int | None = None
    seed: int = 0
    keep_scores: bool = False
    jobs: int = 1  # processes that score images, a model each


def evaluate(job: Job, configs: Mapping[str, PipelineConfig]) -> None:
    """Measure every method that has no figures in `job.out` yet; see `evaluate_all`."""
    evaluate_all([job], configs)


def evaluate_all(jobs: Sequence[Job], configs: Mapping[str, PipelineConfig]) -> None:
    """Measure every method on every data set that has no figures in their common `out` yet.

    All labels are read before the first pass of the network, which is loaded once.
    What is done stays after Ctrl-C (KeyboardInterrupt) and on a full disk (OSError, which says
    so); the same call continues.
    """
    chosen = [chosen_data(job) for job in jobs]
    store = Store(jobs[0].out)
    try:
        pipeline = Pipeline(next(iter(configs.values())))
        if pipeline.needs_anomaly:
            raise ValueError(
                "the segmenter 'external' has no network to be measured; choose another one"
            )
        for run in [
            Evaluation(job, *found, configs, store, pipeline)
            for job, found in zip(jobs, chosen, strict=True)
        ]:
            run.run()
    except OSError as error:
        raise OSError(
            error.errno,
            f'{error.strerror}; what is done is kept and the same command continues',
            error.filename,
        ) from None
    finally:
        store.close()


def interrupted(out: Path) -> int:
    """Tell that Ctrl-C lost nothing; returns the exit code."""
    print(f'interrupted: what is done is in {out}; the same command continues', file=sys.stderr)
    return INTERRUPTED


def method_configs(names: Sequence[str], config: PipelineConfig) -> dict[str, PipelineConfig]:
    """Return the settings of every method; ValueError for unknown parts and doubled names."""
    found: dict[str, PipelineConfig] = {}
    for name in names:
        if name in found:
            raise ValueError(f'--methods: {name!r} is there twice')
        scorer, *refinements = name.split('+')
        found[name] = (
            config
            if name == 'auto'
            else config.replace({'scorer': scorer, 'refinements': tuple(refinements) or ('none',)})
        )
    return found


def chosen_data(job: Job) -> tuple[DataSet, Histogram]:
    """Return the checked data set, cut down as asked for, and the histogram of its labels."""
    data = open_dataset(job.dataset, job.layout)
    if left := data.unused():
        print(
            f'warning: {len(left)} files beside the images of {job.dataset} are left out: '
            f'{some(path.name for path in left)}',
            file=sys.stderr,
        )
    data = dataclasses.replace(data, samples=data.samples[: job.max_frames])
    with progress('labels', len(data)) as advance:
        counts = []
        for found in data.check():
            counts.append(found)
            advance()
    kept = [index for index, found in enumerate(counts) if found.anomaly or not job.skip_clean]
    if not kept:
        raise ValueError(
            f'{job.dataset}: none of the {len(data)} images has an anomaly; '
            'leave --skip-clean away'
        )
    histogram = sum((counts[index] for index in kept), Histogram())
    if data.layout.values and not histogram.anomaly:
        print(
            f'warning: no pixel of {job.dataset} is an anomaly (1), {histogram.ignored} '
            'are ignored (255); AP and its like stay undefined',
            file=sys.stderr,
        )
    samples = tuple(data.samples[index] for index in kept)
    return dataclasses.replace(data, samples=samples), histogram


class Evaluation:
    """One data set, one model, several methods."""

    def __init__(
        self,
        job: Job,
        data: DataSet,
        histogram: Histogram,
        configs: Mapping[str, PipelineConfig],
        store: Store,
        pipeline: Pipeline,
    ) -> None:
        self._job, self._data, self._store = job, data, store
        self._name = job.name or data.layout.name
        self._histogram = histogram
        self._fingerprint = data.fingerprint()
        self._sizes = (
            job.min_pred_size or data.layout.sizes[0],
            job.min_gt_size or data.layout.sizes[1],
        )
        self._pipeline, self._configs = pipeline, configs
        self._refuse_other_classes()
        self._checkpoints = _checkpoints(self._pipeline)
        self._methods = [self._method(name, config) for name, config in configs.items()]

    def _refuse_other_classes(self) -> None:
        layout, labels = self._data.layout, self._pipeline.labels
        shared = shared_classes(labels.names, layout.class_names)
        if shared is not None and shared.names != layout.class_names:
            print(
                f'note: the model lacks some of the {len(layout.class_names)} classes of '
                f'{self._job.dataset}; mIoU is over its own {len(shared.names)}, which hold '
                'them',
                file=sys.stderr,
            )
        if layout.values or shared is not None:
            return
        raise ValueError(
            f'layout {layout.name} measures the classes {list(layout.class_names)}, '
            f'the model knows {list(labels.names)}; choose a model of these classes'
        )

    def _method(self, name: str, config: PipelineConfig) -> Method:
        try:
            chain = self._pipeline.prepare(config)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from None
        key = digest(
            [
                _FORM_OF_SCORES,
                __version__,
                self._checkpoints,
                _head(chain),
                chain.config.as_dict(),
                self._data.layout.name,
                stamps(self._data),
                self._job.seed,
            ]
        )
        return Method(name, chain, f'{re.sub(_UNFIT, "_", name)[:_LONGEST_NAME]}-{key}')

    def run(self) -> None:
        """Score what is missing, then measure every method, each result kept as it comes."""
        found = self._same_data(self._earlier())
        waiting = [method for method in self._methods if not self._is_measured(found, method)]
        if waiting:
            self._store.refuse_full_disk(sum(dataclasses.astuple(self._histogram)), len(waiting))
            with progress('images', len(self._data)) as advance:
                self._score(waiting, advance)
        for method in waiting:
            found = self._measured(found, method)
            results.write(self._store.out, found)
            details.prune(self._store.out, found['environment'])
            if not self._job.keep_scores:
                self._store.clear(method.key)

    def _score(self, methods: Sequence[Method], advance: Callable[[], object]) -> None:
        if self._job.jobs > 1:
            chosen = {method.name: (self._configs[method.name], method.key) for method in methods}
            out, seed = self._store.out, self._job.seed
            share = helpers.Share(out, self._data, chosen, seed, number=0, members=1)
            helpers.score_images(share, self._job.jobs, advance)
            return
        score_images(
            self._pipeline, self._data, methods, self._store, seed=self._job.seed, advance=advance
        )

    def _measured(self, found: dict[str, Any], method: Method) -> dict[str, Any]:
        """Return the results with this method's, whose details are written first."""
        findings = details.Findings()
        row, how = measure(
            self._data,
            self._store,
            method.key,
            labels=self._pipeline.labels,
            sizes=self._sizes,
            findings=findings,
        )
        row = {'dataset': self._name, 'method': method.name, **row}
        made_with = self._environment(method, how)
        details.write(
            self._store.out,
            method.key,
            {'row': row, 'environment': made_with, **findings.as_dict()},
        )
        return details.joined(found, row, made_with)

    def _same_data(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return the results without those of this name that are of other data.

        ValueError where they are of another folder; what changed in this one is set aside.
        """
        run = found['environment'].get('runs', {}).get(self._name)
        if run is None or run.get('fingerprint', self._fingerprint) == self._fingerprint:
            return found
        if run.get('folder') != str(self._data.root.resolve()):
            raise ValueError(
                f'{self._store.out} holds results of {self._name!r} from {run.get("folder")}, '
                f'these data are others; name them with --name, or choose another folder for -o'
            )
        aside = results.set_aside(self._store.out / results.NAME)
        print(
            f'warning: {self._data.root} has changed or another part of it was measured before; '
            f'the results of {self._name!r} are made anew, the earlier ones kept as '
            f'{aside.name}',
            file=sys.stderr,
        )
        environment = dict(found['environment'])
        environment['runs'] = {
            name: other for name, other in environment['runs'].items() if name != self._name
        }
        return {
            **found,
            'environment': environment,
            'results': [row for row in found['results'] if row['dataset'] != self._name],
        }

    def _earlier(self) -> dict[str, Any]:
        """Return what is there; a damaged table is set aside and made again from the details."""
        path = self._store.out / results.NAME
        if not path.is_file():
            return {'environment': {}, 'results': []}
        try:
            return results.read(path)
        except ValueError as error:
            aside = path.with_name(f'{path.name}.damaged')
            os.replace(path, aside)
            found = details.rebuild(self._store.out)
            print(
                f'warning: {error} It is kept as {aside.name}; {len(found["results"])} rows '
                f'were made again from {details.FOLDER}/',
                file=sys.stderr,
            )
            return found

    def _is_measured(self, found: dict[str, Any], method: Method) -> bool:
        there = any(
            (row['dataset'], row['method']) == (self._name, method.name)
            for row in found['results']
        )
        run = found['environment'].get('runs', {}).get(self._name, {})
        before = run.get('methods', {}).get(method.name, {})
        wanted = (method.key, *self._sizes)
        same = wanted == tuple(
            before.get(name) for name in ('key', 'min_pred_size', 'min_gt_size')
        )
        return there and same and details.read(self._store.out, method.key) is not None

    def _environment(self, method: Method, how: Mapping[str, Any]) -> dict[str, Any]:
        chain = method.chain.config
        machine = environment.machine(self._pipeline.device)
        record = {
            'key': method.key,
            'options': chain.as_dict(),
            'checkpoints': {**self._checkpoints, **_head(method.chain)},
            'machine': machine,
            **how,
        }
        run = {
            'layout': self._data.layout.name,
            'folder': str(self._data.root.resolve()),
            'fingerprint': self._fingerprint,
            'frames': len(self._data),
            'pixels': dataclasses.asdict(self._histogram),
            'record': record,
        }
        return {
            'machine': machine,
            'versions': environment.versions(),
            'seeds': {'torch': self._job.seed},
            'segmenter': chain.segmenter,
            'model': chain.model,
            'device': str(self._pipeline.device),
            'checkpoints': self._checkpoints,
            'run': run,
        }


def _checkpoints(pipeline: Pipeline) -> dict[str, str]:
    return file_hashes(pipeline.segmenter.model_dir)


def _head(chain: Any) -> dict[str, str]:
    """Return the hashes of the anomaly head that a chain runs."""
    folder = getattr(chain.scorer_options, 'checkpoint', '')
    return file_hashes(Path(folder)) if folder else {}


def stamps(data: DataSet) -> list[Any]:
    """Return what tells whether the files of a data set are those of another time."""
    return [
        (sample.name, *map(_stamp, (sample.image, sample.anomaly, sample.classes)))
        for sample in data.samples
    ]


def _stamp(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def progress(text: str, total: int) -> Iterator[Any]:
    """Show the progress on a terminal; yields the function to call after each image."""
    with tqdm.tqdm(desc=text, total=total, unit='image', disable=None) as bar:
        yield bar.update
