# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest
import tiny_models
import torch
from torch.nn import functional

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.perception.segmenters import erfnet, external, segformer

CPU = torch.device('cpu')


def load(module, model='', **values):
    return module.load(
        str(model), device=CPU, precision=torch.float32, options=module.Options(**values)
    )


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))


@pytest.fixture(scope='module')
def segformer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('segformer')
    return folder, tiny_models.segformer(folder)


@pytest.mark.parametrize('size', [(64, 64), (40, 70), (1, 1)])
def test_segformer_equals_the_model_of_transformers(segformer_folder, size):
    folder, model = segformer_folder
    image = picture(*size)
    inputs = tiny_models.processor('Segformer', folder)(image, return_tensors='pt')
    with torch.inference_mode():
        expected = model(**inputs).logits[0]
    segmenter = load(segformer, folder)
    output = segmenter([image])[0]
    assert (output.image_size, segmenter.kind) == (size, 'pixel')
    torch.testing.assert_close(output.logits, expected, atol=1e-4, rtol=0)
    assert segmenter.labels.names == tiny_models.NAMES


def test_a_batch_of_pixel_outputs_keeps_its_order(segformer_folder):
    segmenter = load(segformer, segformer_folder[0])
    images = [picture(48, 64, 1), picture(64, 48, 2), picture(48, 64, 3)]
    for image, output in zip(images, segmenter(images), strict=True):
        torch.testing.assert_close(output.logits, segmenter([image])[0].logits, atol=1e-5, rtol=0)


def erfnet_by_hand(state, image):
    """The published forward pass, step by step over the names of the weights."""

    def conv(name, maps, **options):
        return functional.conv2d(maps, state[f'{name}.weight'], state[f'{name}.bias'], **options)

    def up(name, maps, **options):
        return functional.conv_transpose2d(
            maps, state[f'{name}.weight'], state[f'{name}.bias'], stride=2, **options
        )

    def norm(name, maps):
        parts = ('running_mean', 'running_var', 'weight', 'bias')
        return functional.batch_norm(maps, *(state[f'{name}.{part}'] for part in parts), eps=1e-3)

    def down(name, maps):
        joined = torch.cat(
            [
                conv(f'{name}.conv', maps, stride=2, padding=1),
                functional.max_pool2d(maps, 2, stride=2),
            ],
            1,
        )
        return norm(f'{name}.bn', joined).relu()

    def block(name, maps, rate):
        inner = conv(f'{name}.conv3x1_1', maps, padding=(1, 0)).relu()
        inner = norm(f'{name}.bn1', conv(f'{name}.conv1x3_1', inner, padding=(0, 1))).relu()
        inner = conv(f'{name}.conv3x1_2', inner, padding=(rate, 0), dilation=(rate, 1)).relu()
        inner = conv(f'{name}.conv1x3_2', inner, padding=(0, rate), dilation=(1, rate))
        return (norm(f'{name}.bn2', inner) + maps).relu()

    def double(name, maps):
        return norm(f'{name}.bn', up(f'{name}.conv', maps, padding=1, output_padding=1)).relu()

    maps = down('encoder.layers.0', down('encoder.initial_block', image))
    for index in range(1, 6):
        maps = block(f'encoder.layers.{index}', maps, 1)
    maps = down('encoder.layers.6', maps)
    for index in range(7, 15):
        maps = block(f'encoder.layers.{index}', maps, (2, 4, 8, 16)[(index - 7) % 4])
    for start in (0, 3):
        maps = double(f'decoder.layers.{start}', maps)
        for index in (start + 1, start + 2):
            maps = block(f'decoder.layers.{index}', maps, 1)
    return up('decoder.output_conv', maps)


@pytest.fixture(scope='module')
def erfnet_file(tmp_path_factory):
    torch.manual_seed(0)
    network = tiny_models.roughen(erfnet.ERFNet(20))
    state = network.state_dict()
    stored = {f'module.{key}': value for key, value in state.items()}
    stored['module.encoder.output_conv.weight'] = torch.zeros(20, 128, 1, 1)
    stored['module.encoder.output_conv.bias'] = torch.zeros(20)
    path = tmp_path_factory.mktemp('erfnet') / 'erfnet_pretrained.pth'
    torch.save(stored, path)
    return path, state


@pytest.mark.parametrize('size', [(64, 128), (33, 50), (1, 1)])
def test_erfnet_equals_the_published_forward_pass(erfnet_file, size):
    path, state = erfnet_file
    image = picture(*size)
    segmenter = load(erfnet, path, height=64, width=128)
    output = segmenter([image])[0]
    from torchvision.transforms.v2 import functional as vision

    pixels = vision.resize(image[None], [64, 128], antialias=True).float() / 255
    torch.testing.assert_close(output.logits, erfnet_by_hand(state, pixels)[0], atol=1e-4, rtol=0)
    assert output.image_size == size and segmenter.kind == 'pixel'
    assert segmenter.labels.names[0] == 'road' and segmenter.labels.names[19] == 'void'


