# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds with a promise: statistics by hand, the promise on held-out driving, bad input."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from road_anomaly_ros.cli import main
from road_anomaly_ros.evaluation import footage, promises
from road_anomaly_ros.evaluation.promises import Bound
from road_anomaly_ros.perception import Pipeline, objects
from road_anomaly_ros.perception.calibration import Calibration
from road_anomaly_ros.perception.drift import MIN_BLOCKS, Exchangeability
from road_anomaly_ros.tools import bags, workbench
from road_anomaly_ros.tools.workbench import Scored

SYNTHETIC = ['--set', 'segmenter=synthetic', '--scorer', 'plain', '--set', 'objects.min_area=0']


@pytest.mark.parametrize(
    ('rate', 'confidence', 'blocks'),
    [(0.1, 0.95, 29), (0.5, 0.95, 5), (0.01, 0.95, 299), (0.1, 0.9, 22)],
)
def test_quiet_blocks_needed(rate, confidence, blocks):
    bound = Bound('frame', confidence)
    assert bound.needed(rate) == blocks
    assert bound.holds(np.zeros(blocks), rate) and not bound.holds(np.zeros(blocks - 1), rate)


def test_the_help_says_how_much_footage_a_promise_takes(capsys):
    with pytest.raises(SystemExit):
        main(['calibrate', '--help'])
    said = ' '.join(capsys.readouterr().out.split())
    needed = [Bound('frame', 0.95).needed(rate) for rate in (0.1, 0.05, 0.01)]
    assert '{} blocks for 0.1 per frame, {} for 0.05 and {} for 0.01'.format(*needed) in said
    assert f'for 2 per minute {Bound("minute", 0.95, 1.0).needed(2)} blocks of 1 s' in said
    assert f'from {MIN_BLOCKS} blocks on' in said


def test_the_bound_of_quiet_blocks_is_a_power():
    assert Bound('frame', 0.95).upper(np.zeros(4)) == pytest.approx(1 - 0.05 ** (1 / 4), abs=1e-6)
    assert Bound('frame', 0.95).upper(np.ones(4)) == 1
    # One false block of 1 s in 100: Clopper-Pearson's 0.0466 per block, 60 blocks a minute.
    losses = np.zeros(100)
    losses[3] = 1
    assert Bound('minute', 0.95, 1.0).upper(losses) == pytest.approx(60 * 0.0466, abs=0.01)


def test_correlation_time_of_a_known_process(rng):
    noise = rng.normal(size=20000)
    assert promises.correlation_time(noise) == pytest.approx(0.5, abs=0.05)
    series = np.zeros(20000)
    for index in range(1, len(series)):
        series[index] = 0.8 * series[index - 1] + noise[index]
    assert promises.correlation_time(series) == pytest.approx(1.8 / 0.4, rel=0.2)  # (1+a)/2(1-a)
    assert math.isnan(promises.correlation_time(np.zeros(9)))


def test_blocks_use_every_frame():
    assert promises.block_means(np.arange(7), 3).tolist() == [1.0, 4.5]
    assert promises.block_means(np.arange(2), 5).tolist() == [0.5]


def test_the_lowest_threshold_that_holds_is_chosen():
    peaks = np.full(100, -np.inf)
    peaks[:4] = (0.9, 0.8, 0.7, 0.6)
    bound = Bound('frame', 0.95)
    # exp(-100 h(k / 100, 0.07)) is 0.014 for k = 1 false frame and 0.072 for k = 2.
    found = promises.choose(peaks, 0.5, 1, bound, 0.07, lambda _: 0.0)
    assert found.threshold == 0.8 and found.measured == 0.01
    crowded = promises.choose(peaks, 0.5, 1, bound, 0.07, lambda threshold: 0.95 - threshold)
    assert crowded.threshold == 0.9
    assert promises.choose(peaks, 0.5, 50, bound, 0.07, lambda _: 0.0) is None


