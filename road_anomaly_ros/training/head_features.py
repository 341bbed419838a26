# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a frozen segmenter says about drawn images, computed once and kept on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from road_anomaly_ros import files
from road_anomaly_ros.perception.contract import MaskOutput, WindowedOutput
from road_anomaly_ros.perception.heads import stacked
from road_anomaly_ros.training.generator.writer import CONFIG, read_records, read_sample

KEY = 'cache.json'


@dataclasses.dataclass(frozen=True)
class Example:
    """One image or window: `output` of the segmenter, `mask` uint8 [H,W] 0, 1 or 255."""

    output: MaskOutput
    mask: Tensor


class Cache(Sequence[Example]):
    """Answers of one segmenter to the images of one generator folder, one file per image."""

    def __init__(self, folder: Path, *, data: Path, digest: str, features: str) -> None:
        self.folder, self.data, self.features = folder, data, features
        self._records = read_records(data)
        if not self._records:
            raise ValueError(f"{data}: expected images of 'road-anomaly synthesize', found none")
        self._key = {'segmenter': digest, 'features': features, 'data': _mark(data)}
        self._check_key()
        self._files: list[Path] = []

    @property
    def mark(self) -> str:
        """Return the SHA-256 of the settings that the images were drawn with."""
        return self._key['data']

    def _check_key(self) -> None:
        path = self.folder / KEY
        if not path.is_file():
            return
        before = _settings(path)
        if not self.features:  # statistics need no features and do not mind any
            self._key['features'] = self.features = before.get('features', '')
        if before != self._key:
            raise ValueError(
                f'{self.folder} holds features of another segmenter, other features '
                'or other images; remove it or choose another folder'
            )

    def fill(self, segmenter: Any, device: torch.device) -> None:
        """Ask the segmenter for every image that is not there yet; files appear complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(self.folder / KEY, self._key)
        paths = {index: self.folder / f'{index:06d}.safetensors' for index in self._records}
        missing = [index for index in sorted(paths) if not paths[index].is_file()]
        for index in tqdm(missing, 'features', disable=None):
            image, mask = read_sample(self.data, self._records[index])
            if mask.shape != image.shape[:2]:
                raise ValueError(
                    f'image {index} of {self.data}: expected a mask of shape '
                    f'{image.shape[:2]}, got {mask.shape}'
                )
            pixels = torch.from_numpy(image).permute(2, 0, 1).to(device)
            asked = {'features': self.features} if self.features else {}
            output = segmenter([pixels], **asked)[0]
            found = [_packed(*pair) for pair in examples_of(output, mask)]
            files.write(
                paths[index],
                save(
                    {
                        f'{number}.{name}': value
                        for number, part in enumerate(found)
                        for name, value in part.items()
                    }
                ),
            )
        self._files = [paths[index] for index in sorted(paths)]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: Any) -> Example:
        """Return the first example of an image, which is the only one without windows."""
        return next(iter(self.examples(number)))

    def examples(self, number: int) -> Iterator[Example]:
        """Yield the examples of image `number`; ValueError for a damaged file."""
        try:
            stored = load_file(self._files[number])
        except (OSError, SafetensorError):
            raise ValueError(
                f'{self._files[number]}: damaged; remove it and start again'
            ) from None
        for window in sorted({int(name.partition('.')[0]) for name in stored}):
            part = {
                name.partition('.')[2]: value
                for name, value in stored.items()
                if name.startswith(f'{window}.')
            }
            mask = part['mask']
            yield Example(
                MaskOutput(
                    part['class_logits'],
                    part['mask_logits'],
                    (mask.shape[0], mask.shape[1]),
                    part.get('features'),
                ),
                mask,
            )


class Joined(Sequence[Example]):
    """Several caches as one, in their order."""

    def __init__(self, parts: Sequence[Cache]) -> None:
        self.parts = tuple(parts)
        self._places = [(part, number) for part in self.parts for number in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Example:
        """Return the first example of an image."""
        part, index = self._places[number]
        return part[index]

    def examples(self, number: int) -> Iterator[Example]:
        """Yield the examples of image `number`; ValueError for a damaged file."""
        part, index = self._places[number]
        return part.examples(index)


def _settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError):
        raise ValueError(f'{path}: damaged; remove its folder or choose another one') from None


def cache_name(data: Path) -> str:
    """Return the name of a data folder's cache: that of the folder, marked by its settings."""
    return f'{data.resolve().name}-{_mark(data)[:8]}'


def _mark(data: Path) -> str:
    config = data / CONFIG
    return files.sha256(config if config.is_file() else b'')


def examples_of(
    output: MaskOutput | WindowedOutput, mask: np.ndarray
) -> Iterator[tuple[MaskOutput, np.ndarray]]:
    """Yield the output with its mask, or every window with its part of the resized mask."""
    if isinstance(output, MaskOutput):
        yield output, mask
        return
    size = output.scaled_size
    scaled = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    for window, (top, left) in zip(output.windows, output.offsets, strict=True):
        height, width = window.image_size
        yield window, np.ascontiguousarray(scaled[top : top + height, left : left + width])


def _packed(output: MaskOutput, mask: np.ndarray) -> dict[str, Tensor]:
    packed = {
        'class_logits': output.class_logits.float(),
        'mask': torch.from_numpy(mask),
        'mask_logits': output.mask_logits.half(),
    }
    if output.features is not None:
        packed['features'] = stacked(output.features).half()
    return {name: value.cpu().contiguous().clone() for name, value in packed.items()}


def fingerprint(segmenter: Any) -> str:
    """Return a SHA-256 over all weights and buffers that the segmenter's networks hold."""
    states = [m.state_dict() for m in vars(segmenter).values() if isinstance(m, torch.nn.Module)]
    return files.sha256(
        *(
            files.sha256(name, value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
            for state in states
            for name, value in sorted(state.items())
        )
    )


def at_points(planes: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Return [C,N]: what planes [C,h,w] resized bilinearly to `size` have at some pixels."""
    y, x = (
        ((place + 0.5) / length) * 2 - 1 for place, length in ((rows, size[0]), (columns, size[1]))
    )
    grid = torch.stack([x, y], -1).to(planes.dtype)[None, None]
    found = functional.grid_sample(
        planes[None], grid, mode='bilinear', padding_mode='border', align_corners=False
    )
    return found[0, :, 0]
