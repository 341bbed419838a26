# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a model lies, which files its weights are in, and whether they are the right ones."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from road_anomaly_ros.files import home, sha256
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.resources import Stamp, stamp

BUILTIN = 'builtin'
_BUILTIN_DIR = Path(__file__).resolve().parents[1] / 'models' / BUILTIN
_HUB_NAME = re.compile(r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*')
_HUB_TIMEOUT_S = 5.0


def resolve_model(name: str | Path) -> str | Path:
    """Return where a model lies: the package's own for 'builtin', a local path, or a hub name.

    PipelineError where `name` is none of the three; nothing is downloaded.
    """
    text = str(name).strip()
    if text == BUILTIN:
        if not (_BUILTIN_DIR / 'config.json').is_file():
            raise PipelineError(f'no built-in model in {_BUILTIN_DIR}; install the package anew')
        return _BUILTIN_DIR
    path = home(text)
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


def require_weights(directory: Path) -> list[Path]:
    """Return the files that hold the weights: safetensors, or pickles where there are none."""
    weight_files(directory)  # refuses an index that leads elsewhere
    for pattern in ('model*.safetensors', 'pytorch_model*.bin'):
        found = sorted(directory.glob(pattern))
        if found:
            return found
    raise PipelineError(
        f'no weights in {directory}; expected model.safetensors or pytorch_model.bin'
    )


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


def weights_digest(source: Path | None) -> str:
    """Return the SHA-256 of a model's weights, a file or what is loaded from a directory.

    That of one file is the file's own; of several, the digest of names, sizes and contents. ''
    where there is none. Unchanged files are read once.
    """
    files = [] if source is None else weight_files(source)
    return _digest(stamp(files)) if files else ''


@functools.lru_cache(maxsize=8)  # texts only; every live change of a parameter asks for it
def _digest(files: tuple[Stamp, ...]) -> str:
    if len(files) == 1:
        return sha256(files[0][0])
    parts: list[str | Path] = []
    for path, _, _, size, *_ in files:
        parts += f'{path.name}\0{size}\0', path
    return sha256(*parts)


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


def reason(error: BaseException, limit: int = 200) -> str:
    """Return the first sentence of an error as one line of at most `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + '...'
