# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Vary options of a method on a labelled data set, one at a time around a base.

All variants share one pass of the network, equal scores and segments. OUT gets sweep.json,
sweep.md, sweep.csv, one picture per option (AP, FPR95 and F1 against its values) and what
`road-anomaly evaluate` writes, with one row per variant. A sweep that was stopped is continued by
the same command; another sweep of the same base adds to it.
"""

from __future__ import annotations

import argparse

from road_anomaly_ros.commands.data import add_data_arguments, job_of
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config

EXAMPLES = """
examples:
  road-anomaly sweep synth/ --layout synthetic --preset s2 -o sweep
  road-anomaly sweep RoadAnomaly/ --layout road_anomaly --method s2+variance_aware \\
      --vary scorers.s2.tau=0.005,0.01,0.02 --vary refinement.variance_aware.beta=5,50 -o sweep
  road-anomaly sweep synth/ --layout synthetic --method rba \\
      --vary refinements=none,variance_aware,variance_aware+road_prior -o sweep

presets, the ablations of three publications: s2 (lambda, tau, T, beta and stages), temperature
(of MSP), objectomaly (OASC and MBP).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add_data_arguments(parser)
    add(
        '--method',
        metavar='METHOD',
        help='the base: a score with refinements, such as s2+variance_aware '
        "(default: the preset's, else auto)",
    )
    add(
        '--vary',
        metavar='NAME=V1,V2',
        action='append',
        default=[],
        help='an option by its full name with the values to try; may be given several times',
    )
    add('--preset', metavar='NAME', help='vary what a publication varied')
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.evaluation import sweep
    from road_anomaly_ros.evaluation.running import interrupted

    method, axes = sweep.chosen(arguments.method, arguments.vary, arguments.preset)
    try:
        found = sweep.sweep(job_of(arguments), method, axes, chain_config(arguments))
    except KeyboardInterrupt:
        return interrupted(arguments.out)
    print(sweep.markdown(found), end='')
    print(f'sweep in {arguments.out}: {sweep.NAME}, sweep.md, sweep.csv, {sweep.CURVES}/')
    return 0
