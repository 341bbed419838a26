# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What makes every result meaningless is refused: outputs without a finite number, options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception import Pipeline, PipelineConfig, PipelineError
from road_anomaly_ros.perception.contract import MapOutput, MaskOutput, PixelOutput, WindowedOutput
from road_anomaly_ros.perception.sanity import refuse_meaningless
from road_anomaly_ros.perception.segmenters.synthetic import SyntheticSegmenter

SIZE = (4, 6)
SCORE = torch.zeros(SIZE)
NAN = torch.full((2, *SIZE), math.nan)


def masks(classes=0.0, values=0.0, features=None):
    return MaskOutput(torch.full((2, 4), classes), torch.full((2, *SIZE), values), SIZE, features)


def windows(*parts):
    return WindowedOutput(parts, ((0, 0),) * len(parts), SIZE, SIZE)


@pytest.mark.parametrize(
    ('output', 'part'),
    [
        (masks(classes=math.nan), 'class_logits'),
        (masks(values=math.inf), 'mask_logits'),
        (masks(features=NAN), 'features'),
        (windows(masks(), masks(values=math.nan)), 'mask_logits'),
        (PixelOutput(NAN, SIZE), 'logits'),
        (MapOutput(NAN[0], SIZE), 'score'),
    ],
)
def test_an_output_without_a_finite_number_means_nothing(output, part):
    with pytest.raises(PipelineError, match=rf'^expected finite numbers in the {part}, got none'):
        refuse_meaningless([output], SCORE, repaired=1)


def test_single_bad_values_do_not_matter():
    partly = NAN.clone()
    partly[0, 0, 0] = 1.0
    refuse_meaningless([PixelOutput(partly, SIZE)], SCORE, repaired=47)
    nothing_found = MaskOutput(torch.zeros(0, 4), torch.zeros(0, *SIZE), SIZE)
    refuse_meaningless([nothing_found], SCORE, repaired=1)


def test_a_score_without_a_finite_number_is_found_without_any_count():
    with pytest.raises(PipelineError, match='in the score, got none'):
        refuse_meaningless([masks()], NAN[0], repaired=0)


@pytest.mark.parametrize('sanitize', [True, False])
def test_a_network_that_overflows_ends_the_frame_and_recovers(monkeypatch, sanitize):
    pipeline = Pipeline.from_config(segmenter='synthetic', sanitize_inputs=sanitize)
    street = np.full((48, 64, 3), 90, np.uint8)
    before = pipeline(street).score
    with monkeypatch.context() as patch:
        patch.setattr(
            SyntheticSegmenter,
            '_mask_logits',
            lambda self, batch: torch.full((len(batch), len(self.labels), 12, 16), torch.nan),
        )
        with pytest.raises(PipelineError, match=r"means nothing: set precision to 'float32'"):
            pipeline(street)
    torch.testing.assert_close(pipeline(street).score, before)


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'scorer': 'plain', 'objects.threshold': 1.0}, "less than 1, which no score of 'plain'"),
        ({'scorer': 'rba', 'objects.threshold': 0.5}, "less than 0, which no score of 'rba'"),
        (
            {'scorer': 'rba', 'scorers.rba.unit_range': True, 'objects.threshold': 1.0},
            'less than 1',
        ),
    ],
)
def test_a_threshold_that_nothing_exceeds_is_refused(changes, says):
    pipeline = Pipeline.from_config(segmenter='synthetic')
    with pytest.raises(ValueError, match=rf'^objects\.threshold: expected {says}'):
        pipeline.reconfigure(pipeline.config.replace(changes))
    allowed = {'scorer': 'rba', 'scorers.rba.unit_range': True, 'objects.threshold': 0.5}
    pipeline.reconfigure(pipeline.config.replace(allowed))


@pytest.mark.parametrize('value', [math.inf, -math.inf, math.nan, '.inf'])
@pytest.mark.parametrize(
    'name', ['scorers.msp.temperature', 'objects.far_area', 'objects.threshold']
)
def test_options_are_finite(name, value):
    if name == 'objects.threshold' and value != value:
        return  # leaves it to the calibration
    with pytest.raises((ValueError, TypeError), match=rf'^{name}: expected '):
        PipelineConfig().replace({name: value})
