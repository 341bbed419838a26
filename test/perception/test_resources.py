# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a pipeline holds of its device: kept once, let go as a whole, no fault kept for others."""

from __future__ import annotations

import errno
import gc
import json
import shutil
import weakref

import numpy as np
import pytest
import tiny_models
import torch

from road_anomaly_ros.perception import Pipeline, heads, model_files
from road_anomaly_ros.perception.contract import PipelineError, Segments
from road_anomaly_ros.perception.heads import HeadInfo
from road_anomaly_ros.perception.model_files import require_weights
from road_anomaly_ros.perception.refinements import REFINEMENTS
from road_anomaly_ros.perception.registry import Entry, NoOptions
from road_anomaly_ros.perception.resources import (
    Resources,
    is_out_of_memory,
    relieve,
    stamp,
    untraced,
)
from road_anomaly_ros.perception.segmenters import SEGMENTERS, erfnet
from road_anomaly_ros.tools import workbench

CPU = torch.device('cpu')


def no_memory():
    return torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')


class CvError(Exception):
    pass


CvError.__module__ = 'cv2'


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (no_memory(), True),
        (MemoryError(), True),
        (RuntimeError('CUDA error: out of memory'), True),
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`'), True),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
            ),
            True,
        ),
        (
            RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.'),
            True,
        ),
        (CvError('Insufficient memory (Failed to allocate 99 bytes)'), True),
        (OSError(errno.ENOMEM, 'Cannot allocate memory'), True),
        (OSError(errno.ENOSPC, 'No space left on device'), False),
        (RuntimeError('out of resource: shared memory, Required: 9, Hardware limit: 8'), False),
        (RuntimeError('shape mismatch'), False),
        (ValueError('out of memory'), False),
    ],
)
def test_a_lack_of_memory_is_known_by_any_of_its_names(error, expected):
    assert is_out_of_memory(error) == expected


def test_of_a_kind_the_last_used_are_kept():
    made = []

    def make(key):
        made.append(key)
        return key * 10

    kept = Resources(CPU)
    assert [
        kept.get('head', key, lambda key=key: make(key), most=2) for key in (1, 2, 1, 3, 1)
    ] == [10, 20, 10, 30, 10]
    assert made == [1, 2, 3]
    assert kept.get('head', 2, lambda: make(2), most=2) == 20 and made[-1] == 2
    assert kept.get('other', 2, lambda: 'another kind') == 'another kind'
    kept.release()
    assert kept.get('head', 1, lambda: 'anew') == 'anew'


def test_what_cannot_be_made_is_not_kept():
    kept = Resources(CPU)
    with pytest.raises(ZeroDivisionError):
        kept.get('head', 1, lambda: 1 / 0)
    assert kept.get('head', 1, lambda: 'made') == 'made'


def test_an_untraced_error_holds_nothing_of_where_it_was_raised():
    def fail():
        image = torch.zeros(3)
        seen.append(weakref.ref(image))
        try:
            raise no_memory()
        except RuntimeError as error:
            raise ValueError('shown') from error

    seen = []
    try:
        fail()
    except ValueError as error:
        kept = untraced(error)
    assert seen[0]() is None
    assert str(kept) == 'shown' and is_out_of_memory(kept.__cause__)


def test_only_a_gpu_is_relieved(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: calls.append('emptied'))
    relieve(CPU)
    assert not calls
    Resources(torch.device('cuda')).release()
    assert calls == ['emptied']


@pytest.fixture
def model(tmp_path):
    """A tiny model with a head beside it."""
    tiny_models.mask2former(tmp_path)
    write_head(tmp_path, seed=1)
    return tmp_path


def write_head(folder, seed):
    torch.manual_seed(seed)
    info = HeadInfo('head_v1', model_files.weights_digest(folder))
    heads.save_head(folder / 'heads' / 'head_v1', info, info.module())


def build(model, **options):
    return Pipeline.from_config(model=str(model), device='cpu', **options)


def test_a_head_that_is_trained_again_in_the_same_folder_is_taken(model, image):
    pipeline = build(model, scorer='head_v1')
    before = pipeline(image).score
    write_head(model, seed=2)
    assert torch.equal(pipeline(image).score, before)  # until somebody asks for it
    pipeline.reconfigure(pipeline.config)
    after = pipeline(image).score
    assert not torch.allclose(after, before)
    assert torch.equal(build(model, scorer='head_v1')(image).score, after)


def test_a_head_is_read_once_for_a_pipeline(model, monkeypatch):
    reads = []
    read = heads.read_state
    monkeypatch.setattr(heads, 'read_state', lambda path: reads.append(path) or read(path))
    pipeline = build(model, scorer='head_v1')
    for scorer in ('plain', 'head_v1', 'head_v1'):
        pipeline.reconfigure(pipeline.config.replace({'scorer': scorer}))
    assert len(reads) == 1
    build(model, scorer='head_v1')
    assert len(reads) == 2


class Blocks:
    """A source of segments with a network, so to say."""

    of_image_only = True

    def __init__(self):
        self.network = torch.zeros(5)

    def __call__(self, image, prompts=None):
        return Segments(index=torch.zeros(image.shape[1:], dtype=torch.int32))


def test_nothing_that_was_loaded_outlives_a_release(model, image, monkeypatch):
    def load(*, device, options, resources):
        return resources.get('segments', 'blocks', Blocks)

    monkeypatch.setattr('road_anomaly_ros.perception.segments.watershed.load', load)
    pipeline = build(model, scorer='head_v1', refinements='variance_aware', segments='watershed')
    assert pipeline(image).notes == ()
    held = [
        weakref.ref(part)
        for part in (
            pipeline.prepared.scorer_options.head,
            pipeline.prepared.segment_source,
            pipeline.segmenter,
            pipeline.prepared.segment_source.network,
        )
    ]
    pipeline.release()
    gc.collect()
    assert [part() for part in held] == [None] * 4
    assert pipeline.chain.scorer == 'head_v1' and len(pipeline.labels) > 0
    assert pipeline.segmenter.model_dir == model
    with pytest.raises(PipelineError, match='released'):
        pipeline(image)
    pipeline.release()


@pytest.mark.parametrize(
    ('settings', 'broken'),
    [
        ({'refinements': 'gaussian'}, 'gaussian'),
        ({'refinements': 'variance_aware'}, 'segments'),
        ({'objects.mode': 'segments'}, 'segments'),
    ],
)
def test_out_of_memory_in_a_later_stage_is_no_note(settings, broken, monkeypatch):
    def tight(*_, **__):
        raise no_memory()

    tight.needs_segments = tight.needs_labels = False
    tight.of_image_only, tight.load = True, None
    if broken == 'segments':
        monkeypatch.setattr(
            'road_anomaly_ros.perception.segments.felzenszwalb.load', lambda **_: tight
        )
        settings = {**settings, 'segments': 'felzenszwalb'}
    else:
        monkeypatch.setitem(REFINEMENTS._entries, broken, Entry(broken, tight, NoOptions))
    pipeline = Pipeline.from_config({'segmenter': 'synthetic', 'refinements': 'none', **settings})
    image = np.zeros((24, 32, 3), np.uint8)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        pipeline(image)
    if settings.get('refinements') == 'variance_aware':
        with pytest.raises(torch.cuda.OutOfMemoryError):
            workbench.scores(pipeline, image, [pipeline.prepared])


def test_an_unrelated_file_beside_the_weights_makes_no_other_model(model, image):
    digest = model_files.weights_digest(model)
    for name in ('erfnet.pth', 'model_old.safetensors', 'optimizer.bin', 'a.safetensors'):
        (model / name).write_bytes(b'unrelated')
    assert model_files.weights_digest(model) == digest
    build(model, scorer='head_v1')


def test_a_file_of_weights_is_known_by_itself(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(erfnet.ERFNet(20).state_dict(), path)
    shutil.copy(path, path.with_name('b.pth'))
    entry = SEGMENTERS['erfnet']
    made = entry.make(str(path), device=CPU, precision=torch.float32, options=entry.options())
    before = model_files.weights_digest(made.weights)
    assert len(before) == 64
    path.with_name('b.pth').write_bytes(b'another')
    assert model_files.weights_digest(made.weights) == before


def shards(folder, first, second):
    folder.mkdir()
    for name, data in (('model-1.safetensors', first), ('model-2.safetensors', second)):
        (folder / name).write_bytes(data)
    (folder / 'model.safetensors.index.json').write_text(
        json.dumps({'weight_map': {'a': 'model-1.safetensors', 'b': 'model-2.safetensors'}})
    )
    return folder


def test_shards_have_boundaries(tmp_path):
    one, other = shards(tmp_path / 'a', b'ab', b'c'), shards(tmp_path / 'b', b'a', b'bc')
    assert model_files.weights_digest(one) != model_files.weights_digest(other)
    (one / 'model-3.safetensors').write_bytes(b'of another download')
    again = shards(tmp_path / 'c', b'ab', b'c')
    assert model_files.weights_digest(one) == model_files.weights_digest(again)
    (again / 'model-2.safetensors').unlink()
    with pytest.raises(PipelineError, match=r'names model-2\.safetensors'):
        model_files.weights_digest(again)


def test_weights_are_not_read_twice_where_nothing_depends_on_their_digest(
    model, image, monkeypatch
):
    def never(files):
        raise AssertionError('read')

    monkeypatch.setattr(model_files, '_digest', never)
    pipeline = build(model, scorer='plain')
    pipeline(image)
    pipeline.reconfigure(pipeline.config.replace({'scorer': 'rba'}))


def test_a_file_that_is_written_anew_has_another_stamp(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(b'one')
    before = stamp([path])
    other = tmp_path / 'b'
    other.write_bytes(b'two')
    shutil.copystat(path, other)
    other.replace(path)
    assert stamp([path]) != before
    with pytest.raises(FileNotFoundError):
        stamp([tmp_path / 'c'])


def test_an_index_of_shards_that_leads_out_of_its_folder_is_refused(tmp_path):
    folder = shards(tmp_path / 'a', b'ab', b'c')
    (tmp_path / 'secret.safetensors').write_bytes(b'of somebody else')
    for name in ('../secret.safetensors', str(tmp_path / 'secret.safetensors'), '..'):
        (folder / 'model.safetensors.index.json').write_text(
            json.dumps({'weight_map': {'a': 'model-1.safetensors', 'b': name}})
        )
        for read in (model_files.weights_digest, require_weights):
            with pytest.raises(PipelineError, match='outside of its folder'):
                read(folder)
