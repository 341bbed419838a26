# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where to compute, where a model lies, and how weights are read: strictly, never as code."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from road_anomaly_ros.files import sha256
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.resources import stamp

BUILTIN = 'builtin'
_BUILTIN_DIR = Path(__file__).resolve().parents[1] / 'models' / BUILTIN
_HUB_NAME = re.compile(r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*')
_HUB_TIMEOUT_S = 5.0
_PRECISIONS = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
_SHOWN_KEYS = 4

# Buffers that older checkpoints store although the network computes them, those of the loss, and
# the norm after a Swin backbone, which nobody reads and checkpoints of transformers 4 do not have.
_DERIVED = re.compile(
    r'relative_position_index|num_batches_tracked|position_ids'
    r'|criterion\.empty_weight|encoder\.swin\.layernorm'
)

Model = TypeVar('Model', bound=nn.Module)


def select_device(name: str) -> torch.device:
    """Return the device 'auto', 'cpu', 'cuda' or 'cuda:N'; PipelineError where there is none."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    wanted = re.fullmatch(r'cpu|cuda(:\d+)?', name)
    if not wanted:
        raise PipelineError(f"expected device 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    device = torch.device(name)
    if device.type == 'cuda':
        _check_cuda(device)
    return device


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise PipelineError(
            f"device '{device}' was asked for, but torch finds no CUDA here; "
            "choose device 'cpu' or 'auto'"
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise PipelineError(f"expected 'cuda:0' .. 'cuda:{count - 1}', got device '{device}'")


def select_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic called `name`; 'auto' is float16 on CUDA, float32 on the CPU."""
    if name == 'auto':
        return torch.float16 if device.type == 'cuda' else torch.float32
    if name not in _PRECISIONS:
        raise PipelineError(f'expected precision one of {["auto", *_PRECISIONS]}, got {name!r}')
    if name == 'float16' and device.type != 'cuda':
        raise PipelineError(
            "precision 'float16' needs a CUDA device; choose 'float32' or 'bfloat16' on the CPU"
        )
    return _PRECISIONS[name]


def resolve_model(name: str | Path) -> str | Path:
    """Return where a model lies: the package's own for 'builtin', a local path, or a hub name.

    PipelineError where `name` is none of the three; nothing is downloaded.
    """
    text = str(name).strip()
    if text == BUILTIN:
        if not (_BUILTIN_DIR / 'config.json').is_file():
            raise PipelineError(f'no built-in model in {_BUILTIN_DIR}; install the package anew')
        return _BUILTIN_DIR
    path = Path(text).expanduser()
    if text and path.exists():
        return path
    if _HUB_NAME.fullmatch(text):
        return text
    raise PipelineError(
        f'no model at {text!r}; expected {BUILTIN!r}, a local directory or file, or a hub name '
        "such as 'facebook/mask2former-swin-large-cityscapes-semantic'"
    )


def model_directory(name: str | Path) -> Path:
    """Return the local directory of a model in Hugging Face form; only a hub name may download.

    What an earlier download left is used without asking the network. PipelineError, one line with
    the remedy, where there is no such directory, no config.json in it, or the hub is out of reach.
    """
    found = resolve_model(name)
    if isinstance(found, str):
        return _hub_directory(found)
    if not found.is_dir():
        raise PipelineError(
            f'expected a directory with config.json and model.safetensors, got the file {found}'
        )
    if not (found / 'config.json').is_file():
        raise PipelineError(
            f'no config.json in {found}; expected a directory as save_pretrained() writes it'
        )
    return found


def weights_file(name: str | Path, suffixes: Sequence[str], method: str) -> Path:
    """Return the one file of weights that `name` means: the file, or the only one of a directory.

    PipelineError, in one line with the remedy, where there is none or several.
    """
    expected = f'{method} needs a local file of weights ({", ".join(suffixes)}) as model'
    if str(name).strip() == BUILTIN:
        raise PipelineError(f'{expected}, got {BUILTIN!r}, which is of another kind')
    found = resolve_model(name)
    if isinstance(found, str):
        raise PipelineError(f'{expected}; there is no file at {found!r}')
    if found.is_file():
        return found
    files = sorted(path for path in found.iterdir() if path.suffix in suffixes)
    if len(files) != 1:
        raise PipelineError(f'{expected}; {found} holds {len(files)} of them, name one')
    return files[0]


def _hub_directory(name: str) -> Path:
    cached = _snapshot(name, local=True)
    if cached is not None:
        return cached
    remedy = 'put config.json and model.safetensors of it into a directory and name that as model'
    if _offline():
        raise PipelineError(
            f'{name!r} is not in the local hub cache and HF_HUB_OFFLINE is set; {remedy}'
        )
    try:
        fetched = _snapshot(name, local=False)
    except Exception as error:  # the hub's client raises types of several libraries
        raise PipelineError(
            f'{name!r} is no local path and could not be fetched from the hub '
            f'({reason(error)}); {remedy}'
        ) from None
    if fetched is None:
        raise PipelineError(f'{name!r} has no config.json with weights on the hub; {remedy}')
    return fetched


def _offline() -> bool:
    from huggingface_hub import constants

    asked = os.environ.get('HF_HUB_OFFLINE', '').lower() in ('1', 'true', 'yes', 'on')
    return asked or bool(constants.HF_HUB_OFFLINE)


def _snapshot(name: str, *, local: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in ('*.safetensors', '*.bin'):  # pickles only where nothing else is offered
        try:
            path = Path(
                snapshot_download(
                    name,
                    allow_patterns=['*.json', '*.yaml', weights],
                    local_files_only=local,
                    etag_timeout=_HUB_TIMEOUT_S,
                )
            )
        except (LocalEntryNotFoundError, FileNotFoundError):
            if not local:
                raise
            continue
        if (path / 'config.json').is_file() and any(path.glob(weights)):
            return path
    return None


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
    for path in _require_weights(directory):
        check_digest(path)
    try:
        with _quiet():
            config = model_class.config_class.from_pretrained(directory, local_files_only=True)
            if getattr(config, 'use_pretrained_backbone', False):
                config.use_pretrained_backbone = False  # else looked for on the hub
            model, info = model_class.from_pretrained(
                directory,
                config=config,
                local_files_only=True,
                weights_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
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


def model_kind(directory: Path) -> str:
    """Return `model_type` of a config.json; PipelineError where that cannot be read."""
    return str(read_config(directory)['model_type'])


def read_config(directory: Path) -> dict[str, Any]:
    """Return the tree of a config.json that has a `model_type`; PipelineError where it is none."""
    path = directory / 'config.json'
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        tree['model_type']
        return tree
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f'{path} is no configuration of transformers: {reason(error)}'
        ) from None


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


def _require_weights(directory: Path) -> list[Path]:
    """Return the files that hold the weights: safetensors, or pickles where there are none."""
    weight_files(directory)  # refuses an index that leads elsewhere
    for pattern in ('model*.safetensors', 'pytorch_model*.bin'):
        found = sorted(directory.glob(pattern))
        if found:
            return found
    raise PipelineError(
        f'no weights in {directory}; expected model.safetensors or pytorch_model.bin'
    )


def weight_files(source: Path) -> list[Path]:
    """Return the files that a model is loaded from: `source` itself, or those of a directory.

    Whatever else lies in the directory is left alone. Empty where it holds no weights.
    """
    if source.is_file():
        return [source]
    for name in ('model.safetensors', 'pytorch_model.bin'):
        if (source / name).is_file():
            return [source / name]
        index = source / f'{name}.index.json'
        if index.is_file():
            return _shards(index)
    return []


def _shards(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding='utf-8'))['weight_map'].values()
        found = sorted({index.parent / name for name in names})
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(f'{index} lists no weights: {reason(error)}') from None
    for path in found:
        if path.parent != index.parent or path.name in ('', '.', '..'):
            raise PipelineError(
                f'{index} names a file outside of its folder; fetch the model '
                'again, from where you trust it'
            )
        if not path.is_file():
            raise PipelineError(
                f'{index} names {path.name}, which is not there; fetch the model again'
            )
    return found


def check_digest(path: Path) -> None:
    """Compare a file with `<file>.sha256` beside it, where there is one; PipelineError if unlike.

    The file holds the hexadecimal digest in its first word, as the tool sha256sum writes it. What
    only stands for a file of weights is refused before.
    """
    _refuse_stand_in(path)
    pinned = path.with_name(f'{path.name}.sha256')
    if not pinned.is_file():
        return
    expected = (pinned.read_text(encoding='utf-8').split() or ['nothing'])[0].lower()
    digest = sha256(path)
    if digest != expected:
        raise PipelineError(
            f'{path} has the sha256 {digest[:16]}..., expected '
            f'{expected[:16]}... of {pinned.name}; fetch the file again'
        )


def weights_digest(source: Path | None) -> str:
    """Return the SHA-256 of a model's weights, a file or what is loaded from a directory.

    That of one file is the file's own; of several, the digest of names, sizes and contents. ''
    where there is none. Unchanged files are read once.
    """
    files = [] if source is None else weight_files(source)
    return _digest(stamp(files)) if files else ''


@functools.lru_cache(maxsize=8)  # texts only; every live change of a parameter asks for it
def _digest(files: tuple[tuple[Any, ...], ...]) -> str:
    if len(files) == 1:
        return sha256(files[0][0])
    named = [(f'{path.name}\0{size}\0', path) for path, _, _, size, *_ in files]
    return sha256(*itertools.chain.from_iterable(named))


def _refuse_stand_in(path: Path) -> None:
    """Raise PipelineError for what comes in the place of weights when a download went wrong."""
    with path.open('rb') as file:
        head = file.read(64)
    if head.startswith(b'version https://git-lfs'):
        raise PipelineError(
            f'{path} is a pointer of Git LFS, expected the weights themselves; '
            "fetch them with 'git lfs pull'"
        )
    if head.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        raise PipelineError(
            f'{path} is a web page, expected weights; the download went wrong, '
            'fetch the file again'
        )
    if not head:
        raise PipelineError(
            f'{path} is empty and could not be loaded as weights; fetch the file again'
        )


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
    return ', '.join(keys[:_SHOWN_KEYS]) + (f', and {more} more' if more > 0 else '')


def reason(error: BaseException, limit: int = 200) -> str:
    """Return the first sentence of an error as one line of at most `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + '...'
