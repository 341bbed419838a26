# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The graph of a model: made by the command, refused, and run in the place of torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny_models
import torch
from conftest import ROOT

from road_anomaly_ros import cli
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.engines import GRAPH, graph, onnx_runtime, open_vino, tensorrt
from road_anomaly_ros.perception.engines.base import SETTLED
from road_anomaly_ros.perception.engines.graph import Graph, GraphNetwork
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.perception.segmenters import SEGMENTERS, erfnet
from road_anomaly_ros.tools import tracing
from road_anomaly_ros.training import network

onnx = pytest.importorskip('onnx', reason='needs the extra export')


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> Path:
    """A model of the built-in family with random weights, and its graph."""
    folder = tmp_path_factory.mktemp('models') / 'lite0'
    tiny_models.roughen(network.build_segmenter()).half().save_pretrained(folder)
    network.image_processor(19, (64, 128)).save_pretrained(folder)
    assert cli.main(['export', '--model', str(folder)]) == 0
    return folder


@pytest.fixture
def copied(model, tmp_path) -> Path:
    return shutil.copytree(model, tmp_path / 'copied')


@pytest.fixture
def traced(model, monkeypatch):
    """The command takes the graph that is there already, instead of tracing for seconds."""
    monkeypatch.setattr(
        tracing, '_trace', lambda subject, path, half: shutil.copyfile(model / GRAPH, path)
    )


def load(folder: Path, engine: str, **values):
    entry = SEGMENTERS['mask2former']
    settings = {'device': torch.device('cpu'), 'precision': torch.float32}
    settings.update({key: values.pop(key) for key in tuple(values) if key in settings})
    return entry.make(str(folder), options=entry.options(engine=engine, **values), **settings)


def picture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def refused(folder: Path, engine: str, **values) -> str:
    with pytest.raises(PipelineError) as caught:
        load(folder, engine, **values)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_the_graph_says_what_torch_says_at_every_size(model):
    through, plain = load(model, 'onnxruntime'), load(model, 'torch')
    assert through.labels == plain.labels and len(plain.labels) == 19
    images = [picture(*size) for size in ((64, 96), (50, 75), (128, 64), (40, 200), (64, 96))]
    found, expected = (part(images, features='pixel_decoder') for part in (through, plain))
    for mine, own in zip(found, expected, strict=True):
        assert mine.image_size == own.image_size
        for name in ('class_logits', 'mask_logits', 'features'):
            torch.testing.assert_close(
                getattr(mine, name), getattr(own, name), rtol=1e-3, atol=1e-3
            )
    assert float(expected[0].mask_logits.std()) > 1e-2


def test_the_graph_keeps_the_precision_of_the_weights_and_no_norm(model, tmp_path):
    import onnxruntime

    assert (model / GRAPH).stat().st_size < 1.1 * (model / 'model.safetensors').stat().st_size
    stored = onnx.load(str(model / GRAPH)).graph.initializer
    large = [
        tensor
        for tensor in stored
        if tensor.data_type == onnx.TensorProto.FLOAT and sum(tensor.dims) > 1000
    ]
    assert not [tensor.name for tensor in large]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'run.onnx')
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(model / GRAPH), options, providers=['CPUExecutionProvider'])
    kinds = {node.op_type for node in onnx.load(str(tmp_path / 'run.onnx')).graph.node}
    assert 'BatchNormalization' not in kinds and kinds & {'Conv', 'FusedConv'}


def test_auto_takes_the_graph_where_it_can(model, copied):
    assert isinstance(load(model, 'auto')._network, GraphNetwork)
    assert load(model, 'auto').feature_maps == ('pixel_decoder', 'two_scales')
    for values in ({'features': 'pyramid'}, {'precision': torch.bfloat16}):
        assert isinstance(load(model, 'auto', **values)._network, torch.nn.Module)
    (copied / GRAPH).unlink()
    assert isinstance(load(copied, 'auto')._network, torch.nn.Module)


