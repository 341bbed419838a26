# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An archive of real files through real workers: the same index whoever did the work."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time

import cv2
import numpy as np
import pytest
from archives import CHAIN, FPS, SIZE, STRETCH, road, write_bag, write_video

pa = pytest.importorskip('pyarrow', reason='needs the extra mine')

from road_anomaly_ros import cli  # noqa: E402
from road_anomaly_ros.fleet import driving, mine_export, mining  # noqa: E402
from road_anomaly_ros.fleet.choosing import Shown  # noqa: E402
from road_anomaly_ros.fleet.index import SCHEMA, Index, Part, strongest  # noqa: E402
from road_anomaly_ros.fleet.listing import BAG, PICTURES, VIDEO, Item, find  # noqa: E402
from road_anomaly_ros.perception.config import PipelineConfig  # noqa: E402
from road_anomaly_ros.perception.model_files import BUILTIN, model_directory  # noqa: E402
from road_anomaly_ros.remarks import Remark  # noqa: E402
from road_anomaly_ros.tools.bags import BagReader  # noqa: E402
from road_anomaly_ros.tools.sources import open_source  # noqa: E402


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    """Two videos, one of them broken, a bag, a folder of pictures and a text."""
    root = tmp_path_factory.mktemp('archive')
    (root / 'day' / 'photos').mkdir(parents=True)
    write_video(root / 'day' / 'a.avi')
    write_bag(root / 'drive')
    for index in range(3):
        cv2.imwrite(str(root / 'day' / 'photos' / f'{index}.png'), road(9 * index)[..., ::-1])
    (root / 'broken.mp4').write_bytes(b'\0\0\0\x20ftypisom' + bytes(500))
    (root / 'notes.txt').write_text('no drive')
    return root


def mine(archive, out, *more):
    words = ['mine', str(archive), '-o', str(out), '--stretch', str(STRETCH), *CHAIN, *more]
    return cli.main(words)


@pytest.fixture(scope='module')
def alone(archive, tmp_path_factory):
    """The index of one process."""
    out = tmp_path_factory.mktemp('alone') / 'index'
    assert mine(archive, out, '--jobs', '1') == 1  # the broken video
    return Index(out)


# --- what there is -----------------------------------------------------------------------------


def test_the_listing_knows_videos_bags_and_folders_of_pictures(archive):
    listing = find([str(archive)])
    assert [(item.uri, item.kind, len(item.files)) for item in listing.items] == [
        (str(archive / 'broken.mp4'), VIDEO, 0),
        (str(archive / 'day' / 'a.avi'), VIDEO, 0),
        (str(archive / 'day' / 'photos'), PICTURES, 3),
        (str(archive / 'drive'), BAG, 2),
    ]
    assert listing.left_out == {'no video, bag or picture': [str(archive / 'notes.txt')]}


def test_globs_lists_and_repeated_names_give_each_file_once(archive, tmp_path):
    text = tmp_path / 'list.txt'
    text.write_text(f'# drives\n{archive}/day/a.avi\n\n{archive}/nothing.mp4\n')
    listing = find([f'{archive}/**/*.avi'], [text])
    assert [item.uri for item in listing.items] == [str(archive / 'day' / 'a.avi')]
    assert listing.left_out == {'nothing there': [f'{archive}/nothing.mp4']}


