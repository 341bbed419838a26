# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How fast each engine computes networks of common sizes, how exactly, and its AP."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.evaluation.running import Job, evaluate, method_configs
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.engines import graph
from road_anomaly_ros.perception.engines.base import SETTLED
from road_anomaly_ros.perception.model_files import BUILTIN
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.tools.export import export

Size = tuple[int, int]  # (W, H)
TORCH, REFERENCE = 'torch', 'transformers'
_CLASSES = 19


def _mask2former_swin_t() -> Any:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    stages = [f'stage{number}' for number in range(1, 5)]
    backbone = SwinConfig(out_features=stages)  # the sizes of Swin-T are its own defaults
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(backbone_config=backbone, num_labels=_CLASSES)
    )


def _segformer_b2() -> Any:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(
        SegformerConfig(
            depths=[3, 4, 6, 3],
            hidden_sizes=[64, 128, 320, 512],
            decoder_hidden_size=768,
            num_labels=_CLASSES,
        )
    )


# Of random weights: the public ones cost a download, and the time is the same.
NETWORKS: Mapping[str, tuple[str, Callable[[], Any] | None]] = {
    BUILTIN: ('mask2former', None),
    'Mask2Former Swin-T': ('mask2former', _mask2former_swin_t),
    'SegFormer-B2': ('segformer', _segformer_b2),
}


def rows(name: str, size: Size, rounds: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what every engine does with a network at a size: milliseconds and difference.

    Engines take turns, so that a load of the machine meets all of them; `folder` receives models.
    """
    kind, make = NETWORKS[name]
    torch.manual_seed(0)
    model = BUILTIN if make is None else _written(make(), folder / f'{kind}_{size[0]}', size)
    yield from _measured(name, size, _calls(kind, model, size), rounds)


def _written(network: Any, folder: Path, size: Size) -> str:
    network.eval().save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps({'do_resize': False}))
    export(str(folder), None, size=size[::-1])
    return str(folder)


def _calls(kind: str, model: str, size: Size) -> dict[str, Callable[[], Any]]:
    """Return what computes an image of a size, by the name of the engine."""
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.integers(0, 256, (3, size[1], size[0]), np.uint8))
    entry = SEGMENTERS[kind]
    found: dict[str, Callable[[], Any]] = {}
    runtimes = [name for name, runtime in graph.RUNTIMES.items() if not runtime.missing()]
    for engine in (TORCH, *(name for name in runtimes if 'cpu' in graph.RUNTIMES[name].DEVICES)):
        short = {'short_side': min(size)} if model == BUILTIN else {}
        segmenter = entry.make(
            model,
            options=entry.options(engine=engine, **short),
            device=torch.device('cpu'),
            precision=torch.float32,
        )
        found[engine] = lambda segmenter=segmenter: segmenter([image])[0]
    if model != BUILTIN:
        found[REFERENCE] = _reference(kind, model, size)
    return found


def _reference(kind: str, model: str, size: Size) -> Callable[[], Any]:
    """Return the forward pass of transformers itself."""
    from road_anomaly_ros.perception.segmenters import mask2former, segformer

    read = {'mask2former': mask2former.read_model, 'segformer': segformer.read_model}[kind]
    network, pixels = read(Path(model)), torch.zeros(1, 3, *size[::-1])

    def call() -> Any:
        with torch.inference_mode():
            return network(pixel_values=pixels)

    return call


def _measured(
    name: str, size: Size, calls: Mapping[str, Callable[[], Any]], rounds: int
) -> Iterator[dict[str, Any]]:
    # A graph for one size alone is what it stays from the first image on.
    for _ in range(SETTLED if name == BUILTIN else 1):
        for engine in graph.RUNTIMES.keys() & calls:
            calls[engine]()
    outputs = {engine: call() for engine, call in calls.items()}
    times: dict[str, list[float]] = {engine: [] for engine in calls}
    for _ in range(rounds):
        for engine, call in calls.items():
            begin = time.perf_counter()
            call()
            times[engine].append((time.perf_counter() - begin) * 1e3)
    base = statistics.median(times[TORCH])
    for engine in calls:
        median = statistics.median(times[engine])
        exact = engine in (TORCH, REFERENCE)
        yield {
            'network': name,
            'size': list(size),
            'engine': engine,
            'ms': round(median, 2),
            'against_torch': round(base / median, 2),
            'difference': None if exact else _difference(outputs[engine], outputs[TORCH]),
        }


def _difference(found: Any, wanted: Any) -> float:
    """Return the largest difference of the maps, relative to their largest value above 1."""
    field = 'mask_logits' if hasattr(wanted, 'mask_logits') else 'logits'
    mine, own = (getattr(output, field).float() for output in (found, wanted))
    return float(f'{(mine - own).abs().max() / own.abs().max().clamp_min(1):.1e}')


def precision(
    engine: str, data: Path, layout: str, frames: int | None, folder: Path
) -> float | None:
    """Return the AP in percent of the built-in model's own chain through an engine."""
    out = folder / f'{engine}_{data.name}'
    config = PipelineConfig.from_any({'segmenters.mask2former.engine': engine, 'device': 'cpu'})
    evaluate(Job(data, layout, out, max_frames=frames), method_configs(['auto'], config))
    [row] = json.loads((out / 'results.json').read_text(encoding='utf-8'))['results']
    return row['AP']
