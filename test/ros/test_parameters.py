# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Options as ROS parameters: declared with text and bounds, changed atomically or refused."""

from __future__ import annotations

import math

import pytest
import yaml

pytest.importorskip('rclpy', reason='no rclpy installed')

from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_graph import Graph, wait_for

from road_anomaly_ros.perception import PipelineError
from road_anomaly_ros.perception.registry import Option
from road_anomaly_ros.ros import parameters
from road_anomaly_ros.ros.parameters import NodeOptions, Parameters, node_parameters

import rclpy  # isort: skip


class Owner:
    """A node with parameters and nothing else; remembers what was applied."""

    def __init__(self, graph, name='owner', *, locked=False, refuse=None, **overrides):
        self.locked, self.refuse, self.applied = locked, refuse, []
        overrides = {'segmenter': 'synthetic', **overrides}
        self.node = graph.add(
            rclpy.create_node(
                name,
                context=graph.context,
                namespace=graph.namespace,
                parameter_overrides=[
                    Parameter(name, value=value) for name, value in overrides.items()
                ],
            )
        )
        self.parameters = Parameters(
            self.node,
            check=self._check,
            locked=lambda: self.locked,
            apply=lambda config, options: self.applied.append((config, options)),
        )

    def _check(self, config):
        if self.refuse:
            raise self.refuse

    def set(self, **values):
        return self.node.set_parameters_atomically(
            [Parameter(name.replace('__', '.'), value=value) for name, value in values.items()]
        )

    def names(self):
        return self.node.list_parameters([], 0).names

    def groups(self):
        others = ('use_sim_time', 'start_type_description_service')
        return {name.rpartition('.')[0] for name in self.names() if name not in others}

    def get(self, name):
        self.parameters.declare([name])
        return self.node.get_parameter(name).value


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


@pytest.fixture
def owner(graph):
    return Owner(graph)


def test_every_option_is_declared_with_text_and_bounds(owner):
    owner.parameters.declare(item.name for item in node_parameters('synthetic'))
    for item in node_parameters('synthetic'):
        described = owner.node.describe_parameter(item.name)
        assert described.description.startswith(item.text.rstrip())
        assert not described.read_only
        bounded = item.kind is not tuple and (item.low, item.high) != (None, None)
        ranges = [*described.floating_point_range, *described.integer_range]
        if bounded and not (isinstance(item.default, float) and math.isnan(item.default)):
            assert len(ranges) == 1, item.name
            assert item.low is None or ranges[0].from_value == item.low
            assert item.high is None or ranges[0].to_value == item.high
        if not item.live:
            assert 'unconfigured' in described.additional_constraints


def test_defaults_are_those_of_the_options(owner):
    for item in node_parameters('synthetic'):
        value = parameters.from_ros(item, owner.get(item.name))
        if item.name != 'segmenter':
            assert value == item.default or (value != value and item.default != item.default)
    assert owner.parameters.options == NodeOptions()


def test_names_to_choose_from_are_shown(owner):
    described = owner.node.describe_parameter('scorer').additional_constraints
    assert "'auto'" in described and "'plain'" in described and "'rba'" in described
    assert "['none']" in owner.node.describe_parameter('refinements').additional_constraints


@pytest.mark.parametrize(
    ('given', 'stored'), [(1, 1.0), (0.5, 0.5), ('0.25', 0.25), ('1e-3', 1e-3)]
)
def test_numbers_from_launch_are_brought_into_type(graph, given, stored):
    owner = Owner(graph, **{'drawing.heat_opacity': given})
    assert owner.get('drawing.heat_opacity') == stored
    assert owner.parameters.config.options('drawing').heat_opacity == stored


