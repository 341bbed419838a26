# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An input through the chain into a folder: its outputs, its summary, and what to tell."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tqdm

from road_anomaly_ros.files import plain
from road_anomaly_ros.perception import drawing
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools import environment, sinks
from road_anomaly_ros.tools.flow import StopOnSignal
from road_anomaly_ros.tools.masks import MaskSink
from road_anomaly_ros.tools.overlay_video import VideoSink
from road_anomaly_ros.tools.pictures import FOLDER, NO_PICTURE, some
from road_anomaly_ros.tools.place import Place, Placed
from road_anomaly_ros.tools.processing import Outcome, process
from road_anomaly_ros.tools.sinks import BagSink, Sink, TrackTable
from road_anomaly_ros.tools.sources import Source, open_source
from road_anomaly_ros.tools.sources.foreign import WithAnomalyMaps
from road_anomaly_ros.tools.sources.images import FOLDER_FPS, FURTHER
from road_anomaly_ros.tools.sources.video import TRACK
from road_anomaly_ros.tools.staging import Staging

BAG, SCORES, OVERLAYS = 'bag', 'scores', 'overlays'
OBJECTS, TRACKS = 'objects.jsonl', 'tracks.csv'
EXIT_INCOMPLETE = 1
_LEAST_OF_VIDEO = 25  # pictures of a folder; fewer are photos, not a drive


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How much of an input is processed, and which outputs are written besides the tables."""

    limit: int | None = None  # frames
    duration: float | None = None  # seconds of the input
    size: tuple[int, int] | None = None  # (W, H) of the frames before anything else
    video: bool = True
    scores: str | None = None  # 'png' or 'npz'
    bag: str | None = None  # 'mcap' or 'sqlite3'


def process_input(
    path: str,
    out: Path,
    config: PipelineConfig,
    wanted: Wanted,
    *,
    topic: str | None = None,
    maps: Path | None = None,
) -> int:
    """Process an input into the folder `out`; returns the exit code, see `execute`.

    `maps` are anomaly maps of another method, which take the place of the network's.
    """
    if maps is not None:
        config = config.replace({'segmenter': 'external'})
    elif config.segmenter == 'external':
        raise ValueError(
            "the segmenter 'external' needs anomaly maps; name their folder with "
            '--anomaly-maps DIR'
        )
    with open_source(path, topic) as source:
        pictures = source if maps is None else WithAnomalyMaps(source, maps)
        staging = Staging(out, planned(wanted))
        try:
            pipeline: Any = Pipeline.from_config(config)
            place = Place.of(source, config, resized=wanted.size is not None)
            if place is not None:
                pipeline = Placed(pipeline, place)
            more = track_sinks(config, staging)
            return execute(pictures, pipeline, staging, wanted, more=more, place=place)
        finally:
            staging.discard()


def execute(
    source: Source,
    pipeline: Pipeline,
    staging: Staging,
    wanted: Wanted,
    *,
    draw: Any = None,
    more: Sequence[Sink] = (),
    place: Place | None = None,
    bag: type[BagSink] = BagSink,
) -> int:
    """Process the source, publish the results, say what was found; returns the exit code.

    `draw` makes the overlay of a result, by default that of the pipeline; `more` outputs are
    served too. By the `place` of the camera a `bag` holds what is told in metres.
    """
    sinks = [*make_sinks(source, staging, wanted, place, bag), *more]
    with StopOnSignal() as stop:
        with progress_bar(source, wanted.limit) as advance:
            outcome = process(
                source,
                pipeline,
                sinks,
                draw=draw or painter(pipeline),
                advance=advance,
                limit=wanted.limit,
                duration=wanted.duration,
                size=wanted.size,
                stop=stop,
            )
        if outcome.frames == 0:
            return _nothing_done(source, outcome)
        summary = summarize(source, pipeline, outcome, wanted.size)
        for sink in sinks:
            summary.update(plain(sink.figures()))
        staging.publish(outcome.outputs, summary)
    report(summary, staging.out, outcome.outputs)
    if outcome.error is not None:
        raise outcome.error
    if outcome.signal is not None:
        return 128 + outcome.signal
    return EXIT_INCOMPLETE if source.incomplete else 0


def planned(wanted: Wanted) -> list[str]:
    """Return the names that the run may write."""
    names = ['overlay.mp4'] if wanted.video else []
    names += [SCORES] if wanted.scores else []
    names += [BAG] if wanted.bag else []
    return [*names, OVERLAYS, 'snapshots', TRACKS, 'objects.csv', OBJECTS, 'frames.csv']


def make_sinks(
    source: Source,
    staging: Staging,
    wanted: Wanted,
    place: Place | None = None,
    bag: type[BagSink] = BagSink,
) -> list[Sink]:
    """Return the outputs asked for; a few images make no video, a folder gives pictures too.

    The frame table comes last, so that it holds what the others took.
    """
    found: list[Sink] = []
    photos = source.kind in ('image', 'folder') and (source.count or 0) < _LEAST_OF_VIDEO
    if wanted.video and not photos:
        fps = None if source.live else source.fps or FOLDER_FPS
        found.append(VideoSink(staging.path('overlay.mp4'), fps))
    if source.kind == 'folder':
        found.append(sinks.PictureSink(staging.path(OVERLAYS)))
    if wanted.scores:
        found.append(sinks.ScoreSink(staging.path(SCORES), wanted.scores))
    if wanted.bag:
        found.append(bag(staging.path(BAG), wanted.bag, place))
    if source.kind == 'rendered':
        found.append(sinks.TruthSink(staging.path('truth'), source.drive))
    return [
        *found,
        sinks.SnapshotSink(staging.path('snapshots')),
        sinks.ObjectTable(staging.path('objects.csv')),
        MaskSink(staging.path(OBJECTS)),
        sinks.FrameTable(staging.path('frames.csv')),
    ]


def track_sinks(config: Any, staging: Staging) -> list[Sink]:
    """Return the table of tracks where there is a tracker."""
    return [] if config.tracker == 'none' else [TrackTable(staging.path(TRACKS))]


def painter(pipeline: Pipeline) -> Any:
    """Return the function that draws the overlay of a result with the pipeline's options."""
    return functools.partial(drawing.overlay, options=pipeline.chain.options('drawing'))


