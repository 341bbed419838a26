# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The chain as a whole, on a segmenter without weights: what comes out, what changes live."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception import Pipeline, PipelineConfig
from road_anomaly_ros.perception.calibration import Calibration
from road_anomaly_ros.perception.config import reload_names
from road_anomaly_ros.perception.contract import LabelSet, MaskOutput, PixelOutput, Segments
from road_anomaly_ros.perception.refinements import REFINEMENTS
from road_anomaly_ros.perception.registry import Entry, NoOptions
from road_anomaly_ros.perception.stopwatch import Stopwatch

CALIBRATION = """
default: {scorer: eam, refinements: [gaussian], refinement.gaussian.sigma: 2.0}
scorers:
  eam: {threshold: 0.6, low_threshold: 0.5, display: [0.1, 0.9], source: by hand}
"""


@pytest.fixture
def street():
    """Grey road below a blue sky, with a red box in the road's middle."""
    image = np.full((96, 128, 3), 110, np.uint8)
    image[:40] = (90, 140, 190)
    image[60:80, 50:70] = (200, 30, 30)
    return image


def build(**overrides):
    return Pipeline.from_config({'segmenter': 'synthetic', 'refinements': 'none'}, **overrides)


@pytest.fixture
def calibrated(tmp_path):
    path = tmp_path / 'calibration.yaml'
    path.write_text(CALIBRATION)
    return str(path)


def test_the_box_is_the_one_obstacle_and_everything_fits_the_image(street):
    # The seam at the horizon is strange too, but smaller than 400 pixels.
    size = {'objects.min_area': 400, 'objects.reference_area': 0}
    result = build(scorer='plain', **size)(street, stamp=12.5)
    assert len(result.objects) == 1
    x, y, width, height = result.objects[0].box
    assert abs(x - 50) <= 4 and abs(y - 60) <= 4 and abs(width - 20) <= 8 and abs(height - 20) <= 8
    assert result.size == (96, 128) and result.stamp == 12.5 and result.sanitized == 0
    for field, dtype in (
        ('labels', torch.uint8),
        ('score', torch.float32),
        ('mask', torch.bool),
        ('instances', torch.int32),
    ):
        tensor = getattr(result, field)
        assert tuple(tensor.shape) == (96, 128) and tensor.dtype == dtype
    assert torch.equal(result.mask, result.instances > 0)
    assert torch.equal(result.image, torch.from_numpy(street).permute(2, 0, 1))
    stages = ('upload', 'segment', 'score', 'refine', 'objects')
    assert sum(result.timings[stage] for stage in stages) == pytest.approx(result.timings['total'])


def test_evidence_is_live_and_refused_where_it_has_no_meaning(street):
    pipeline = build(
        scorer='plain',
        **{'objects.threshold': 0.5, 'objects.min_area': 0, 'objects.reference_area': 0},
    )
    before = pipeline(street).objects
    pipeline.reconfigure(pipeline.config.replace({'objects.min_evidence': 180.0}))
    after = pipeline(street).objects
    assert len(before) == 2 and after == before[:1]
    with pytest.raises(ValueError, match=r'expects a score from 0 to 1, got the threshold -'):
        build(scorer='rba', **{'objects.min_evidence': 1.0, 'objects.evidence': 'log_odds'})


def test_arrays_tensors_read_only_arrays_and_batches_agree(street):
    pipeline = build(scorer='rba')
    single = pipeline(street).score
    locked = street.copy()
    locked.flags.writeable = False
    small = street[:48, :64].copy()
    tensor = torch.from_numpy(street).permute(2, 0, 1)
    batch = pipeline.batch([locked, small, tensor], [1.0, 2.0, None])
    assert torch.equal(batch[0].score, single) and torch.equal(batch[2].score, single)
    assert torch.equal(batch[1].score, pipeline(small).score)
    assert [result.stamp for result in batch] == [1.0, 2.0, None]


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        torch.zeros(3, 4, 4),
    ],
)
def test_what_is_no_rgb_image_is_refused_in_one_line(image):
    with pytest.raises(ValueError, match='expected an RGB image uint8') as caught:
        build()(image)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (7, 1), (3, 5)])
