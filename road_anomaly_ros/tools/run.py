# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Process a video, images, a bag, or a camera or stream as it comes.

Of files every frame is processed, of cameras and addresses the newest; what breaks off is
connected anew. OUT gets overlay.mp4, snapshots/, frames.csv, objects.csv, objects.jsonl (with
masks as COCO's run lengths), tracks.csv (with a tracker) and summary.json, for a folder of images
also overlays/ with one picture for each, and a video only of 25 or more, all at once when the work
is done. Ctrl-C keeps what is done; a video or bag that breaks off is processed up to the break,
and what lacks frames or messages ends with code 1. An earlier run's results in OUT are replaced,
other files there are left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros.files import plain
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.chain import (
    above_zero,
    add_chain_arguments,
    chain_config,
    positive,
    size,
)
from road_anomaly_ros.tools.pictures import FOLDER, NO_PICTURE, some

if TYPE_CHECKING:
    from road_anomaly_ros.perception.pipeline import Pipeline
    from road_anomaly_ros.tools.processing import Outcome
    from road_anomaly_ros.tools.sinks import Sink
    from road_anomaly_ros.tools.sources import Source
    from road_anomaly_ros.tools.staging import Staging

EXAMPLES = """
examples:
  road-anomaly run dashcam.mp4 -o results
  road-anomaly run photos/ -o results --scorer rba --save-scores png
  road-anomaly run drive_bag/ -o results --topic /front/image_raw --bag
  road-anomaly run dashcam.mp4 -o results --resize 960x540 --set objects.min_area=200
  road-anomaly run photos/ -o results --anomaly-maps maps_of_another_method/
  road-anomaly run rtsp://camera/stream -o results --duration 60
  ffmpeg -i drive.mp4 -f mpegts - | road-anomaly run - -o results
  road-anomaly run 'rendered:7?frames=100&width=480&height=360' -o results
"""
BAG, SCORES, OVERLAYS = 'bag', 'scores', 'overlays'
OBJECTS, TRACKS = 'objects.jsonl', 'tracks.csv'
EXIT_INCOMPLETE = 1
_LEAST_OF_VIDEO = 25  # pictures of a folder; fewer are photos, not a drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        'input',
        metavar='INPUT',
        help='video, image, folder of images, pattern such as image%%04d.png, rosbag2 (folder, '
        '.mcap or .db3), camera (/dev/video0), address (rtsp://..., http://...), - for a video on '
        "standard input, or 'rendered:SEED' for the rendered drive",
    )
    parser.add_argument(
        '-o', '--out', metavar='OUT', type=Path, required=True, help='folder for the results'
    )
    add_processing_arguments(parser)