@contextlib.contextmanager
def progress_bar(source: Source, limit: int | None) -> Iterator[Any]:
    """Show the progress on a terminal; yields the function to call after each frame."""
    total = min(filter(None, (source.count, limit)), default=None)
    with tqdm.tqdm(total=total, unit='frame', disable=None, dynamic_ncols=True) as bar:
        yield bar.update


def _nothing_done(source: Source, outcome: Outcome) -> int:
    if outcome.error is not None:
        raise outcome.error
    if outcome.signal is not None:
        print('interrupted before the first frame was done, nothing was written', file=sys.stderr)
        return 128 + outcome.signal
    reasons = ', '.join(source.omissions())
    raise ValueError(
        f'{source.name}: no frame could be read ({reasons or source.problem or "it is empty"})'
    )


def summarize(
    source: Source, pipeline: Pipeline, outcome: Outcome, size: tuple[int, int] | None
) -> dict[str, Any]:
    """Return what stands in summary.json."""
    chain = pipeline.chain
    error = one_line(outcome.error) if outcome.error is not None else None
    return plain(
        {
            'input': {
                'path': source.name,
                'kind': source.kind,
                'topic': source.topic,
                'fps': source.fps,
                'count': source.count,
                'live': source.live,
                'gaps': source.gaps,
                'skipped': outcome.skipped,
                'resize': size,
            },
            **outcome.figures(),
            'problem': error or source.problem,
            'refused': source.refused,
            'left_out': source.left_out,
            'segmenter': chain.segmenter,
            'model': chain.model,
            'scorer': chain.scorer,
            'refinements': chain.refinements,
            'tracker': chain.tracker,
            'device': str(pipeline.device),
            'options': chain.as_dict(),
            'machine': environment.machine(pipeline.device),
            'peak_memory_mb': round(environment.peak_memory_mb(), 1),
            'versions': environment.versions(),
        }
    )


def report(summary: Mapping[str, Any], out: Path, names: Sequence[str]) -> None:
    """Print what was found and where to look; what went wrong goes to stderr."""
    fps = f' ({summary["fps"]:g} frames/s)' if summary['fps'] else ''
    print(
        f'{summary["frames"]} frames in {summary["seconds"]:.1f} s{fps}, scorer '
        f'{summary["scorer"]}: {summary["objects"]} obstacles in '
        f'{summary["frames_with_objects"]} frames'
    )
    if 'tracks' in summary:
        print(f'{summary["tracks"]} tracks, {summary["tracks_confirmed"]} of them confirmed')
    if truth := summary.get('truth'):
        recall = (
            'no obstacle was large enough'
            if truth['recall'] is None
            else (
                f'{truth["recall"]:.0%} of {truth["appearances"]} appearances of '
                f'{truth["obstacles"]} obstacles found'
            )
        )
        print(
            f'against the ground truth: {recall}, '
            f'{truth["false_alarms_per_frame"]:.2f} false alarms per frame'
        )
    if found := summary.get('tracking'):
        error = found['range_error']
        metres = '' if error is None else f', ranges wrong by {error:.1%} in the median'
        print(f'tracks against it: IDF1 {found["IDF1"]:.2f}{metres}')
    print(f'results in {out}: {", ".join([*names, "summary.json"])}')
    for reason, count in summary['refused'].items():
        print(
            f'warning: {count} {_noun(reason)} left out ({reason}): '
            f'{some(summary["left_out"][reason])}',
            file=sys.stderr,
        )
    if summary['problem']:
        print(f'warning: {summary["problem"]}', file=sys.stderr)
    if summary['interrupted']:
        print(
            f'interrupted: the first {summary["frames"]} frames are done and kept', file=sys.stderr
        )


def _noun(reason: str) -> str:
    nouns = {NO_PICTURE: 'files', FOLDER: 'files', FURTHER: 'sets of pictures', TRACK: 'tracks'}
    return nouns.get(reason, 'pictures')
