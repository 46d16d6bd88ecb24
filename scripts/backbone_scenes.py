"""The pictures that the backbone learns from: drawn once, met several times."""

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
    """n scenes as the model meets them."""

    scenes: list[Scene]
    patches: list[torch.Tensor]  # of each (patches, values), float16
    cells: list[torch.Tensor]  # of each (patches / 4, values), float16: `look_at`
    grids: torch.Tensor  # (n, 3): time, rows and columns of patches

    def pixels(self, chosen: NDArray[np.int64]) -> torch.Tensor:
        """(patches, values) float32 of some scenes, one after another."""
        return torch.cat([self.patches[i] for i in chosen]).float()


def look_at(scene: Scene, down: int, across: int) -> NDArray[np.float16]:
    """(down × across, values) what each cell of a scene shows, row by row, in numbers within −1 and 1.

    The share of each layer, the cell's column and row, and times the subject's share its colours, clash and size.
    """
    layers = draw_layers(scene)
    shares = [
        np.asarray(Image.fromarray((layers == number).astype(np.float32)).resize((across, down), Image.Resampling.BOX))
        for number in range(len(LAYERS))
    ]
    column, row = np.meshgrid((np.arange(across) + 0.5) / across, (np.arange(down) + 0.5) / down)
    subject, turn, sky = shares[LAYERS.index("subject")], 2 * math.pi * subject_hue(scene), 2 * math.pi * scene.hue
    hue = [math.cos(turn), math.sin(turn)]
    twice = [math.cos(2 * turn), math.sin(2 * turn), math.cos(2 * sky), math.sin(2 * sky)]  # opposite hues agree
    of_subject = [*hue, *twice, scene.clash, facts(scene)["size"]]
    cells = np.stack([*shares, column, row, *(subject * value for value in of_subject)], axis=-1)
    return cells.reshape(down * across, -1).astype(np.float16)


def _draw(image_processor: Any, seed: int) -> tuple[Scene, NDArray[np.float16], NDArray[np.float16], Any]:
    scene = sample_scene(np.random.default_rng([17, seed]))
    view = image_processor(draw_scene(scene), return_tensors="np")
    _, down, across = view["image_grid_thw"][0]
    return (
        scene,
        view["pixel_values"].astype(np.float16),
        look_at(scene, down // 2, across // 2),
        view["image_grid_thw"],
    )


def draw_pool(processor: Any, count: int) -> Pool:
    """Draw so many scenes; the same count begins with the same scenes."""
    with worker_pool() as workers:
        drawn = list(workers.map(partial(_draw, processor.image_processor), range(count), chunksize=64))
    scenes, patches, cells, grids = zip(*drawn, strict=True)
    return Pool(
        list(scenes),
        [torch.from_numpy(values) for values in patches],
        [torch.from_numpy(values) for values in cells],
        torch.from_numpy(np.concatenate(grids)),
    )
