"""The backbone's eyes: how they begin, and their own lesson, what is where, before any word.

Through words alone the vision tower did not find the subject in an hour; asked about every cell it does in minutes.
One number in a sentence says little about which of fifty cells showed what.
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
def open_eyes(model: Any, patches: list[torch.Tensor]) -> None:
    """Begin the vision tower as a simple eye instead of at random: contrast first, then its energy.

    The patch embedding begins as principal components of the patches scaled to equal strength: a patch's brightness
    is a hundred times stronger than its grain or the sharpness of its edges, and the first norm divides by it. Kept
    are the strongest and the weakest components; the weakest are colour differences from pixel to pixel, which only
    grain has. The first block's MLP begins as the square of each component, so that the mean over patches shows how
    much of it there is; the mean of the component itself is nothing.
    """
    pixels = torch.cat(patches).float()
    strength, components = torch.linalg.eigh(pixels.T @ pixels / len(pixels))  # rising
    embedding, block = model.model.visual.patch_embed.proj.weight, model.model.visual.blocks[0].mlp
    width = len(embedding)
    kept = torch.cat([torch.arange(width // 4), torch.arange(len(strength) - width * 3 // 4, len(strength))])
    scaled = components[:, kept] / strength[kept].clamp(min=1e-4).sqrt()
    embedding.copy_(0.3 * scaled.T.reshape(embedding.shape))
    signs = torch.cat([torch.eye(width), -torch.eye(width)])  # silu(z)·z is z² on one side only
    block.gate_proj.weight[: 2 * width] = 2 * signs
    block.up_proj.weight[: 2 * width] = 2 * signs
    block.down_proj.weight[:, : 2 * width] = 0.05 * signs.abs().T


def facts_srcc(read: ArrayLike, pool: Pool, chosen: NDArray[np.int64]) -> dict[str, float]:
    """SRCC of each fact, read (n, facts) from n scenes of the pool."""
    true = np.array([list(facts(pool.scenes[i]).values()) for i in chosen])
    columns = zip(FACTS, np.asarray(read).T, true.T, strict=True)
    return {name: round(srcc(guess, human), 3) for (name, *_), guess, human in columns}


class EyeTest(torch.nn.Module):
    """A vision tower and what it is asked: each cell's `look_at`, and the facts from the mean of all cells.

    The readers on top of the tower are thrown away after the lesson.
    """

    def __init__(self, tower: Any, pool: Pool) -> None:
        super().__init__()
        self.tower, self.pool = tower, pool
        width = tower.config.out_hidden_size
        self.cell = torch.nn.Linear(width, pool.cells[0].shape[1])
        self.whole = torch.nn.Sequential(torch.nn.Linear(width, 256), torch.nn.GELU(), torch.nn.Linear(256, len(FACTS)))
        self.facts = torch.tensor([list(facts(scene).values()) for scene in pool.scenes])
        self.spread = self.facts.std(0), torch.cat(pool.cells[:4_000]).float().std(0)

    def forward(self, chosen: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, facts) and (cells, values) as read from n scenes of the pool."""
        pixels, grids = self.pool.pixels(chosen), self.pool.grids[chosen]
        with torch.autocast("cpu", torch.bfloat16):
            seen = self.tower(pixels, grid_thw=grids).pooler_output
        parts = seen.float().split((grids.prod(-1) // 4).tolist())
        return self.whole(torch.stack([part.mean(0) for part in parts])), self.cell(torch.cat(parts))

    def loss(self, chosen: Any) -> torch.Tensor:
        """Squared error of facts and cells, each in units of its own spread."""
        read, seen = self(chosen)
        there = torch.cat([self.pool.cells[i] for i in chosen]).float()
        errors = [(read - self.facts[chosen]) / self.spread[0], (seen - there) / self.spread[1]]
        return torch.stack([error.square().mean() for error in errors]).sum()

    @torch.no_grad()
    def known(self, chosen: Any) -> dict[str, float]:
        """SRCC of each fact over scenes of the pool."""
        read = torch.cat([self(part)[0] for part in np.array_split(chosen, max(1, len(chosen) // 64))])
        return facts_srcc(read, self.pool, chosen)
