# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import sys
import types

import numpy as np
import pytest
import tiny_models
import torch

from road_anomaly_ros.perception.contract import PipelineError, Prompts, Segments
from road_anomaly_ros.perception.refinements.base import RefineContext
from road_anomaly_ros.perception.registry import build_options
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segments import SEGMENTS, sam, sam2, sam_hf, ultralytics
from road_anomaly_ros.perception.segments._promptable import PromptedSegments, PromptOptions
from road_anomaly_ros.perception.segments._prompts import choose_points, grid_points

CPU = torch.device('cpu')
OPEN = {'min_quality': 0.0, 'min_stability': 0.0, 'max_overlap': 1.0}


def picture(height, width):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))


class Discs:
    """A network that answers each point with discs of three radii, surest of the middle one."""

    side, mean, std = 128, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, stretches=False):
        self.stretches, self.asked, self.images = stretches, [], 0

    def embed(self, pixels):
        assert pixels.shape == (1, 3, 128, 128)
        self.images += 1
        return pixels

    def decode(self, embedding, points):
        self.asked.append(len(points))
        y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing='ij')
        distance = torch.stack(
            [((x + 0.5 - px) ** 2 + (y + 0.5 - py) ** 2).sqrt() for px, py in points.tolist()]
        )
        radii = torch.tensor([4.0, 8.0, 16.0]).view(1, 3, 1, 1)
        quality = torch.tensor([0.5, 0.95, 0.85]).expand(len(points), 3)
        return 10 * (radii - distance[:, None]), quality


def source(backend, **values):
    return PromptedSegments(backend, PromptOptions(**values), CPU)


def test_maxima_of_a_score_become_points():
    score = torch.zeros(64, 128)
    score[10:14, 20:24] = 0.9
    score[40:44, 100:104] = 0.8
    score[50:54, 30:34] = 0.2
    found = choose_points(Prompts(score=score, threshold=0.5), (64, 128), 32)
    # Centres of the blobs, within the smoothing of one cell, the stranger one first.
    expected = torch.tensor([[22.0, 12.0], [102.0, 42.0]])
    torch.testing.assert_close(found, expected, atol=1.6, rtol=0)


def test_uncertain_places_come_after_the_suspicious():
    score = torch.zeros(64, 128)
    score[10:16, 20:26] = 1.0
    score[40:46, 100:106] = 0.45
    found = choose_points(Prompts(score=score, threshold=0.5), (64, 128), 32)
    assert len(found) == 2 and found[1, 0] > 90
    assert len(choose_points(Prompts(score=score, threshold=0.5), (64, 128), 1)) == 1


def test_points_are_in_pixels_of_the_image():
    score = torch.zeros(1080, 1920)
    score[500:560, 1500:1560] = 1.0
    found = choose_points(Prompts(score=score, threshold=0.5), (2160, 3840), 32)
    assert len(found) >= 1
    assert ((found - torch.tensor([3060.0, 1060.0])).abs() < 80).all()


@pytest.mark.parametrize(
    'score',
    [torch.zeros(30, 40), torch.full((30, 40), 0.3), torch.linspace(0, 0.4, 1200).view(30, 40)],
)
@pytest.mark.parametrize('threshold', [0.5, float('nan')])
def test_nothing_suspicious_gives_no_points(score, threshold):
    assert len(choose_points(Prompts(score=score, threshold=threshold), (30, 40), 32)) == 0


def test_what_stands_out_is_suspicious_without_a_threshold(rng):
    score = torch.from_numpy(rng.normal(-3.0, 0.1, (60, 80)).astype(np.float32))
    score[20:26, 50:56] = -1.0
    found = choose_points(Prompts(score=score), (60, 80), 32)
    assert len(found) and ((found[0] - torch.tensor([53.0, 23.0])).abs() < 3).all()


def test_what_is_not_a_number_is_suspicious():
    score = torch.zeros(40, 40)
    score[10, 10] = 1.0
    score[30:33, 20:23] = float('nan')
    found = choose_points(Prompts(score=score, threshold=0.5), (40, 40), 32)
    assert ((found - torch.tensor([21.5, 31.5])).abs().amax(1) < 2).any()


def test_a_plateau_never_exceeds_the_cap():
    score = torch.zeros(200, 200)
    score[:, 50:] = 1.0
    assert 2 <= len(choose_points(Prompts(score=score, threshold=0.5), (200, 200), 32)) <= 32