def add_processing_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` and `demo` have in common."""
    parser.add_argument(
        '--anomaly-maps',
        metavar='DIR',
        type=Path,
        help='refine the anomaly maps of another method (npy, npz or grey PNG, '
        'one per picture, of its name or in its order) instead of computing any',
    )
    parser.add_argument('--topic', help='image topic of a bag that has several')
    parser.add_argument('--max-frames', metavar='N', type=positive, help='stop after N frames')
    parser.add_argument(
        '--duration',
        metavar='SECONDS',
        type=above_zero,
        help='stop after so many seconds of the input',
    )
    parser.add_argument(
        '--resize', metavar='WxH', type=size, help='resize every frame before anything else'
    )
    parser.add_argument('--no-video', action='store_true', help='write no overlay.mp4')
    parser.add_argument(
        '--save-scores',
        choices=('png', 'npz'),
        help='also write the score maps, as 16-bit PNG or exact float32',
    )
    parser.add_argument(
        '--bag',
        choices=('mcap', 'sqlite3'),
        nargs='?',
        const='mcap',
        help='also write a rosbag2 with the results as image topics',
    )
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, 1 for an incomplete input, 128 + the signal that stopped it."""
    from road_anomaly_ros.perception.pipeline import Pipeline
    from road_anomaly_ros.tools.sources import open_source
    from road_anomaly_ros.tools.sources.foreign import WithAnomalyMaps
    from road_anomaly_ros.tools.staging import Staging

    config = chain_config(arguments)
    maps = arguments.anomaly_maps
    if maps is not None:
        config = config.replace({'segmenter': 'external'})
    elif config.segmenter == 'external':
        raise ValueError(
            "the segmenter 'external' needs anomaly maps; name their folder with "
            '--anomaly-maps DIR'
        )
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(arguments.input, arguments.topic))
        if maps is not None:
            source = WithAnomalyMaps(source, maps)
        staging = Staging(arguments.out, planned(arguments))
        try:
            return execute(
                source,
                Pipeline.from_config(config),
                staging,
                arguments,
                more=track_sinks(config, staging),
            )
        finally:
            staging.discard()


def execute(
    source: Source,
    pipeline: Pipeline,
    staging: Staging,
    arguments: argparse.Namespace,
    *,
    draw: Any = None,
    more: Sequence[Sink] = (),
) -> int:
    """Process the source, publish the results, say what was found; returns the exit code.

    `draw` makes the overlay of a result, by default that of the pipeline; `more` outputs are
    served too.
    """
    from road_anomaly_ros.tools.flow import StopOnSignal
    from road_anomaly_ros.tools.processing import process

    draw = draw or painter(pipeline)
    sinks = [*make_sinks(source, staging, arguments), *more]
    with StopOnSignal() as stop:
        with progress_bar(source, arguments.max_frames) as advance:
            outcome = process(
                source,
                pipeline,
                sinks,
                draw=draw,
                advance=advance,
                limit=arguments.max_frames,
                duration=arguments.duration,
                size=arguments.resize,
                stop=stop,
            )
        if outcome.frames == 0:
            return _nothing_done(source, outcome)
        summary = summarize(source, pipeline, outcome, arguments)
        for sink in sinks:
            summary.update(plain(sink.figures()))
        staging.publish(outcome.outputs, summary)
    report(summary, staging.out, outcome.outputs)
    if outcome.error is not None:
        raise outcome.error
    if outcome.signal is not None:
        return 128 + outcome.signal
    return EXIT_INCOMPLETE if source.incomplete else 0


def planned(arguments: argparse.Namespace) -> list[str]:
    """Return the names that the run may write."""
    names = ['overlay.mp4'] if not arguments.no_video else []
    names += [SCORES] if arguments.save_scores else []
    names += [BAG] if arguments.bag else []
    return [*names, OVERLAYS, 'snapshots', TRACKS, 'objects.csv', OBJECTS, 'frames.csv']


def make_sinks(source: Source, staging: Staging, arguments: argparse.Namespace) -> list[Sink]:
    """Return the outputs asked for; a few images make no video, a folder gives pictures too.

    The frame table comes last, so that it holds what the others took.
    """
    from road_anomaly_ros.tools import sinks
    from road_anomaly_ros.tools.masks import MaskSink
    from road_anomaly_ros.tools.overlay_video import VideoSink
    from road_anomaly_ros.tools.sources.images import FOLDER_FPS

    found: list[Sink] = []
    photos = source.kind in ('image', 'folder') and (source.count or 0) < _LEAST_OF_VIDEO
    if not arguments.no_video and not photos:
        fps = None if source.live else source.fps or FOLDER_FPS
        found.append(VideoSink(staging.path('overlay.mp4'), fps))
    if source.kind == 'folder':
        found.append(sinks.PictureSink(staging.path(OVERLAYS)))
    if arguments.save_scores:
        found.append(sinks.ScoreSink(staging.path(SCORES), arguments.save_scores))
    if arguments.bag:
        found.append(sinks.BagSink(staging.path(BAG), arguments.bag))
    if source.kind == 'rendered':
        found.append(sinks.TruthSink(staging.path('truth')))
    return [
        *found,
        sinks.SnapshotSink(staging.path('snapshots')),
        sinks.ObjectTable(staging.path('objects.csv')),
        MaskSink(staging.path(OBJECTS)),
        sinks.FrameTable(staging.path('frames.csv')),
    ]


def track_sinks(config: Any, staging: Staging) -> list[Sink]:
    """Return the table of tracks where there is a tracker."""
    from road_anomaly_ros.tools.sinks import TrackTable

    return [] if config.tracker == 'none' else [TrackTable(staging.path(TRACKS))]


def painter(pipeline: Pipeline) -> Any:
    """Return the function that draws the overlay of a result with the pipeline's options."""
    from road_anomaly_ros.perception import drawing

    return functools.partial(drawing.overlay, options=pipeline.chain.options('drawing'))


@contextlib.contextmanager
def progress_bar(source: Source, limit: int | None) -> Iterator[Any]:
    """Show the progress on a terminal; yields the function to call after each frame."""
    import tqdm

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
    source: Source, pipeline: Pipeline, outcome: Outcome, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return what stands in summary.json."""
    from road_anomaly_ros.tools import environment

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
                'resize': arguments.resize,
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
    return 'files' if reason in (NO_PICTURE, FOLDER) else 'pictures'
