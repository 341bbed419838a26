# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import csv
import errno
import json

import cv2
import numpy as np
import pytest
from evaluating import METRICS, evaluate, passes, rows_of
from tiny_scenes import SIZE, write_scenes

from road_anomaly_ros import cli
from road_anomaly_ros.evaluation import details, measuring, results
from road_anomaly_ros.evaluation.datasets import open_dataset
from road_anomaly_ros.evaluation.store import Store
from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.perception.chain import Chain
from road_anomaly_ros.perception.labels import CAMVID, CITYSCAPES, IDD_LITE, label_set
from road_anomaly_ros.perception.metrics import component_metrics, pixel_metrics
from road_anomaly_ros.tools import workbench


@pytest.fixture
def data(tmp_path, rng):
    return write_scenes(tmp_path / 'data', rng)


def test_figures_are_those_of_the_pipeline_and_the_metrics(data, tmp_path, monkeypatch):
    seen = passes(monkeypatch)
    assert evaluate(data, tmp_path / 'out') == 0
    assert len(seen) == 4
    assert not (tmp_path / 'out' / 'scores').exists()
    found = rows_of(tmp_path / 'out')
    samples = open_dataset(data, 'folder')
    labels = [samples.anomaly(index) for index in range(4)]
    for name, refinements in (('plain', 'none'), ('max_entropy', 'road_prior')):
        pipeline = Pipeline.from_config(
            segmenter='synthetic', scorer=name, refinements=[refinements]
        )
        scores = [pipeline(sample.read_image()).score.numpy() for sample in samples.samples]
        wanted = pixel_metrics(scores, labels)
        parts = component_metrics(scores, labels, wanted['best_threshold'], 50, 10)
        row = found[name if refinements == 'none' else f'{name}+{refinements}']
        assert row['frames'] == 4 and row['seconds'] > 0 and 'mIoU' not in row
        for column, value in zip(
            METRICS,
            (
                wanted['ap'],
                wanted['auroc'],
                wanted['fpr95'],
                parts['sIoU'],
                parts['PPV'],
                parts['F1'],
            ),
            strict=True,
        ):
            assert row[column] == pytest.approx(100 * value, abs=1e-9), column
    assert 50 < found['plain']['AP'] < 100


def test_chains_that_share_a_pass_score_as_they_do_alone(image):
    pipeline = Pipeline.from_config(segmenter='synthetic', scorer='plain', refinements=['none'])
    changes = (
        {},
        {'scorer': 'rba'},
        {'tta_hflip': True},
        {'scorer': 's2', 'refinements': ('variance_aware',)},
    )
    configs = [pipeline.config.replace(change) for change in changes]
    found = workbench.scores(pipeline, image, [pipeline.prepare(config) for config in configs])
    assert pipeline.chain.scorer == 'plain'
    for config, scored in zip(configs, found, strict=True):
        alone = Pipeline(config)(image)
        np.testing.assert_array_equal(scored.score, alone.score)
        np.testing.assert_array_equal(scored.labels, alone.labels)
        assert scored.milliseconds > 0 and not scored.notes
    with pytest.raises(ValueError, match='model cannot change while the model is loaded'):
        pipeline.prepare(pipeline.config.replace({'model': 'other'}))


def test_results_say_what_they_were_made_with(data, tmp_path):
    out = tmp_path / 'out'
    assert evaluate(data, out, '--min-gt-size', '20', methods=['plain']) == 0
    document = json.loads((out / 'results.json').read_text())
    assert set(document) == {'environment', 'results'}
    assert list(document['results'][0]) == ['dataset', 'method', *METRICS, 'frames', 'seconds']
    environment = document['environment']
    assert {'machine', 'versions', 'seeds', 'checkpoints', 'runs'} <= set(environment)
    run = environment['runs']['folder']
    assert run['pixels'] == {'inlier': 4 * 45 * 64 - 720, 'anomaly': 720, 'ignored': 4 * 3 * 64}
    assert run['methods']['plain']['min_gt_size'] == 20
    assert run['methods']['plain']['options']['scorer'] == 'plain'
    with (out / 'table.csv').open() as file:
        table = list(csv.DictReader(file))
    assert float(table[0]['AP']) == document['results'][0]['AP']
    assert (
        f'| folder | plain | {document["results"][0]["AP"]:.2f} |'
        in (out / 'table.md').read_text()
    )


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (KeyboardInterrupt, 130, 'the same command continues'),
        (
            OSError(errno.ENOSPC, 'No space left on device', 'x.npz'),
            2,
            'x.npz: No space left on device; what is done is kept and the same command continues',
        ),
    ],
)
def test_a_run_that_ends_early_is_continued(
    data, tmp_path, monkeypatch, capsys, error, code, line
):
    out = tmp_path / 'out'
    with monkeypatch.context() as patch:
        passes(patch, stop_at=3, error=error)
        assert evaluate(data, out) == code
    assert line in capsys.readouterr().err
    assert not (out / 'results.json').exists()
    assert len(list((out / 'scores').rglob('*.npz'))) == 4
    seen = passes(monkeypatch)
    assert evaluate(data, out) == 0
    assert len(seen) == 2
    assert evaluate(data, tmp_path / 'whole') == 0
    for method, row in rows_of(tmp_path / 'whole').items():
        again = rows_of(out)[method]
        assert [again[name] for name in METRICS] == [row[name] for name in METRICS]


