# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a vision-language model says becomes a score: recorded answers, a tiny random model."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception import Pipeline, objects
from road_anomaly_ros.perception.contract import AnomalyObject, PipelineError, Segments
from road_anomaly_ros.perception.refinements import vlm_points
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.vlm.answers import Answer, Named, parse
from road_anomaly_ros.perception.vlm.beside import Beside
from road_anomaly_ros.perception.vlm.model import ImageTextModel
from road_anomaly_ros.perception.vlm.points import find
from road_anomaly_ros.remarks import Remark

CPU = torch.device('cpu')


# --- answers -----------------------------------------------------------------------------------


def things(*rows):
    return Answer(tuple(Named(*row) for row in rows))


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('- cow: (50.0, 62.5)', [('cow', 0.5, 0.625)]),
        (
            '- dead cow : ( 0.0,100.0 )\n\n-  sofa: (12.5, 7.0)\n',
            [('dead cow', 0.0, 1.0), ('sofa', 0.125, 0.07)],
        ),
        ('No anomalies detected.', []),
        ('no anomalies\ndetected', []),
        ('<point x="25.0" y="80" alt="a cow">cow</point>', [('cow', 0.25, 0.8)]),
        (
            '<points x1="10.0" y1="20.0" x2="30.0" y2="40.0" alt="sheep">sheep</points>',
            [('sheep', 0.1, 0.2), ('sheep', 0.3, 0.4)],
        ),
        (
            '```json\n[{"bbox_2d": [100, 50, 300, 150], "label": "giraffe"}]\n```',
            [('giraffe', 0.5, 0.5)],
        ),
        ('{"point_2d": [40, 20], "label": "tyre"}', [('tyre', 0.1, 0.1)]),
    ],
)
def test_what_models_say_is_read(text, expected):
    assert parse(text, (200, 400)) == things(*expected)


@pytest.mark.parametrize(
    ('text', 'count', 'refused'),
    [
        ('- cow: (50, 62.5)', 0, 'expected "- name: (x.x, y.y)"'),  # one decimal was asked for
        ('- cow: (50.0)', 0, 'expected "- name: (x.x, y.y)"'),
        ('- cow: (50.0, 62.5, 3.0)', 0, 'expected "- name: (x.x, y.y)"'),
        ('- : (50.0, 62.5)', 0, 'has no name'),
        ('- cow: (50.0, 162.5)', 0, 'cow at (50, 162.5) lies outside of the picture'),
        ('- cow: (-5.0, 62.5)\n- dog: (5.0, 6.5)', 1, 'cow at (-5, 62.5) lies outside'),
        ('Here you are:\n- cow: (50.0, 62.5)', 1, "got 'Here you are:'"),
        ('I see nothing strange.', 0, "got 'I see nothing strange.'"),
        ('', 0, "got ''"),
        ('<point x="25.0" alt="a cow">cow</point>', 0, 'expected x and y in a point tag'),
        ('<point x="25.0" y="80.0"></point>', 0, 'has no name'),
        ('[{"bbox_2d": [1, 2, 3], "label": "cow"}]', 0, 'expected a box or a point of numbers'),
        ('[{"bbox_2d": [1, 2, 3, "4"], "label": "cow"}]', 0, 'expected a box or a point'),
        ('[3]', 0, 'expected an object with a box'),
        ('[{"bbox_2d": [100, 50, 900, 150], "label": "cow"}]', 0, 'lies outside'),
    ],
)
def test_what_is_no_answer_is_never_taken_for_nothing(text, count, refused):
    answer = parse(text, (200, 400))
    assert len(answer.things) == count
    assert len(answer.refused) == 1 and refused in answer.refused[0]
    assert '\n' not in answer.refused[0]


# --- masks -------------------------------------------------------------------------------------


class Recorded:
    """A model that says what it was told to say."""

    def __init__(self, *answers):
        self.answers, self.sizes = list(answers), []

    def ask(self, image, question):
        assert image.dtype == np.uint8 and 'No anomalies detected' in question
        self.sizes.append(image.shape)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


IMAGE = torch.zeros(3, 40, 80, dtype=torch.uint8)


def test_the_best_mask_at_the_point_is_taken():
    masks = torch.zeros(3, 20, 40, dtype=torch.bool)  # half the size of the image
    masks[0, 5:15, 10:30] = masks[1, 8:12, 18:22] = masks[2, :3, :3] = True
    asked = []

    def source(image, prompts):
        asked.append(prompts.points)
        return Segments(masks=masks, scores=torch.tensor([0.8, 0.9, 0.99]))

    (found,) = find(IMAGE, Recorded('- cow: (50.0, 50.0)'), source)
    assert found.name == 'cow' and found.mask.shape == (40, 80)
    assert int(found.mask.sum()) == 4 * 4 * 4 and bool(found.mask[20, 40])
    assert asked[0].tolist() == [[39.5, 19.5]]


