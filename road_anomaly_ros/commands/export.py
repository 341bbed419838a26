# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write the graph by which onnxruntime, OpenVINO or TensorRT computes a model, faster than torch.

MODEL is a Mask2Former of any backbone, a SegFormer, an EoMT or an ERFNet. Its graph, model.onnx,
holds the weights as precisely as the model does and is compared with torch before it is kept.
Beside the weights it is found by itself, where one graph serves all sizes of image; one for a
single size takes --set segmenters.NAME.engine=onnxruntime. Other weights need another graph.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from road_anomaly_ros.tools.chain import size

EXAMPLES = """
examples:
  road-anomaly export --model runs/first
  road-anomaly export --model runs/first -o models/first     # a copy of the model with its graph
  road-anomaly export --model facebook/mask2former-swin-tiny-cityscapes-semantic -o swin \\
      --size 960x544
  road-anomaly export --model erfnet_pretrained.pth
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add('--model', required=True, metavar='DIR', help="folder or file, 'builtin' or a hub name")
    add(
        '-o',
        '--out',
        type=Path,
        metavar='DIR',
        help='folder that receives a copy of the model with the graph (default: '
        "the graph is written into the model's own)",
    )
    kind = 'kind of the model, where its config.json does not tell, such as erfnet'
    add('--segmenter', metavar='NAME', help=kind)
    fixed = "the only size of the network's input, for networks whose graph depends on it"
    add('--size', metavar='WxH', type=size, help=fixed)
    half = 'round the weights to float16, for half the file; refused where outputs differ'
    add('--half', action='store_true', help=half)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0. PipelineError or ValueError where there can be no graph."""
    from road_anomaly_ros.tools.export import export

    path, difference = export(
        arguments.model,
        arguments.out,
        segmenter=arguments.segmenter,
        size=arguments.size and arguments.size[::-1],
        half=arguments.half,
    )
    print(
        f'{path}: {path.stat().st_size / 1e6:.1f} MB, differs from torch by at most '
        f'{difference:.1e}'
    )
    return 0
