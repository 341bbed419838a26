# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The live pipeline: changes between frames, faults of one image, a device without memory."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception import Pipeline, PipelineConfig, PipelineError
from road_anomaly_ros.perception.refinements import REFINEMENTS, Refinement
from road_anomaly_ros.perception.registry import Entry, NoOptions
from road_anomaly_ros.ros.engine import Engine, NotLoaded, OutOfMemory, is_out_of_memory

IMAGE = np.full((24, 32, 3), 90, np.uint8)


def no_memory():
    return torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')


class Faulty(Pipeline):
    """A pipeline whose next calls raise what `faults` holds; `None` lets one through."""

    faults: list
    sizes: list
    built = 0

    def __init__(self, config):
        super().__init__(config)
        type(self).built += 1

    def batch(self, images, *others):
        self.sizes.append(len(images))
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return super().batch(images, *others)


@pytest.fixture
def faulty():
    return type('Case', (Faulty,), {'faults': [], 'sizes': []})


@pytest.fixture
def engine(faulty):
    engine = Engine(faulty)
    engine.load(PipelineConfig(segmenter='synthetic', device='cpu'))
    faulty.sizes.clear()
    return engine


def run(engine, count=1):
    return engine.run([IMAGE] * count, [float(number) for number in range(count)])


def test_results_come_in_the_order_of_the_images(engine, faulty):
    config, results = run(engine, 3)
    assert [result.stamp for result in results] == [0.0, 1.0, 2.0]
    assert faulty.sizes == [3]
    assert config.scorer == results[0].scorer


def test_a_change_is_taken_over_before_the_next_frame(engine):
    before = engine.pipeline.chain.scorer
    wanted = engine.pipeline.config.replace({'scorer': 'msp'})
    engine.check(wanted)
    engine.reconfigure(wanted)
    assert engine.pipeline.chain.scorer == before != 'msp'
    config, (result,) = run(engine)
    assert result.scorer == config.scorer == 'msp'


def test_of_several_changes_the_last_one_counts(engine):
    for scorer in ('msp', 'rba', 'max_entropy'):
        engine.reconfigure(engine.pipeline.config.replace({'scorer': scorer}))
    assert run(engine)[1][0].scorer == 'max_entropy'


def test_what_needs_a_reload_is_refused_with_the_way_to_do_it(engine):
    with pytest.raises(ValueError, match=r'model takes effect .* clean up'):
        engine.check(engine.pipeline.config.replace({'model': 'other'}))


def test_an_image_that_fails_leaves_the_others_alone(engine, faulty):
    faulty.faults[:] = [RuntimeError('in the batch'), None, RuntimeError('alone'), None]
    _, results = run(engine, 3)
    assert faulty.sizes == [3, 1, 1, 1]
    assert str(results[1]) == 'alone'
    assert [results[0].stamp, results[2].stamp] == [0.0, 2.0]


def test_a_single_image_that_fails_is_not_tried_again(engine, faulty):
    faulty.faults[:] = [RuntimeError('bad')]
    assert [str(result) for result in run(engine)[1]] == ['bad']
    assert faulty.sizes == [1]


def test_out_of_memory_is_answered_with_one_smaller_try(engine, faulty):
    faulty.faults[:] = [no_memory()]
    _, results = run(engine, 2)
    assert faulty.sizes == [2, 1, 1]
    assert [result.stamp for result in results] == [0.0, 1.0]
    assert engine.loaded


def test_out_of_memory_again_releases_the_model(engine, faulty):
    faulty.faults[:] = [no_memory(), no_memory()]
    with pytest.raises(OutOfMemory, match="device to 'cpu'"):
        run(engine)
    assert not engine.loaded and faulty.sizes == [1, 1]
    engine.load(PipelineConfig(segmenter='synthetic', device='cpu'))
    assert run(engine)[1][0].stamp == 0.0


def test_the_cpu_takes_over_where_that_is_allowed(engine, faulty):
    engine.fallback_to_cpu = True
    faulty.faults[:] = [no_memory(), no_memory()]
    _, (result,) = run(engine)
    assert result.stamp == 0.0 and engine.recoveries == 1
    assert engine.pipeline.config.device == 'cpu'
    later = PipelineConfig(segmenter='synthetic', scorer='msp')  # device 'auto', as before
    engine.check(later)
    engine.reconfigure(later)
    assert run(engine)[1][0].scorer == 'msp'
    assert engine.pipeline.config.device == 'cpu'


