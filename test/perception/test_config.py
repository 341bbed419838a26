# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tree of settings: the same values by every road, and refusals that name the remedy."""

import dataclasses
import math

import pytest

from road_anomaly_ros.perception import naming
from road_anomaly_ros.perception.calibration import Calibration
from road_anomaly_ros.perception.config import (
    METHODS,
    PipelineConfig,
    flatten,
    parameter,
    parameters,
    parse_assignments,
)
from road_anomaly_ros.perception.registry import Registry, build_options, option, options_of

WANTED = {'scorer': 's2', 'scorers.s2.tau': 0.02, 'objects.min_area': 80}


@dataclasses.dataclass(frozen=True)
class Knobs:
    speed: float = option(1.0, 'How fast.', low=0.5, high=2.0, unit='m/s')
    count: int = option(3, 'How many.', low=0)
    loud: bool = option(False, 'Whether it makes noise.')
    mode: str = option('a', 'Which one.', choices=('a', 'b'), live=False)
    names: tuple[str, ...] = option((), 'Of whom.')


def same(config):
    return (config.scorer, config.get('scorers.s2.tau'), config.get('objects.min_area'))


def test_yaml_dict_assignments_and_keywords_give_the_same_config(tmp_path):
    file = tmp_path / 'config.yaml'
    file.write_text('scorer: s2\nscorers: {s2: {tau: 0.02}}\nobjects: {min_area: 80}\n')
    texts = [f'{name}={value}' for name, value in WANTED.items()]
    built = [
        PipelineConfig.from_any(file),
        PipelineConfig.from_any(WANTED),
        PipelineConfig.from_any(
            None, scorer='s2', **{'scorers.s2.tau': '0.02'}, objects={'min_area': 80}
        ),
        PipelineConfig().replace(parse_assignments(texts)),
    ]
    assert all(config == built[0] for config in built)
    assert same(built[0]) == ('s2', 0.02, 80)


def test_what_is_given_last_wins_and_the_rest_has_its_default():
    config = PipelineConfig.from_any(WANTED, scorer='rba')
    assert config.scorer == 'rba'
    assert config.options('scorer', 's2').tau == 0.02
    assert config.options('scorer', 's2').lam == 0.6
    assert config.is_set('scorers.s2.tau') and not config.is_set('scorers.s2.lam')
    assert PipelineConfig.from_any(config.as_dict()) == config


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'scorer': 'enrgy'}, ValueError, ('enrgy', 'energy', 'rba')),
        ({'refinements': ['oasc', 'nothing']}, ValueError, ('nothing', 'variance_aware')),
        ({'refinements': ['auto', 'oasc']}, ValueError, ('auto', 'alone')),
        ({'segmenter': 'yolo'}, ValueError, ('yolo', 'mask2former')),
        ({'scorers.s2.tao': 1.0}, ValueError, ('scorers.s2.tao', 'scorers.s2.tau')),
        ({'scorers.s2.tau': 7.0}, ValueError, ('scorers.s2.tau', '7')),
        ({'scorers.s2.tau': 'much'}, TypeError, ('scorers.s2.tau', 'float', 'much')),
        ({'scorers.s2.tau': True}, TypeError, ('float', 'True')),
        ({'precision': 'int4'}, ValueError, ('precision', 'float16')),
        ({'nonsense': 1}, ValueError, ('nonsense', 'scorer')),
        ({'nonsense.min_area': 1}, ValueError, ('nonsense.min_area',)),
    ],
)
def test_refusals_name_what_was_expected(changes, error, words):
    with pytest.raises(error) as caught:
        PipelineConfig.from_any(changes)
    text = str(caught.value)
    assert all(word in text for word in words)
    assert '\n' not in text


def test_missing_and_broken_files_are_one_line(tmp_path):
    broken = tmp_path / 'broken.yaml'
    for text, word in ((None, 'found nothing'), ('a: [1', 'no YAML'), ('- 1\n- 2', 'list')):
        if text is not None:
            broken.write_text(text)
        with pytest.raises(ValueError, match=word) as caught:
            PipelineConfig.from_any(broken)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ('none', ()),
        (['none'], ()),
        ([], ()),
        ('oasc,mbp', ('oasc', 'mbp')),
        (None, ()),
        (['oasc', 'mbp'], ('oasc', 'mbp')),
        ('auto', ('auto',)),
    ],
)
def test_a_chain_of_refinements_can_be_written_in_many_ways(given, expected):
    assert PipelineConfig.from_any({'refinements': given}).refinements == expected


def test_every_parameter_is_described_bounded_by_its_default_and_found_by_name():
    found = parameters('mask2former')
    names = [item.name for item in found]
    assert len(set(names)) == len(names)
    assert {'scorers.s2.tau', 'refinement.variance_aware.beta', 'objects.threshold'} <= set(names)
    for item in found:
        assert item.text.endswith('.')
        unset = isinstance(item.default, float) and math.isnan(item.default)
        assert unset or item.check(item.default) == item.default
        if '.' in item.name:
            assert parameter(item.name) == item


def test_every_method_of_every_room_has_options_that_can_be_built():
    for kind, room in METHODS.items():
        for name in room.names():
            assert PipelineConfig().options(kind, name) is not None