@pytest.mark.parametrize(
    ('given', 'stored'),
    [
        (['none'], ['none']),
        ([''], ['none']),
        ('none', ['none']),
        ('', ['none']),
        (['front', 'left'], ['front', 'left']),
        ('front, left', ['front', 'left']),
    ],
)
def test_lists_from_launch(graph, given, stored):
    owner = Owner(graph, cameras=given)
    assert owner.get('cameras') == stored
    assert owner.parameters.options.cameras == tuple(name for name in stored if name != 'none')


@pytest.mark.parametrize(
    ('given', 'stored', 'meant'),
    [
        ([49, 31], ['49', '31'], (49, 31)),
        (['49', '31'], ['49', '31'], (49, 31)),
        ('49,31', ['49', '31'], (49, 31)),
        (['none'], ['none'], ()),
    ],
)
def test_lists_of_numbers(graph, given, stored, meant):
    owner = Owner(graph, **{'scorers.maskomaly.accept_query_ids': given})
    assert owner.get('scorers.maskomaly.accept_query_ids') == stored
    assert owner.parameters.config.options('scorer', 'maskomaly').accept_query_ids == meant
    assert owner.set(scorers__maskomaly__accept_query_ids=['7']).successful
    assert owner.parameters.config.options('scorer', 'maskomaly').accept_query_ids == (7,)


@pytest.mark.parametrize(
    ('name', 'value', 'says'),
    [
        ('drawing.heat_opacity', 2.0, r'\[0, 1\]'),
        ('drawing.heat_opacity', 'much', 'float'),
        ('scorer', 'enrgy', "choose one of .*'plain'"),
        ('image_transport', 'theora', "'raw'"),
        ('jpeg_quality', 0, r'\[1, 100\]'),
        ('autostart', 3, 'bool'),
        ('refinements', ['auto', 'smooth'], 'unknown refinement|stands alone'),
    ],
)
def test_a_bad_value_at_start_is_refused_with_name_and_bounds(graph, name, value, says):
    with pytest.raises((ValueError, TypeError), match=says) as refusal:
        Owner(graph, **{name: value})
    assert '\n' not in str(refusal.value)


def test_a_misspelt_name_is_pointed_out(graph, capfd):
    Owner(graph, scorrer='rba', use_sim_time=False)
    logged = capfd.readouterr().err
    assert 'parameter scorrer is unknown' in logged and 'did you mean scorer?' in logged
    assert 'use_sim_time' not in logged


FORMER = {
    'scorer.s2.tau': ('scorers.s2.tau', 0.03),
    'segments.watershed.scale': ('segment_sources.watershed.scale', 50.0),
}


def test_former_names_at_start_are_taken_and_told_in_one_line(graph, capfd):
    owner = Owner(graph, **{old: value for old, (_, value) in FORMER.items()})
    told = [line for line in capfd.readouterr().err.splitlines() if ' is called ' in line]
    assert len(told) == 1 and 'unknown' not in told[0]
    for old, (new, value) in FORMER.items():
        assert f'{old} is called {new} now' in told[0]
        assert owner.get(new) == value and owner.parameters.config.get(new) == value
        assert not owner.node.has_parameter(old)


@pytest.mark.skipif(
    not hasattr(Node, 'add_pre_set_parameters_callback'),
    reason='Humble has no callback before a change',
)
def test_former_names_are_taken_while_it_runs(owner, capfd):
    for old, (new, value) in FORMER.items():
        assert owner.set(**{old: value}).successful
        assert owner.get(new) == value and owner.parameters.config.get(new) == value
        assert f'{old} is called {new} now' in capfd.readouterr().err


def insert(tree, name, value):
    """Nest a value as `ros2 param dump` does."""
    first, dot, rest = name.partition('.')
    if dot:
        insert(tree.setdefault(first, {}), rest, value)
    else:
        tree[first] = value


