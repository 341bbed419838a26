# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How weights are read into networks: strictly, and never as code."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.model_files import (
    check_digest,
    model_kind,
    reason,
    require_weights,
)

_SHOWN_KEYS = 4

# Buffers that older checkpoints store although the network computes them, those of the loss, and
# the norm after a Swin backbone, which nobody reads and checkpoints of transformers 4 do not have.
_DERIVED = re.compile(
    r'relative_position_index|num_batches_tracked|position_ids'
    r'|criterion\.empty_weight|encoder\.swin\.layernorm'
)

Model = TypeVar('Model', bound=nn.Module)


def load_pretrained(
    model_class: type[Any], directory: Path, *, ignore: str = '', also: str = ''
) -> Any:
    """Return a transformers model with the weights of a directory: float32, eval, on the CPU.

    safetensors are preferred; pickles are read with `weights_only`. Every key must match, except
    those that match the regular expression `ignore`. Besides its own kind of model the one called
    `also` is taken. PipelineError names the unmatched keys or what could not be read.
    """
    kind, wanted = model_kind(directory), model_class.config_class.model_type
    if kind not in (wanted, also):
        raise PipelineError(
            f'{directory} holds a model of the kind {kind!r}, expected '
            f'{wanted!r}; name another model, or choose what loads this kind'
        )
    for path in require_weights(directory):
        check_digest(path)
    try:
        model, info = _from_pretrained(model_class, directory)
    except Exception as error:  # readers of JSON, zip, ... raise their own types
        raise PipelineError(
            f'{directory} could not be loaded as {model_class.__name__}: {reason(error)}'
        ) from None
    _refuse_unmatched(
        str(directory),
        missing=info['missing_keys'],
        unexpected=info['unexpected_keys'],
        mismatched=[_mismatch(item) for item in info['mismatched_keys']],
        ignore=ignore,
    )
    model = model.float().eval()
    refuse_meaningless(model, directory)
    return model


