# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import json
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import save_file

from road_anomaly_ros.perception import model_files
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.labels import CITYSCAPES, label_set
from road_anomaly_ros.perception.registry import build_options
from road_anomaly_ros.perception.segmenters import SEGMENTERS, _mask2former
from road_anomaly_ros.perception.segmenters._images import Preprocessing
from road_anomaly_ros.perception.segmenters.mask2former import labels_of
from road_anomaly_ros.remarks import Remark

CPU = torch.device('cpu')


def load(name, model='', **values):
    entry = SEGMENTERS[name]
    return entry.make(
        str(model),
        device=CPU,
        precision=torch.float32,
        options=build_options(entry.options, values),
    )


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))


@pytest.fixture(scope='module', params=['resnet', 'swin', 'pre_norm'])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    backbone = 'swin' if request.param == 'swin' else 'resnet'
    return folder, tiny_models.mask2former(
        folder, backbone=backbone, pre_norm=request.param == 'pre_norm'
    )


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp('mask2former')
    return folder, tiny_models.mask2former(folder)


def official(model, folder, image):
    """What transformers' own processor and forward pass say."""
    processor = tiny_models.processor('Mask2Former', folder)
    inputs = processor(image, return_tensors='pt')
    with torch.inference_mode():
        return processor, model(pixel_values=inputs['pixel_values'])


@pytest.mark.parametrize('size', [(64, 64), (48, 70), (150, 90)])
def test_mask2former_equals_the_model_of_transformers(checkpoint, size):
    folder, model = checkpoint
    image = picture(*size)
    processor, expected = official(model, folder, image)
    output = load('mask2former', folder)([image])[0]
    assert output.image_size == size
    torch.testing.assert_close(
        output.class_logits, expected.class_queries_logits[0], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        output.mask_logits, expected.masks_queries_logits[0], atol=1e-4, rtol=0
    )
    ours = type(expected)(
        class_queries_logits=output.class_logits[None],
        masks_queries_logits=output.mask_logits[None],
    )
    maps = [tiny_models.semantic_map(processor, raw, size)[-1] for raw in (expected, ours)]
    torch.testing.assert_close(*maps, atol=1e-4, rtol=0)


def test_a_transformers_that_lacks_a_part_is_asked_for_its_own_forward_pass(tiny, monkeypatch):
    def lacking(*_):
        raise AttributeError("'Decoder' object has no attribute 'level_embed'")

    folder, model = tiny
    image = picture(48, 70)
    _, expected = official(model, folder, image)
    fast = load('mask2former', folder)
    monkeypatch.setattr(_mask2former.PixelDecoder, 'forward', lacking)
    with pytest.warns(Remark, match="no attribute 'level_embed'") as caught:
        slow = load('mask2former', folder)
    assert '\n' not in str(caught[0].message) and version('transformers') in str(caught[0].message)
    output = slow([image], features='encoder')[0]
    torch.testing.assert_close(output.mask_logits, expected.masks_queries_logits[0])
    torch.testing.assert_close(output.class_logits, expected.class_queries_logits[0])
    monkeypatch.undo()
    same = fast([image], features='encoder')[0].features
    torch.testing.assert_close(output.features, same, atol=1e-4, rtol=0)


@pytest.mark.parametrize('backbone', ['resnet', 'swin'])
def test_inputs_that_no_stride_divides(tmp_path, backbone):
    model = tiny_models.mask2former(
        tmp_path,
        backbone=backbone,
        preprocessing={'size': {'height': 50, 'width': 75}, 'size_divisor': 0},
    )
    image = picture(61, 93)
    _, expected = official(model, tmp_path, image)
    output = load('mask2former', tmp_path)([image])[0]
    torch.testing.assert_close(
        output.mask_logits, expected.masks_queries_logits[0], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        output.class_logits, expected.class_queries_logits[0], atol=1e-4, rtol=0
    )