def test_flatten_keeps_a_choice_apart_from_its_options():
    tree = {'scorer': {'name': 's2', 's2': {'tau': 1}}, 'objects': {'min_area': 2}, 'a.b': 3}
    assert flatten(tree) == {'scorer': 's2', 'scorer.s2.tau': 1, 'objects.min_area': 2, 'a.b': 3}


@pytest.mark.parametrize('text', ['scorer', '=1', ' =2'])
def test_an_assignment_needs_a_name_and_a_sign(text):
    with pytest.raises(ValueError, match='NAME=VALUE'):
        parse_assignments([text])


@pytest.mark.parametrize(
    ('name', 'given', 'expected'),
    [
        ('speed', 1, 1.0),
        ('speed', '1e0', 1.0),
        ('count', 4.0, 4),
        ('count', ' 5 ', 5),
        ('loud', 'true', True),
        ('loud', 'No', False),
        ('mode', ' b ', 'b'),
        ('names', 'x, y', ('x', 'y')),
        ('names', ['x'], ('x',)),
    ],
)
def test_values_are_brought_into_the_type_of_their_option(name, given, expected):
    value = getattr(build_options(Knobs, {name: given}), name)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ('name', 'given', 'error'),
    [
        ('speed', 3.0, ValueError),
        ('speed', math.nan, ValueError),
        ('count', -1, ValueError),
        ('count', 1.5, TypeError),
        ('count', True, TypeError),
        ('loud', 'perhaps', TypeError),
        ('mode', 'c', ValueError),
        ('weight', 1, ValueError),
    ],
)
def test_values_that_do_not_fit_are_refused(name, given, error):
    with pytest.raises(error, match=name):
        build_options(Knobs, {name: given})


def test_options_carry_what_the_node_and_the_help_show():
    speed, _, _, mode, _ = options_of(Knobs, 'group.')
    assert (speed.name, speed.unit, speed.low, speed.high) == ('group.speed', 'm/s', 0.5, 2.0)
    assert speed.live and not mode.live and mode.choices == ('a', 'b')


def test_a_registry_refuses_a_second_entry_and_lists_the_known_ones():
    room = Registry('thing')
    room.register('one', Knobs)(print)
    with pytest.raises(ValueError, match='twice'):
        room.register('one')
    with pytest.raises(ValueError, match=r"unknown thing 'two'.*\['one'\]"):
        room['two']
    assert room['one'].make is print and room['one'].options is Knobs and 'one' in room


def test_no_name_is_the_beginning_of_another():
    names = [item.name for kind in METHODS['segmenter'].names() for item in parameters(kind)]
    tree = {}
    for name in names:  # as `ros2 param dump` does it
        *folders, last = name.split('.')
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            assert isinstance(node, dict), name
        assert not isinstance(node.get(last), dict), name
        node[last] = 0


FORMER = {
    'scorer.s2.tau': 'scorers.s2.tau',
    'segmenter.synthetic.stride': 'segmenters.synthetic.stride',
    'segments.watershed.scale': 'segment_sources.watershed.scale',
}
VALUES = dict(zip(FORMER, (0.02, 8, 50.0), strict=True))


@pytest.mark.parametrize(
    'given',
    [
        VALUES,
        {
            'scorer': {'name': 'auto', 's2': {'tau': 0.02}},
            'segmenter.synthetic.stride': 8,
            'segments': {'name': 'watershed', 'watershed': {'scale': 50.0}},
        },
    ],
)
def test_former_names_are_taken_with_one_warning(given):
    with pytest.warns(naming.FormerName) as told:
        config = PipelineConfig.from_any(given)
    assert len(told) == 1
    assert all(f'{old} is called {new} now' in str(told[0].message) for old, new in FORMER.items())
    assert dict(config.values) == {FORMER[name]: value for name, value in VALUES.items()}
    assert all(config.get(name) == value and config.is_set(name) for name, value in VALUES.items())
    assert all(parameter(old) == parameter(new) for old, new in FORMER.items())


def test_a_former_name_wins_over_what_stood_under_the_new_one():
    with pytest.warns(naming.FormerName):
        config = PipelineConfig.from_any({'scorers.s2.tau': 0.02}, **{'scorer.s2.tau': 0.05})
    assert config.get('scorers.s2.tau') == 0.05
    with pytest.raises(ValueError, match=r'former name of scorers\.s2\.tau'):
        PipelineConfig.from_any({'scorer.s2.tau': 0.02, 'scorers.s2.tau': 0.05})


def test_current_names_are_taken_without_a_warning(recwarn):
    PipelineConfig.from_any({FORMER[name]: value for name, value in VALUES.items()})
    assert not recwarn.list


def test_calibrations_made_under_former_names_hold(tmp_path):
    file = tmp_path / 'calibration.yaml'
    file.write_text(
        'default: {scorer: s2, scorer.s2.tau: 0.05}\n'
        'scorers: {s2: {threshold: 0.9, low_threshold: 0.8, display: [0, 1], promise: {\n'
        '  rate: 0.1, unit: frame, confidence: 0.95, method: m, frames: 9, blocks: 9,\n'
        '  block_seconds: 1.0, measured: 0.0, footage: f, weights: w, size: [2, 3],\n'
        '  chain: {scorer: s2, scorer.s2.tau: 0.05}}}}\n'
    )
    found = Calibration.read(file)
    assert found.default == {'scorer': 's2', 'scorers.s2.tau': 0.05}
    assert found.doubt('s2', 'w', {'scorer': 's2', 'scorers.s2.tau': 0.05}) == ''
