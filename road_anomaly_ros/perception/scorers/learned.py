# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly heads as scores, trained on pasted objects.

The segmenter stays as it is (V1, V2) or is trained with them (V3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from road_anomaly_ros.perception import heads
from road_anomaly_ros.perception.contract import Segmenter
from road_anomaly_ros.perception.dense import Block, MaskSource, QueryVectors
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.scorers.base import MASKS_ONLY, SCORERS, Maps, Scorer

_HEADS = 8  # kept loaded, for those who compare them


@dataclass(frozen=True)
class HeadOptions:
    """Options of the heads."""

    checkpoint: str = option(
        '',
        'Folder of the head (head.safetensors and head.json); empty for the one that comes '
        'with the model.',
    )
    head: heads.Running | None = None  # no option: what `load` put in


def bind(kind: str) -> Callable[[HeadOptions, Segmenter], tuple[HeadOptions, str]]:
    """Return the function that finds the head of a model and refuses one that is not its own."""

    def bound(options: HeadOptions, segmenter: Segmenter) -> tuple[HeadOptions, str]:
        folder = heads.find_head(kind, options.checkpoint, segmenter.model_dir)
        info = heads.read_info(folder / heads.INFO)
        heads.check_head(info, folder, kind, segmenter.weights, segmenter.feature_maps)
        return dataclasses.replace(options, checkpoint=str(folder)), info.features

    return bound


def load(options: HeadOptions, resources: Resources) -> HeadOptions:
    """Return the options with the head on the device; a head that was written anew is read anew.

    ValueError without a folder, PipelineError where the head is damaged.
    """
    if options.head is not None and options.head.device == resources.device:
        return options
    folder = Path(options.checkpoint)
    if not options.checkpoint:
        raise ValueError(
            "checkpoint: expected the folder of a head; '' stands for the one of the "
            'model only inside a pipeline'
        )
    head = resources.get(
        'head',
        heads.stamp_of(folder),
        lambda: heads.load_head(folder).to(resources.device),
        most=_HEADS,
    )
    return dataclasses.replace(options, head=head)


def _loaded(options: HeadOptions) -> heads.Running:
    if options.head is None:
        raise ValueError('expected a loaded head, got none; use evaluate, or call load')
    return options.head


def vectors(source: MaskSource, options: HeadOptions) -> QueryVectors:
    """Weigh queries as for the semantic map, and reduce the features at their own resolution."""
    head = _loaded(options)
    known = source.probabilities()[:, :-1].float()
    features = head.visual(source.output.features)
    return QueryVectors(known, keep=head.reads_semantic, features=features)


def head_score(block: Block, options: HeadOptions) -> Maps:
    """sigmoid(logit), the head's probability of an anomaly in [0, 1] (EoMT study, eq. 1).

    Windows are merged by their mean logit, which is what averaging [0, logit] does.
    """
    logit = block.maps.get('logit')
    if logit is None:
        logit = logits(block, options)
    return {'score': logit.sigmoid(), 'logit': logit}


def logits(block: Block, options: HeadOptions) -> Tensor:
    """Return the head's raw output [r,W]."""
    return _loaded(options).logits(block.semantic, block.features)


_STUDY = 'EoMT with anomaly heads, section 3.4'
for _kind, _source in (
    ('head_v1', _STUDY),
    ('head_v2', _STUDY),
    ('head_v3', 'ours: trained with the segmenter, resized as masks are'),
):
    SCORERS.register(_kind, HeadOptions)(
        Scorer(
            head_score,
            _source,
            vectors,
            MASKS_ONLY,
            extras=('logit',),
            threshold=0.5,
            top=1.0,
            bind=bind(_kind),
            load=load,
            merged=('logit',),
        )
    )