def test_swin_checkpoints_of_transformers_4_load(tmp_path):
    model = tiny_models.mask2former(tmp_path, backbone='swin')
    old = {
        'encoder.swin.': 'encoder.',
        'attention.q_proj': 'attention.self.query',
        'attention.k_proj': 'attention.self.key',
        'attention.v_proj': 'attention.self.value',
        'attention.o_proj': 'attention.output.dense',
        'mlp.fc1': 'intermediate.dense',
        'mlp.fc2': 'output.dense',
        'attention.relative_position_bias.': 'attention.self.',
    }
    state = {}
    for key, value in model.state_dict().items():
        if 'swin.layernorm' in key:
            continue
        if 'pixel_level_module.encoder.' in key:
            for new, name in old.items():
                key = key.replace(new, name)
        state[key] = value.contiguous()
        if key.endswith('relative_position_bias_table'):
            state[key.replace('bias_table', 'index')] = torch.zeros(16, 16, dtype=torch.long)
    save_file(state, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    image = picture(64, 64)
    _, expected = official(model, tmp_path, image)
    output = load('mask2former', tmp_path)([image])[0]
    torch.testing.assert_close(
        output.mask_logits, expected.masks_queries_logits[0], atol=1e-4, rtol=0
    )


def test_a_batch_says_what_its_images_say_alone(tiny):
    segmenter = load('mask2former', tiny[0])
    images = [picture(48, 64, 1), picture(64, 48, 2), picture(48, 64, 3)]
    for image, output in zip(images, segmenter(images), strict=True):
        alone = segmenter([image])[0]
        assert output.image_size == tuple(image.shape[1:])
        torch.testing.assert_close(output.class_logits, alone.class_logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(output.mask_logits, alone.mask_logits, atol=1e-4, rtol=0)
    assert segmenter([]) == []


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (1, 700), (2160, 3840)])
def test_any_size_goes_through(tiny, size):
    output = load('mask2former', tiny[0])([picture(*size)])[0]
    assert output.image_size == size
    assert torch.isfinite(output.mask_logits).all()


def test_padding_is_removed_from_the_masks(tmp_path):
    tiny_models.mask2former(
        tmp_path,
        preprocessing={
            'size': {'height': 64, 'width': 96},
            'pad_size': {'height': 128, 'width': 128},
        },
    )
    output = load('mask2former', tmp_path, features='pixel_decoder')([picture(40, 60)])[0]
    assert output.mask_logits.shape == (5, 16, 24)
    assert output.features.shape == (32, 16, 24)


def test_features_only_when_asked(tiny):
    image = picture(64, 64)
    assert load('mask2former', tiny[0])([image])[0].features is None
    output = load('mask2former', tiny[0], features='encoder')([image])[0]
    assert output.features.shape == (16, 2, 2)
    pyramid = load('mask2former', tiny[0], features='pyramid')([image, image])[1].features
    assert pyramid.grid == (8, 8) and pyramid.shape == (sum(map(len, pyramid.levels)), 8, 8)
    torch.testing.assert_close(pyramid.levels[-2], output.features)


def test_short_side_replaces_the_stored_size(tiny):
    output = load('mask2former', tiny[0], short_side=128)([picture(100, 150)])[0]
    assert output.mask_logits.shape == (5, 32, 48)


def test_labels_come_from_the_checkpoint(tiny):
    segmenter = load('mask2former', tiny[0])
    assert segmenter.labels.names == tiny_models.NAMES
    assert segmenter.labels.drivable == (0,)
    assert (segmenter.kind, segmenter.model_dir) == ('mask', tiny[0])


@pytest.mark.parametrize(
    ('names', 'known', 'drivable'),
    [
        ([f'LABEL_{index}' for index in range(19)], CITYSCAPES, (0,)),
        (['LABEL_0', 'LABEL_1'], ('class 0', 'class 1'), ()),
        (['LABEL_0', 'road'], ('LABEL_0', 'road'), (1,)),
    ],
)
def test_unnamed_classes_of_a_checkpoint_are_cityscapes_by_their_number(names, known, drivable):
    config = types.SimpleNamespace(id2label=dict(enumerate(names)))
    found = labels_of(config, Path('x'))
    assert found.names == known and found.drivable == drivable
    gap = types.SimpleNamespace(id2label={0: 'LABEL_0', 2: 'LABEL_2'})
    with pytest.raises(PipelineError, match='class ids 0'):
        labels_of(gap, Path('x'))


@pytest.mark.parametrize(
    ('image', 'error'),
    [
        (np.zeros((4, 4, 3), np.uint8), TypeError),
        (torch.zeros(3, 4, 4), TypeError),
        (torch.zeros(4, 4, 4, dtype=torch.uint8), ValueError),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), ValueError),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), ValueError),
        (torch.zeros(4, 4, dtype=torch.uint8), ValueError),
    ],
)
@pytest.mark.parametrize('name', ['synthetic', 'mask2former'])
def test_only_uint8_rgb_is_taken(tiny, name, image, error):
    with pytest.raises(error, match=r'expected .*3,H,W'):
        load(name, tiny[0])([image])


def test_lower_precision_stays_close(tiny):
    entry = SEGMENTERS['mask2former']
    image = picture(64, 64)
    exact = load('mask2former', tiny[0])([image])[0]
    mixed = entry.make(
        str(tiny[0]), device=CPU, precision=torch.bfloat16, options=entry.options()
    )([image])[0]
    difference = (mixed.class_logits.softmax(-1) - exact.class_logits.softmax(-1)).abs()
    assert difference.max() < 0.1


