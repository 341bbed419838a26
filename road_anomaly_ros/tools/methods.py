# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every method by kind: where it comes from, what it needs, and what it costs here.

`road-anomaly bench --methods -o docs/methods.json` measures each on pictures of the rendered drive
with the built-in model. A method that needs weights nobody has handed in is listed without
figures. Scorers and refinements are measured without the network and without the segments,
trackers with 20 clear obstacles.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.perception import objects
from road_anomaly_ros.perception.chain import Chain
from road_anomaly_ros.perception.config import METHODS
from road_anomaly_ros.perception.contract import FrameResult, HostCopies
from road_anomaly_ros.perception.object_options import OFF
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.perception.refinements import REFINEMENTS, RefineContext
from road_anomaly_ros.perception.registry import Room
from road_anomaly_ros.perception.scorers import SCORERS, bind, evaluate, load
from road_anomaly_ros.perception.segments import SEGMENTS
from road_anomaly_ros.perception.tracks import Tracks
from road_anomaly_ros.tools import workbench
from road_anomaly_ros.tools.markdown import number
from road_anomaly_ros.tools.timing import measure, rendered

SIZE = (480, 360)
RUNS = 30
CROWD = (4, 5)  # rows and columns of obstacles that a tracker follows
NO_WEIGHTS = 'nothing'  # what the rooms say of methods that work as they come
_FREE = 'synthetic'
_OUTPUTS = {'mask': 'queries', 'pixel': 'pixel logits', 'map': 'a map made elsewhere'}


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table."""

    kind: str
    name: str
    source: str
    needs: str


def methods() -> Iterator[Method]:
    """Yield every registered method, by kind and name."""
    for kind, room in METHODS.items():
        for name in room.names():
            if isinstance(room, Room):
                yield Method(kind, name, *room.about(name))
            elif kind == 'scorer':
                scorer = SCORERS[name].make
                yield Method(kind, name, scorer.source, _scorer_needs(name))
            else:
                yield Method(kind, name, REFINEMENTS[name].make.source, _refinement_needs(name))


def _scorer_needs(name: str) -> str:
    found = ' or '.join(_OUTPUTS[kind] for kind in SCORERS[name].make.kinds)
    return f'{found}, trained head' if name.startswith('head_') else found


def _refinement_needs(name: str) -> str:
    step = REFINEMENTS[name].make
    wanted = ['segments'] * step.needs_segments + ['drivable classes'] * step.needs_labels
    wanted += ['a model'] if step.load is not None else []
    return ', '.join(wanted) or NO_WEIGHTS


def method_rows(
    pipeline: Pipeline, size: tuple[int, int] = SIZE, runs: int = RUNS
) -> Iterator[dict[str, Any]]:
    """Yield kind, name, p50 in ms and peak of memory in MiB of all that can run without files."""
    (picture,) = rendered(*size, 1)
    base = pipeline.config
    try:
        for kind, name, work in _works(pipeline, picture):
            yield {'kind': kind, 'name': name, **_figures(work, pipeline.device, runs)}
    finally:
        pipeline.reconfigure(base)


def _figures(work: Callable[[], Any], device: torch.device, runs: int) -> dict[str, Any]:
    with torch.inference_mode():
        work()  # compiles, fills caches
        found = measure(work, device, runs)
    return {'p50': found['p50'], 'peak_mb': found['peak_mb']}


def _works(
    pipeline: Pipeline, picture: np.ndarray
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Yield kind, name and one run of each method, all on one pass of the built-in network."""
    segmenter = pipeline.segmenter
    chosen = pipeline.chain.segmenter
    yield 'segmenter', chosen, lambda: workbench.output(pipeline, picture)
    if chosen != _FREE:
        other = Pipeline.from_config(segmenter=_FREE, device=str(pipeline.device))
        yield 'segmenter', _FREE, lambda: workbench.output(other, picture)
    for entry in SCORERS:
        name = entry.name
        if segmenter.kind not in entry.make.kinds:
            continue
        try:
            options, features = bind(name, _options(entry, pipeline), segmenter)
        except ValueError:  # a head of another model
            continue
        pipeline.reconfigure(
            pipeline.config.replace(
                {'scorer': name if features else 'plain', 'refinements': ('none',)}
            )
        )
        output = workbench.output(pipeline, picture)
        options = load(name, options, pipeline.resources)  # else timed with every score
        yield 'scorer', name, lambda o=output, n=name, p=options: evaluate(o, n, p)
    yield from _on_segments(pipeline, picture)
    yield from _trackers(pipeline, picture)


