# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write the graph by which onnxruntime computes a model on the CPU, faster than torch.

MODEL is a Mask2Former like the built-in one. Its graph, model.onnx, holds the weights as precisely
as the model does and is compared with torch before it is kept. Beside the weights it is found by
itself; --set segmenters.mask2former.engine=torch computes without it. Other weights need another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """
examples:
  road-anomaly export --model runs/first
  road-anomaly export --model runs/first -o models/first     # a copy of the model with its graph
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add(
        '--model',
        required=True,
        metavar='DIR',
        help="folder of the model, 'builtin' or a hub name",
    )
    add(
        '-o',
        '--out',
        type=Path,
        metavar='DIR',
        help='folder that receives a copy of the model with the graph (default: '
        "the graph is written into the model's own)",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0. PipelineError or ValueError where there can be no graph."""
    from road_anomaly_ros.tools.export import export

    path, difference = export(arguments.model, arguments.out)
    print(
        f'{path}: {path.stat().st_size / 1e6:.1f} MB, differs from torch by at most '
        f'{difference:.1e}'
    )
    return 0
