# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks as CUDA graphs: with a stand-in that replays on the CPU, and the true thing."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.perception.engines import cuda_graph
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segmenters import erfnet

CPU = torch.device('cpu')


class Recorder(TorchDispatchMode):
    """Notes every operation with its arguments and the memory of its results."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        self.steps.append((function, arguments, keywords or {}, found))
        return found


class Graph:
    """In the place of torch.cuda.CUDAGraph: does it all again, in the same memory."""

    replays = 0

    def __init__(self):
        self.recorder = Recorder()

    def replay(self):
        Graph.replays += 1
        for function, arguments, keywords, found in self.recorder.steps:
            again = function(*arguments, **keywords)
            for new, place in zip(tree_leaves(again), tree_leaves(found), strict=True):
                if isinstance(place, torch.Tensor) and new.data_ptr() != place.data_ptr():
                    place.copy_(new)


class Stream:
    """Work in line, which on the CPU all work is."""

    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


class Device:
    """The part of torch.cuda that records, on the CPU; `fails` is raised when a recording ends."""

    def __init__(self, monkeypatch):
        self.streams, self.fails, self.recordings = [], None, 0
        Graph.replays = 0
        monkeypatch.setattr(cuda_graph, 'available', lambda device: True)
        for name, part in {
            'CUDAGraph': Graph,
            'Stream': Stream,
            'current_stream': Stream,
            'stream': self.stream,
            'graph': self.graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, part)

    @contextlib.contextmanager
    def stream(self, stream):
        before = list(self.streams)
        self.streams.append(stream)
        try:
            yield
        finally:
            self.streams[:] = before

    @contextlib.contextmanager
    def graph(self, graph, *, stream, capture_error_mode):
        assert capture_error_mode == 'thread_local'
        self.recordings += 1
        self.streams.append(stream)  # left in force where it fails, as torch does
        try:
            with graph.recorder:
                yield
        finally:
            if self.fails is not None:
                raise self.fails
        self.streams.pop()


@pytest.fixture
def device(monkeypatch):
    return Device(monkeypatch)


class Network(nn.Module):
    """Counts how often it computes."""

    def __init__(self):
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.arange(1.0, 4.0).view(3, 1, 1)), 0

    def forward(self, pixels, power=1):
        self.calls += 1
        return [(pixels * self.weight).sum(1) ** power, pixels.amax((2, 3))]


@pytest.fixture
def network():
    return Network().requires_grad_(False)


@pytest.fixture
def resources():
    return Resources(CPU)


def image(seed, size=(4, 6)):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def run(network, resources, pixels, *fixed, wanted=True, forward=None):
    with torch.inference_mode(), cuda_graph.allowed(resources, wanted):
        return cuda_graph.run(network, forward or network, pixels, *fixed)


def graphs(resources):
    return resources.get(cuda_graph.KIND, CPU, cuda_graph.Graphs)


def same(found, expected):
    return all(map(torch.equal, found, expected))


def test_what_came_twice_is_replayed_and_says_the_same(device, network, resources):
    for seed in range(6):
        assert same(run(network, resources, image(seed)), Network()(image(seed)))
        if seed == 1:
            recorded = network.calls
    assert device.recordings == 1 and network.calls == recorded and Graph.replays == 5
    assert not device.streams and not resources.faults


def test_outputs_in_use_are_never_overwritten(device, network, resources):
    kept = [run(network, resources, image(seed)) for seed in range(6)]
    for seed, found in enumerate(kept):
        assert same(found, Network()(image(seed)))


def test_the_image_may_be_written_to_once_it_was_given(device, network, resources):
    for _ in range(3):
        pixels = image(0)
        found = run(network, resources, pixels)
        pixels.zero_()
        assert same(found, Network()(image(0)))


def test_every_shape_and_every_choice_has_its_own(device, network, resources):
    cases = [((4, 6), 1), ((6, 4), 1), ((4, 6), 2)]
    for seed in range(4):
        for size, power in cases:
            found = run(network, resources, image(seed, size), power)
            assert same(found, Network()(image(seed, size), power))
    assert device.recordings == 3 and len(graphs(resources)) == 3


def test_images_of_ever_other_sizes_are_not_recorded(device, network, resources):
    for width in range(3, 3 + 2 * cuda_graph._SHAPES):
        run(network, resources, image(0, (4, width)))
    assert device.recordings == 0
    assert len(graphs(resources)._seen) <= cuda_graph._SHAPES


def test_graphs_have_bounds_and_make_room_for_what_is_in_use(device, network, resources):
    sizes = [(4, width) for width in range(3, 4 + cuda_graph.KEPT)]
    for seed in range(5):
        for size in sizes:
            run(network, resources, image(seed, size))
    assert device.recordings == cuda_graph.KEPT  # all are in use, so that none makes room
    for seed in range(cuda_graph.IDLE):
        run(network, resources, image(seed, sizes[1]))
    calls = network.calls
    found = run(network, resources, image(9, sizes[-1]))
    assert same(found, Network()(image(9, sizes[-1])))
    assert device.recordings == cuda_graph.KEPT + 1 and network.calls > calls
    assert len(graphs(resources)) == cuda_graph.KEPT
    calls = network.calls
    run(network, resources, image(9, sizes[1]))
    assert network.calls == calls  # it was used last
    run(network, resources, image(9, sizes[0]))
    assert network.calls > calls  # it was used first


def test_a_failure_is_told_in_one_line_and_once(device, network, resources, caplog):
    device.fails = RuntimeError('CUDA error: operation not permitted\nwhen stream is capturing')
    for seed in range(5):
        assert same(run(network, resources, image(seed)), Network()(image(seed)))
    told = 'CUDA error: operation not permitted when stream is capturing'
    assert resources.faults == {'cuda_graph': told} and caplog.text.count(told) == 1
    assert device.recordings == 1 and not device.streams


def test_of_a_failure_what_came_first_is_told(device, network, resources):
    def forward(pixels):
        if device.streams[1:]:  # recorded, not warmed up
            raise ValueError('a choice by the values of the image')
        return network(pixels)

    device.fails = RuntimeError('operation failed due to a previous error during capture')
    try:
        raise KeyError('of somebody else')
    except KeyError:
        for seed in range(2):
            run(network, resources, image(seed), forward=forward)
    assert resources.faults == {'cuda_graph': 'a choice by the values of the image'}


def test_a_graph_that_says_something_else_is_not_used(device, network, resources):
    def forward(pixels):
        return [pixels + float(pixels.mean())]  # a number of the image that was recorded

    for seed in range(4):
        pixels = image(seed) + seed
        assert same(run(network, resources, pixels, forward=forward), forward(pixels))
    assert 'expected what the network says, got' in resources.faults['cuda_graph']
    assert len(graphs(resources)) == 0


def test_outputs_that_are_not_finite_are_compared_too(device, network, resources):
    def forward(pixels):
        return [pixels / 0, pixels * float('nan'), pixels[:, :0]]

    for seed in range(3):
        found = run(network, resources, image(seed), forward=forward)
        assert torch.equal(found[0], image(seed) / 0) and bool(found[1].isnan().all())
    assert device.recordings == 1 and Graph.replays == 2 and not resources.faults


def test_a_failure_takes_the_other_graphs_with_it(device, network, resources):
    for _ in range(2):
        run(network, resources, image(0))
    assert len(graphs(resources)) == 1
    device.fails = RuntimeError('no')
    for _ in range(2):
        run(network, resources, image(0, (6, 6)))
    assert len(graphs(resources)) == 0


def test_they_can_be_turned_off_and_on_while_images_come(device, network, resources):
    for _ in range(2):
        run(network, resources, image(0))
    held = weakref.ref(next(iter(graphs(resources)._kept.values())))
    calls = network.calls
    assert same(run(network, resources, image(1), wanted=False), Network()(image(1)))
    assert network.calls == calls + 1
    gc.collect()
    assert held() is None
    for seed in range(3):
        assert same(run(network, resources, image(seed)), Network()(image(seed)))
    assert device.recordings == 2


def test_they_are_released_with_what_else_was_loaded(device, network, resources):
    for _ in range(2):
        run(network, resources, image(0))
    held = weakref.ref(next(iter(graphs(resources)._kept.values())))
    resources.release()
    gc.collect()
    assert held() is None


def test_a_network_out_of_memory_gets_that_of_the_graphs(device, network, resources):
    def tight(pixels):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    for _ in range(2):
        run(network, resources, image(0))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(network, resources, image(0, (6, 6)), forward=tight)
    assert len(graphs(resources)) == 0 and not resources.faults


def test_one_is_recorded_at_a_time(device, network, resources):
    with cuda_graph._recording:
        for seed in range(3):
            assert same(run(network, resources, image(seed)), Network()(image(seed)))
    assert device.recordings == 0 and not resources.faults
    run(network, resources, image(0))
    assert device.recordings == 1


def test_nothing_is_recorded_outside_of_a_pipeline(device, network):
    for seed in range(3):
        assert same(cuda_graph.run(network, network, image(seed)), Network()(image(seed)))
    assert device.recordings == 0 and network.calls == 3


def test_another_thread_is_not_allowed_with_this_one(device, network, resources):
    found = []

    def work():
        found.extend(cuda_graph.run(network, network, image(0)) for _ in range(3))

    with cuda_graph.allowed(resources, True):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(found) == 3 and device.recordings == 0


def test_a_graph_of_another_runtime_is_left_alone(device, resources):
    def engine(pixels):
        return [pixels + 1]

    for _ in range(3):
        run(engine, resources, image(0))
    assert device.recordings == 0


def test_what_a_pass_reads_is_held_and_what_it_makes_is_not():
    pixels, weight, constant = torch.ones(2, 3), torch.ones(3), torch.ones(2, 1)
    with cuda_graph._Read() as read:
        made = pixels * weight
        made.add_(constant.view(1, 2).T)
        found = made.sum(0)
    held = {storage.data_ptr() for storage in read.storages.values()}
    assert held == {part.data_ptr() for part in (pixels, weight, constant)}
    assert found.data_ptr() not in held


@pytest.mark.parametrize('copied', [lambda values: values.to('meta'), lambda v: None])
def test_a_pass_that_reads_the_host_is_refused(copied):
    values = torch.ones(3)
    there = torch.empty(3, device='meta')
    with cuda_graph._Read(), pytest.raises(RuntimeError, match='reads memory of the host'):
        if copied(values) is None:
            there.copy_(values)
    with cuda_graph._Read():
        there * torch.tensor(2.0)  # a number, which goes with the launch


PICTURE = np.random.default_rng(0).integers(0, 256, (3, 72, 96, 3), np.uint8)


def write(kind, folder):
    if kind == 'erfnet':
        torch.manual_seed(0)
        path = folder / 'erfnet.pth'
        torch.save(tiny_models.roughen(erfnet.ERFNet(20)).state_dict(), path)
        return path
    if kind == 'eomt':
        tiny_models.eomt(folder)
    elif kind == 'segformer':
        tiny_models.segformer(folder)
    else:
        tiny_models.mask2former(folder, backbone='swin')
    return folder


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('mask2former', {}),
        ('mask2former', {'features': 'pyramid'}),
        ('mask2former', {'features': 'two_scales'}),
        ('mask2former', {'features': 'encoder', 'precision': 'bfloat16'}),
        ('eomt', {'features': 'encoder'}),
        ('eomt', {'precision': 'bfloat16'}),
        ('segformer', {}),
        ('erfnet', {'height': 32, 'width': 48}),
    ],
)
def test_every_network_is_replayed(device, tmp_path, kind, options):
    options = dict(options)
    given = {'segmenter': kind, 'model': str(write(kind, tmp_path)), 'device': 'cpu'}
    given |= {'scorer': 'plain', 'precision': options.pop('precision', 'float32')}
    given |= {f'segmenters.{kind}.{name}': value for name, value in options.items()}
    plain = Pipeline.from_config(given, cuda_graphs='off')
    expected = [plain(picture) for picture in PICTURE]
    outputs = plain.prepared.segment([torch.from_numpy(PICTURE[2]).permute(2, 0, 1)])
    assert device.recordings == 0
    pipeline = Pipeline.from_config(given)
    found = [pipeline(picture) for picture in (*PICTURE, *PICTURE)]
    assert Graph.replays > device.recordings >= 1 and not pipeline.resources.faults
    for mine, own in zip(found, (*expected, *expected), strict=True):
        assert torch.equal(mine.score, own.score) and torch.equal(mine.labels, own.labels)
    again = pipeline.prepared.segment([torch.from_numpy(PICTURE[2]).permute(2, 0, 1)])
    for mine, own in zip(leaves(again), leaves(outputs), strict=True):
        assert torch.equal(mine, own)


def leaves(tree):
    """The tensors in records, tuples and lists."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    parts = tree if isinstance(tree, (list, tuple)) else vars(tree).values()
    return [
        leaf
        for part in parts
        if hasattr(part, '__dict__') or isinstance(part, (list, tuple))
        for leaf in leaves(part)
    ]