def test_given_points_are_kept_inside():
    points = torch.tensor([[-5.0, 3.0], [99.0, 99.0]])
    assert choose_points(Prompts(points=points), (20, 30), 32).tolist() == [[0, 3], [29, 19]]


def test_prompts_are_checked():
    for values in ({}, {'score': torch.zeros(3)}, {'points': torch.zeros(2, 3)}):
        with pytest.raises(ValueError, match='expected'):
            Prompts(**values)


def test_grid_points():
    assert grid_points((4, 8), 2, CPU).tolist() == [[2, 1], [6, 1], [2, 3], [6, 3]]


@pytest.mark.parametrize('stretches', [False, True])
@pytest.mark.parametrize('size', [(60, 120), (120, 60), (100, 100)])
def test_masks_lie_where_the_points_are(stretches, size):
    point = torch.tensor([[size[1] * 0.75, size[0] * 0.5]])
    found = source(Discs(stretches), min_quality=0.9)(picture(*size), point)
    assert found.masks.shape == (1, *size) and found.scores.tolist() == pytest.approx([0.95])
    rows, columns = torch.where(found.masks[0])
    assert abs(columns.float().mean() + 0.5 - point[0, 0]) < 0.6
    assert abs(rows.float().mean() + 0.5 - point[0, 1]) < 0.6
    # The disc has radius 8 in the network's input, on a square stretched or reduced to it.
    scale = (size[1] / 128, size[0] / 128) if stretches else (max(size) / 128,) * 2
    assert columns.max() - columns.min() + 1 == pytest.approx(16 * scale[0], abs=1.1)
    assert rows.max() - rows.min() + 1 == pytest.approx(16 * scale[1], abs=1.1)


def test_overlapping_answers_become_one():
    points = torch.tensor([[60.0, 60.0], [61.0, 60.0], [20.0, 20.0]])
    assert len(source(Discs(), min_quality=0.9)(picture(128, 128), points).masks) == 2
    kept = source(Discs(), min_quality=0.9, max_overlap=1.0)(picture(128, 128), points)
    assert len(kept.masks) == 3
    both = source(Discs(), min_quality=0.8)(picture(128, 128), points[2:])
    assert both.scores.tolist() == pytest.approx([0.95, 0.85])  # best first


def test_unstable_masks_are_dropped():
    class Soft(Discs):
        def decode(self, embedding, points):
            logits, quality = super().decode(embedding, points)
            return logits / 20, quality  # a slope of 0.5 per pixel moves edges by two

    points = torch.tensor([[60.0, 60.0]])
    assert len(source(Soft(), min_quality=0.9)(picture(128, 128), points).masks) == 0
    assert (
        len(source(Soft(), min_quality=0.9, min_stability=0.3)(picture(128, 128), points).masks)
        == 1
    )


def test_guided_asks_a_tenth_of_the_grid_and_embeds_once():
    score = torch.rand(100, 100)
    guided, everything = Discs(), Discs()
    source(guided, min_quality=0.9)(picture(100, 100), Prompts(score=score, threshold=0.1))
    found = source(everything, mode='everything', min_quality=0.9)(picture(100, 100))
    assert sum(everything.asked) == 1024 and max(everything.asked) == 64
    assert 0 < sum(guided.asked) <= 32
    assert guided.images == everything.images == 1
    assert len(found.masks) > 20


def test_guided_does_nothing_when_nothing_is_suspicious():
    backend = Discs()
    found = source(backend)(picture(40, 60), torch.zeros(40, 60))
    assert found.masks.shape == (0, 40, 60) and len(found.scores) == 0
    assert backend.images == 0
    with pytest.raises(ValueError, match='everything'):
        source(backend)(picture(40, 60))


@pytest.mark.parametrize('threshold', [0.5, float('inf')])
def test_refinements_hand_their_score_to_the_source(threshold):
    score, asked = torch.rand(4, 6), []

    def answer(image, prompts):
        asked.append(prompts)
        return Segments(index=torch.zeros(4, 6, dtype=torch.int32))

    context = RefineContext(image=picture(4, 6), source=answer, score=score, threshold=threshold)
    assert context.segments() is context.segments()
    assert len(asked) == 1 and asked[0].score is score
    assert asked[0].threshold == 0.5 or np.isnan(asked[0].threshold)


def test_masks_of_a_large_image_are_bounded():
    found = source(Discs(), mode='everything', points_per_side=12, max_masks=40, **OPEN)(
        picture(2160, 3840)
    )
    assert found.masks.shape == (40, 288, 512)
    assert len(source(Discs(), **OPEN)(picture(1, 1), torch.tensor([[0.5, 0.5]])).masks) == 3