def _options(entry: Any, pipeline: Pipeline) -> Any:
    """Return options that this model can work with: class ids are those of its own classes."""
    if entry.name != 'mask2anomaly':
        return entry.options()
    return entry.options(refine_class_ids=pipeline.labels.drivable)


def _on_segments(
    pipeline: Pipeline, picture: np.ndarray
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    pipeline.reconfigure(pipeline.config.replace({'scorer': 'plain'}))
    result = pipeline(picture)
    sources = {
        name: SEGMENTS[name].make(device=pipeline.device, options=SEGMENTS[name].options())
        for name in SEGMENTS.names()
        if SEGMENTS.about(name)[1] == NO_WEIGHTS
    }
    for name, source in sources.items():
        yield 'segments', name, lambda s=source: s(result.image)
    segments = sources[pipeline.chain.segments](result.image)
    for entry in (entry for entry in REFINEMENTS if entry.make.load is None):
        context = RefineContext(
            result.image, result.labels, result.label_set, lambda *_: segments, result.score
        )
        context.segments()
        yield 'refinement', entry.name, lambda e=entry, c=context: e.make(c.score, c, e.options())


def _trackers(
    pipeline: Pipeline, picture: np.ndarray
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    result = _crowded(pipeline(picture), pipeline.prepared)
    for name in METHODS['tracker'].names():
        chain = pipeline.prepare(pipeline.config.replace({'tracker': name}))
        yield 'tracker', name, _following(result, chain)


def _crowded(result: FrameResult, chain: Chain) -> FrameResult:
    """Return a result with `CROWD` obstacles, all clear ones, in rows on a road without end."""
    inside = torch.ones(1, dtype=torch.bool)
    for axis, (size, count) in enumerate(zip(result.size, CROWD, strict=True)):
        step = -(-size // count)
        inside = inside & (torch.arange(size) % step < step // 2).unsqueeze(1 - axis)
    low, high = chain.levels.low_threshold, chain.levels.display[1]
    score = torch.where(inside, high, low).to(result.score)
    mask, instances, found = objects.find(
        score,
        threshold=result.threshold,
        low_threshold=low,
        options=dataclasses.replace(chain.object_options, on_drivable=OFF),
    )
    return dataclasses.replace(
        result, score=score, mask=mask, instances=instances, objects=found, host=HostCopies()
    )


def _following(result: Any, chain: Any) -> Callable[[], Any]:
    tracks, frames = Tracks(), itertools.count()
    return lambda: tracks.follow(dataclasses.replace(result, stamp=0.1 * next(frames)), chain)


def cells(measured: Iterable[Mapping[str, Any]]) -> list[Sequence[str]]:
    """Return the rows of the table: kind, name, source, needs, p50 in ms, peak in MiB."""
    known = {(row['kind'], row['name']): row for row in measured}
    found = []
    for method in methods():
        row = known.get((method.kind, method.name), {})
        figures = number(row.get('p50'), 1), number(row.get('peak_mb'), 0)
        found.append((method.kind, f'`{method.name}`', method.source, method.needs, *figures))
    return found


HEAD = ('kind', 'name', 'source', 'needs', 'p50 ms', 'peak MiB')


def where(document: Mapping[str, Any]) -> str:
    """Return what the figures were measured on, in one sentence."""
    environment = document['environment']
    name = environment.get('gpu') or environment['cpu']
    width, height = document['size']
    return (
        f'Cost beside the others at {width}x{height}, built-in model, {name}, '
        f'{environment["cores"]} cores; no figure: not measured without its weights or maps.'
    )
