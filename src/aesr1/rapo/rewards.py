"""RAPO's rewards: pure numpy over the grid of N images × K replies (Aes-R1, equations 3–7).

Scores are 0–1, NaN where the reply was unreadable. Such a reply earns 0 and is in no mean or variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from aesr1.errors import AesError

Grid = NDArray[np.float64]
GAMMA = 1e-6
"""Keeps square roots and the division finite, as in the public code."""


def relative_reward(
    scores: ArrayLike,
    ratings: ArrayLike,
    *,
    domains: Sequence[str] | None = None,
    tie_target: float = 1.0,
    rater_stds: ArrayLike | None = None,
) -> Grid:
    """Thurstone comparison with every other image, scored by fidelity (eq. 3–5). (N, K), in [0, 1 + 2e-3].

        p = Φ((q[i,k] − μ[j]) / √(v[i] + v[j] + γ)),  t = 1 if s[i] > s[j], 0 if s[i] < s[j], `tie_target` if equal
        R[i,k] = mean over j ≠ i of √(p·t + γ) + √((1 − p)(1 − t) + γ)

    scores (N, K), NaN = unreadable; ratings (N,) or (N, 1). μ and v are the mean and unbiased variance of an
    image's readable scores (v = 0 for a single one). Only images of the same domain are compared; an image that
    is compared with none earns 0. tie_target = 1 is the paper's `≥`; with ½ neither image wins.
    rater_stds (N,): the standard deviation d of an image's votes, NaN where unknown. Where both are known, t is the
    preference of one rater of each, Φ((s[i] − s[j]) / √(d[i]² + d[j]²)), instead of 0 or 1 (ours, not the paper's).
    """
    grid, human = _grid_and_column(scores, ratings)
    readable = ~np.isnan(grid)
    count = readable.sum(axis=1)
    filled = np.where(readable, grid, 0.0)
    mean = filled.sum(axis=1) / np.maximum(count, 1)
    deviation = np.where(readable, grid - mean[:, None], 0.0)
    variance = (deviation**2).sum(axis=1) / np.maximum(count - 1, 1)
    compared = (count > 0)[None, :] & ~np.eye(len(grid), dtype=bool)
    if domains is not None:
        if len(domains) != len(grid):
            raise AesError(f"{len(domains)} domains for {len(grid)} images", fix="give one domain an image")
        names = np.asarray(domains)
        compared &= names[:, None] == names[None, :]
    targets = _preferences(human, tie_target, rater_stds)
    width = np.sqrt(variance[:, None] + variance[None, :] + GAMMA)
    comparisons = np.maximum(compared.sum(axis=1), 1)
    reward = np.zeros_like(grid)
    for reply in range(grid.shape[1]):  # one (N, N) plane at a time: K planes would not fit the cache
        p = ndtr((filled[:, reply, None] - mean[None, :]) / width)
        fidelity = np.sqrt(p * targets + GAMMA) + np.sqrt((1 - p) * (1 - targets) + GAMMA)
        reward[:, reply] = np.where(compared, fidelity, 0.0).sum(axis=1) / comparisons
    return np.where(readable, reward, 0.0)


def _preferences(human: NDArray[np.float64], tie_target: float, rater_stds: ArrayLike | None) -> Grid:
    """t[i, j]: the target of the comparison of image i with image j. (N, N), 0–1."""
    difference = human[:, None] - human[None, :]
    hard_targets = np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, tie_target))
    if rater_stds is None:
        return hard_targets
    std = np.asarray(rater_stds, dtype=np.float64)
    if std.shape != human.shape or np.any(std < 0):
        raise AesError(
            f"rater_stds have shape {std.shape} for {len(human)} images, or are below 0",
            fix="give one standard deviation for each image, NaN where it is unknown",
        )
    width = np.hypot(std[:, None], std[None, :])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(width > 0, ndtr(difference / width), hard_targets)


def absolute_reward(scores: ArrayLike, ratings: ArrayLike, *, sigma: float = 0.1) -> Grid:
    """exp(−½(|q − s|/σ)²) + 1e-5 (eq. 6). scores (N, K), NaN = unreadable → 0; ratings (N,) or (N, 1)."""
    grid, human = _grid_and_column(scores, ratings)
    if not sigma > 0:
        raise AesError(f"sigma is {sigma}", fix="give a width above 0 on the 0–1 scale; the paper's is 0.1")
    error = np.abs(grid - human[:, None]) / sigma
    return np.where(np.isnan(grid), 0.0, np.exp(-0.5 * error**2) + 1e-5)


def binary_reward(scores: ArrayLike, ratings: ArrayLike, *, threshold: float = 0.1) -> Grid:
    """1 where |q − s| < threshold, else 0: the ablation's reward (table 2). Shapes as in `absolute_reward`."""
    grid, human = _grid_and_column(scores, ratings)
    with np.errstate(invalid="ignore"):
        return (np.abs(grid - human[:, None]) < threshold).astype(np.float64)


def format_reward(scores: ArrayLike) -> Grid:
    """1 where the reply was readable, else 0. scores (N, K), NaN = unreadable."""
    return (~np.isnan(_grid(scores))).astype(np.float64)


def _grid(scores: ArrayLike) -> Grid:
    grid = np.asarray(scores, dtype=np.float64)
    if grid.ndim != 2 or grid.size == 0:
        raise AesError(f"scores have shape {grid.shape}", fix="give (N images, K replies), at least 1 × 1")
    return grid


def _grid_and_column(scores: ArrayLike, ratings: ArrayLike) -> tuple[Grid, NDArray[np.float64]]:
    grid, human = _grid(scores), np.asarray(ratings, dtype=np.float64)
    if human.shape not in ((len(grid),), (len(grid), 1)):
        raise AesError(f"ratings have shape {human.shape} for {len(grid)} images", fix="give (N,) or (N, 1)")
    human = human.reshape(-1)
    if not np.all((human >= 0) & (human <= 1)):
        raise AesError("a rating lies outside [0, 1] or is NaN", fix="map ratings from their nominal scale to 0–1")
    return grid, human