@pytest.mark.parametrize('correlated', [False, True])
def test_the_promise_breaks_no_more_often_than_stated(correlated):
    """Frames of which 20 % of the scores are above 0.8: at most 5 % of thresholds are lower."""
    rng = np.random.default_rng(5)
    broken, runs, rate = 0, 200, 0.2
    for _ in range(runs):
        scores = rng.uniform(size=150 if correlated else 600)
        if correlated:
            scores = np.repeat(scores, rng.integers(1, 8, len(scores)))
        length = promises.block_length(scores, 1)
        found = promises.choose(scores, 0.0, length, Bound('frame', 0.95), rate, lambda _: 0.0)
        broken += found is not None and found.threshold < 1 - rate
    assert broken <= 0.05 * runs + 2 * math.sqrt(0.05 * 0.95 * runs)


def test_steps_are_what_the_live_code_shows(rng):
    import torch

    score = cv2.GaussianBlur(rng.uniform(size=(60, 80)).astype(np.float32), (0, 0), 3)
    labels = torch.from_numpy((np.arange(80) > 40).astype(np.uint8)).expand(60, 80).contiguous()
    scored = Scored(labels, torch.from_numpy(score), (), 0.0, {})
    options = objects.ObjectOptions(min_area=5, reference_area=0, on_drivable='touches')
    low = float(np.quantile(score, 0.8))
    steps = footage.false_steps(scored, options, low, (1,))
    assert len(steps) > 3
    for threshold in np.linspace(low, score.max(), 40).tolist():
        shown = objects.find(
            scored.score,
            threshold=threshold,
            low_threshold=low,
            options=options,
            labels=labels,
            drivable=(1,),
        )[2]
        assert len(shown) <= (steps > threshold).sum()
    assert (steps > low).sum() == steps.size


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'min_evidence': 0.5},
        {'min_evidence': 4.0, 'evidence': 'log_odds'},
        {'min_evidence': 0.5, 'far_area': 0.1},
    ],
    ids=str,
)
def test_steps_know_evidence_and_rows(rng, settings):
    import torch

    score = torch.from_numpy(
        cv2.GaussianBlur(rng.uniform(size=(60, 80)).astype(np.float32), (0, 0), 2)
    )
    score = (score - score.min()) / (score.max() - score.min())
    scored = Scored(torch.zeros(60, 80, dtype=torch.uint8), score, (), 0.0, {})
    options = objects.ObjectOptions(min_area=5, reference_area=0, **settings)
    low = float(np.quantile(score, 0.85))
    steps = footage.false_steps(scored, options, low, ())
    assert len(steps) > 3

    def shown(threshold):
        return len(
            objects.find(
                score,
                threshold=threshold,
                low_threshold=low,
                options=options,
                labels=scored.labels,
            )[2]
        )

    away = [
        value
        for value in np.linspace(low, float(score.max()), 60).tolist()
        if np.abs(steps - value).min() > 1e-4
    ]
    assert len(away) > 30
    assert [shown(value) for value in away] == [int((steps > value).sum()) for value in away]
    # At its own step an obstacle is gone: the promise holds for the threshold itself.
    assert all(shown(step) <= (steps > step).sum() for step in steps.tolist())


@pytest.fixture
def pictures(tmp_path, rng):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for index in range(40):
        picture = np.full((48, 64, 3), 90, np.uint8)
        picture[:20] = (220, 170, 120)
        picture[30:34, 20:24] = rng.integers(60, 120, 3)
        cv2.imwrite(str(folder / f'{index}.png'), picture)
    return folder