def test_a_change_of_the_option_needs_no_reload(device, tmp_path):
    pipeline = Pipeline.from_config(
        model=str(write('mask2former', tmp_path)), device='cpu', scorer='plain'
    )
    for picture in (*PICTURE, *PICTURE):
        pipeline(picture)
    before = Graph.replays
    pipeline.reconfigure(pipeline.config.replace({'cuda_graphs': 'off'}))
    pipeline(PICTURE[0])
    assert Graph.replays == before
    held = weakref.ref(pipeline.segmenter)
    pipeline.reconfigure(pipeline.config.replace({'cuda_graphs': 'auto'}))
    for picture in (*PICTURE, *PICTURE):
        pipeline(picture)
    assert Graph.replays > before
    pipeline.release()
    gc.collect()
    assert held() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('precision', ['float16', 'float32'])
@pytest.mark.parametrize('kind', ['mask2former', 'eomt', 'segformer', 'erfnet'])
def test_every_network_is_replayed_on_a_gpu(tmp_path, kind, precision):
    given = {'segmenter': kind, 'model': str(write(kind, tmp_path)), 'device': 'cuda'}
    given |= {'scorer': 'plain', 'precision': precision}
    plain, pipeline = Pipeline.from_config(given, cuda_graphs='off'), Pipeline.from_config(given)
    kept = []
    for picture in (*PICTURE, *PICTURE, *PICTURE):
        kept.append((pipeline(picture).score, plain(picture).score))
    assert not pipeline.resources.faults
    made = pipeline.resources.get(cuda_graph.KIND, torch.device('cuda:0'), cuda_graph.Graphs)
    assert len(made) >= 1
    for mine, own in kept:
        torch.testing.assert_close(mine, own, atol=0.02, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_recording_that_fails_on_a_gpu_leaves_everything_as_it_was():
    resources = Resources(torch.device('cuda'))

    class Waiting(nn.Module):
        def forward(self, pixels):
            return [pixels + 1 if float(pixels.mean()) > 0 else pixels - 1]

    network, stream = Waiting(), torch.cuda.current_stream()
    for seed in range(4):
        pixels = image(seed).cuda()
        assert same(run(network, resources, pixels), network(pixels))
    assert 'cuda_graph' in resources.faults and torch.cuda.current_stream() == stream
    assert not torch.cuda.is_current_stream_capturing()
