"""ImageNet's classes and persons in photographs, by the embedded photo backbone's own tower."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from aesr1.model.load import EMBEDDED, PHOTO_BACKBONE, load

CLASSES_FILE = "image_classes.safetensors"
"""Beside the backbone: weight (1000, channels) and bias of ImageNet's classes; person_weight and person_bias."""


class SeenClasses(NamedTuple):
    """What the tower recognises in n pictures."""

    classes: NDArray[np.float32]  # (n, 1000), each row sums to 1
    person: NDArray[np.float32]  # (n,), about 1 where a person is the subject and 0 elsewhere


class ImageClassifier:
    """A tower with linear layers on the mean of its map of features."""

    def __init__(self, tower: Any, image_processor: Any, weights: dict[str, torch.Tensor]) -> None:
        self.tower, self.image_processor = tower, image_processor
        self.weights = {name: tensor.float() for name, tensor in weights.items()}

    def see(self, pictures: Sequence[Image.Image]) -> SeenClasses:
        """Classify opened pictures."""
        return self.of_features(self._features(pictures))

    def mean_features(self, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
        """(n, channels): the mean of the tower's map, of opened pictures."""
        return self._means(self._features(pictures)).double().numpy()

    @torch.inference_mode()
    def _features(self, pictures: Sequence[Image.Image]) -> Any:
        pixels = self.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        return self.tower(pixels).last_hidden_state

    def _means(self, features: torch.Tensor) -> torch.Tensor:
        """(n, channels) of ImageNet's tower; transformers' has a few more, which are 0."""
        return features.float().mean((2, 3))[:, : self.weights["weight"].shape[1]]

    def of_features(self, features: torch.Tensor) -> SeenClasses:
        """The same from the tower's map of features: (n, channels, rows, columns)."""
        weights, means = self.weights, self._means(features)
        classes = torch.softmax(means @ weights["weight"].T + weights["bias"], dim=-1)
        return SeenClasses(classes.numpy(), (means @ weights["person_weight"] + weights["person_bias"]).numpy())


@lru_cache(maxsize=1)
def load_classifier() -> ImageClassifier:
    """The classifier of the embedded photo backbone, one for each process."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # a worker: all of them share the cores
    vlm = load(PHOTO_BACKBONE, device="cpu")
    folder = Path(str(files("aesr1.tiny"))) / EMBEDDED[PHOTO_BACKBONE]
    return ImageClassifier(
        vlm.model.model.vision_tower, vlm.processor.image_processor, load_file(folder / CLASSES_FILE)
    )