def test_a_partition_gives_the_segment_of_the_point():
    index = torch.full((40, 80), -1, dtype=torch.int32)
    index[10:30, 20:60] = 7
    with pytest.warns(Remark, match='no segment at fog'):
        found = find(
            IMAGE,
            Recorded('- cow: (50.0, 50.0)\n- fog: (1.0, 1.0)'),
            lambda image, prompts: Segments(index=index),
        )
    assert [item.name for item in found] == ['cow'] and int(found[0].mask.sum()) == 800


def test_nothing_said_asks_no_segments():
    def source(image, prompts):
        raise AssertionError('asked')

    assert find(IMAGE, Recorded('No anomalies detected'), source) == ()


def test_obstacles_take_the_name_that_covers_most_of_them():
    instances = torch.zeros(4, 6, dtype=torch.int32)
    instances[:2] = 1
    instances[3:] = 2
    cow, dog = torch.zeros(2, 4, 6, dtype=torch.bool)
    cow[0], dog[:2, :1] = True, True
    parts = [AnomalyObject(i, (0, 0, 1, 1), (0, 0), 1, 1, 1, 1, 0) for i in (1, 2)]
    found = objects.named(parts, instances, [('dog', dog), ('cow', cow)])
    assert [item.name for item in found] == ['cow', '']


# --- beside the frames -------------------------------------------------------------------------


def test_frames_never_wait_and_get_the_last_answer():
    clock, go, seen = [0.0], threading.Event(), []

    def work(picture):
        assert go.wait(20)
        seen.append(picture)
        return f'answer {picture}'

    beside = Beside(work, 2.0, clock=lambda: clock[0])
    assert beside.offer('a').found is None
    for moment, picture in ((0.5, 'b'), (1.9, 'c')):
        clock[0] = moment
        assert beside.offer(picture).found is None  # not yet time for another
    go.set()
    assert beside.wait(20)
    last = beside.offer('d')
    assert last.found == 'answer a' and beside.age(last) == pytest.approx(1.9)
    clock[0] = 2.5
    assert beside.offer('e').found == 'answer a'
    assert beside.wait(20) and beside.offer('f').found == 'answer e'
    assert seen == ['a', 'e']
    beside.close()
    beside._thread.join(20)
    assert not beside._thread.is_alive()


def test_a_failure_is_told_and_the_next_picture_tried():
    clock = [0.0]

    def work(picture):
        if picture == 'bad':
            raise ValueError('out of\nwords')
        return picture

    beside = Beside(work, 1.0, clock=lambda: clock[0])
    beside.offer('bad')
    assert beside.wait(20)
    clock[0] = 1.0
    assert beside.offer('good').error == 'out of words'
    assert beside.wait(20)
    assert beside.offer('x').found == 'good' and beside.offer('x').error == ''
    beside.close()


# --- in the chain ------------------------------------------------------------------------------

SIZE = (48, 64)


@pytest.fixture
def recorded(monkeypatch):
    """The chain asks a recorded model, and watershed gives the segments."""
    model = Recorded('- cow: (50.0, 50.0)')
    monkeypatch.setattr(vlm_points, '_model', lambda options, resources: model)
    return model


def picture():
    image = np.full((*SIZE, 3), 90, np.uint8)
    image[16:32, 20:44] = (220, 40, 40)
    return image


def test_alone_its_answer_is_the_score(recorded):
    pipeline = Pipeline.from_config(
        segmenter='synthetic', scorer='vlm_points', **{'objects.min_area': 1}
    )
    assert pipeline.chain.refinements == ('vlm_points',)
    assert pipeline.chain.get('refinement.vlm_points.every_s') == 0.0
    result = pipeline(picture())
    assert not result.notes
    assert sorted(result.score.unique().tolist()) == [0.0, 1.0]
    assert bool(result.score[24, 32] == 1) and bool(result.score[2, 2] == 0)
    assert [item.name for item in result.objects] == ['cow']
    assert recorded.sizes == [(*SIZE, 3)]