@pytest.mark.parametrize('source', ['nowhere/', 'ftpx://host/drives', 'memory://nothing'])
def test_nothing_to_mine_is_one_line(source, tmp_path, capsys):
    assert cli.main(['mine', source, '-o', str(tmp_path / 'index')]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('road-anomaly: expected videos, bags or pictures') and source in line


def test_remote_files_are_the_same_as_local_ones(archive, tmp_path):
    """They are taken whole, since every part of one would fetch it again."""
    import fsspec

    memory = fsspec.filesystem('memory')
    for name in ('day', 'drive'):
        memory.put(str(archive / name), '/archive/', recursive=True)
    try:
        code = mine('memory://archive', tmp_path / 'remote', '--jobs', '1')
    finally:
        memory.rm('/archive', recursive=True)
    assert code == 0 and {part.parts for part in Index(tmp_path / 'remote').done()} == {(0,)}
    assert mine(archive, tmp_path / 'local', '--jobs', '1', '--stretch', '100') == 1
    places = ('thumbnail', 'file')
    found = [
        sorted(
            tuple(value for name, value in row.items() if name not in places)
            for row in rows_of(Index(tmp_path / where))
        )
        for where in ('remote', 'local')
    ]
    assert found[0] == found[1] and found[0]


# --- what is found -----------------------------------------------------------------------------


def rows_of(index):
    return index.events().to_pylist()


def test_rows_tell_place_time_and_look(archive, alone):
    table = alone.events()
    assert table.schema.equals(SCHEMA)
    videos = [row for row in table.to_pylist() if row['file'].endswith('a.avi')]
    assert videos, 'the patch was not found'
    for row in videos:
        assert row['start'] in (0, STRETCH)
        assert row['start'] <= row['frame'] < row['start'] + STRETCH
        assert row['time'] == pytest.approx(row['frame'] / FPS, abs=1e-3)
        assert row['first'] <= row['time'] <= row['last'] + 1e-9
        assert (row['width'], row['height']) == SIZE[::-1] and row['size'] == pytest.approx(
            row['area'] / (SIZE[0] * SIZE[1])
        )
        picture = cv2.imdecode(np.frombuffer(alone.thumbnail(row['thumbnail']), np.uint8), 1)
        assert picture is not None and max(picture.shape) <= 320
    bags = [row for row in table.to_pylist() if row['topic']]
    assert {row['topic'] for row in bags} == {'/front/image'}
    assert all(row['stamp'] - row['time'] == pytest.approx(1.7e9, abs=1e-3) for row in bags)
    photos = [row for row in table.to_pylist() if row['file'].endswith('photos')]
    assert photos and all(row['frames'] == 1 for row in photos)  # no time between photographs


def test_what_gave_nothing_is_told(archive, alone, capsys):
    (failure,) = alone.failures().values()
    assert failure['file'] == str(archive / 'broken.mp4')
    assert 'expected a video' in failure['reason']
    assert mine(archive, alone.path, '--jobs', '1') == 1  # tried again, alone
    out, err = capsys.readouterr()
    assert '3 before' in out and 'failed: ' in err and 'left out 1' in err


def test_an_index_of_other_settings_is_not_mixed(archive, alone, capsys):
    code = mine(archive, alone.path, '--jobs', '1', '--set', 'objects.min_area=21')
    assert code == 2
    assert 'was made with another fingerprint' in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(archive, tmp_path, capsys):
    (tmp_path / 'thesis.txt').write_text('precious')
    assert mine(archive, tmp_path, '--jobs', '1') == 2
    assert 'expected an index or an empty folder' in capsys.readouterr().err


def test_a_dry_run_estimates_and_writes_nothing(archive, tmp_path, capsys):
    assert mine(archive, tmp_path / 'index', '--dry-run', '--jobs', '4') == 0
    text = capsys.readouterr().out
    assert '4 files' in text and 'with 4 workers' in text and '1 of 4 sampled files' in text
    assert not (tmp_path / 'index').exists()


# --- who does the work -------------------------------------------------------------------------


def same(index, other):
    assert rows_of(index) == rows_of(other)
    for row in rows_of(index):
        assert index.thumbnail(row['thumbnail']) == other.thumbnail(row['thumbnail'])


def test_processes_give_the_same_index_though_one_is_killed(archive, alone, tmp_path, monkeypatch):
    killed = []
    take = driving.Processes.answers

    def answers(pool, seconds):
        busy = [worker for worker in pool._workers if worker.task is not None]
        if not killed and busy:
            killed.append(busy[0].task)
            os.kill(busy[0].process.pid, signal.SIGKILL)
        return take(pool, seconds)

    monkeypatch.setattr(driving.Processes, 'answers', answers)
    assert mine(archive, tmp_path / 'index', '--jobs', '2') == 1
    assert len(killed) == 1
    same(Index(tmp_path / 'index'), alone)


def test_a_worker_that_dies_while_it_loads_is_started_again(
    archive, alone, tmp_path, monkeypatch, capsys
):
    """No task is blamed for it."""
    killed = []
    take = driving.Processes.answers

    def answers(pool, seconds):
        for worker in [] if killed else list(pool._workers):
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)
        return take(pool, seconds)

    monkeypatch.setattr(driving.Processes, 'answers', answers)
    assert mine(archive, tmp_path / 'index', '--jobs', '2') == 1
    assert len(killed) == 2 and 'were done again' not in capsys.readouterr().out
    same(Index(tmp_path / 'index'), alone)


def test_workers_that_always_die_while_they_load_are_one_line(
    archive, tmp_path, monkeypatch, capsys
):
    make, killed = driving._Worker, []

    def worker(*words):
        made = make(*words)
        killed.append(made.process.pid)
        os.kill(made.process.pid, signal.SIGKILL)
        return made

    monkeypatch.setattr(driving, '_Worker', worker)
    assert mine(archive, tmp_path / 'index', '--jobs', '2') == 2
    assert len(killed) == 2 * driving.ATTEMPTS
    assert 'no worker can begin: 3 times it died' in capsys.readouterr().err.splitlines()[-1]