@pytest.fixture(scope='module')
def sam_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('sam') / 'sam_vit_x.pth'
    state = tiny_models.sam_state()
    torch.save(state, path)
    return path, state


POINTS = torch.tensor([[10.0, 20.0], [50.0, 30.0], [33.0, 5.0]])


def test_sam_equals_its_predictor(sam_file):
    from segment_anything import SamPredictor

    path, state = sam_file
    network = sam.build(state)
    network.load_state_dict(state)
    image = picture(40, 64)
    predictor = SamPredictor(network.eval())
    predictor.set_image(image.permute(1, 2, 0).numpy())
    masks, quality, low = predictor.predict_torch(
        POINTS[:, None], torch.ones(3, 1), return_logits=False
    )
    made = sam.load(device=CPU, options=sam.Options(model=str(path), **OPEN))
    backend = made._backend
    logits, scores = backend.decode(backend.embed(made._input(image, (40, 64))), POINTS)
    torch.testing.assert_close(logits, low, atol=1e-4, rtol=0)
    torch.testing.assert_close(scores, quality, atol=1e-4, rtol=0)
    found = made(image, POINTS)
    order = found.scores.argsort()
    expected = masks.flatten(0, 1)[quality.flatten().argsort()]
    assert (found.masks[order] == expected).float().mean() > 0.97  # resized once, not twice


@pytest.mark.parametrize('size', ['vit_b', 'vit_l', 'vit_h'])
def test_the_published_sizes_of_sam_are_recognised(size):
    from segment_anything import sam_model_registry

    with torch.device('meta'):  # shapes without memory
        expected = sam_model_registry[size]()
        found = sam.build(expected.state_dict())
    shapes = [
        {key: value.shape for key, value in network.state_dict().items()}
        for network in (found, expected)
    ]
    assert shapes[0] == shapes[1]
    assert [(block.window_size, block.attn.num_heads) for block in found.image_encoder.blocks] == [
        (block.window_size, block.attn.num_heads) for block in expected.image_encoder.blocks
    ]
    assert found.image_encoder.img_size == 1024


