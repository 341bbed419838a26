# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write the graph by which onnxruntime computes a model on the CPU, faster than torch.

MODEL is a Mask2Former like the built-in one. Its graph, model.onnx, holds the weights as precisely
as the model does and is compared with torch before it is kept. Beside the weights it is found by
itself; --set segmenters.mask2former.engine=torch computes without it. Other weights need another.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

EXAMPLES = """
examples:
  road-anomaly export --model runs/first
  road-anomaly export --model runs/first -o models/first     # a copy of the model with its graph
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        '--model',
        required=True,
        metavar='DIR',
        help="folder of the model, 'builtin' or a hub name",
    )
    parser.add_argument(
        '-o',
        '--out',
        type=Path,
        metavar='DIR',
        help='folder that receives a copy of the model with the graph (default: '
        "the graph is written into the model's own)",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0. PipelineError or ValueError where there can be no graph."""
    from road_anomaly_ros.perception.model_files import model_directory
    from road_anomaly_ros.tools import tracing

    folder = model_directory(arguments.model)
    out = folder if arguments.out is None else arguments.out.expanduser()
    if not _is_free(out, folder):
        raise ValueError(f'{out}: expected a new or empty folder, or one with this model')
    path, difference = tracing.export(folder, out)
    if out.resolve() != folder.resolve():
        _copy(folder, out)
    print(
        f'{path}: {path.stat().st_size / 1e6:.1f} MB, differs from torch by at most '
        f'{difference:.1e}'
    )
    return 0


def _is_free(out: Path, folder: Path) -> bool:
    from road_anomaly_ros.perception.model_files import weights_digest

    if out.is_dir() and any(out.iterdir()):
        return weights_digest(out) == weights_digest(folder)
    return out.is_dir() or not out.exists()


def _copy(folder: Path, out: Path) -> None:
    """Copy what a model consists of; what a training left there stays where it is."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (
            '.json',
            '.yaml',
            '.safetensors',
            '.bin',
            '.md',
            '.sha256',
        ):
            shutil.copyfile(path, out / path.name)
    if (folder / 'heads').is_dir():
        shutil.copytree(folder / 'heads', out / 'heads', dirs_exist_ok=True)