def test_tiny_images_pass(size):
    result = build()(np.zeros((*size, 3), np.uint8))
    assert tuple(result.score.shape) == size


def test_the_mirrored_view_is_averaged(street):
    plain, mirrored = build(scorer='plain'), build(scorer='plain', tta_hflip=True)
    there = plain(street).score
    back = plain(street[:, ::-1].copy()).score.flip(-1)
    assert torch.allclose(mirrored(street).score, (there + back) / 2)


def test_auto_takes_what_was_measured_and_the_user_wins(calibrated):
    chain = Pipeline.from_config(segmenter='synthetic', calibration=calibrated).chain
    assert (chain.scorer, chain.refinements) == ('eam', ('gaussian',))
    assert chain.get('refinement.gaussian.sigma') == 2.0
    chosen = build(
        calibration=calibrated, scorer='rba', **{'refinement.gaussian.sigma': 0.5}
    ).chain
    assert (chosen.scorer, chosen.refinements) == ('rba', ())
    assert chosen.get('refinement.gaussian.sigma') == 0.5
    assert Pipeline.from_config(segmenter='synthetic').chain.scorer == 'plain'


@pytest.mark.parametrize(
    ('overrides', 'threshold', 'source'),
    [
        ({'scorer': 'eam'}, 0.6, 'calibration'),
        ({'scorer': 'plain'}, 0.7, 'default'),
        ({'scorer': 'eam', 'objects.threshold': 0.2}, 0.2, 'option'),
    ],
)
def test_the_threshold_says_where_it_comes_from(calibrated, street, overrides, threshold, source):
    result = build(calibration=calibrated, **overrides)(street)
    assert (result.threshold, result.threshold_source) == (threshold, source)


def test_a_low_threshold_above_the_threshold_is_refused():
    with pytest.raises(ValueError, match=r'low_threshold.*at most'):
        build(scorer='plain', **{'objects.low_threshold': 0.9})


def test_live_changes_hold_from_the_next_frame_and_refused_ones_change_nothing(street):
    pipeline = build(scorer='plain')
    before = pipeline.config
    pipeline.reconfigure(before.replace({'scorer': 'rba'}))
    assert pipeline(street).scorer == 'rba'
    for changes, word in (
        ({'model': 'other'}, 'model'),
        ({'device': 'cpu'}, 'device'),
        ({'segmenters.synthetic.stride': 8}, 'stride'),
    ):
        with pytest.raises(ValueError, match=word):
            pipeline.reconfigure(before.replace(changes))
    with pytest.raises(ValueError, match='low_threshold'):
        pipeline.reconfigure(before.replace({'objects.low_threshold': 5.0}))
    assert pipeline(street).scorer == 'rba' and pipeline.config.scorer == 'rba'


def test_a_check_changes_nothing(street):
    pipeline = build(scorer='plain')
    pipeline.prepare(pipeline.config.replace({'scorer': 'rba'}))
    assert pipeline(street).scorer == 'plain'


def test_what_needs_a_reload_is_named():
    config = PipelineConfig.from_any(segmenter='synthetic')
    assert reload_names(config, config.replace({'scorer': 'rba', 'objects.min_area': 3})) == []
    changed = config.replace({'precision': 'float32', 'segmenters.synthetic.stride': 8})
    assert reload_names(config, changed) == ['precision', 'segmenters.synthetic.stride']


def test_a_refinement_that_throws_costs_neither_the_frame_nor_the_others(street, monkeypatch):
    def broken(score, context, options):
        raise RuntimeError('no\nluck')

    broken.needs_segments = broken.needs_labels = False
    broken.load = None
    monkeypatch.setitem(REFINEMENTS._entries, 'mbp', Entry('mbp', broken, NoOptions))
    result = build(scorer='plain', refinements='mbp,gaussian')(street)
    assert build(refinements='[mbp, gaussian]').config.refinements == ('mbp', 'gaussian')
    expected = build(scorer='plain', refinements='gaussian')(street)
    assert result.notes == ('refinement mbp skipped: no luck',)
    assert torch.equal(result.score, expected.score)