def test_without_a_worker_that_cannot_begin_the_others_go_on(
    archive, alone, tmp_path, monkeypatch
):
    monkeypatch.setattr(driving, 'devices_of', lambda order: ['cuda:99', 'cpu'])
    with pytest.warns(Remark, match='--jobs: goes on without a worker that cannot begin: .*cuda'):
        assert mine(archive, tmp_path / 'index', '--jobs', '2') == 1
    same(Index(tmp_path / 'index'), alone)


def test_a_task_that_kills_its_workers_is_given_up(tmp_path):
    class Deadly:
        size = 1

        def submit(self, task):
            self.task = task

        def answers(self, seconds):
            return [driving.Answer(self.task, lost=True)]

    index = Index(tmp_path / 'index')
    index.open({'fingerprint': 'f'})
    driver = driving.Driver(index)
    driver.plan([Item('a.mp4', VIDEO, 1)])
    driver.run(Deadly())
    assert (driver.progress.failed, driver.progress.again) == (1, driving.ATTEMPTS - 1)
    (failure,) = index.failures().values()
    assert failure == {'file': 'a.mp4', 'reason': 'a.mp4: 3 workers died of it'}


def test_a_run_that_was_stopped_goes_on(archive, alone, tmp_path):
    """A third of the parts is taken away, as if it had never been reached."""
    copy = tmp_path / 'index'
    shutil.copytree(alone.path, copy)
    (copy / 'events.parquet').unlink()
    index = Index(copy)
    gone = list(index.done())[::3]
    for part in gone:
        index.remove(part.name)
    kept = {file: file.stat().st_mtime_ns for file in index.parts.iterdir()}
    time.sleep(0.01)
    assert mine(archive, copy, '--jobs', '1') == 1
    same(index, alone)
    assert gone and all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())


@pytest.mark.parametrize(('jobs', 'loading'), [(3, False), (1, True)])
def test_a_cluster_gives_the_same_index_though_a_worker_is_killed(
    archive, alone, tmp_path, monkeypatch, jobs, loading
):
    pytest.importorskip('ray', reason='needs the extra cluster')
    import ray

    from road_anomaly_ros.fleet import cluster

    killed = []
    take = cluster.Cluster.answers

    def answers(pool, seconds):
        busy = pool._beginning if loading else pool._running
        if not killed and busy:
            actor, _ = next(iter(busy.values()))
            killed.append(actor)
            ray.kill(actor)
        return take(pool, seconds)

    monkeypatch.setattr(cluster.Cluster, 'answers', answers)
    assert mine(archive, tmp_path / 'index', '--cluster', '--jobs', str(jobs)) == 1
    assert len(killed) == 1
    same(Index(tmp_path / 'index'), alone)


def test_a_cluster_that_shrinks_goes_on_with_what_is_left(archive, alone, tmp_path, monkeypatch):
    """Three workers are asked for, two have room, and one machine leaves while it works."""
    pytest.importorskip('ray', reason='needs the extra cluster')
    from ray.cluster_utils import Cluster

    from road_anomaly_ros.fleet import cluster

    machines = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})
    leaving = machines.add_node(num_cpus=1)
    take, left = cluster.Cluster.answers, []

    def answers(pool, seconds):
        if not left and len(pool._running) == 2:
            left.append(pool.size)
            machines.remove_node(leaving)
        return take(pool, seconds)

    monkeypatch.setattr(cluster.Cluster, 'answers', answers)
    try:
        with pytest.warns(Remark, match='expected at most 2 workers, got 3'):
            code = mine(archive, tmp_path / 'index', '--cluster', machines.address, '--jobs', '3')
    finally:
        machines.shutdown()
    assert code == 1 and left == [2]
    same(Index(tmp_path / 'index'), alone)


def test_a_cluster_without_room_says_what_it_waits_for(monkeypatch):
    pytest.importorskip('ray', reason='needs the extra cluster')
    from ray.cluster_utils import Cluster

    from road_anomaly_ros.fleet import cluster

    monkeypatch.setattr(cluster, 'PATIENCE_S', 0.1)
    machines = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})
    pool = cluster.Cluster(mining.Order(PipelineConfig(), threads=2), machines.address)
    try:
        with pytest.warns(Remark, match='no worker has begun .* each needs num_cpus=2 free'):
            while pool._empty_since != float('inf'):
                assert not pool.answers(0.1)
    finally:
        pool.close()
        machines.shutdown()