def test_a_dump_holds_every_parameter_and_starts_the_same_node(graph, owner, tmp_path):
    assert owner.set(**{'scorers.s2.tau': 0.03, 'objects.min_area': 77}).successful
    names = owner.node.list_parameters([], 0).names
    inner = {}
    for name in names:
        value = owner.get(name)
        insert(inner, name, list(value) if isinstance(value, (list, tuple)) else value)
    path = tmp_path / 'dump.yaml'
    path.write_text(
        yaml.safe_dump({owner.node.get_fully_qualified_name(): {'ros__parameters': inner}})
    )
    again = rclpy.create_node(
        'owner',
        context=graph.context,
        namespace=graph.namespace,
        cli_args=['--ros-args', '--params-file', str(path)],
    )
    given = {name: parameter.value for name, parameter in again._parameter_overrides.items()}
    assert set(given) == set(names)
    same = Parameters(
        graph.add(again), check=lambda _: None, apply=lambda *_: None, locked=lambda: False
    )
    assert same.config == owner.parameters.config and same.options == owner.parameters.options


def test_a_live_change_is_applied_once_and_whole(owner):
    assert owner.set(scorer='rba', drawing__heat_opacity=0.5, jpeg_quality=50).successful
    ((config, options),) = owner.applied
    assert config.scorer == 'rba' and config.options('drawing').heat_opacity == 0.5
    assert options.jpeg_quality == 50
    assert owner.parameters.config is config


def test_one_bad_value_refuses_the_whole_change(owner):
    result = owner.set(scorer='rba', drawing__heat_opacity=7.0)
    assert not result.successful and 'heat_opacity' in result.reason
    assert owner.get('scorer') == 'auto' and owner.parameters.config.scorer == 'auto'
    assert owner.applied == []


@pytest.mark.parametrize(
    'refuse',
    [ValueError('scorer rejection needs masks; choose msp'), PipelineError('no such segments')],
)
def test_what_the_chain_cannot_do_is_refused_with_its_reason(owner, refuse):
    owner.refuse = refuse
    result = owner.set(scorer='rba')
    assert not result.successful and result.reason == str(refuse)
    owner.refuse = None
    assert owner.set(scorer='rba').successful


def test_what_needs_a_reload_is_taken_only_while_unconfigured(owner):
    assert owner.set(device='cpu', cameras=['front']).successful
    owner.locked = True
    for name, value in (
        ('model', 'other'),
        ('device', 'cuda'),
        ('cameras', ['left']),
        ('segmenter', 'mask2former'),
        ('segmenters__synthetic__stride', 2),
    ):
        result = owner.set(**{name: value})
        assert not result.successful and 'clean up' in result.reason, name
    assert owner.set(device='cpu', scorer='rba').successful  # the same value is no change
    owner.locked = False
    assert owner.set(segmenters__synthetic__stride=2).successful


def test_the_validator_leaves_names_of_others_alone(owner):
    owner.node.declare_parameter('use_it', 3)
    assert owner.set(use_it=4).successful
    assert owner.get('use_it') == 4
    assert owner.applied == []


def test_changes_over_the_service_are_normalized_too(graph, owner):
    client = graph.client.create_client(
        SetParametersAtomically, f'{graph.namespace}/owner/set_parameters_atomically'
    )
    assert client.wait_for_service(10.0)
    request = SetParametersAtomically.Request(
        parameters=[
            Parameter('drawing.heat_opacity', value=1).to_parameter_msg(),
            Parameter('refinements', value='none').to_parameter_msg(),
        ]
    )
    answer = client.call_async(request)
    wait_for(answer.done, 'an answer')
    normalizes = hasattr(owner.node, 'add_pre_set_parameters_callback')  # since Iron
    assert answer.result().result.successful == normalizes
    if normalizes:
        assert owner.get('drawing.heat_opacity') == 1.0
        assert owner.parameters.config.refinements == ()