@pytest.mark.parametrize(
    ('kind', 'make', 'size'),
    [(sam_hf, tiny_models.sam_hf, (40, 64)), (sam2, tiny_models.sam2, (64, 64))],
)
def test_sam_equals_the_model_of_transformers(kind, make, size, tmp_path):
    model = make(tmp_path)
    made = kind.load(device=CPU, options=kind.Options(model=str(tmp_path), **OPEN))
    pixels = made._input(picture(40, 64), size)
    with torch.inference_mode():
        expected = model(pixel_values=pixels, input_points=POINTS[None, :, None])
        backend = made._backend
        logits, scores = backend.decode(backend.embed(pixels), POINTS)
    torch.testing.assert_close(logits, expected.pred_masks[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores, expected.iou_scores[0], atol=1e-4, rtol=0)
    assert made(picture(40, 64), POINTS).masks.shape[1:] == (40, 64)


def test_sam2_loads_checkpoints_of_the_video_model(tmp_path):
    from transformers import Sam2VideoConfig, Sam2VideoModel

    image = tiny_models.sam2(tmp_path / 'image')
    parts = {
        name: getattr(image.config, name).to_dict()
        for name in ('vision_config', 'prompt_encoder_config', 'mask_decoder_config')
    }
    narrow = dict.fromkeys(
        (
            'memory_attention_hidden_size',
            'memory_attention_feed_forward_hidden_size',
            'memory_encoder_hidden_size',
            'mask_downsampler_embed_dim',
            'memory_fuser_embed_dim',
            'memory_fuser_intermediate_dim',
        ),
        32,
    )
    video = Sam2VideoModel(
        Sam2VideoConfig(
            image_size=64,
            memory_attention_num_layers=1,
            memory_encoder_output_channels=8,
            memory_attention_rope_feat_sizes=[4, 4],
            **parts,
            **narrow,
        )
    )
    tiny_models.save(tiny_models.roughen(video), tmp_path / 'video')
    made = sam2.load(device=CPU, options=sam2.Options(model=str(tmp_path / 'video'), **OPEN))
    found = made(picture(40, 64), POINTS)
    assert found.masks.shape[1:] == (40, 64)


@pytest.mark.parametrize(
    'image',
    [
        torch.zeros(3, 4, 4),
        torch.zeros(1, 4, 4, dtype=torch.uint8),
        torch.zeros(3, 0, 4, dtype=torch.uint8),
    ],
)
def test_only_uint8_rgb_is_taken(image):
    with pytest.raises(ValueError, match='expected an RGB image'):
        source(Discs())(image, torch.zeros(1, 2))


def test_sam_takes_4k_images(sam_file):
    made = sam.load(device=CPU, options=sam.Options(model=str(sam_file[0]), **OPEN))
    score = torch.zeros(2160, 3840)
    score[900:1000, 900:1000] = 1.0
    found = made(picture(2160, 3840), Prompts(score=score, threshold=0.5))
    assert found.masks.shape[1:] == (288, 512)


@pytest.mark.parametrize('name', ['sam', 'sam_hf', 'sam2', 'ultralytics'])
def test_sources_without_weights_are_refused_at_once(name):
    entry = SEGMENTS[name]
    with pytest.raises(PipelineError, match=f'segment_sources.{name}.model'):
        entry.make(device=CPU, options=entry.options())
    with pytest.raises(PipelineError):
        entry.make(device=CPU, options=build_options(entry.options, {'model': '/no/such/place'}))


def test_odd_weights_are_refused(sam_file, tmp_path):
    state = dict(sam_file[1])
    del state['mask_decoder.iou_token.weight']
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(PipelineError, match=r'iou_token\.weight'):
        sam.load(device=CPU, options=sam.Options(model=str(tmp_path / 'a.pth')))
    torch.save({'x': torch.ones(1)}, tmp_path / 'b.pth')
    with pytest.raises(PipelineError, match='segment-anything'):
        sam.load(device=CPU, options=sam.Options(model=str(tmp_path / 'b.pth')))


def test_options_may_change_without_reading_the_weights_again(sam_file):
    kept, path = Resources(CPU), str(sam_file[0])
    first = sam.load(device=CPU, options=sam.Options(model=path), resources=kept)
    second = sam.load(device=CPU, options=sam.Options(model=path, max_prompts=4), resources=kept)
    assert first._backend is second._backend


def fake_ultralytics(monkeypatch, answer):
    """A stand-in for the optional package that records how it was asked."""
    calls = []

    def model(path):
        def ask(pixels, **options):
            calls.append((pixels, options))
            return [answer]

        return ask

    package = types.SimpleNamespace(FastSAM=model, SAM=model)
    monkeypatch.setitem(sys.modules, 'ultralytics', package)
    return calls


@pytest.mark.parametrize('mode', ['guided', 'everything'])
def test_ultralytics_is_asked_in_its_own_way(monkeypatch, tmp_path, mode):
    masks = torch.zeros(2, 512, 1024)
    masks[0, :256] = 1
    answer = types.SimpleNamespace(
        masks=types.SimpleNamespace(data=masks),
        boxes=types.SimpleNamespace(conf=torch.tensor([0.9, 0.4])),
    )
    calls = fake_ultralytics(monkeypatch, answer)
    (tmp_path / 'FastSAM-s.pt').touch()
    made = ultralytics.load(
        device=CPU, options=ultralytics.Options(model=str(tmp_path / 'FastSAM-s.pt'), mode=mode)
    )
    image = torch.zeros(3, 1024, 2048, dtype=torch.uint8)
    image[0] = 255
    found = made(image, torch.tensor([[200.0, 100.0]]))
    pixels, options = calls[0]
    assert pixels.shape == (512, 1024, 3) and pixels[0, 0].tolist() == [0, 0, 255]  # BGR
    assert options.get('points') == ([[100.0, 50.0]] if mode == 'guided' else None)
    assert found.masks.shape == (2, 256, 512)
    assert found.masks[0, :128].all() and not found.masks[0, 129:].any()
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    if mode == 'guided':
        assert len(made(image, torch.zeros(1024, 2048)).masks) == 0 and len(calls) == 1


def test_ultralytics_may_find_nothing_or_be_absent(monkeypatch, tmp_path):
    (tmp_path / 'mobile_sam.pt').touch()
    options = ultralytics.Options(model=str(tmp_path / 'mobile_sam.pt'))
    fake_ultralytics(monkeypatch, types.SimpleNamespace(masks=None, boxes=None))
    made = ultralytics.load(device=CPU, options=options)
    assert len(made(picture(20, 30), torch.tensor([[3.0, 4.0]])).masks) == 0
    monkeypatch.setitem(sys.modules, 'ultralytics', None)
    with pytest.raises(PipelineError, match='pip install'):
        ultralytics.load(device=CPU, options=options)
