# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Texts made from the code agree with it: parameter files, presets, the tables of the pages."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

import yaml
from conftest import ROOT
from ros_graph import Graph

from road_anomaly_ros.perception.registry import options_of
from road_anomaly_ros.ros import tables
from road_anomaly_ros.ros.parameters import NodeOptions, node_parameters, to_ros
from road_anomaly_ros.tools.results import OUTPUTS

CONFIG = ROOT / 'config'
PRESETS = sorted(path for path in CONFIG.glob('*.yaml') if path.name not in tables.NOT_PRESETS)


def test_the_parameter_file_is_up_to_date():
    assert (CONFIG / tables.PIPELINE).read_text(encoding='utf-8') == tables.config(), (
        'run: python -m road_anomaly_ros.ros.tables config > config/pipeline.yaml'
    )


def test_the_parameter_file_names_every_parameter_with_its_default():
    tree = yaml.safe_load(tables.config())[tables.NODE_KEY]['ros__parameters']
    declared = {item.name: to_ros(item.default) for item in node_parameters('mask2former')}
    assert list(tree) == list(declared)
    assert all(
        tree[name] == value or (value != value and tree[name] != tree[name])
        for name, value in declared.items()
    )


def load(graph, path, **overrides):
    """Start a node with a parameter file, read by rcl itself."""
    from road_anomaly_ros.ros.node import AnomalyNode

    words = [word for name, value in overrides.items() for word in ('-p', f'{name}:={value}')]
    return graph.add(
        AnomalyNode(
            context=graph.context,
            namespace=graph.namespace,
            cli_args=['--ros-args', '--params-file', str(path), '-p', 'autostart:=false', *words],
        )
    )


def test_the_node_takes_the_file_and_knows_what_it_names():
    with Graph() as graph:
        node = load(graph, CONFIG / tables.PIPELINE)
        tree = yaml.safe_load((CONFIG / tables.PIPELINE).read_text(encoding='utf-8'))
        named = tree[tables.NODE_KEY]['ros__parameters']
        own = {
            name
            for name in node._parameters
            if not name.startswith(('qos_overrides.', 'use_sim_time', 'start_type_desc'))
        }
        assert own < set(named)  # options of what is not chosen are declared when asked for
        for name in set(named) - {'autostart'}:
            value = node.get_parameter(name).value
            value = list(value) if isinstance(named[name], list) else value
            assert value == named[name] or (value != value and named[name] != named[name]), name


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_presets_make_a_chain_that_works(path):
    values = yaml.safe_load(path.read_text(encoding='utf-8'))
    values = values[tables.NODE_KEY]['ros__parameters']
    known = {item.name for item in node_parameters('mask2former')}
    assert set(values) <= known
    with Graph() as graph:
        node = load(graph, path, segmenter='synthetic')
        for name, value in values.items():
            assert node.get_parameter(name).value == value
        assert node.trigger_configure().name == 'SUCCESS'


def test_the_tables_name_everything():
    topics = tables.topics()
    assert all(f'`~/{item.topic}`' in topics for item in OUTPUTS)
    parameters = tables.parameters()
    assert all(f'`{item.name}`' in parameters for item in options_of(NodeOptions))
    assert all(f'`{path.name}`' in tables.presets(CONFIG) for path in PRESETS)


def test_a_page_is_renewed_between_its_markers_only():
    text = 'a\n<!-- topics -->\nold | table\n<!-- /topics -->\nb\n'
    new = tables.renewed(text, {'topics': r'| \1 |', 'presets': 'nowhere'})
    assert new == 'a\n<!-- topics -->\n| \\1 |\n<!-- /topics -->\nb\n'
    assert tables.renewed(new, {'topics': r'| \1 |'}) == new


def test_the_pages_hold_the_current_tables():
    made = tables.tables(ROOT)
    paths = (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'))
    pages = {str(path.relative_to(ROOT)): path.read_text(encoding='utf-8') for path in paths}
    for name in made:
        assert sum(f'<!-- {name} -->' in text for text in pages.values()) == 1, name
    for page, text in pages.items():
        assert tables.renewed(text, made) == text, (
            f'{page}: run python -m road_anomaly_ros.ros.tables pages'
        )


def test_bounds_are_written_out():
    named = {item.name: tables.bounds(item) for item in node_parameters()}
    assert named['jpeg_quality'] == '1 to 100'
    assert named['max_pixels'] == '1 to 1073741824'
    assert named['stale_after'] == '0.2 to 60'
    assert named['autostart'] == ''