@pytest.mark.parametrize(
    ('stored', 'size', 'expected'),
    [
        ({'size': {'shortest_edge': 64, 'longest_edge': 128}}, (48, 96), (64, 128)),
        ({'size': {'shortest_edge': 64, 'longest_edge': 128}}, (10, 100), (13, 128)),
        ({'size': {'height': 30, 'width': 20}}, (5, 5), (30, 20)),
        ({'size': {'max_height': 30, 'max_width': 20}}, (60, 60), (20, 20)),
        ({'size': 32, 'max_size': 100}, (16, 16), (32, 32)),
        ({'size': [12, 14]}, (16, 16), (12, 14)),
        ({'size': 24, 'default_to_square': True}, (5, 9), (24, 24)),
        ({'size': {'shortest_edge': 60}, 'size_divisor': 32}, (48, 96), (64, 128)),
        ({'do_resize': False}, (7, 9), (7, 9)),
    ],
)
def test_size_rules(tmp_path, stored, size, expected):
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(stored))
    found = Preprocessing.from_directory(tmp_path, default={'size': {'shortest_edge': 8}})
    assert found.net_size(size) == expected


@pytest.mark.parametrize(
    'text',
    [
        '{',
        '[]',
        '{"size": {"edge": 3}}',
        '{"size": {"height": 0, "width": 4}}',
        '{"resample": 9}',
        '{"size": null}',
    ],
)
def test_an_odd_preprocessor_is_refused(tmp_path, text):
    (tmp_path / 'preprocessor_config.json').write_text(text)
    with pytest.raises(PipelineError, match=r'preprocessor_config\.json'):
        Preprocessing.from_directory(tmp_path, default={'size': 64})


@pytest.mark.parametrize(
    'stored',
    [
        {'image_std': [0, 0, 0]},
        {'image_std': [-0.2, 0.2, 0.2]},
        {'rescale_factor': 0},
        {'image_mean': [float('nan')] * 3},
        {'image_std': [1e9] * 3},
        {'do_rescale': False},
        {'image_mean': [123.7, 116.3, 103.5], 'image_std': [58.4, 57.1, 57.4]},
        {'image_mean': [0.5], 'image_std': [0.5]},
    ],
)
def test_a_preprocessor_that_lets_nothing_through_is_refused(tmp_path, stored):
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(stored))
    with pytest.raises(PipelineError, match=r'preprocessor_config\.json is not understood'):
        Preprocessing.from_directory(tmp_path, default={'size': 64})


@pytest.mark.parametrize(
    'stored',
    [
        {},
        {'do_normalize': False},
        {'do_rescale': False, 'do_normalize': False},
        {
            'do_rescale': False,
            'image_mean': [123.7, 116.3, 103.5],
            'image_std': [58.4, 57.1, 57.4],
        },
    ],
)
def test_a_preprocessor_that_fits_together_is_taken(tmp_path, stored):
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(stored))
    Preprocessing.from_directory(tmp_path, default={'size': 64})


def test_normalisation_is_that_of_the_processor(tmp_path):
    (tmp_path / 'preprocessor_config.json').write_text('{"do_resize": false}')
    found = Preprocessing.from_directory(tmp_path, default={})
    values = found(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2))
    # (0 - 0.485) / 0.229 and (1 - 0.485) / 0.229
    torch.testing.assert_close(values[0, 0, 0], torch.tensor([-2.117904, 2.248908]))


def test_synthetic_sees_road_sky_and_the_unknown(image):
    output = load('synthetic')([torch.from_numpy(image).permute(2, 0, 1)])[0]
    labels = load('synthetic').labels
    inside = output.mask_logits > 0
    assert output.mask_logits.shape == (4, 12, 16)
    assert inside[labels.names.index('sky'), :4].all()
    assert inside[labels.names.index('road'), 11].all()
    # The red box covers rows 30..37 and columns 24..35 of the image: cells 8 and 6..8 entirely.
    assert not inside[:, 8, 6:9].any()
    assert output.class_logits.argmax(-1).tolist() == [0, 1, 2, 3]


def test_synthetic_takes_any_size():
    for size in ((1, 1), (7, 5), (2160, 3840)):
        assert load('synthetic')([picture(*size)])[0].image_size == size


def test_label_colours_are_known_or_distinct():
    found = label_set(['road', 'Pavement', 'gorilla', 'unicorn', 'tree', 'vegetation'])
    assert found.colors[0] == (128, 64, 128)
    assert found.colors[1] == (244, 35, 232)
    assert len(set(found.colors)) == 6
    assert found == label_set(dict(enumerate(found.names)))
    with pytest.raises(ValueError, match='class ids 0'):
        label_set({1: 'road'})


def test_the_built_in_model_is_found_or_refused():
    try:
        assert (model_files.model_directory('builtin') / 'config.json').is_file()
    except PipelineError as error:
        assert 'built-in' in str(error)