def test_the_chain_runs_through_the_graph(model, image):
    results = [
        Pipeline.from_config(
            model=str(model),
            scorer='plain',
            device='cpu',
            **{'segmenters.mask2former.engine': engine},
        )(image)
        for engine in ('onnxruntime', 'torch')
    ]
    torch.testing.assert_close(results[0].score, results[1].score, rtol=1e-3, atol=1e-3)


def test_openvino_computes_the_same_as_exactly_as_its_arithmetic_allows(model, image):
    pytest.importorskip('openvino', reason='needs OpenVINO')
    exact, found = (
        Pipeline.from_config(
            model=str(model),
            scorer='plain',
            device='cpu',
            **{'segmenters.mask2former.engine': engine},
        )(image)
        for engine in ('torch', 'openvino')
    )
    assert float((found.score - exact.score).abs().max()) < 0.05  # bfloat16 has 8 bits
    assert float((found.labels == exact.labels).float().mean()) > 0.9


def test_runtimes_are_imported_when_a_graph_is_loaded():
    code = (
        'import sys\n'
        'import road_anomaly_ros.perception.segmenters.mask2former\n'
        'print(sorted({"onnxruntime", "openvino", "transformers"} & set(sys.modules)))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.stdout == '[]\n', done.stderr


def test_without_bfloat16_onnxruntime_comes_first(model, monkeypatch):
    for fast, wanted in ((True, 'openvino'), (False, 'onnxruntime')):
        monkeypatch.setattr(open_vino, 'is_fast', lambda fast=fast: fast)
        monkeypatch.setattr(open_vino, 'missing', lambda: '')
        assert graph.fastest(model) == wanted
    monkeypatch.setattr(onnx_runtime, 'missing', lambda: 'not there')
    assert graph.fastest(model) == 'openvino'


def test_what_the_graph_cannot_is_refused(model):
    for values, words in (
        ({'features': 'pyramid'}, "hands on ['pixel_decoder', 'two_scales'] alone"),
        ({'precision': torch.bfloat16}, 'in float32 on cpu, got bfloat16 on cpu'),
    ):
        message = refused(model, 'onnxruntime', **values)
        assert words in message
        assert message.endswith('or engine to torch')
    with pytest.raises(
        ValueError, match=r"one of \['auto', 'torch', 'onnxruntime', 'openvino', 'tensorrt'\]"
    ):
        Pipeline.from_config(model=str(model), **{'segmenters.mask2former.engine': 'magic'})


def test_a_missing_graph_or_runtime_is_refused_with_the_remedy(copied, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'onnxruntime', None)
        patch.setitem(sys.modules, 'openvino', None)
        assert 'pip install onnxruntime' in refused(copied, 'onnxruntime')
        assert isinstance(load(copied, 'auto')._network, torch.nn.Module)
    (copied / GRAPH).unlink()
    message = refused(copied, 'onnxruntime')
    assert f'{copied} holds no {GRAPH}' in message and 'road-anomaly export' in message


@pytest.mark.parametrize('engine', ['auto', 'onnxruntime'])
def test_a_graph_of_other_weights_is_refused(copied, engine):
    path = copied / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-2] + b'\0\0')
    message = refused(copied, engine)
    assert 'was made of other weights' in message and 'road-anomaly export' in message


def test_a_damaged_graph_is_refused(copied):
    (copied / GRAPH).write_bytes(b'no graph')
    message = refused(copied, 'auto')
    assert f'{copied / GRAPH} could not be loaded' in message and 'engine to torch' in message