def test_the_file_is_taken_by_the_pipeline(pictures, tmp_path, capsys):
    out = tmp_path / 'mine.yaml'
    assert main(['calibrate', str(pictures), '-o', str(out), *SYNTHETIC, '--rate', '0.5']) == 0
    assert 'threshold' in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ['mine.yaml', 'pictures']
    promise = Calibration.read(out).scorers['plain'].promise
    assert (promise.rate, promise.unit, promise.size) == (0.5, 'frame', (48, 64))
    image = np.zeros((48, 64, 3), np.uint8)
    chosen = {'segmenter': 'synthetic', 'calibration': str(out)}
    assert Pipeline.from_config(chosen)(image).threshold_source == 'promise'
    other = Pipeline.from_config(chosen, **{'objects.opening': 3})
    assert other(image).threshold_source == 'calibration'
    assert 'objects.opening is 3' in other.prepared.doubt
    by_hand = Pipeline.from_config(chosen, **{'objects.threshold': 0.9})
    assert by_hand(image).threshold_source == 'option' and by_hand.prepared.doubt


def test_evidence_and_rows_are_part_of_the_promise(pictures, tmp_path):
    out = tmp_path / 'mine.yaml'
    own = [
        '--set',
        'objects.min_evidence=0.2',
        '--set',
        'objects.far_area=0.1',
        '--set',
        'objects.reference_area=0',
    ]
    assert (
        main(['calibrate', str(pictures), '-o', str(out), *SYNTHETIC, *own, '--rate', '0.5']) == 0
    )
    chosen = {'segmenter': 'synthetic', 'calibration': str(out)}
    pipeline = Pipeline.from_config(chosen)
    options = pipeline.prepared.object_options
    assert (options.min_evidence, options.far_area, options.reference_area) == (0.2, 0.1, 0)
    assert pipeline(np.zeros((48, 64, 3), np.uint8)).threshold_source == 'promise'
    other = Pipeline.from_config(chosen, **{'objects.min_evidence': 0.1})
    assert 'objects.min_evidence is 0.1, calibrated with 0.2' in other.prepared.doubt


def test_a_calibration_of_another_model_is_refused(pictures, tmp_path):
    out = tmp_path / 'mine.yaml'
    assert main(['calibrate', str(pictures), '-o', str(out), *SYNTHETIC, '--rate', '0.5']) == 0
    with pytest.raises(ValueError, match='calibrated for another model'):
        Pipeline.from_config({'calibration': str(out), 'scorer': 'plain'})


@pytest.fixture
def bag(pictures, tmp_path):
    """The pictures as a rosbag2, one per second, and a second camera that sees nothing."""
    writer = bags.BagWriter(tmp_path / 'bag')
    for second, path in enumerate(sorted(pictures.iterdir(), key=lambda path: int(path.stem))):
        picture = cv2.imread(str(path))
        stamp = (100 + second) * 10**9
        for topic, seen in (('/front', picture), ('/rear', np.zeros_like(picture))):
            writer.write(
                topic,
                bags.IMAGE,
                bags.image_message(seen, 'bgr8', stamp_ns=stamp, frame_id='camera'),
                stamp,
            )
    writer.close()
    return tmp_path / 'bag'


def test_footage_from_a_bag(bag, pictures, tmp_path, capsys):
    found = {}
    for name, words in (('bag', [str(bag), '--topic', '/front']), ('folder', [str(pictures)])):
        out = tmp_path / f'{name}.yaml'
        assert main(['calibrate', *words, '-o', str(out), *SYNTHETIC, '--rate', '0.5']) == 0
        found[name] = Calibration.read(out).scorers['plain']
    # The pictures of the folder come in the same order, so only the clock differs.
    levels, promise = found['bag'], found['bag'].promise
    assert levels.threshold == found['folder'].threshold
    assert promise.drift == found['folder'].promise.drift and len(promise.drift) >= MIN_BLOCKS
    assert promise.frames == 40 and promise.footage == 'bag' and promise.size == (48, 64)
    assert promise.block_seconds == 40 // promise.blocks
    capsys.readouterr()
    out = tmp_path / 'other.yaml'
    assert main(['calibrate', str(bag), '-o', str(out), *SYNTHETIC]) == 2
    assert 'add --topic' in capsys.readouterr().err and not out.exists()
    words = ['calibrate', str(bag), '--topic', '/front', '-o', str(out), *SYNTHETIC]
    assert main([*words, '--per', 'minute', '--rate', '20', '--block', '2']) == 0
    promise = Calibration.read(out).scorers['plain'].promise
    assert (promise.unit, promise.rate, promise.blocks) == ('minute', 20, 20)
    assert promise.block_seconds == 2