def test_segments_are_loaded_once_and_only_for_refinements_that_need_them(street):
    pipeline = build(scorer='plain')
    assert pipeline.prepared.segment_source is None
    pipeline.reconfigure(pipeline.config.replace({'refinements': 'variance_aware'}))
    source = pipeline.prepared.segment_source
    pipeline.reconfigure(pipeline.config.replace({'scorer': 'rba'}))
    assert source is not None and pipeline.prepared.segment_source is source
    assert pipeline(street).notes == ()


def test_a_map_scorer_without_a_map_is_refused_when_the_chain_is_built():
    with pytest.raises(ValueError, match='external'):
        build(scorer='external')


def test_times_are_asked_for_when_nothing_is_left_to_launch():
    """On a GPU that waits: between two stages the device would run out of work."""
    told = []

    class Watch(Stopwatch):
        def lap(self, stage):
            told.append(stage)
            super().lap(stage)

        def times(self):
            told.append('times')
            return super().times()

    pipeline = Pipeline.from_config(segmenter='synthetic', scorer='plain')
    results = pipeline.batch([np.zeros((24, 32, 3), np.uint8)] * 2, stopwatch=Watch)
    each = ['score', 'refine', 'objects', 'times', 'times']
    assert told == ['upload', 'segment', *each, *each]
    for result in results:
        parts = {name: spent for name, spent in result.timings.items() if name != 'total'}
        assert set(parts) >= {'upload', 'segment', 'score', 'refine', 'objects'}
        assert result.timings['total'] == pytest.approx(sum(parts.values()))


def test_the_stopwatch_sums_what_ran_twice(monkeypatch):
    ticks = itertools.chain([0.0, 1.0, 3.0, 6.0])
    monkeypatch.setattr('time.perf_counter', lambda: next(ticks))
    watch = Stopwatch(torch.device('cpu'))
    for stage in ('a', 'b', 'a'):
        watch.lap(stage)
    assert watch.times() == {'a': 4000.0, 'b': 2000.0, 'total': 6000.0}


@pytest.mark.parametrize(
    ('text', 'word'),
    [
        (None, 'expected a calibration file'),
        ('- 1', 'no calibration'),
        ('scorers: {eam: {threshold: 1}}', 'display'),
        ('scorers: {eam: {threshold: 1, display: [2, 1]}}', 'low < high'),
        ('scorers: {eam: {threshold: 1, low_threshold: 2, display: [0, 1]}}', 'low_threshold'),
        ('scorers: {eam: [', 'no calibration'),
        ('', 'got nothing'),
        ('{}', 'lacks scorers'),
        ('scorers: {}', 'at least one scorer'),
        ('scorers: []', 'at least one scorer'),
        ('segmenter: synthetic', 'the file lacks scorers and the file has the unknown segmenter'),
        (
            'camera_matrix: {rows: 3}\nscorers: {eam: {threshold: 1, display: [0, 1]}}',
            'the file has the unknown camera_matrix',
        ),
        (
            'scorers: {eam: {threshold: 1, display: [0, 1], treshold: 2}}',
            'eam has the unknown tresh',
        ),
        ('scorers: {eam: 3}', 'expected names with values in eam, got int'),
        ('scorers: {eam: {threshold: .nan, display: [0, 1]}}', 'expected numbers'),
        (
            'default: {scorr: eam}\nscorers: {eam: {threshold: 1, display: [0, 1]}}',
            'default has the unknown scorr',
        ),
        (
            'default: [eam]\nscorers: {eam: {threshold: 1, display: [0, 1]}}',
            'values in default, got list',
        ),
        (
            'version: 2\nscorers: {eam: {threshold: 1, display: [0, 1]}}',
            'expected version 1, got 2',
        ),
    ],
)
def test_calibrations_that_cannot_be_read_say_why(tmp_path, text, word):
    path = tmp_path / 'c.yaml'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=word) as caught:
        Calibration.read(path)
    assert '\n' not in str(caught.value)