def _from_pretrained(model_class: type[Any], directory: Path) -> tuple[Any, dict[str, Any]]:
    """Return a model of transformers and what did not fit; raises what its readers do."""
    with _quiet():
        config = model_class.config_class.from_pretrained(directory, local_files_only=True)
        if getattr(config, 'use_pretrained_backbone', False):
            config.use_pretrained_backbone = False  # else looked for on the hub
        found: tuple[Any, dict[str, Any]] = model_class.from_pretrained(
            directory,
            config=config,
            local_files_only=True,
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        return found


def refuse_meaningless(network: nn.Module, source: str | Path) -> None:
    """Raise PipelineError where weights are NaN or infinite, or all of them zero.

    Repaired outputs of such a network would look like scores.
    """
    weights = {
        name: value
        for name, value in network.state_dict().items()
        if value.is_floating_point() and value.numel() and not _DERIVED.search(name)
    }
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise PipelineError(
            f'{source}: {len(broken)} of {len(weights)} tensors hold NaN or '
            f'infinity ({_listed(broken)}), every result would be meaningless; '
            'the training diverged or the file is damaged, use other weights'
        )
    if weights and not any(bool(value.any()) for value in weights.values()):
        raise PipelineError(
            f'{source}: all weights are zero, every result would be meaningless; use other weights'
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars and remarks on weights off: what matters of them becomes an error."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _unreadable(path: Path, error: Exception) -> str:
    """Return in one line what a file is that no reader of weights takes, and what to do."""
    with path.open('rb') as file:
        head = file.read(4096)
    pickled = path.suffix != '.safetensors' and head.startswith(b'\x80')
    found = re.search(r'GLOBAL ([\w.]+)', str(error))
    name = found[1] if found else ''
    if pickled and b'numpy' in head:
        return (
            f'{path} could not be read as weights: it is a pickle of NumPy arrays, as '
            'detectron2 publishes them, and pickles can run code. Convert it once, where '
            'you trust its source: python -c "import pickle, torch; m = pickle.load(open(\''
            f"{path.name}', 'rb'), encoding='latin1')['model']; torch.save({{k: "
            "torch.as_tensor(v) for k, v in m.items()}, 'model.pth')\""
        )
    if name or pickled:
        return (
            f'{path} could not be read as weights: it holds Python objects'
            f'{f" ({name})" if name else ""}, which can run code. Expected the state_dict of '
            'a network: '
            'save it with torch.save(model.state_dict(), FILE), or as .safetensors'
        )
    # What torch says of other files is advice to read them unsafely.
    why = 'it is no checkpoint of torch' if 'Weights only' in str(error) else reason(error)
    return (
        f'{path} could not be read as weights: {why}; it is damaged or of another kind than '
        'its name says, fetch it again'
    )


def _mismatch(item: Any) -> str:
    if isinstance(item, str):
        return item
    key, stored, wanted = item
    return f'{key} {tuple(stored)} for {tuple(wanted)}'


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.pkl` file, on the CPU.

    A pickle is read with `weights_only`, so that it cannot run code; a `state_dict`, `model` or
    `module` level around the tensors is removed. PipelineError where the file is missing, damaged,
    or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise PipelineError(f'expected a file with weights, found nothing at {path}')
    check_digest(path)
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            tree: Any = load_file(path)
        else:
            tree = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # safetensors, zip and pickle readers raise their own types
        raise PipelineError(_unreadable(path, error)) from None
    return _tensors(tree, path)


def _tensors(tree: Any, path: Path) -> dict[str, torch.Tensor]:
    for level in ('state_dict', 'model', 'module'):
        if isinstance(tree, Mapping) and isinstance(tree.get(level), Mapping):
            tree = tree[level]
    items = tree.items() if isinstance(tree, Mapping) else ()
    found = {str(key): value for key, value in items if isinstance(value, torch.Tensor)}
    if not found:
        raise PipelineError(f'{path} holds no tensors; expected the state_dict of a network')
    return found


def rename_keys(
    state: Mapping[str, torch.Tensor], rule: Callable[[str], str | None]
) -> dict[str, torch.Tensor]:
    """Return `state` under new names; keys for which `rule` answers None are left out."""
    named = ((rule(key), value) for key, value in state.items())
    return {key: value for key, value in named if key is not None}


def load_state(
    network: Model, state: Mapping[str, torch.Tensor], source: str | Path, *, ignore: str = ''
) -> Model:
    """Fill `network` from `state` and return it in eval mode; every key and shape must match.

    Keys that match the regular expression `ignore` may be missing or left over. PipelineError
    lists what does not fit.
    """
    own = network.state_dict()
    mismatched = [
        _mismatch((key, state[key].shape, own[key].shape))
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    _refuse_unmatched(
        str(source),
        missing=own.keys() - state.keys(),
        unexpected=state.keys() - own.keys(),
        mismatched=mismatched,
        ignore=ignore,
    )
    network.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
    network = network.float().eval()
    refuse_meaningless(network, source)
    return network


def _refuse_unmatched(
    source: str,
    *,
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Sequence[str],
    ignore: str,
) -> None:
    def relevant(key: str) -> bool:
        return not _DERIVED.search(key) and not (ignore and re.search(ignore, key))

    groups = {
        'missing': sorted(filter(relevant, missing)),
        'unexpected': sorted(filter(relevant, unexpected)),
        'of another shape': sorted(mismatched),
    }
    found = [f'{len(keys)} {kind} ({_listed(keys)})' for kind, keys in groups.items() if keys]
    if found:
        raise PipelineError(
            f'{source}: the weights do not fit the network: {"; ".join(found)}; '
            'use weights made for this configuration'
        )


def _listed(keys: Sequence[str]) -> str:
    more = len(keys) - _SHOWN_KEYS
    shown = (' '.join(key.split()) for key in keys[:_SHOWN_KEYS])
    return ', '.join(shown) + (f', and {more} more' if more > 0 else '')
