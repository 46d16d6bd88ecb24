"""RAPO's rewards for 512 images × 8 replies, against the loop form of the same equations, same numbers.

python bench/rewards.py
"""

from __future__ import annotations

import math
import statistics
import time

import numpy as np

from aesr1.rapo.rewards import GAMMA, absolute_reward, relative_reward

IMAGES, REPLIES, PAIRS = 512, 8, 5
LOOP_IMAGES = 48  # the loops take minutes at 512; their time grows with the square of the images


def by_loops(scores: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Equations 3–5 as they are written."""
    mean, variance = scores.mean(axis=1), scores.var(axis=1, ddof=1)
    reward = np.zeros_like(scores)
    for i in range(len(scores)):
        for k in range(scores.shape[1]):
            total = 0.0
            for j in range(len(scores)):
                if j != i:
                    z = (scores[i, k] - mean[j]) / math.sqrt(variance[i] + variance[j] + GAMMA)
                    p, t = 0.5 * (1 + math.erf(z / math.sqrt(2))), float(ratings[i] >= ratings[j])
                    total += math.sqrt(p * t + GAMMA) + math.sqrt((1 - p) * (1 - t) + GAMMA)
            reward[i, k] = total / (len(scores) - 1)
    return reward


def main() -> None:
    """Print both times and their ratio, measured in turn."""
    rng = np.random.default_rng(0)
    scores, ratings = rng.random((IMAGES, REPLIES)), rng.random(IMAGES)
    few, fewer = scores[:LOOP_IMAGES], ratings[:LOOP_IMAGES]
    relative_reward(few, fewer)
    whole, ratios = [], []
    for _ in range(PAIRS):
        begun = time.perf_counter()
        relative_reward(scores, ratings)
        absolute_reward(scores, ratings)
        whole.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        fast = relative_reward(few, fewer)
        middle = time.perf_counter()
        slow = by_loops(few, fewer)
        ratios.append((time.perf_counter() - middle) / (middle - begun))
    spread = f"{min(whole):.3f}–{max(whole):.3f}"
    print(
        f"{IMAGES} images × {REPLIES} replies: {statistics.median(whole):.3f} s (target < 0.3 s), {PAIRS} runs {spread}"
    )
    times, spread = statistics.median(ratios), f"{min(ratios):.0f}–{max(ratios):.0f}"
    furthest = np.abs(fast - slow).max()
    print(f"{LOOP_IMAGES} images: {times:.0f} × faster than loops ({spread}), largest difference {furthest:.1e}")


if __name__ == "__main__":
    main()