def test_the_cpu_takes_over_once_and_not_for_ever(engine, faulty):
    engine.fallback_to_cpu = True
    faulty.faults[:] = [no_memory(), no_memory()]
    run(engine)
    built = faulty.built
    faulty.faults[:] = [MemoryError(), MemoryError()]
    with pytest.raises(OutOfMemory):
        run(engine)
    assert faulty.built == built


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (no_memory(), True),
        (MemoryError(), True),
        (RuntimeError('CUDA error: out of memory'), True),
        (RuntimeError('shape mismatch'), False),
        (ValueError('out of memory'), False),
    ],
)
def test_is_out_of_memory(error, expected):
    assert is_out_of_memory(error) == expected


def test_release_twice_is_no_error(engine):
    engine.release()
    engine.release()
    assert not engine.loaded
    engine.check(PipelineConfig(segmenter='synthetic', model='other'))


def test_what_is_loaded_is_kept_out_of_garbage_collections_until_it_is_released(engine):
    """A full collection would walk all of it, 0.2 s in which no frame is computed."""
    assert gc.get_freeze_count() > 100_000
    gone = weakref.ref(engine.pipeline)
    engine.pipeline.itself = engine.pipeline
    engine.release()
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert gone() is None


class Tensors(Pipeline):
    """A pipeline that cannot keep what it allocates for a batch."""

    alive: list
    faults = 1

    def batch(self, images, *others):
        room = torch.zeros(4)  # in the frame of the error that is about to come
        self.alive.append(weakref.ref(room))
        if type(self).faults:
            type(self).faults -= 1
            raise no_memory()
        return super().batch(images, *others)


def gone(found):
    return [ref() is None for ref in found]


@pytest.mark.parametrize('faults', [1, 2, 3])
def test_memory_is_given_back_when_nothing_of_the_failed_batch_is_held(monkeypatch, faults):
    """Within `except` the traceback still holds its tensors: emptying would free nothing."""
    kind = type('Case', (Tensors,), {'alive': [], 'faults': faults})
    engine, seen = Engine(kind), []
    engine.fallback_to_cpu = True
    engine.load(PipelineConfig(segmenter='synthetic', device='cpu'), warm_up=False)
    monkeypatch.setattr(
        'road_anomaly_ros.ros.engine.relieve', lambda device: seen.append(gone(kind.alive))
    )
    monkeypatch.setattr(
        'road_anomaly_ros.perception.resources.relieve',
        lambda device: seen.append(gone(kind.alive)),
    )
    run(engine)
    assert seen == [[True] * count for count in range(1, 1 + min(faults, 2))]
    assert engine.recoveries == (faults > 1)


def test_what_is_finished_before_the_device_gives_up_is_not_lost(engine, faulty):
    faulty.faults[:] = [no_memory(), None, ValueError('bad'), no_memory()]
    with pytest.raises(OutOfMemory) as caught:
        run(engine, 4)
    first, second = caught.value.results
    assert first.stamp == 0.0 and str(second) == 'bad'
    assert caught.value.chain.scorer == first.scorer


def test_after_giving_up_it_says_that_there_is_no_model(engine, faulty):
    faulty.faults[:] = [no_memory(), no_memory()]
    with pytest.raises(OutOfMemory):
        run(engine)
    with pytest.raises(NotLoaded, match='expected a loaded model, there is none'):
        run(engine)


def test_a_cpu_that_cannot_take_over_is_a_clear_end(faulty):
    def build(config):
        if config.device == 'cpu' and faulty.built:
            raise PipelineError('no weights any more')
        return faulty(config)

    engine = Engine(build)
    engine.fallback_to_cpu = True
    engine.load(PipelineConfig(segmenter='synthetic', device='cpu'), warm_up=False)
    faulty.faults[:] = [no_memory(), no_memory()]
    with pytest.raises(OutOfMemory, match='could not take over: no weights any more'):
        run(engine)
    assert not engine.loaded


def test_out_of_memory_in_a_refinement_reaches_the_engine(engine, monkeypatch):
    faults = [no_memory()]

    def tight(score, context, options):
        if faults:
            raise faults.pop()
        return score

    entry = Entry('gaussian', Refinement(tight, 'made up'), NoOptions)
    monkeypatch.setitem(REFINEMENTS._entries, 'gaussian', entry)
    engine.reconfigure(engine.pipeline.config.replace({'refinements': 'gaussian'}))
    _, (result,) = run(engine)
    assert result.notes == () and not faults


