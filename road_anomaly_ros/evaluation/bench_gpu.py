# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How fast the whole chain is on a GPU with networks of the published sizes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from road_anomaly_ros.perception import heads
from road_anomaly_ros.perception.model_files import weights_digest
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.tools import timing

# Scorer and refinements; segments are the partition that needs no weights.
CHAINS = (
    ('plain', ('none',)),
    ('s2', ('none',)),
    ('head_v2', ('none',)),
    ('plain', ('variance_aware', 'oasc')),
)
_CLASSES = 19
_PICTURES = 12


def _mask2former_swin_l() -> Any:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        embed_dim=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        image_size=384,
        out_features=[f'stage{number}' for number in range(1, 5)],
    )
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(backbone_config=backbone, num_labels=_CLASSES, num_queries=200)
    )


def _eomt_l() -> Any:
    from transformers import EomtConfig, EomtForUniversalSegmentation

    return EomtForUniversalSegmentation(EomtConfig(image_size=1024, num_labels=_CLASSES))


# Of random weights: the public ones cost a download, and the time is the same.
NETWORKS: Mapping[str, tuple[str, Callable[[], Any]]] = {
    'Mask2Former Swin-L': ('mask2former', _mask2former_swin_l),
    'EoMT-L': ('eomt', _eomt_l),
}


def rows(
    name: str, size: tuple[int, int], frames: int, device: str, folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield time and memory of every chain on images of `size` (W, H), as `timing.chain_row`.

    Each comes without and with CUDA graphs; `faults` says why the device refused to run something.
    `folder` receives the network and a head with random weights.
    """
    kind, make = NETWORKS[name]
    torch.manual_seed(0)
    _write(make(), kind, folder / kind)
    pipeline = Pipeline.from_config(segmenter=kind, model=str(folder / kind), device=device)
    pictures = timing.rendered(*size, min(frames, _PICTURES))
    for (scorer, refinements), graphs in itertools.product(CHAINS, ('off', 'auto')):
        changes = {'scorer': scorer, 'refinements': refinements, 'cuda_graphs': graphs}
        pipeline.reconfigure(pipeline.config.replace(changes))
        row = timing.chain_row(pipeline, pictures, frames)
        faults = dict(pipeline.resources.faults)
        yield {'network': name, 'cuda_graphs': graphs, **row, 'faults': faults}
    pipeline.release()


def _write(network: Any, kind: str, folder: Path) -> None:
    network.eval().save_pretrained(folder)
    config = network.config
    features, channels, preprocessing = {
        'mask2former': ('pixel_decoder', 'mask_feature_size', {'do_resize': False}),
        'eomt': ('encoder', 'hidden_size', {'do_split_image': True}),
    }[kind]
    stored = {'size': {'shortest_edge': getattr(config, 'image_size', 0) or 1}, **preprocessing}
    (folder / 'preprocessor_config.json').write_text(json.dumps(stored))
    digest = weights_digest(folder)
    info = heads.HeadInfo('head_v2', digest, features, getattr(config, channels))
    heads.save_head(folder / heads.FOLDER / 'head_v2', info, info.module())