def test_an_option_at_its_default_is_left_to_the_calibration(graph):
    owner = Owner(graph, **{'scorer': 'rba', 'objects.min_area': 51, 'drawing.boxes': True})
    config = owner.parameters.config
    assert config.is_set('objects.min_area') and config.options('objects').min_area == 51
    assert not config.is_set('drawing.boxes')
    assert owner.set(drawing__boxes=True).successful  # said on purpose, so it counts
    assert owner.parameters.config.is_set('drawing.boxes')


def test_choosing_a_segmenter_declares_its_options(graph):
    owner = Owner(graph, segmenter='mask2former')
    assert 'segmenters.mask2former' in owner.groups()
    assert not owner.node.has_parameter('segmenters.synthetic.stride')
    assert owner.set(segmenter='synthetic').successful
    assert owner.node.get_parameter('segmenters.synthetic.stride').value == 4


ALWAYS = {'', 'objects', 'drawing', 'segmenters.synthetic'}


@pytest.mark.parametrize(
    ('change', 'group'),
    [
        ({'scorer': 's2'}, 'scorers.s2'),
        ({'refinements': ['gaussian', 'road_prior']}, 'refinement.road_prior'),
        ({'refinements': ['oasc']}, 'segment_sources.watershed'),
        ({'objects.mode': 'segments'}, 'segment_sources.watershed'),
        ({'segments': 'felzenszwalb'}, 'segment_sources.felzenszwalb'),
        ({'tracker': 'kalman'}, 'tracking.kalman'),
        ({'geometry.camera_height': 1.5}, 'geometry'),
        ({'scorer': 's2', 'scorers.s2.tau': 0.03}, 'scorers.s2'),
    ],
)
def test_what_is_chosen_is_declared(graph, change, group):
    """With all of its options, at the start or while it runs."""
    for owner in (Owner(graph, **change), Owner(graph, 'live')):
        if owner.node.get_name() == 'live':
            assert owner.groups() == ALWAYS
            assert owner.set(**change).successful
        expected = {item.name for item in node_parameters() if item.name.startswith(f'{group}.')}
        assert expected and expected <= set(owner.names())
        others = {'refinement.gaussian', 'refinement.oasc', *({'geometry'} & {group})}
        assert owner.groups() <= {*ALWAYS, group, *others}


def test_a_given_value_waits_until_its_method_is_chosen(graph):
    owner = Owner(graph, **{'scorers.rba.unit_range': True, 'scorers.s2.lam': 0.9})
    assert 'scorers.s2.tau' not in owner.names()
    assert 'scorers.s2.lam' in owner.names()  # not at its default: a dump must hold it
    assert owner.set(scorer='s2').successful
    assert owner.node.get_parameter('scorers.s2.lam').value == 0.9
    assert 'scorers.s2.tau' in owner.names()
    assert owner.parameters.config.options('scorer', 's2').lam == 0.9


def test_the_list_of_the_default_chain_fits_on_a_screen(graph):
    owner = Owner(graph, segmenter='mask2former')
    owner.parameters.show(
        owner.parameters.config.replace({'scorer': 'head_v3', 'refinements': ['none']})
    )
    assert 'scorers.head_v3' in owner.groups()
    assert len(owner.names()) <= 60 < len(node_parameters('mask2former')) / 2


def test_changes_apply_without_the_callbacks_that_humble_lacks(graph, monkeypatch):
    for name in ('add_pre_set_parameters_callback', 'add_post_set_parameters_callback'):
        monkeypatch.delattr(rclpy.node.Node, name, raising=False)
    owner = Owner(graph)
    assert owner.set(scorer='rba').successful
    assert owner.applied[-1][0].scorer == 'rba'
    assert not owner.set(scorer='nothing').successful
    assert len(owner.applied) == 1


def test_a_range_open_on_one_side():
    described = parameters.descriptor(Option('x', 1.0, 'Text.', low=0.0, unit='m'))
    assert described.floating_point_range[0].from_value == 0.0
    assert described.floating_point_range[0].to_value > 1e300
    assert described.description == 'Text. [m]'