def test_what_is_wanted_while_the_model_loads_is_in_force_afterwards(faulty):
    engine = Engine()

    def build(config):
        engine.check(config.replace({'scorer': 'msp'}))
        engine.reconfigure(config.replace({'scorer': 'msp'}))
        return faulty(config)

    engine._build = build
    engine.load(PipelineConfig(segmenter='synthetic', device='cpu'))
    assert run(engine)[1][0].scorer == 'msp'


def test_what_is_wanted_during_the_fallback_is_in_force_afterwards(faulty):
    engine = Engine(faulty)
    engine.fallback_to_cpu = True
    config = PipelineConfig(segmenter='synthetic')
    engine.load(config)

    def build(config):
        engine.reconfigure(PipelineConfig(segmenter='synthetic', scorer='msp'))
        return faulty(config)

    engine._build = build
    faulty.faults[:] = [no_memory(), no_memory()]
    run(engine)
    assert run(engine)[1][0].scorer == 'msp'
    assert engine.pipeline.config.device == 'cpu'


@pytest.mark.parametrize(
    ('given', 'name', 'value'),
    [
        ({'precision': 'float16'}, 'precision', 'auto'),
        ({'precision': 'bfloat16'}, 'precision', 'bfloat16'),
        ({'segmenters.mask2former.engine': 'tensorrt'}, 'segmenters.mask2former.engine', 'auto'),
        ({'segmenters.mask2former.engine': 'torch'}, 'segmenters.mask2former.engine', 'torch'),
    ],
)
def test_the_cpu_takes_over_without_what_only_a_gpu_can(given, name, value):
    """Then settings as before are no change that needs a reload."""
    built = []

    class Small(Faulty):
        faults, sizes = [], []

        def __init__(self, config):
            built.append(config)
            Pipeline.__init__(self, PipelineConfig(segmenter='synthetic', device='cpu'))

        @property
        def config(self):
            return built[-1]

        def prepare(self, config):
            built.append(config)

    engine = Engine(Small)
    engine.fallback_to_cpu = True
    config = PipelineConfig().replace(given)
    engine.load(config, warm_up=False)
    Small.faults[:] = [no_memory(), no_memory()]
    run(engine)
    assert [one.get(name) for one in built] == [given[name], value]
    engine.check(config.replace({'scorer': 'msp'}))
    assert (built[-1].scorer, built[-1].get(name), built[-1].device) == ('msp', value, 'cpu')
    with pytest.raises(ValueError, match='model takes effect'):
        engine.check(config.replace({'model': 'other'}))


def test_the_model_before_is_gone_when_the_next_one_is_kept_out_of_collections(engine):
    before = weakref.ref(engine.pipeline)
    engine.pipeline.itself = engine.pipeline
    engine.release()
    gc.disable()
    try:
        engine.load(PipelineConfig(segmenter='synthetic', device='cpu'))
        assert before() is None
    finally:
        gc.enable()


def test_settings_that_prove_impossible_leave_those_before_and_are_told(faulty):
    """While no model is loaded nobody can check them."""
    engine = Engine()

    def build(config):
        engine.reconfigure(config.replace({'scorer': 'external'}))
        return faulty(config)

    engine._build = build
    engine.load(PipelineConfig(segmenter='synthetic', scorer='rba', device='cpu'))
    assert run(engine)[1][0].scorer == 'rba'
    assert engine.refused.startswith("settings are not in force: scorer 'external' needs")
    engine.reconfigure(engine.pipeline.config.replace({'scorer': 'msp'}))
    assert run(engine)[1][0].scorer == 'msp' and engine.refused == ''


def test_a_load_that_fails_holds_nothing(monkeypatch):
    held, seen = [], []

    class TooBig(Pipeline):
        def warm_up(self, *size):
            held.append(weakref.ref(self))
            raise no_memory()

    monkeypatch.setattr(
        'road_anomaly_ros.ros.engine.relieve', lambda device: seen.append(gone(held))
    )
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Engine(TooBig).load(PipelineConfig(segmenter='synthetic', device='cpu'))
    assert seen == [[True]]


def test_a_release_lets_go_of_what_the_pipeline_holds(engine):
    pipeline = engine.pipeline
    engine.release()
    with pytest.raises(PipelineError, match='released'):
        pipeline(IMAGE)