def test_a_copy_of_the_model_receives_the_graph(model, traced, tmp_path, capsys):
    folder, out = shutil.copytree(model, tmp_path / 'from'), tmp_path / 'to'
    (folder / GRAPH).unlink()
    (folder / 'heads' / 'head_v3').mkdir(parents=True)
    (folder / 'heads' / 'head_v3' / 'head.json').write_text('{}')
    (folder / 'checkpoint.pt').write_bytes(b'')
    assert cli.main(['export', '--model', str(folder), '-o', str(out)]) == 0
    assert f'{out / GRAPH}: ' in capsys.readouterr().out
    assert {str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()} == {
        GRAPH,
        'config.json',
        'model.safetensors',
        'preprocessor_config.json',
        'heads/head_v3/head.json',
    }
    assert isinstance(load(out, 'onnxruntime')._network, GraphNetwork)
    assert not (folder / GRAPH).exists()
    assert cli.main(['export', '--model', str(folder), '-o', str(out)]) == 0


def complaint(capsys, *words: str) -> str:
    capsys.readouterr()
    assert cli.main(['export', *words]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    return error


def test_a_graph_that_differs_is_not_kept(copied, traced, monkeypatch, capsys):
    (copied / GRAPH).unlink()
    monkeypatch.setattr(tracing, '_difference', lambda found, wanted: 2e-3)
    error = complaint(capsys, '--model', str(copied))
    assert 'differs from torch by 2.0e-03, expected at most 0.001' in error
    monkeypatch.setattr(tracing, '_difference', lambda found, wanted: float('nan'))
    assert 'differs from torch by nan' in complaint(capsys, '--model', str(copied))
    assert not [path for path in copied.iterdir() if GRAPH in path.name]


def test_the_difference_counts_every_output():
    wanted = [torch.tensor([[value]]) for value in (0.5, 10.0, -100.0)]
    for place, least in ((0, 0.1), (1, 0.01), (2, 0.001)):
        found = [value + 0.1 * (index == place) for index, value in enumerate(wanted)]
        assert tracing._difference(found, wanted) == pytest.approx(least, rel=1e-3)


def same(folder, name: str, images, **values) -> None:
    """Check that a segmenter gives through the graph, which 'auto' takes, what torch gives."""
    entry = SEGMENTERS[name]
    settings = {'device': torch.device('cpu'), 'precision': torch.float32}
    *parts, chosen = (
        entry.make(str(folder), options=entry.options(engine=engine, **values), **settings)
        for engine in ('onnxruntime', 'torch', 'auto')
    )
    assert isinstance(chosen._network, Graph)
    assert isinstance(parts[0]._network, Graph) and not isinstance(parts[1]._network, Graph)
    assert parts[0].labels == parts[1].labels
    for mine, own in zip(parts[0](images), parts[1](images), strict=True):
        windows = ([mine], [own]) if not hasattr(mine, 'windows') else (mine.windows, own.windows)
        for one, other in zip(*windows, strict=True):
            fields = ('logits',) if hasattr(other, 'logits') else ('class_logits', 'mask_logits')
            for field in fields:
                wanted = getattr(other, field)
                assert float(wanted.std()) > 1e-4
                torch.testing.assert_close(getattr(one, field), wanted, rtol=1e-3, atol=1e-3)


def test_a_segformer_is_the_same_through_its_graph_at_every_size(tmp_path):
    tiny_models.segformer(tmp_path / 'model')
    assert cli.main(['export', '--model', str(tmp_path / 'model')]) == 0
    images = [picture(*size) for size in ((64, 96), (50, 75), (50, 75))]
    same(tmp_path / 'model', 'segformer', images)


def test_an_eomt_is_the_same_through_its_graph(tmp_path, capsys):
    tiny_models.eomt(tmp_path / 'model')
    assert cli.main(['export', '--model', str(tmp_path / 'model')]) == 0
    same(tmp_path / 'model', 'eomt', [picture(64, 96), picture(50, 50)])
    error = complaint(capsys, '--model', str(tmp_path / 'model'), '--size', '64x32')
    assert 'takes' in error and 'leave --size out' in error


def test_an_erfnet_is_the_same_through_its_graph(tmp_path):
    network = tiny_models.roughen(erfnet.ERFNet(20))
    torch.save(network.state_dict(), tmp_path / 'erfnet.pth')
    out = tmp_path / 'out'
    assert cli.main(['export', '--model', str(tmp_path / 'erfnet.pth'), '-o', str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ['erfnet.pth', GRAPH]
    same(out / 'erfnet.pth', 'erfnet', [picture(64, 96)], height=60, width=90)


def test_a_swin_takes_a_graph_for_one_size_and_half_is_refused_where_it_differs(tmp_path, capsys):
    folder = tmp_path / 'swin'
    tiny_models.mask2former(folder, backbone='swin')
    error = complaint(capsys, '--model', str(folder))
    assert f'{folder}' in error and '--size WxH' in error and 'use it with engine torch' in error
    assert not list(folder.glob('*.onnx*'))
    assert cli.main(['export', '--model', str(folder), '--size', '96x64']) == 0
    assert isinstance(load(folder, 'auto')._network, torch.nn.Module), 'other sizes come too'
    through = load(folder, 'onnxruntime', short_side=64)
    [found] = through([picture(64, 96)])
    [wanted] = load(folder, 'torch', short_side=64)([picture(64, 96)])
    torch.testing.assert_close(found.mask_logits, wanted.mask_logits, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r'takes 96x64 alone, the input is 64x64; export it with'):
        through([picture(64, 64)])
    assert through.feature_maps == ('pixel_decoder',)
    assert through([picture(64, 96)], features='pixel_decoder')[0].features.shape[0] == 32
    message = refused(folder, 'onnxruntime', features='two_scales')
    assert "hands on ['pixel_decoder'] alone through a graph for one size" in message
    assert message.endswith('or engine to torch')
    assert isinstance(load(folder, 'auto', features='two_scales')._network, torch.nn.Module)


def test_half_rounds_every_weight_and_is_compared(tmp_path, capsys, monkeypatch):
    tiny_models.segformer(tmp_path / 'model')
    command = ['export', '--model', str(tmp_path / 'model')]
    assert cli.main(command) == 0
    whole = (tmp_path / 'model' / GRAPH).stat().st_size
    assert cli.main([*command, '--half']) == 0
    assert (tmp_path / 'model' / GRAPH).stat().st_size < whole
    monkeypatch.setattr(tracing, 'TOLERANCE', 1e-9)
    assert 'expected at most 1e-09' in complaint(
        capsys, '--model', str(tmp_path / 'model'), '--half'
    )


def test_kinds_that_no_graph_is_made_of_are_refused(tmp_path, capsys):
    tiny_models.segformer(tmp_path / 'model')
    words = ['--model', str(tmp_path / 'model'), '--segmenter', 'mask2anomaly']
    assert "of the kind 'mask2anomaly', expected one of" in complaint(capsys, *words)
    assert 'no model at' in complaint(capsys, '--model', str(tmp_path / 'nowhere'))


class Providers:
    """Stands in for onnxruntime with TensorRT: notes what was asked for, computes on the CPU."""

    def __init__(self, module) -> None:
        self._module, self.asked = module, []
        self.found = self.get_available_providers()

    def __getattr__(self, name: str):
        return getattr(self._module, name)

    def get_available_providers(self):
        return [tensorrt.PROVIDER, 'CUDAExecutionProvider', 'CPUExecutionProvider']

    def InferenceSession(self, path, options, providers):
        self.asked.append(providers)
        session = self._module.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        session.get_providers = lambda: self.found
        return session


@pytest.fixture
def providers(monkeypatch):
    import onnxruntime

    providers = Providers(onnxruntime)
    monkeypatch.setitem(sys.modules, 'onnxruntime', providers)
    return providers


def test_tensorrt_is_asked_through_onnxruntime(copied, providers):
    network = GraphNetwork(copied, 'tensorrt', device=torch.device('cuda:1'))
    [(first, *rest)] = providers.asked
    assert first[0] == tensorrt.PROVIDER and first[1]['trt_engine_cache_enable']
    assert rest == [('CUDAExecutionProvider', {'device_id': 1}), 'CPUExecutionProvider']
    assert first[1]['device_id'] == 1
    plain = load(copied, 'torch')._network
    for shape in ((1, 3, 64, 96), (2, 3, 64, 96), (1, 3, 96, 64), (1, 3, 64, 96)):
        pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        found, wanted = network(pixels), plain(pixels)
        for name in ('class_logits', 'mask_logits', 'mask_features'):
            mine, own = getattr(found, name), getattr(wanted, name)
            torch.testing.assert_close(mine, own, rtol=1e-3, atol=1e-3)
    assert 'in float32 on cuda, got float32 on cpu' in refused(copied, 'tensorrt')


def test_what_tensorrt_gave_is_not_overwritten_by_the_next_image(copied, providers):
    network = GraphNetwork(copied, 'tensorrt')
    found = network(torch.zeros(1, 3, 64, 96))
    before = found.mask_logits.clone()
    network(torch.ones(1, 3, 64, 96))
    assert torch.equal(found.mask_logits, before)


def test_engines_of_other_weights_are_kept_apart(copied, providers):
    """Their files are named after the graph's nodes, which are the same."""
    GraphNetwork(copied, 'tensorrt')
    graph = onnx.load(str(copied / GRAPH))
    onnx.helper.set_model_props(graph, {**props(graph), 'road_anomaly.note': 'trained anew'})
    onnx.save(graph, str(copied / GRAPH))
    GraphNetwork(copied, 'tensorrt')
    places = [asked[0][1]['trt_engine_cache_path'] for asked in providers.asked]
    assert len(set(places)) == 2 and all(Path(place).is_dir() for place in places)
    assert all(Path(place).is_relative_to(copied) for place in places)
    assert [asked[0][1]['trt_timing_cache_path'] for asked in providers.asked] == places


def props(graph):
    return {entry.key: entry.value for entry in graph.metadata_props}


def test_a_provider_without_its_libraries_is_no_tensorrt(copied, providers):
    providers.found = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    with pytest.raises(PipelineError, match='did not find the libraries of TensorRT'):
        GraphNetwork(copied, 'tensorrt')


def test_without_tensorrt_the_remedy_is_named():
    assert 'pip install onnxruntime-gpu' in tensorrt.missing()


def test_no_image_waits_until_its_size_is_compiled(model, monkeypatch):
    pytest.importorskip('openvino', reason='needs OpenVINO')
    network, gate = GraphNetwork(model, 'openvino'), threading.Event()
    session = network._session
    make = session._compiled

    def slowly(shapes):
        assert not shapes or gate.wait(60)
        return make(shapes)

    monkeypatch.setattr(session, '_compiled', slowly)
    pixels = torch.zeros(1, 3, 64, 96)
    *_, first = [network(pixels) for _ in range(SETTLED - 1)]  # its own is held back
    assert [made.done() for made in session._own.values()] == [False]
    gate.set()
    again = network(pixels)
    assert [made.done() for made in session._own.values()] == [True]
    torch.testing.assert_close(first.mask_logits, again.mask_logits, rtol=0.1, atol=0.3)


def test_other_folders_and_missing_packages_are_refused(copied, tmp_path, monkeypatch, capsys):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'letter.txt').write_text('kept')
    error = complaint(capsys, '--model', str(copied), '-o', str(tmp_path / 'full'))
    assert 'expected a new or empty folder, or one with this model' in error
    assert [path.name for path in (tmp_path / 'full').iterdir()] == ['letter.txt']
    find = tracing.importlib.util.find_spec
    monkeypatch.setattr(
        tracing.importlib.util,
        'find_spec',
        lambda name, *more: None if name == 'onnx' else find(name, *more),
    )
    assert "pip install 'road_anomaly_ros[export]'" in complaint(capsys, '--model', str(copied))