def test_a_calibration_is_read_back_with_its_version(calibrated, tmp_path):
    found = Calibration.read(calibrated)
    (tmp_path / 'again.yaml').write_text(found.dump())
    assert found.dump().startswith('version: 1\n')
    again = Calibration.read(tmp_path / 'again.yaml')
    assert (again.default, again.scorers) == (found.default, found.scorers)


def test_a_named_calibration_never_changes_the_scorer_silently(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('scorers: {eam: {threshold: 0.6, display: [0, 1]}}')
    with pytest.raises(ValueError, match=r"names no scorer under default.*one of \['eam'\]"):
        build(calibration=str(path))
    assert build(calibration=str(path), scorer='eam').prepared.levels.threshold == 0.6


def test_a_model_without_a_calibration_has_an_empty_one(tmp_path):
    assert Calibration.of_model(None) == Calibration() == Calibration.of_model(tmp_path)


@pytest.mark.parametrize(
    'make',
    [
        lambda: MaskOutput(torch.zeros(2, 3), torch.zeros(3, 4, 4), (4, 4)),
        lambda: MaskOutput(torch.zeros(2, 1), torch.zeros(2, 4, 4), (4, 4)),
        lambda: MaskOutput(torch.zeros(2, 3), torch.zeros(2, 0, 4), (4, 4)),
        lambda: MaskOutput(torch.zeros(2, 3), torch.zeros(2, 4, 4), (0, 4)),
        lambda: PixelOutput(torch.zeros(4, 4), (4, 4)),
        lambda: Segments(),
        lambda: Segments(masks=torch.zeros(4, 4, dtype=torch.bool)),
        lambda: LabelSet(('a',), ()),
        lambda: LabelSet(('a',), ((0, 0, 0),), (1,)),
    ],
)
def test_nouns_that_do_not_fit_are_refused_at_birth(make):
    with pytest.raises(ValueError):
        make()


def test_the_mirrored_pass_counts_its_repaired_values_too(street, monkeypatch):
    counts = []
    for mirrored in (False, True):
        pipeline = build(scorer='plain', tta_hflip=mirrored)
        network = pipeline.segmenter

        def broken(images, network=network, **asked):
            outputs = network(images, **asked)
            for output in outputs:
                output.mask_logits[0, 0, :3] = torch.nan
            return outputs

        broken.kind, broken.labels = network.kind, network.labels
        chain = dataclasses.replace(pipeline.prepared, segmenter=broken)
        monkeypatch.setattr(pipeline, '_chain', chain)
        counts.append(pipeline(street).sanitized)
    assert counts == [3, 6]


def test_arrays_of_any_stride_are_pictures(street):
    pipeline = build(scorer='plain')
    bgr = np.ascontiguousarray(street[..., ::-1])
    for view in (bgr[..., ::-1], street[::-1], street[:, ::2], np.asfortranarray(street)):
        expected = pipeline(np.ascontiguousarray(view))
        found = pipeline(view)
        assert torch.equal(found.score, expected.score)
        assert torch.equal(found.image, expected.image)


@pytest.mark.parametrize(
    'as_given',
    [
        np.copy,
        lambda a: torch.from_numpy(a).permute(2, 0, 1),
        lambda a: torch.from_numpy(a).permute(2, 0, 1).contiguous(),
    ],
)
def test_a_result_does_not_change_with_the_buffer_of_the_camera(street, as_given):
    buffer = as_given(street.copy())
    result = build(scorer='plain')(buffer)
    buffer[:] = 7
    assert torch.equal(result.image, torch.from_numpy(street).permute(2, 0, 1))


def test_a_model_of_more_classes_than_labels_can_tell_is_refused():
    names = tuple(f'class {index}' for index in range(256))
    assert len(LabelSet(names[:255], ((0, 0, 0),) * 255)) == 255
    with pytest.raises(ValueError, match='at most 255 classes, as labels have 8 bits, got 256'):
        LabelSet(names, ((0, 0, 0),) * 256)
