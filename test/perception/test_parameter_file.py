# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Files of ROS parameters, read as ROS reads them."""

from __future__ import annotations

import pytest
import yaml
from conftest import ROOT

from road_anomaly_ros.perception import parameter_file
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.tools.chain import chain_config

CONFIG = ROOT / 'config'


@pytest.mark.parametrize(
    ('section', 'node', 'found'),
    [
        ('/**', '/anomaly_node', True),
        ('/**', '/front/seg', True),
        ('/*', '/seg', True),
        ('/*', '/front/seg', False),
        ('anomaly_node', '/anomaly_node', True),
        ('/**/anomaly_node', '/front/left/anomaly_node', True),
        ('/**/anomaly_node', '/seg', False),
        ('/**/anomaly_node', '/anomaly_node', True),
        ('/front/*', '/front/seg', True),
        ('/front/anomaly_node', '/anomaly_node', False),
    ],
)
def test_sections_match_nodes_as_in_ros(section, node, found):
    assert parameter_file.matches(section, node) is found


@pytest.mark.parametrize(
    'form',
    [
        {'/**': {'ros__parameters': {'scorer': 's2', 'scorers.s2.tau': 0.02}}},
        {
            '/**/anomaly_node': {
                'ros__parameters': {'scorer': 's2', 'scorers': {'s2': {'tau': 0.02}}}
            }
        },
        {'front': {'anomaly_node': {'ros__parameters': {'scorer': 's2', 'scorers.s2.tau': 0.02}}}},
        {'/renamed': {'ros__parameters': {'scorer': 's2', 'scorers.s2.tau': 0.02}}},
        {
            '/**': {'ros__parameters': {'scorer': 's2', 'use_sim_time': True, 'cameras': ['a']}},
            'camera_driver': {'ros__parameters': {'fps': 3}},
            'anomaly_node': {'ros__parameters': {'scorers.s2.tau': 0.02, 'refinements': ['auto']}},
        },
    ],
)
def test_every_form_gives_the_same_chain(tmp_path, form):
    path = tmp_path / 'given.yaml'
    path.write_text(yaml.safe_dump(form))
    assert PipelineConfig.from_any(path) == PipelineConfig.from_any(
        {'scorer': 's2', 'scorers.s2.tau': 0.02}
    )


def test_a_file_of_other_nodes_is_refused(tmp_path):
    path = tmp_path / 'given.yaml'
    path.write_text('a: {ros__parameters: {fps: 3}}\nb: {ros__parameters: {fps: 3}}\n')
    with pytest.raises(ValueError, match=r"parameters of \['a', 'b'\], none of '/\*\*'"):
        PipelineConfig.from_any(path)


def test_a_misspelt_name_in_one_is_refused(tmp_path):
    path = tmp_path / 'given.yaml'
    path.write_text('/**: {ros__parameters: {scorrer: rba}}\n')
    with pytest.raises(ValueError, match="unknown option 'scorrer'"):
        PipelineConfig.from_any(path)


def test_every_parameter_at_its_default_sets_nothing():
    assert PipelineConfig.from_any(CONFIG / 'pipeline.yaml') == PipelineConfig()


@pytest.mark.parametrize('path', sorted(CONFIG.glob('[!pn]*.yaml')), ids=lambda path: path.stem)
def test_presets_are_for_every_node_and_for_the_offline_commands(path):
    import argparse

    tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    assert list(tree) == ['/**']
    arguments = argparse.Namespace(model=None, scorer=None, device=None, config=str(path), set=[])
    config = chain_config(arguments)
    for name, value in tree['/**']['ros__parameters'].items():
        given = config.get(name)
        assert (list(given) or ['none'] if isinstance(given, tuple) else given) == value


def test_what_concerns_the_node_is_known_by_name():
    pytest.importorskip('rclpy', reason='needs the extra ros')
    from road_anomaly_ros.perception.registry import options_of
    from road_anomaly_ros.ros.parameters import NodeOptions

    assert {item.name for item in options_of(NodeOptions)} == parameter_file.NODE_ONLY