def test_what_is_measured_is_not_measured_again(data, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    assert evaluate(data, out, methods=['plain']) == 0
    seen = passes(monkeypatch)
    assert evaluate(data, out, methods=['plain']) == 0 and not seen
    assert evaluate(data, out, methods=['plain', 'msp']) == 0 and len(seen) == 4
    assert set(rows_of(out)) == {'plain', 'msp'}
    (data / 'labels_masks' / '0.png').write_bytes((data / 'labels_masks' / '3.png').read_bytes())
    assert evaluate(data, out, '--skip-clean', '--keep-scores', methods=['plain']) == 0
    assert len(seen) == 6 and rows_of(out)['plain']['frames'] == 2
    assert len(list((out / 'scores').rglob('*.npz'))) == 2


def test_a_full_disk_leaves_no_partial_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write('a', 0, {'score': np.zeros(3)})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(np, 'savez', full)
    with pytest.raises(OSError, match=r'No space left.*000001\.npz'):
        store.write('a', 1, {'score': np.zeros(3)})
    assert [path.name for path in (tmp_path / 'scores' / 'a').iterdir()] == ['000000.npz']
    assert store.has('a', 0) and not store.has('a', 1)
    with pytest.raises(ValueError, match='choose another folder or fewer methods'):
        store.refuse_full_disk(1 << 50, 2)
    with pytest.raises(ValueError, match='another run is writing there'):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


@pytest.mark.parametrize(
    'case', ['smooth', 'fp16', 'ties', 'perfect', 'constant', 'rare', 'negative']
)
def test_streamed_figures_equal_the_golden_ones(golden, tmp_path, case):
    arrays = golden('pixel_metrics')[case]
    scores, labels = arrays['scores'].astype(np.float32), arrays['labels']
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels_masks').mkdir()
    store = Store(tmp_path / 'out')
    for index, (score, label) in enumerate(zip(scores, labels, strict=True)):
        for name in ('images', 'labels_masks'):
            cv2.imwrite(str(tmp_path / name / f'{index}.png'), label)
        store.write('x', index, {'score': score, 'seconds': 1.0})
    row, _ = measuring.measure(open_dataset(tmp_path, 'folder'), store, 'x')
    for column, name in (('AP', 'ap'), ('AUROC', 'auroc'), ('FPR95', 'fpr95_first_ge')):
        assert row[column] == pytest.approx(100 * float(arrays[name]), abs=1e-7), column
    store.close()


def test_miou_by_class_names(tmp_path, capsys):
    """The synthetic segmenter lacks most of CamVid's classes; a table maps those it shares."""
    model = ('tree', 'road', 'bush', 'sky')
    shared = measuring.shared_classes(model, ('sky', 'road', 'vegetation'))
    assert shared.names == ('sky', 'road', 'vegetation')
    assert shared.predicted[:5].tolist() == [2, 1, 3, 0, 3]
    assert shared.truth.tolist() == list(range(256))
    assert measuring.shared_classes(model, ('sky', 'car')) is None
    assert measuring.shared_classes(model, ()) is None
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), np.zeros(SIZE, np.uint8))
    assert evaluate(tmp_path, tmp_path / 'out', '--layout', 'camvid', methods=['auto']) == 2
    assert 'choose a model of these classes' in capsys.readouterr().err


