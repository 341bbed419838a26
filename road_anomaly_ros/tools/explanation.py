# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The intermediate pictures of one frame: stages of the score, segments, queries, obstacles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional

from road_anomaly_ros.perception import drawing, lettering, objects, rules
from road_anomaly_ros.perception.contract import FrameResult, LabelSet, MaskOutput, WindowedOutput
from road_anomaly_ros.perception.dense import MaskSource
from road_anomaly_ros.perception.lettering import Canvas
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.perception.refinements import REFINEMENTS
from road_anomaly_ros.perception.scorers.s2 import query_uncertainty
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools import stages, workbench

SHOWN = 3  # queries at either end of the ranking, and obstacles
_LEAST_SHARE = 0.0005  # queries with smaller masks are ranked only where no other is left
_BARS = 8
_CANDIDATES, _REJECTED = 500, 20  # regions that are looked at, and that are listed
_PANEL: lettering.Color = (24, 28, 36)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of the explanation; `name` is its file without the ending."""

    name: str
    text: str
    pixels: Canvas
    used: bool = True  # by the chain, or only for comparison


@dataclasses.dataclass(frozen=True)
class Query:
    """What one query says: its class distribution [K+1] (last: no object), mask and scores."""

    number: int
    probabilities: list[float]
    mask: Canvas  # [H, W] uint8, 255 is sure
    share: float  # of the image that the mask covers
    entropy: float
    overlap: float
    score: float  # entropy (1 - overlap), higher is stranger


@dataclasses.dataclass(frozen=True)
class Explanation:
    """All that is known of one frame, ready to be written."""

    result: FrameResult
    stages: list[Picture]
    queries: list[Picture]
    obstacles: list[dict[str, Any]]
    rejected: list[dict[str, Any]]  # regions that are no obstacles, and why
    notes: list[str]


@torch.inference_mode()
def explain(pipeline: Pipeline, image: np.ndarray) -> Explanation:
    """Return the pictures and tables that explain the score of one uint8 RGB image [H, W, 3].

    Pixel models have no queries: their rejection, selection and queries are left out, with a note.
    """
    result, output = framed(pipeline, image), workbench.output(pipeline, image)
    notes = list(result.notes)
    pictures = [
        Picture('image', 'The camera image.', image),
        Picture(
            'overlay',
            'Classes, anomaly heat and obstacles.',
            drawing.overlay(result, pipeline.chain.options('drawing')),
        ),
        Picture(
            'classes',
            'The most likely known class of every pixel.',
            drawing.color_labels(result.labels, result.label_set),
        ),
    ]
    maps: Mapping[str, torch.Tensor] = {}
    queries: list[Query] = []
    if output.kind == 'mask':
        maps = result.stages.maps
        queries = ranked(output, pipeline.chain.options('scorer', 's2'))
        used = pipeline.chain.scorer.startswith('s2')
        pictures += [_stage(result, name, stages.TEXTS[name], used=used) for name in maps]
    else:
        notes.append(f'{stages.NO_QUERIES}, no query pictures')
    pictures += _scores(pipeline, image, result, notes)
    pictures += _segments(pipeline, result, notes)
    return Explanation(
        result,
        pictures,
        list(_query_pictures(queries, image, pipeline.labels)),
        _obstacles(result, maps, queries),
        rejected(pipeline, result),
        notes,
    )


def framed(pipeline: Pipeline, image: np.ndarray) -> FrameResult:
    """Return the result of one image together with its stages."""
    before, pipeline.stages = pipeline.stages, stages.Stages
    try:
        return pipeline(image)
    finally:
        pipeline.stages = before


def ranked(output: MaskOutput | WindowedOutput, options: Any) -> list[Query]:
    """Return the queries with a mask, strangest first; of all windows where there are several."""
    if isinstance(output, MaskOutput):
        output = WindowedOutput((output,), ((0, 0),), output.image_size, output.image_size)
    found = [
        query
        for window, corner in zip(output.windows, output.offsets, strict=True)
        for query in _queries(window, corner, output, options)
    ]
    return sorted(found, key=lambda query: (-query.score, -query.share, query.number))


def _queries(
    window: MaskOutput, corner: tuple[int, int], whole: WindowedOutput, options: Any
) -> Iterator[Query]:
    source = MaskSource(window, window.image_size)
    known = query_uncertainty(source, options)
    shares = (window.mask_logits > 0).flatten(1).float().mean(1)
    able = known.selected & (shares >= _LEAST_SHARE)
    if not bool(able.any()):
        able = shares > 0
    probabilities = source.probabilities()
    for number in able.nonzero().flatten().tolist():
        yield Query(
            number,
            probabilities[number].tolist(),
            _mask(window.mask_logits[number], window.image_size, corner, whole),
            float(shares[number]),
            float(known.s_init[number]),
            float(known.overlap[number]),
            float(known.s_adj[number]),
        )


def _mask(
    logits: torch.Tensor, size: tuple[int, int], corner: tuple[int, int], whole: WindowedOutput
) -> Canvas:
    """Return one mask over the whole image, 0..255."""
    window = functional.interpolate(logits.float()[None, None], size=size, mode='bilinear')[0, 0]
    scaled = torch.zeros(whole.scaled_size, device=logits.device)
    scaled[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = window.sigmoid()
    pixels = (255 * scaled).round().to(torch.uint8).cpu().numpy()
    return np.asarray(cv2.resize(pixels, whole.image_size[::-1]), np.uint8)


def _scores(
    pipeline: Pipeline, image: np.ndarray, result: FrameResult, notes: list[str]
) -> Iterator[Picture]:
    """Yield the chosen score before and after refinement, `variance_aware` if none is chosen."""
    config, chain = pipeline.config, pipeline.chain
    yield _stage(
        result,
        stages.SCORE,
        f'The score {chain.scorer}, obstacles lie above {result.threshold:.3g}.',
    )
    steps, remark = chain.refinements, '.'
    if not steps:
        steps, remark = ('variance_aware',), ' (which this chain does not do).'
        pipeline.reconfigure(config.replace({'refinements': steps}))
        try:
            result = pipeline(image)
        finally:
            pipeline.reconfigure(config)
        notes += [note for note in result.notes if note not in notes]
    low, high = result.display_range
    yield Picture(
        'refined',
        f'Refined by {", ".join(steps)}{remark} {_scale(low, high)}',
        drawing.heatmap(result.score, result.display_range),
        used=bool(chain.refinements),
    )


def _segments(pipeline: Pipeline, result: FrameResult, notes: list[str]) -> list[Picture]:
    name = pipeline.chain.segments
    try:
        index, pixels = result.stages.index, result.stages.draw(stages.SEGMENTED)
    except (ValueError, RuntimeError) as error:
        notes.append(f'no segments from {name}: {one_line(error)}')
        return []
    count = len(np.unique(index[index >= 0]))
    return [
        Picture(
            'segments',
            f'{count} class-agnostic segments from {name}.',
            pixels,
            used=_uses_segments(pipeline),
        )
    ]


def _uses_segments(pipeline: Pipeline) -> bool:
    chosen = [REFINEMENTS[name].make for name in pipeline.chain.refinements]
    return any(refinement.needs_segments for refinement in chosen) or (
        pipeline.chain.options('objects').mode != objects.COMPONENTS
    )


def _stage(result: FrameResult, name: str, text: str, *, used: bool = True) -> Picture:
    return Picture(
        name, f'{text} {_scale(*result.stages.range(name))}', result.stages.draw(name), used
    )


def _scale(low: float, high: float) -> str:
    return f'Dark is {low:.3g}, bright is {high:.3g}.'


def _query_pictures(
    queries: Sequence[Query], image: np.ndarray, labels: LabelSet
) -> Iterator[Picture]:
    most = queries[:SHOWN]
    least = queries[SHOWN:][::-1][:SHOWN]
    for kind, chosen in (('most', most), ('least', least)):
        for place, query in enumerate(chosen, start=1):
            best = max(range(len(labels) + 1), key=query.probabilities.__getitem__)
            text = (
                f'Query {query.number}, {kind} anomalous {place}: score {query.score:.3f}, '
                f'entropy {query.entropy:.3f}, overlap with sure masks {query.overlap:.2f}, '
                f'{100 * query.share:.1f} % of the image, most likely {_name(labels, best)}.'
            )
            yield Picture(f'query_{kind}_{place}', text, query_card(query, image, labels))


def query_card(query: Query, image: np.ndarray, labels: LabelSet) -> Canvas:
    """Draw a query: its mask on the image, and beside it the classes it thinks of."""
    pen = drawing.Pen((image.shape[0], image.shape[1]), 1.0)
    weight = query.mask[..., None].astype(np.float32) / 255
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    shown = np.ascontiguousarray(np.rint(image * weight + 0.3 * grey * (1 - weight)), np.uint8)
    outlines, _ = cv2.findContours(
        (query.mask > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(shown, outlines, -1, drawing.ACCENT, pen.line, cv2.LINE_AA)
    panel = _class_bars(query, labels, pen)
    height = max(shown.shape[0], panel.shape[0])
    return np.concatenate([_padded(part, height) for part in (shown, panel)], axis=1)


def _padded(picture: Canvas, height: int) -> Canvas:
    below = np.full((height - picture.shape[0], *picture.shape[1:]), _PANEL, np.uint8)
    return np.concatenate((picture, below))


def _class_bars(query: Query, labels: LabelSet, pen: drawing.Pen) -> Canvas:
    order = sorted(range(len(query.probabilities)), key=lambda k: (-query.probabilities[k], k))
    names = [_name(labels, index) for index in order[:_BARS]]
    text = max(lettering.text_width(name, pen.letter) for name in names)
    number = lettering.text_width('0.000', pen.letter)
    full = 10 * pen.letter
    width = text + full + number + 5 * pen.gap
    panel = np.full((pen.row * (len(names) + 2) + pen.gap, width, 3), _PANEL, np.uint8)
    title = f'query {query.number}   score {query.score:.3f}'
    lettering.draw_text(panel, title, (pen.gap, pen.gap), pen.letter)
    for row, (index, name) in enumerate(zip(order, names, strict=False), start=2):
        top = row * pen.row
        share = query.probabilities[index]
        color = labels.colors[index] if index < len(labels) else (150, 150, 150)
        lettering.draw_text(panel, name, (pen.gap, top), pen.letter, lettering.GREY)
        bar = (text + 2 * pen.gap, top, max(1, round(share * full)), pen.letter)
        lettering.fill(panel, bar, color)
        lettering.draw_text(panel, f'{share:.3f}', (width - number - pen.gap, top), pen.letter)
    return panel


def _name(labels: LabelSet, index: int) -> str:
    return labels.names[index] if index < len(labels) else 'no object'


def _obstacles(
    result: FrameResult, maps: Mapping[str, torch.Tensor], queries: Sequence[Query]
) -> list[dict[str, Any]]:
    """Return for the first obstacles the means of the stages and the queries that cover them."""
    rows = []
    for item in result.objects[:SHOWN]:
        inside = result.instances == item.id
        pixels = inside.cpu().numpy()
        covering = sorted(queries, key=lambda query: -float(query.mask[pixels].mean()))[:SHOWN]
        rows.append(
            {
                'id': item.id,
                'box': item.box,
                'area': item.area,
                'score': item.score,
                'score_max': item.score_max,
                'ground': _name(result.label_set, item.label)
                if item.label < len(result.label_set)
                else 'unknown',
                **{name: float(values[inside].mean()) for name, values in maps.items()},
                'queries': [
                    {
                        'number': query.number,
                        'mask': float(query.mask[pixels].mean()) / 255,
                        'class': _name(result.label_set, int(np.argmax(query.probabilities))),
                        'probability': max(query.probabilities),
                        'score': query.score,
                    }
                    for query in covering
                ],
            }
        )
    return rows


def rejected(pipeline: Pipeline, result: FrameResult) -> list[dict[str, Any]]:
    """Return the brightest regions that are no obstacles, each with the rule that says so.

    Regions are those of the score above the low threshold, without any rule; a region takes the
    first rule that removes it when it is added to those before.
    """
    levels = pipeline.prepared.levels
    options = pipeline.chain.options('objects')

    def found(chosen: objects.ObjectOptions, threshold: float) -> Any:
        return objects.find(
            result.score,
            threshold=threshold,
            low_threshold=levels.low_threshold,
            options=chosen,
            labels=result.labels,
            drivable=pipeline.labels.drivable,
        )

    lowest = min(levels.low_threshold, levels.threshold)
    _, instances, regions = found(rules.loose(options, _CANDIDATES), lowest)
    kept = [(rule, found(chosen, levels.threshold)[0]) for rule, chosen in rules.steps(options)]
    rows = []
    for item in sorted(regions, key=lambda item: -item.score_max):
        inside = instances == item.id
        if bool((result.mask & inside).any()):
            continue
        region = rules.Region(item, result.size, levels.threshold)
        broken = (rule.says for rule, mask in kept if not bool((mask & inside).any()))
        rows.append(
            {
                'box': item.box,
                'area': item.area,
                'score': item.score,
                'score_max': item.score_max,
                'rule': next(broken, rules.beyond)(options, region),
            }
        )
    return rows[:_REJECTED]
