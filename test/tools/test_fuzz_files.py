# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Damaged files of every kind that a user hands in are read, or refused in one line."""

from __future__ import annotations

import contextlib
import io

import cv2
import numpy as np
import pytest
import torch
from fuzzing import Account, count, damage, damage_text

from road_anomaly_ros.perception import PipelineConfig, heads
from road_anomaly_ros.perception.calibration import Calibration
from road_anomaly_ros.perception.segmenters.external import read_map
from road_anomaly_ros.perception.weights import load_state, read_state
from road_anomaly_ros.tools.bags import IMAGE, BagWriter, image_message
from road_anomaly_ros.tools.sources import open_source

CALIBRATION = b"""default: {scorer: eam, refinements: [gaussian], refinement.gaussian.sigma: 2.0}
scorers:
  eam: {threshold: 0.6, low_threshold: 0.5, display: [0.1, 0.9], source: by hand}
  rba: {threshold: -0.2, display: [-1.0, 0.5]}
"""
CONFIGURATION = b"""scorer: s2
segmenter: synthetic
refinements: [gaussian, road_prior]
scorer.s2.tau: 0.02
objects: {min_area: 200, connectivity: 4, threshold: 0.9}
drawing.dim: 0.3
"""


def picture(rng, size=(12, 16)):
    return rng.integers(0, 256, (*size, 3), np.uint8)


def read_all(path):
    """Take every picture; damaged ones of a folder or a bag are counted by the source."""
    with open_source(str(path)) as source:
        frames = list(source)
        assert all(frame.image.dtype == np.uint8 for frame in frames)


def try_files(what, rng, path, raw, tries, read, harm=damage):
    """Write damaged versions of a file and read each."""
    account = Account(what)
    path.write_bytes(raw)
    read()  # the sound file can be read
    for _ in range(tries):
        path.write_bytes(bytes(harm(rng, raw)))
        account(read)
    account.close(tries)
    return account


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp', '.tiff', '.ppm'])
def test_mutated_pictures(rng, tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    raw = cv2.imencode(suffix, picture(rng))[1].tobytes()
    account = try_files(suffix, rng, path, raw, count(200), lambda: read_all(path))
    assert set(account.refused) == {'ValueError'}


def test_mutated_videos(rng, tmp_path):
    path = tmp_path / 'a.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10.0, (64, 48))
    for _ in range(6):
        writer.write(picture(rng, (48, 64)))
    writer.release()
    raw = path.read_bytes()
    assert try_files('video', rng, path, raw, count(60), lambda: read_all(path)).refused


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_mutated_bags(rng, tmp_path, storage):
    writer = BagWriter(tmp_path / 'bag', storage)
    for index in range(4):
        writer.write(
            '/image',
            IMAGE,
            image_message(picture(rng), 'rgb8', stamp_ns=10**18 + index, frame_id='front'),
            10**18 + index,
        )
    writer.close()
    for path in sorted((tmp_path / 'bag').iterdir()):
        raw, text = path.read_bytes(), path.suffix == '.yaml'
        try_files(
            f'{storage} {path.suffix}',
            rng,
            path,
            raw,
            count(25),
            lambda: read_all(tmp_path / 'bag'),
            damage_text if text else damage,
        )
        path.write_bytes(raw)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_metadata_of_a_bag_leads_to_no_file_elsewhere(rng, tmp_path, storage):
    for name in ('ours', 'theirs'):
        writer = BagWriter(tmp_path / name, storage)
        writer.write(
            '/image',
            IMAGE,
            image_message(picture(rng), 'rgb8', stamp_ns=10**18, frame_id=name),
            10**18,
        )
        writer.close()
    metadata, ours = (tmp_path / 'ours' / 'metadata.yaml'), None
    for path in (tmp_path / 'ours').iterdir():
        ours = path if path != metadata else ours
    (theirs,) = (path for path in (tmp_path / 'theirs').iterdir() if path.suffix == ours.suffix)
    text = metadata.read_text()
    ours.unlink()
    for elsewhere in (f'../theirs/{theirs.name}', str(theirs)):
        metadata.write_text(text.replace(ours.name, elsewhere))
        frames = []
        with (
            contextlib.suppress(ValueError, OSError),
            open_source(str(tmp_path / 'ours')) as source,
        ):
            frames = list(source)
        assert not frames


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_mutated_checkpoints(rng, tmp_path, suffix):
    from safetensors.torch import save

    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    raw = save(network.state_dict()) if suffix == '.safetensors' else stream.getvalue()
    path = tmp_path / f'a{suffix}'
    assert try_files(
        f'weights {suffix}',
        rng,
        path,
        raw,
        count(125),
        lambda: load_state(network, read_state(path), path),
    ).refused


@pytest.mark.parametrize('name', [heads.WEIGHTS, heads.INFO])
def test_mutated_heads(rng, tmp_path, name):
    info = heads.HeadInfo('head_v2', '0' * 64, 'pyramid', 6)
    heads.save_head(tmp_path, info, info.module())
    raw = (tmp_path / name).read_bytes()
    harm = damage_text if name == heads.INFO else damage
    assert try_files(
        name, rng, tmp_path / name, raw, count(75), lambda: heads.load_head(tmp_path), harm
    ).refused


def test_mutated_calibrations(rng, tmp_path):
    path = tmp_path / 'calibration.yaml'
    assert try_files(
        'calibration',
        rng,
        path,
        CALIBRATION,
        count(300),
        lambda: Calibration.read(path),
        damage_text,
    ).refused


def test_mutated_configurations(rng, tmp_path):
    path = tmp_path / 'chain.yaml'
    assert try_files(
        'configuration',
        rng,
        path,
        CONFIGURATION,
        count(300),
        lambda: PipelineConfig.from_any(path),
        damage_text,
    ).refused


@pytest.mark.parametrize('suffix', ['.npy', '.npz', '.png'])
def test_mutated_anomaly_maps(rng, tmp_path, suffix):
    values, stream = rng.random((6, 8)).astype(np.float32), io.BytesIO()
    if suffix == '.png':
        raw = cv2.imencode(suffix, (255 * values).astype(np.uint8))[1].tobytes()
    else:
        (np.save if suffix == '.npy' else np.savez)(stream, values)
        raw = stream.getvalue()
    path = tmp_path / f'a{suffix}'
    assert try_files(f'map {suffix}', rng, path, raw, count(100), lambda: read_map(path)).refused


@pytest.mark.parametrize(
    'text',
    [
        '{"kind": "head_v2", "segmenter": "", "channels": 99999999999, "hidden": [64, 32]}',
        '{"kind": "head_v2", "segmenter": "", "channels": 6, "hidden": [64, 9000000000]}',
        '{"kind": "head_v2", "segmenter": "", "channels": -6, "hidden": [64, 32]}',
        '{"kind": "head_v2", "segmenter": "", "channels": 6.5, "hidden": [64, 32]}',
        '{"kind": "head_v2", "segmenter": "", "channels": 6, "hidden": [64]}',
        '{"kind": "head_v2", "segmenter": "", "channels": 6, "projection": 1e9, "hidden": [4, 4]}',
    ],
)
def test_a_head_of_absurd_sizes_takes_no_memory(tmp_path, text):
    (tmp_path / heads.INFO).write_text(text)
    with pytest.raises(heads.PipelineError, match='describes no anomaly head'):
        heads.read_info(tmp_path / heads.INFO)