def test_miou_of_a_class_data_set(tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    truth = np.array([[0, 0, 3, 3], [0, 3, 3, 255]], np.uint8)
    for name in ('images', 'labels'):
        cv2.imwrite(str(tmp_path / name / 'a.png'), truth)
    data, store = open_dataset(tmp_path, 'camvid'), Store(tmp_path / 'out')
    guess = np.array([[0, 0, 0, 3], [0, 3, 3, 3]], np.uint8)
    store.write('x', 0, {'classes': guess, 'seconds': 0.5})
    row, _ = measuring.measure(data, store, 'x', labels=label_set(data.layout.class_names))
    assert row['mIoU'] == pytest.approx(100 * (3 / 4 + 3 / 4) / 2)
    assert np.isnan(row['AP']) and row['seconds'] == 0.5
    store.close()


GROUPED = [
    # 19 classes on CamVid's 11: the wall is building, lorry and bus are cars, bicycle and
    # motorcycle the bicyclist; then on the 7 of IDD-Lite; then a model of 11 on truth of 19.
    ('camvid', CITYSCAPES, (1, 1, 8, 8, 10, 255), (3, 2, 14, 15, 18, 0), CAMVID, 1.0),
    ('camvid', CITYSCAPES, (5, 5, 6, 4, 0, 8), (8, 9, 6, 1, 10, 11), CAMVID, 4 / 6),
    ('idd_lite', CITYSCAPES, (0, 1, 1, 2, 3, 4), (0, 1, 9, 12, 17, 6), IDD_LITE, 1.0),
    ('idd_lite', CITYSCAPES, (4, 4, 5, 5, 6, 255), (3, 4, 2, 8, 10, 11), IDD_LITE, 1.0),
    ('trainids', CAMVID, (9, 8, 17, 14, 3, 6), (5, 5, 10, 8, 1, 6), CAMVID, 1.0),
    ('idd_lite', CAMVID, (0, 2, 3, 4, 5, 5), (3, 10, 8, 2, 1, 5), IDD_LITE, 1.0),
]


@pytest.mark.parametrize(('layout', 'model', 'truth', 'guess', 'names', 'wanted'), GROUPED)
def test_miou_in_the_coarser_classes(tmp_path, layout, model, truth, guess, names, wanted):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), np.uint8([truth]))
    data, store = open_dataset(tmp_path, layout), Store(tmp_path / 'out')
    store.write('x', 0, {'classes': np.uint8([guess]), 'seconds': 0.5})
    row, details = measuring.measure(data, store, 'x', labels=label_set(model))
    assert row['mIoU'] == pytest.approx(100 * wanted)
    assert details['classes'] == list(names)
    store.close()


def test_a_model_of_coarser_classes_is_measured_in_its_own_with_a_note(data, tmp_path, capsys):
    """The synthetic segmenter's building holds walls and its vegetation terrain."""
    classes = {0: 'road', 1: 'wall', 2: 'terrain', 3: 'sky', 4: 'building'}
    (data / 'config.yaml').write_text(json.dumps({'layout': 'rendered', 'classes': classes}))
    (data / 'instances').mkdir()
    (data / 'labels').mkdir()
    for path in (data / 'labels_masks').iterdir():
        cv2.imwrite(str(data / 'labels' / path.name), cv2.imread(str(path), -1) * 0)
    words = ('--layout', 'synthetic', '--max-frames', '1')
    assert evaluate(data, tmp_path / 'out', *words, methods=['plain']) == 0
    assert 'the model lacks some of the 5 classes' in capsys.readouterr().err
    assert rows_of(tmp_path / 'out')['plain']['mIoU'] > 0
    text = (tmp_path / 'out' / 'results.json').read_text()
    run = json.loads(text)['environment']['runs']['synthetic']
    assert run['methods']['plain']['classes'] == ['road', 'building', 'vegetation', 'sky']


def test_a_refinement_that_fails_ends_the_run(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Chain, 'refine', lambda *a: (a[1], ('oasc skipped: it broke',)))
    assert evaluate(data, tmp_path / 'out', methods=['plain+oasc']) == 2
    error = capsys.readouterr().err
    assert 'plain+oasc' in error and '0.png: oasc skipped: it broke' in error


