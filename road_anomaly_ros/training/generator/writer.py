# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of drawn images: complete files only, several processes, continued where it stopped."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from road_anomaly_ros import files
from road_anomaly_ros.tools.encodings import read_picture, read_stored
from road_anomaly_ros.training.generator.backgrounds import read_backgrounds
from road_anomaly_ros.training.generator.compose import Generator, Sample
from road_anomaly_ros.training.generator.cutouts import CocoCutouts, FolderCutouts
from road_anomaly_ros.training.generator.options import GeneratorOptions

CONFIG, MANIFEST, JOURNAL = 'config.yaml', 'manifest.jsonl', '.journal.jsonl'
FOLDERS = ('images', 'labels_masks', 'instances', 'labels')
_CHUNK = 16  # images per task of a process
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95)


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where backgrounds and objects lie; `annotations` is a COCO file, `objects` its images.

    `backgrounds` may also be 'rendered:SEED?...'; without `objects` nothing is pasted.
    """

    backgrounds: Path | str
    objects: Path | None = None
    annotations: Path | None = None
    categories: tuple[str, ...] = ()

    def generator(self, options: GeneratorOptions) -> Generator:
        """Read the folders; ValueError, one line, for what cannot work."""
        scenes = read_backgrounds(self.backgrounds)
        if self.objects is None:
            return Generator(scenes, None, options)
        if self.annotations is None:
            return Generator(scenes, FolderCutouts(self.objects), options)
        names = {'categories': self.categories} if self.categories else {}
        return Generator(scenes, CocoCutouts(self.annotations, self.objects, **names), options)


def synthesize(
    sources: Sources,
    options: GeneratorOptions,
    count: int,
    out: Path,
    *,
    processes: int = 1,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Draw images 0 .. count - 1 into `out` and return how many of them are there at the end.

    What an earlier run of the same settings left is kept. KeyboardInterrupt and OSError (a full
    disk) pass through after the manifest of all complete images was written.
    """
    generator = sources.generator(options)
    with files.alone(out):
        return _synthesize(sources, options, generator, count, out, processes, advance)


def _synthesize(
    sources: Sources,
    options: GeneratorOptions,
    generator: Generator,
    count: int,
    out: Path,
    processes: int,
    advance: Callable[[int], object],
) -> int:
    config = _describe(sources, generator)
    _check_config(out, config)
    for folder in FOLDERS:
        (out / folder).mkdir(exist_ok=True)
    files.write(out / CONFIG, yaml.safe_dump(config, sort_keys=False))
    records = read_records(out)
    missing = [index for index in range(count) if index not in records]
    advance(count - len(missing))
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    try:
        with (out / JOURNAL).open('a', encoding='utf-8') as journal:
            for found in _drawn(sources, options, generator, out, chunks, processes):
                journal.writelines(json.dumps(record) + '\n' for record in found)
                journal.flush()
                records.update((record['index'], record) for record in found)
                advance(len(found))
    finally:
        lines = ''.join(json.dumps(records[index]) + '\n' for index in sorted(records))
        with contextlib.suppress(OSError):  # the journal holds the same
            files.write(out / MANIFEST, lines)
            (out / JOURNAL).unlink()
    return sum(index in records for index in range(count))