def test_too_few_blocks_to_see_drift_are_pointed_out(bag, tmp_path, capsys):
    out = tmp_path / 'mine.yaml'
    assert (
        main(
            [
                'calibrate',
                str(bag),
                '--topic',
                '/front',
                '-o',
                str(out),
                *SYNTHETIC,
                '--rate',
                '0.5',
                '--block',
                '8',
            ]
        )
        == 0
    )
    assert Calibration.read(out).scorers['plain'].promise.blocks == 5
    assert 'will not be noticed: it takes 10 blocks of footage, the calibration has 5' in (
        capsys.readouterr().out
    )


@pytest.fixture
def stops(monkeypatch):
    """A function that lets Ctrl-C come with image `at`; returns the growing list of calls."""

    def arrange(at):
        calls, real = [], workbench.scores

        def scores(*arguments):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(workbench, 'scores', scores)
        return calls

    return arrange


def test_a_stopped_run_goes_on(pictures, tmp_path, stops):
    calls = stops(at=25)
    words = ['calibrate', str(pictures), *SYNTHETIC, '--rate', '0.5', '-o']
    assert main([*words, str(tmp_path / 'a.yaml')]) == 130
    assert not (tmp_path / 'a.yaml').exists()
    assert main([*words, str(tmp_path / 'a.yaml')]) == 0
    assert len(calls) == 25 + 16
    assert main([*words, str(tmp_path / 'b.yaml')]) == 0
    assert (tmp_path / 'a.yaml').read_text() == (tmp_path / 'b.yaml').read_text()


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--rate', '0.01'], 'takes 299 blocks'),
        (['--per', 'minute'], 'needs a clock'),
        (['--set', 'objects.threshold=1'], 'leave it away'),
        (['--rate', '0'], 'above 0'),
        (['--block', '2'], 'no clock'),
    ],
)
def test_bad_requests_are_one_line(pictures, tmp_path, capsys, words, says):
    out = tmp_path / 'mine.yaml'
    assert main(['calibrate', str(pictures), '-o', str(out), *SYNTHETIC, *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count('\n') == 1 and not out.exists()


def test_unreadable_input_is_one_line(tmp_path, capsys):
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(b'no video')
    assert main(['calibrate', str(broken), '-o', str(tmp_path / 'x.yaml'), *SYNTHETIC]) == 2
    assert capsys.readouterr().err.count('\n') == 1


@pytest.fixture
def labelled(tmp_path, rng):
    """Six pictures with a red box on the road, and their labels."""
    for name in ('images', 'labels_masks'):
        (tmp_path / 'data' / name).mkdir(parents=True)
    truth = np.zeros((48, 64), np.uint8)
    truth[30:40, 20:32] = 1
    for index in range(6):
        picture = np.full((48, 64, 3), 90, np.uint8)
        picture[:20] = (220, 170, 120)
        picture[truth == 1] = (20, 30, 200 - index)
        cv2.imwrite(str(tmp_path / 'data' / 'images' / f'{index}.png'), picture)
        cv2.imwrite(str(tmp_path / 'data' / 'labels_masks' / f'{index}.png'), truth)
    return tmp_path / 'data'


def test_labels_give_the_best_f1(labelled, tmp_path):
    out = tmp_path / 'mine.yaml'
    assert (
        main(['calibrate', str(labelled), '-o', str(out), '--labels', 'folder', *SYNTHETIC]) == 0
    )
    levels = Calibration.read(out).scorers['plain']
    assert levels.promise is None and levels.source.startswith('best F1, 6 images')
    picture = cv2.cvtColor(cv2.imread(str(labelled / 'images' / '0.png')), cv2.COLOR_BGR2RGB)
    truth = cv2.imread(str(labelled / 'labels_masks' / '0.png'), cv2.IMREAD_GRAYSCALE)
    result = Pipeline.from_config({'segmenter': 'synthetic', 'calibration': str(out)})(picture)
    found = (result.score > result.threshold).numpy()
    assert (found & (truth == 1)).sum() > 0.5 * (found | (truth == 1)).sum()


def test_a_stopped_run_with_labels_goes_on(labelled, tmp_path, stops):
    calls = stops(at=4)
    words = ['calibrate', str(labelled), '--labels', 'folder', *SYNTHETIC, '-o']
    assert main([*words, str(tmp_path / 'a.yaml')]) == 130
    assert not (tmp_path / 'a.yaml').exists()
    assert main([*words, str(tmp_path / 'a.yaml')]) == 0
    assert len(calls) == 4 + 3
    assert main([*words, str(tmp_path / 'b.yaml')]) == 0
    assert len(calls) == 4 + 3 + 6
    assert (tmp_path / 'a.yaml').read_text() == (tmp_path / 'b.yaml').read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.yaml', 'b.yaml', 'data']


def false_share(path, source, skip=0, every=1):
    """The share of frames, every n-th from `skip` on, in which the chain shows anything."""
    from road_anomaly_ros.tools.sources import open_source

    pipeline = Pipeline.from_config({'calibration': str(path)})
    with open_source(source) as frames:
        shown = [
            bool(pipeline(frame.image).objects)
            for index, frame in enumerate(frames)
            if index >= skip and index % every == 0
        ]
    return float(np.mean(shown))


def test_the_promise_holds_on_the_second_half_of_the_highway(shared, tmp_path):
    clip, out = shared / 'data' / 'dashcam' / 'highway_960x540_25fps.mp4', tmp_path / 'mine.yaml'
    assert (
        main(
            [
                'calibrate',
                str(clip),
                '-o',
                str(out),
                '--max-frames',
                '22',
                '--every',
                '5',
                '--best-effort',
            ]
        )
        == 0
    )
    promise = Calibration.read(out).scorers['head_v3'].promise
    assert promise.rate < 0.6 and promise.confidence == 0.95
    assert false_share(out, clip, skip=110, every=10) <= promise.rate


def test_the_promise_holds_on_another_rendered_drive(tmp_path):
    scene = 'rendered:{}?frames={}&width=240&height=136&obstacles=false&fps=1'
    out = tmp_path / 'mine.yaml'
    # A small input of the network: three times as fast, and nothing here depends on it.
    assert (
        main(
            [
                'calibrate',
                scene.format(3, 30),
                '-o',
                str(out),
                '--rate',
                '0.3',
                '--best-effort',
                '--set',
                'segmenters.mask2former.short_side=144',
            ]
        )
        == 0
    )
    promise = Calibration.read(out).scorers['head_v3'].promise
    assert false_share(out, scene.format(11, 20)) <= promise.rate


def test_drift_is_seen_and_its_absence_too():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(60, 3))
    test = Exchangeability(reference, rate=1e-3)
    assert not any((test.update(row), test.drifted)[1] for row in rng.normal(size=(300, 3)))
    needed = next(
        index
        for index, row in enumerate(rng.normal(8, 1, size=(60, 3)))
        if (test.update(row), test.drifted)[1]
    )
    assert needed < 15
    for row in rng.normal(size=(60, 3)):
        test.update(row)
    assert not test.drifted


def test_false_alarms_of_drift_stay_under_the_stated_rate():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(100):
        test = Exchangeability(rng.normal(size=(20, 3)), rate=1 / 500)
        alarms += any((test.update(row), test.drifted)[1] for row in rng.normal(size=(50, 3)))
    assert alarms <= 100 * 50 / 500 + 6