def test_a_cluster_whose_workers_cannot_begin_is_one_line(archive, tmp_path, monkeypatch, capsys):
    pytest.importorskip('ray', reason='needs the extra cluster')
    from road_anomaly_ros.fleet import cluster

    model = tmp_path / 'model'
    shutil.copytree(model_directory(BUILTIN), model)
    start = cluster._join

    def join(*words):
        shutil.rmtree(model)
        start(*words)

    monkeypatch.setattr(cluster, '_join', join)
    monkeypatch.setenv('RAY_ADDRESS', '127.0.0.1:1')  # of another's cluster: none of ours
    words = ('--cluster', '--jobs', '1', '--model', str(model))
    assert mine(archive, tmp_path / 'index', *words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'no worker of the cluster can begin' in line and str(model) in line


# --- what is done with it ----------------------------------------------------------------------


def test_the_page_links_to_the_moment(archive, alone, tmp_path, capsys):
    assert cli.main(['mine', 'report', str(alone.path), '-o', str(tmp_path / 'page.html')]) == 0
    text = (tmp_path / 'page.html').read_text()
    best = strongest(alone.events()).to_pylist()[0]
    assert f'{best["file"]}#t={best["time"]:.1f}' in text and 'data:image/jpeg;base64,' in text
    assert 'Nothing came of' in text and 'broken.mp4' in text
    assert f'{alone.events().num_rows} in all' in capsys.readouterr().out


def test_clips_are_cut_and_bags_stay_bags(archive, alone, tmp_path):
    out = tmp_path / 'clips'
    words = [
        'mine',
        'export',
        str(alone.path),
        '-o',
        str(out),
        '--before',
        '0.1',
        '--after',
        '0.1',
    ]
    assert cli.main(words) == 0
    with (out / 'clips.csv').open() as file:
        clips = list(csv.DictReader(file))
    assert clips
    for clip in clips:
        path, begin, end = out / clip['clip'], float(clip['begin']), float(clip['end'])
        assert path.exists() and begin <= float(clip['time']) <= end
        if clip['file'].endswith('drive'):
            reader = BagReader(path)
            stamps = [record.stamp_ns for record in reader.records()]
            reader.close()
            low, high = (1_700_000_000 + moment for moment in (begin, end))
            assert stamps and low - 1e-6 <= min(stamps) / 1e9 <= max(stamps) / 1e9 <= high + 1e-6
        elif path.is_dir():
            assert [file.suffix for file in path.iterdir()] == ['.png'] * len(list(path.iterdir()))
        else:
            with open_source(path) as source:
                assert len(list(source)) == pytest.approx((end - begin) * FPS + 1, abs=1.01)


def test_what_one_frame_of_a_video_shows_is_a_clip_too(alone, tmp_path):
    row = next(row for row in rows_of(alone) if row['file'].endswith('a.avi'))
    name = mine_export._cut(Shown({**row, 'frames': 1}), tmp_path, '0001', 0.0, 0.5)
    assert name == '0001_a.mp4' and (tmp_path / name).is_file()


def test_an_index_that_is_none_is_one_line(tmp_path, capsys):
    for words in (['report', '-o', 'page.html'], ['export', '-o', 'clips']):
        code = cli.main(['mine', words[0], str(tmp_path), *words[1:]])
        assert code == 2 and 'expected an index made by' in capsys.readouterr().err


def test_parts_that_are_whole_are_known_after_a_crash(alone, tmp_path):
    index = Index(tmp_path / 'index')
    index.open({'fingerprint': 'f'})
    part = Part('k', 'a.mp4', 8, (0, 8), 5, 1.5, {'undecodable': 1}, 'breaks off')
    index.add(
        part, [{**rows_of(alone)[0], 'thumbnail': 'k-000000008.zip/1.jpg'}], {'1.jpg': b'jpeg'}
    )
    (index.parts / '.rest.partial').write_bytes(b'half')
    again = Index(tmp_path / 'index')
    again.open({'fingerprint': 'f'})
    assert list(again.done()) == [part] and not (index.parts / '.rest.partial').exists()
    assert again.thumbnail('k-000000008.zip/1.jpg') == b'jpeg'
    assert again.merge() == 1


def test_a_worker_forgets_the_files_it_fetched(archive, tmp_path, monkeypatch):
    """Only the last one is kept on disk, whatever their number."""
    import fsspec

    monkeypatch.setattr(mining.tempfile, 'tempdir', str(tmp_path))
    memory = fsspec.filesystem('memory')
    for name in ('one.avi', 'two.avi'):
        memory.put(str(archive / 'day' / 'a.avi'), f'/kept/{name}')
    miner = mining.Miner(mining.Order(PipelineConfig(), stretch=STRETCH, limit=1))
    for item in find(['memory://kept']).items:
        miner.mine(mining.Task(item))
        assert len(list(tmp_path.glob('road_anomaly_*'))) == 1
    miner.close()
    memory.rm('/kept', recursive=True)
    assert not list(tmp_path.glob('road_anomaly_*'))
