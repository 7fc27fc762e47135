"""Images as an image model takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alliage.data.encoding.forms import Features
from alliage.data.task import Example


class ImageEncoder:
    """Images scaled to what an image model was trained on, with numpy and PIL alone.

    uint8 times the processor's factor, minus its mean, over its deviation; without a processor,
    [0, 255] becomes [−1, 1], as for ViT. Grey is repeated over the model's channels; images of
    another size than the model's are resized to it, without the crop some processors make.
    """

    truncated = 0

    def __init__(self, config: Any, processor: Mapping[str, Any]) -> None:
        self._channels = int(getattr(config, "num_channels", 3))
        size = getattr(config, "image_size", None)
        self._size = tuple(size) if isinstance(size, list | tuple) else (size, size)
        self._resample = int(processor.get("resample", 2))
        normalised = processor.get("do_normalize", True)
        self._factor = (
            processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
        )
        self._mean = np.float32(processor.get("image_mean", 0.5) if normalised else 0.0)
        self._std = np.float32(processor.get("image_std", 0.5) if normalised else 1.0)

    def encode(self, examples: Sequence[Example]) -> list[Features]:
        """`pixel_values` float32 [channels, height, width], and labels where they are known."""
        return [
            {"pixel_values": self._pixels(example.inputs)}
            | ({} if example.label is None else {"labels": example.label})
            for example in examples
        ]

    def collate(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack."""
        batch = {"pixel_values": torch.stack([features["pixel_values"] for features in encoded])}
        if "labels" in encoded[0]:
            batch["labels"] = torch.tensor([features["labels"] for features in encoded])
        return batch

    def bytes_of(self, example: Example) -> int:
        """What an example takes in memory once it is encoded."""
        height, width = example.inputs.shape[:2] if None in self._size else self._size
        return 4 * self._channels * int(height) * int(width)

    def _pixels(self, image: Any) -> torch.Tensor:
        if self._size != image.shape[:2] and None not in self._size:
            from PIL import Image

            image = np.asarray(
                Image.fromarray(image).resize(self._size[::-1], Image.Resampling(self._resample))
            )
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], self._channels, axis=2)
        elif self._channels == 1:
            image = image.mean(axis=2, keepdims=True)
        scaled = (image.astype(np.float32) * np.float32(self._factor) - self._mean) / self._std
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))