def test_beside_another_score_it_raises_what_it_names(recorded):
    options = {'refinement.vlm_points.every_s': 0.001, 'refinement.vlm_points.value': 5.0}
    alone = Pipeline.from_config(segmenter='synthetic', scorer='plain', refinements=['none'])
    both = Pipeline.from_config(
        segmenter='synthetic', scorer='plain', refinements=['vlm_points'], **options
    )
    before = alone(picture()).score
    first = both(picture())
    assert torch.equal(first.score, before)  # no answer yet, and none is waited for
    ((beside, _),) = both.resources._kept['vlm beside'].values()
    assert beside.wait(20)
    second = both(picture())
    raised = second.score > before
    assert bool(raised[24, 32]) and bool((second.score[raised] > 4).all())
    assert torch.equal(second.score[~raised], before[~raised])
    thread = beside._thread
    both.release()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ('failure', 'told'),
    [
        (RuntimeError('out of\nwords'), 'out of words'),
        ('Nice weather.', 'expected lines "- name: (x.x, y.y)", got \'Nice weather.\''),
    ],
)
def test_the_last_answer_stays_when_the_model_fails(recorded, failure, told):
    """The failure is a note of one frame, so that it is told, and counted, once."""
    recorded.answers = ['- cow: (50.0, 50.0)', failure, 'No anomalies detected']
    options = {'every_s': 1.0, 'keep_s': 8.0, 'value': 80.0}
    pipeline = Pipeline.from_config(
        segmenter='synthetic',
        scorer='plain',
        refinements=['vlm_points'],
        **{f'refinement.vlm_points.{name}': value for name, value in options.items()},
    )
    pipeline(picture())
    ((beside, _),) = pipeline.resources._kept['vlm beside'].values()
    clock = [beside._begun]
    beside._clock = lambda: clock[0]
    notes, scores = [], []
    for _ in range(3):
        for _ in range(3):
            assert beside.wait(20)
            result = pipeline(picture())
            notes.append(result.notes)
            scores.append(float(result.score[24, 32]))
        clock[0] += 1.0
    pipeline.release()
    failed = f'refinement vlm_points keeps its last answer: {told}'
    assert notes == [(), (), (), (), (failed,), (), (), (), ()]
    # 10 less each second; the first frame of a second still has the answer before it.
    assert scores[:7] == pytest.approx([80.0] * 3 + [70.0] * 3 + [60.0], abs=1.0)
    assert scores[7] == scores[8] < 10.0


def test_cameras_have_answers_of_their_own(recorded):
    options = {'refinement.vlm_points.every_s': 100.0}
    pipeline = Pipeline.from_config(
        segmenter='synthetic', scorer='plain', refinements=['vlm_points'], **options
    )
    pipeline.batch([picture()] * 2, [0.0, 0.0], cameras=['left', 'right'])
    kept = pipeline.resources._kept['vlm beside']
    assert [key[0] for key in kept] == ['left', 'right']
    pipeline.release()


def test_without_a_model_one_line_says_which_to_fetch(tmp_path):
    with pytest.raises(ValueError, match=r'fetch one, such as .* refinement.vlm_points.model$'):
        Pipeline.from_config(segmenter='synthetic', scorer='vlm_points')
    (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
    with pytest.raises(PipelineError, match='expected an image-text model') as caught:
        Pipeline.from_config(
            segmenter='synthetic',
            scorer='vlm_points',
            **{'refinement.vlm_points.model': str(tmp_path)},
        )
    assert '\n' not in str(caught.value)


# --- a real model, tiny and random -------------------------------------------------------------


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A LLaVA of random weights with a vocabulary of characters, as save_pretrained leaves it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    letters = [chr(code) for code in range(32, 127)]
    words = ['<pad>', '<s>', '</s>', '<unk>', '<image>', *letters, '\n']
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, '<unk>'))
    raw.pre_tokenizer = pre_tokenizers.Split('', 'isolated')
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token='<pad>',
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
        additional_special_tokens=['<image>'],
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={'shortest_edge': 28}, crop_size={'height': 28, 'width': 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy='default',
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}{% for c in m['content'] %}"
            "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
            '{% endfor %}{% endfor %}'
        ),
    )
    torch.manual_seed(0)
    sizes = {'hidden_size': 32, 'intermediate_size': 32, 'num_attention_heads': 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, num_hidden_layers=2, image_size=28, patch_size=14),
        text_config=LlamaConfig(
            **sizes, num_hidden_layers=2, vocab_size=len(words), eos_token_id=2
        ),
        image_token_index=words.index('<image>'),
    )
    folder = tmp_path_factory.mktemp('llava')
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_model_of_transformers_is_loaded_and_asked(tiny):
    model = ImageTextModel(tiny, CPU, tokens=12)
    one, again = (model.ask(picture(), 'what is it?') for _ in range(2))
    assert one == again and 0 < len(one) <= 12  # greedy, the question is not repeated


def test_the_real_model_in_the_chain_says_what_it_cannot_read(tiny):
    """Random weights answer nonsense; that is told, and nothing is named."""
    pipeline = Pipeline.from_config(
        segmenter='synthetic',
        scorer='vlm_points',
        **{'refinement.vlm_points.model': str(tiny), 'refinement.vlm_points.tokens': 8},
    )
    with pytest.warns(Remark, match='vlm_points: expected lines'):
        result = pipeline(picture())
    assert not result.notes and not result.objects and float(result.score.max()) == 0.0
    assert isinstance(pipeline.resources, Resources)