@pytest.mark.parametrize(
    ('options', 'methods', 'expected'),
    [
        ([], ['plain', 'plain'], "'plain' is there twice"),
        ([], ['nonsense'], "unknown scorer 'nonsense'"),
        ([], ['plain+nonsense'], "unknown refinement 'nonsense'"),
        (['--layout', 'camvid'], ['plain'], 'choose --layout folder'),
        (['--set', 'segmenter=external'], ['external'], 'has no network to be measured'),
        (['--set', 'segmenter=synthetic'], ['head_v2'], 'head_v2'),
    ],
)
def test_refusals_are_one_line_before_any_pass(
    data, tmp_path, capsys, monkeypatch, options, methods, expected
):
    seen = passes(monkeypatch)
    assert evaluate(data, tmp_path / 'out', *options, methods=methods) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1 and not seen


def test_a_set_without_anomalies_is_undefined_and_says_so(data, tmp_path, capsys):
    for index in range(3):
        truth = cv2.imread(str(data / 'labels_masks' / f'{index}.png'), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(data / 'labels_masks' / f'{index}.png'), np.where(truth == 1, 255, truth))
    assert evaluate(data, tmp_path / 'out', methods=['plain']) == 0
    assert 'no pixel' in capsys.readouterr().err
    assert [rows_of(tmp_path / 'out')['plain'][name] for name in METRICS] == [None] * 6
    assert evaluate(data, tmp_path / 'out', '--skip-clean', methods=['plain']) == 2
    assert 'none of the 4 images has an anomaly' in capsys.readouterr().err


def test_compare(tmp_path, capsys):
    def row(method, score, rate):
        return {'dataset': 'd', 'method': method, 'AP': score, 'FPR95': rate, 'frames': 1}

    for name, rows in (
        ('a', [row('rba', 50.0, 20.0), row('eam', 1.0, 2.0)]),
        ('b', [row('rba', 52.5, None), row('s2', 1.0, 2.0)]),
    ):
        (tmp_path / name).mkdir()
        results.write(tmp_path / name, {'environment': {}, 'results': rows})
    sides = [str(tmp_path / 'a'), str(tmp_path / 'b' / 'results.json')]
    assert cli.main(['evaluate', '--compare', *sides]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '| dataset | method | AP | FPR95 |',
        '| --- | --- | --- | --- |',
        '| d | rba | 52.50 (+2.50) | 20.00 to - |',
        'only in A: d, eam',
        'only in B: d, s2',
    ]
    assert cli.main(['evaluate', '--compare', sides[0], str(tmp_path / 'none')]) == 2
    assert 'expected results of road-anomaly evaluate' in capsys.readouterr().err
    (tmp_path / 'c.json').write_text('[]')
    assert cli.main(['evaluate', '--compare', sides[0], str(tmp_path / 'c.json')]) == 2
    assert 'was it written by' in capsys.readouterr().err
    assert cli.main(['evaluate']) == 2
    assert 'expected DATASET_DIR and -o OUT' in capsys.readouterr().err


def test_details_hold_exact_counts_and_the_foot_of_every_object(tmp_path):
    score = np.array(
        [[0.9, 0.8, 0.7, 0.1], [0.6, 0.5, 0.2, 0.1], [0.1, 0.1, 0.1, 0.1], [0.4, 0.1, 0.1, 0.1]],
        np.float32,
    )
    truth = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 255]], np.uint8)
    for name in ('images', 'labels_masks'):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), truth)
    store = Store(tmp_path / 'out')
    store.write('x', 0, {'score': score, 'seconds': 1.0, 'stages': [5.0, 2.0, np.nan, np.nan]})
    findings = details.Findings()
    measuring.measure(
        open_dataset(tmp_path, 'folder'), store, 'x', sizes=(1, 1), findings=findings
    )
    store.close()
    found = findings.as_dict()
    assert (found['anomaly'], found['known']) == (4, 11)
    assert found['curve'] == {
        'threshold': [0.9, 0.7, 0.6, 0.4],
        'true': [1, 2, 3, 4],
        'false': [0, 1, 1, 2],
    }
    frame = found['frames'][0]
    assert frame['ap'] == pytest.approx(100 * (1 + 2 / 3 + 3 / 4 + 4 / 6) / 4)
    assert (frame['anomaly'], frame['missed'], frame['false'], frame['objects']) == (4, 0, 2, 3)
    assert [
        (cell['least_size'], cell['band'], cell['count']) for cell in found['objects']['cells']
    ] == [(1, 0, 1), (1, 7, 1), (2, 2, 1)]
    assert found['stages'] == {
        'segment': {'p50': 5.0, 'p99': 5.0},
        'score': {'p50': 2.0, 'p99': 2.0},
    }