def test_erfnet_weights_are_checked(tmp_path):
    torch.save({'module.encoder.x': torch.ones(1)}, tmp_path / 'a.pth')
    with pytest.raises(PipelineError, match='output_conv'):
        load(erfnet, tmp_path)
    torch.save({'module.decoder.output_conv.weight': torch.ones(16, 20, 2, 2)}, tmp_path / 'a.pth')
    with pytest.raises(PipelineError, match=r'missing .*bn'):
        load(erfnet, tmp_path)
    with pytest.raises(PipelineError, match='builtin'):
        load(erfnet, 'builtin')


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        (np.array([[0, 255]], np.uint8), [[0.0, 1.0]]),
        (np.array([[0, 65535]], np.uint16), [[0.0, 1.0]]),
        (np.array([[-2.5, 7.0]], np.float64), [[-2.5, 7.0]]),
        (torch.tensor([[0.5]]), [[0.5]]),
        (np.array([[255, 0]], np.uint8)[:, ::-1], [[0.0, 1.0]]),
        (np.array([[0, 65535]], '>u2'), [[0.0, 1.0]]),
        (np.array([[0.5, 2.0]], '>f4'), [[0.5, 2.0]]),
    ],
)
def test_external_maps_become_scores(values, expected):
    output = load(external)([picture(4, 6)], [values])[0]
    assert (output.image_size, output.score.tolist()) == ((4, 6), expected)
    assert load(external, invert=True)([picture(4, 6)], [values])[0].score.tolist() == [
        [-value for value in row] for row in expected
    ]


@pytest.mark.parametrize(
    ('maps', 'error'),
    [
        ([], ValueError),
        ([np.zeros((2, 2, 3))], ValueError),
        ([np.zeros((0, 2))], ValueError),
        ([np.zeros((2, 2), np.int64)], TypeError),
        (['map.png'], TypeError),
    ],
)
def test_odd_external_maps_are_refused(maps, error):
    with pytest.raises(error, match='expected'):
        load(external)([picture(4, 6)], maps)


def test_maps_are_read_from_files(tmp_path):
    wide = np.array([[0, 40000], [1, 2]], np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), wide)
    np.save(tmp_path / 'a.npy', wide.astype(np.float32)[None])
    np.savez(tmp_path / 'a.npz', score=wide)
    for name in ('a.png', 'a.npy', 'a.npz'):
        np.testing.assert_array_equal(external.read_map(tmp_path / name), wide)
    cv2.imwrite(str(tmp_path / 'colour.png'), np.zeros((2, 2, 3), np.uint8))
    (tmp_path / 'broken.npy').write_bytes(b'\x93NUMPY')
    for name in ('colour.png', 'broken.npy', 'absent.png', 'absent.npy'):
        with pytest.raises(ValueError, match=name):
            external.read_map(tmp_path / name)


def test_the_pipeline_refines_foreign_maps():
    pipeline = Pipeline.from_config(segmenter='external', device='cpu')
    image, anomaly = np.zeros((40, 60, 3), np.uint8), np.zeros((20, 30), np.uint16)
    anomaly[4:12, 10:20] = 65535
    pipeline.warm_up((8, 8))
    result = pipeline(image, anomaly=anomaly)
    assert result.score.shape == (40, 60) and result.scorer == 'external'
    assert result.score[16, 30] == 1 and result.score[35, 5] == 0
    assert (result.labels == 255).all()
    assert [found.box for found in result.objects] == [(20, 8, 20, 16)]
    with pytest.raises(ValueError, match='needs an anomaly map'):
        pipeline(image)
    with pytest.raises(ValueError, match='external'):
        Pipeline.from_config(segmenter='synthetic', device='cpu')(image, anomaly=anomaly)


def test_foreign_maps_that_are_not_numbers_are_strange_and_counted():
    pipeline = Pipeline.from_config(segmenter='external', device='cpu')
    anomaly = np.full((4, 6), 0.25, np.float32)
    anomaly[1, 2], anomaly[2, 2] = np.nan, -np.inf
    result = pipeline(np.zeros((4, 6, 3), np.uint8), anomaly=anomaly)
    assert result.sanitized == 2
    assert (result.score == 0.25).all()
    with pytest.raises(PipelineError, match=r'got none, .* look at what made the anomaly map'):
        pipeline(np.zeros((2, 2, 3), np.uint8), anomaly=np.full((2, 2), np.nan))


def test_query_scorers_refuse_foreign_maps_and_pixel_models(segformer_folder):
    with pytest.raises(ValueError, match=r"choose one of \['external'\]"):
        Pipeline.from_config(segmenter='external', device='cpu', scorer='rba')
    with pytest.raises(ValueError, match="scorer 's2' needs mask outputs"):
        Pipeline.from_config(
            segmenter='segformer', model=str(segformer_folder[0]), device='cpu', scorer='s2'
        )
