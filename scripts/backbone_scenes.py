"""The scenes that the backbone is trained on. They are drawn once and used several times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from aesr1.tiny.scenes import LAYERS, Scene, draw_layers, draw_scene, facts, sample_scene, subject_hue
from aesr1.worker_processes import worker_pool


@dataclass(frozen=True)
class Pool:
    """n scenes, processed for the model."""

    scenes: list[Scene]
    patches: list[torch.Tensor]  # for each scene (patches, values), float16
    cells: list[torch.Tensor]  # for each scene (patches / 4, values), float16: `cell_contents`
    grids: torch.Tensor  # (n, 3): time, rows and columns of patches

    def pixels(self, chosen: NDArray[np.int64]) -> torch.Tensor:
        """(patches, values) float32 of some scenes, concatenated."""
        return torch.cat([self.patches[i] for i in chosen]).float()


def cell_contents(scene: Scene, down: int, across: int) -> NDArray[np.float16]:
    """(down × across, values) the content of each cell of a scene, row by row, in values from −1 to 1.

    The share of each layer, the column and row of the cell, and the colours, clash and size of the subject, each
    multiplied by the share of the subject.
    """
    layers = draw_layers(scene)
    shares = [
        np.asarray(Image.fromarray((layers == number).astype(np.float32)).resize((across, down), Image.Resampling.BOX))
        for number in range(len(LAYERS))
    ]
    column, row = np.meshgrid((np.arange(across) + 0.5) / across, (np.arange(down) + 0.5) / down)
    subject, angle, sky = shares[LAYERS.index("subject")], 2 * math.pi * subject_hue(scene), 2 * math.pi * scene.hue
    hue = [math.cos(angle), math.sin(angle)]
    twice = [math.cos(2 * angle), math.sin(2 * angle), math.cos(2 * sky), math.sin(2 * sky)]  # opposite hues agree
    of_subject = [*hue, *twice, scene.clash, facts(scene)["size"]]
    cells = np.stack([*shares, column, row, *(subject * value for value in of_subject)], axis=-1)
    return cells.reshape(down * across, -1).astype(np.float16)


def _draw_and_process(image_processor: Any, seed: int) -> tuple[Scene, NDArray[np.float16], NDArray[np.float16], Any]:
    scene = sample_scene(np.random.default_rng([17, seed]))
    inputs = image_processor(draw_scene(scene), return_tensors="np")
    _, down, across = inputs["image_grid_thw"][0]
    return (
        scene,
        inputs["pixel_values"].astype(np.float16),
        cell_contents(scene, down // 2, across // 2),
        inputs["image_grid_thw"],
    )


def draw_pool(processor: Any, count: int) -> Pool:
    """Draw `count` scenes. A larger count starts with the same scenes."""
    with worker_pool() as workers:
        drawn = list(workers.map(partial(_draw_and_process, processor.image_processor), range(count), chunksize=64))
    scenes, patches, cells, grids = zip(*drawn, strict=True)
    return Pool(
        list(scenes),
        [torch.from_numpy(values) for values in patches],
        [torch.from_numpy(values) for values in cells],
        torch.from_numpy(np.concatenate(grids)),
    )