def test_only_extreme_frames_of_a_large_set_are_kept():
    frames = [
        details.Frame(index, str(index), 1, float(index), 0, 0, 1, 1, 0) for index in range(1000)
    ]
    kept = [frame.index for frame in details.extremes(frames)]
    assert kept == [*range(40), *range(960, 1000)]


@pytest.mark.parametrize('damage', ['{"environment": {', '[]', ''])
def test_damaged_results_are_made_again_from_the_details(
    data, tmp_path, monkeypatch, capsys, damage
):
    out = tmp_path / 'out'
    assert evaluate(data, out) == 0
    before = json.loads((out / 'results.json').read_text())
    (out / 'results.json').write_text(damage)
    seen = passes(monkeypatch)
    assert evaluate(data, out, methods=['plain', 'max_entropy+road_prior', 'msp']) == 0
    error = capsys.readouterr().err
    assert 'results.json.damaged' in error and error.count('\n') == 1
    assert (out / 'results.json.damaged').read_text() == damage and len(seen) == 4
    rows = rows_of(out)
    assert set(rows) == {'plain', 'max_entropy+road_prior', 'msp'}
    assert all(rows[row['method']] == row for row in before['results'])


def test_segments_and_equal_scores_are_made_once_per_image(image, monkeypatch):
    from road_anomaly_ros.perception.segments._images import Partition

    pipeline = Pipeline.from_config(segmenter='synthetic', scorer='plain', refinements=['none'])
    made, scored = [], []
    segment, score = Partition.__call__, Chain.score
    monkeypatch.setattr(Partition, '__call__', lambda *a: made.append(1) or segment(*a))
    monkeypatch.setattr(Chain, 'score', lambda *a: scored.append(1) or score(*a))
    chains = [
        pipeline.prepare(pipeline.config.replace({'scorer': name, 'refinements': chain}))
        for name in ('plain', 'rba')
        for chain in (('none',), ('variance_aware',))
    ]
    found = workbench.scores(pipeline, image, chains)
    assert len(made) == 1 and len(scored) == 2
    assert [set(item.stages) for item in found[:2]] == [
        {'segment', 'score'},
        {'segment', 'score', 'segments', 'refine'},
    ]
    assert found[1].stages['segments'] == found[3].stages['segments'] > 0


@pytest.mark.parametrize(
    ('name', 'damage', 'expected'),
    [
        ('labels_masks/1.png', None, 'expected a label for 1.png'),
        ('labels_masks/1.png', np.zeros((4, 4), np.uint8), 'labels are never resized'),
        ('images', None, 'found no image of that kind'),
    ],
)
def test_a_data_set_that_cannot_be_measured_is_one_line(
    data, tmp_path, capsys, name, damage, expected
):
    path = data / name
    if damage is not None:
        cv2.imwrite(str(path), damage)
    elif path.is_dir():
        for file in path.iterdir():
            file.unlink()
    else:
        path.unlink()
    assert evaluate(data, tmp_path / 'out', methods=['plain']) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1


def test_a_disk_that_is_full_at_the_end_keeps_the_scores(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device', 'details.json')

    with monkeypatch.context() as patch:
        patch.setattr(details.files, 'write_json', full)
        assert evaluate(data, out) == 2
    assert 'the same command continues' in capsys.readouterr().err
    assert not (out / 'results.json').exists()
    seen = passes(monkeypatch)
    assert evaluate(data, out) == 0 and not seen
    assert len(rows_of(out)) == 2


def test_bench_metrics_writes_rates_and_leaves_no_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    out = tmp_path / 'metrics.json'
    assert (
        cli.main(['bench', '--metrics', '--size', '64x48', '--frames', '3', '-o', str(out)]) == 0
    )
    document = json.loads(out.read_text())
    assert (document['size'], document['frames']) == ([64, 48], 3)
    assert len(document['metrics']) == 3
    assert all(row['images_per_s'] > 0 for row in document['metrics'])
    assert '| mIoU |' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]
