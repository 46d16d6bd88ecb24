"""The vision tower of the backbone: its initial weights, and its first lesson, the content of each image cell.

Trained through text alone, the tower did not find the subject in an hour; trained on every cell, it does in minutes.
One number in a sentence says little about which of fifty cells shows what.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from aesr1.metrics import srcc
from aesr1.tiny.scenes import FACTS, facts
from backbone_scenes import Pool


@torch.no_grad()
def initialise_vision(model: Any, patches: list[torch.Tensor]) -> None:
    """Set initial weights of the vision tower that work better than random ones.

    Patch embedding: principal components of the patches, scaled to equal strength. Without scaling, the brightness of
    a patch is a hundred times stronger than its grain or its edges, and the first norm divides by it. The strongest
    and the weakest components are used; the weakest are colour differences between pixels, which only grain has.
    MLP of the first block: the square of each component, because the mean of a component over patches is near zero,
    but the mean of its square shows how strong it is.
    """
    pixels = torch.cat(patches).float()
    strength, components = torch.linalg.eigh(pixels.T @ pixels / len(pixels))  # in increasing order
    embedding, block = model.model.visual.patch_embed.proj.weight, model.model.visual.blocks[0].mlp
    width = len(embedding)
    kept = torch.cat([torch.arange(width // 4), torch.arange(len(strength) - width * 3 // 4, len(strength))])
    scaled = components[:, kept] / strength[kept].clamp(min=1e-4).sqrt()
    embedding.copy_(0.3 * scaled.T.reshape(embedding.shape))
    signs = torch.cat([torch.eye(width), -torch.eye(width)])  # silu(z)·z is z² on one side only
    block.gate_proj.weight[: 2 * width] = 2 * signs
    block.up_proj.weight[: 2 * width] = 2 * signs
    block.down_proj.weight[:, : 2 * width] = 0.05 * signs.abs().T


def facts_srcc(predicted: ArrayLike, pool: Pool, chosen: NDArray[np.int64]) -> dict[str, float]:
    """SRCC of each fact, predicted (n, facts) for n scenes of the pool."""
    true = np.array([list(facts(pool.scenes[i]).values()) for i in chosen])
    columns = zip(FACTS, np.asarray(predicted).T, true.T, strict=True)
    return {name: round(srcc(guess, human), 3) for (name, *_), guess, human in columns}


class VisionTask(torch.nn.Module):
    """A vision tower with two heads: the `cell_contents` of each cell, and the facts from the mean of all cells.

    The heads are not kept after the lesson.
    """

    def __init__(self, tower: Any, pool: Pool) -> None:
        super().__init__()
        self.tower, self.pool = tower, pool
        width = tower.config.out_hidden_size
        self.cell = torch.nn.Linear(width, pool.cells[0].shape[1])
        self.whole = torch.nn.Sequential(torch.nn.Linear(width, 256), torch.nn.GELU(), torch.nn.Linear(256, len(FACTS)))
        self.facts = torch.tensor([list(facts(scene).values()) for scene in pool.scenes])
        self.std = self.facts.std(0), torch.cat(pool.cells[:4_000]).float().std(0)

    def forward(self, chosen: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The predicted (n, facts) and (cells, values) of n scenes of the pool."""
        pixels, grids = self.pool.pixels(chosen), self.pool.grids[chosen]
        with torch.autocast("cpu", torch.bfloat16):
            features = self.tower(pixels, grid_thw=grids).pooler_output
        parts = features.float().split((grids.prod(-1) // 4).tolist())
        return self.whole(torch.stack([part.mean(0) for part in parts])), self.cell(torch.cat(parts))

    def loss(self, chosen: Any) -> torch.Tensor:
        """Squared error of facts and cells, each divided by its standard deviation."""
        facts_predicted, cells_predicted = self(chosen)
        cells = torch.cat([self.pool.cells[i] for i in chosen]).float()
        errors = [(facts_predicted - self.facts[chosen]) / self.std[0], (cells_predicted - cells) / self.std[1]]
        return torch.stack([error.square().mean() for error in errors]).sum()

    @torch.no_grad()
    def srcc(self, chosen: Any) -> dict[str, float]:
        """SRCC of each fact over scenes of the pool."""
        predicted = torch.cat([self(part)[0] for part in np.array_split(chosen, max(1, len(chosen) // 64))])
        return facts_srcc(predicted, self.pool, chosen)
