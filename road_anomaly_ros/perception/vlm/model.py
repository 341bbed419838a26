# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A local image-text model of transformers that answers one question about one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.remarks import one_line


class Asked(Protocol):
    """Something that answers questions about pictures."""

    def ask(self, image: np.ndarray, question: str) -> str:
        """Return the answer about an RGB image uint8 [H, W, 3]."""


class ImageTextModel:
    """Any model that transformers' AutoModelForImageTextToText loads from a directory.

    Only code of transformers runs: models that bring their own are refused. Raises PipelineError,
    one line, for what is no such model.
    """

    def __init__(self, directory: Path, device: torch.device, *, tokens: int = 256) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._device, self._tokens = device, tokens
        precision = torch.bfloat16 if device.type == 'cuda' else torch.float32
        try:
            given = {'local_files_only': True, 'trust_remote_code': False}
            self._processor: Any = AutoProcessor.from_pretrained(directory, **given)
            network = AutoModelForImageTextToText.from_pretrained(
                directory, dtype=precision, **given
            )
        except Exception as error:  # every model family has errors of its own
            raise PipelineError(
                f'{directory}: expected an image-text model that transformers knows: '
                f'{one_line(error)[:200]}'
            ) from None
        self._network: Any = network.to(device).eval()

    @torch.inference_mode()
    def ask(self, image: np.ndarray, question: str) -> str:
        """Return the answer, without sampling, about an RGB image uint8 [H, W, 3]."""
        content = [{'type': 'image', 'image': image}, {'type': 'text', 'text': question}]
        inputs = self._processor.apply_chat_template(
            [{'role': 'user', 'content': content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors='pt',
        ).to(self._device, self._network.dtype)
        answer = self._network.generate(**inputs, max_new_tokens=self._tokens, do_sample=False)
        told = answer[0, inputs['input_ids'].shape[1] :]
        return str(self._processor.decode(told, skip_special_tokens=True))