def _drawn(
    sources: Sources,
    options: GeneratorOptions,
    generator: Generator,
    out: Path,
    chunks: list[list[int]],
    processes: int,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each chunk, as they come; an error or Ctrl-C ends the processes."""
    if processes <= 1 or len(chunks) <= 1:
        for chunk in chunks:
            for index in chunk:
                yield [_draw(generator, out, index)]
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        min(processes, len(chunks)),
        multiprocessing.get_context('spawn'),
        _start,
        (sources, options, out),
    )
    try:
        waiting = iter(chunks)
        running = {pool.submit(_work, chunk) for chunk in itertools.islice(waiting, 2 * processes)}
        while running:
            done, running = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            running |= {
                pool.submit(_work, chunk) for chunk in itertools.islice(waiting, len(done))
            }
            for task in done:
                yield task.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_process: list[Any] = []


def _start(sources: Sources, options: GeneratorOptions, out: Path) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # the parent decides when to stop
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _process[:] = [sources.generator(options), out]


def _work(chunk: Iterable[int]) -> list[dict[str, Any]]:
    generator, out = _process
    return [_draw(generator, out, index) for index in chunk]


def _draw(generator: Generator, out: Path, index: int) -> dict[str, Any]:
    sample = generator[index]
    suffix = generator.options.image_format
    for folder, name, data in encoded(sample, suffix):
        files.write(out / folder / name, data)
    return {**sample.record, 'image': f'images/{file_name(index, suffix)}'}


def file_name(index: int, suffix: str) -> str:
    """Return the file's name of an image."""
    return f'{index:06d}.{suffix}'


def encoded(sample: Sample, suffix: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield folder, file name and content of everything that is stored of a sample."""
    index = sample.record['index']
    planes = (
        cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR),
        sample.mask,
        sample.instances,
        sample.labels,
    )
    for folder, plane in zip(FOLDERS, planes, strict=True):
        kind = suffix if folder == 'images' else 'png'
        done, data = cv2.imencode(f'.{kind}', plane, _JPEG if kind == 'jpg' else _PNG)
        if not done:
            raise ValueError(f'image {index} could not be encoded as {kind}')
        yield folder, file_name(index, kind), data.tobytes()


def read_records(out: Path) -> dict[int, dict[str, Any]]:
    """Return the manifest's lines of all complete images in `out`, by number."""
    found: dict[int, dict[str, Any]] = {}
    for name in (MANIFEST, JOURNAL):
        path = out / name
        for line in path.read_text(encoding='utf-8').splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off by a crash
                record = json.loads(line)
                if (out / record['image']).is_file():
                    found[int(record['index'])] = record
    return found


def _describe(sources: Sources, generator: Generator) -> dict[str, Any]:
    scenes = [scene.name for scene in generator.backgrounds.scenes]
    cutouts = generator.cutouts
    names = [] if cutouts is None else [cutouts.name(index) for index in range(len(cutouts))]
    options = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(generator.options).items()
    }
    return {
        'backgrounds': str(sources.backgrounds),
        'layout': generator.backgrounds.layout,
        'objects': str(sources.objects or ''),
        'classes': dict(generator.backgrounds.names),
        'annotations': str(sources.annotations or ''),
        'scenes': len(scenes),
        'cutouts': len(names),
        'sources': _digest([*scenes, *names]),
        'options': options,
    }


def _digest(names: list[str]) -> str:
    return files.sha256('\n'.join(names))[:16]


def _check_config(out: Path, config: dict[str, Any]) -> None:
    path = out / CONFIG
    if not path.is_file():
        foreign = [
            name for name in FOLDERS if (out / name).is_dir() and any((out / name).iterdir())
        ]
        if foreign:
            raise ValueError(
                f'{out / foreign[0]} holds files of something else, which would be replaced; '
                'choose another folder'
            )
        return
    before = files.read_yaml(path)
    if not isinstance(before, dict):
        raise ValueError(f'{path}: expected the settings of an earlier run; choose another folder')
    if before.get('layout') != 'rendered':  # rendered labels alone had other ids once
        before.setdefault('classes', config['classes'])
    flat = [{**entry, **entry.get('options', {})} for entry in (before, config)]
    for name in flat[1]:
        if (
            name not in ('options', 'backgrounds', 'objects', 'annotations')
            and flat[0].get(name) != flat[1][name]
        ):
            raise ValueError(
                f'{out} holds images of other settings ({name}: '
                f'{flat[0].get(name)!r}, now {flat[1][name]!r}); '
                'choose another folder'
            )


def read_sample(out: Path, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return image uint8 RGB [H,W,3] and anomaly mask uint8 [H,W] of one line of the manifest."""
    path = out / record['image']
    mask_path = out / 'labels_masks' / f'{path.stem}.png'
    image, mask = read_picture(path, upright=False), read_stored(mask_path)
    if mask is None:
        raise ValueError(f'{mask_path}: expected a readable image')
    return image, mask
