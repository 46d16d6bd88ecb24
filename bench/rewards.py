"""Time of RAPO's rewards for 512 images × 8 replies, compared with loops over the same equations.

python bench/rewards.py
"""

from __future__ import annotations

import math
import statistics
import time

import numpy as np

from aesr1.rapo.rewards import GAMMA, absolute_reward, relative_reward

IMAGES, REPLIES, PAIRS = 512, 8, 5
LOOP_IMAGES = 48  # loops over 512 images take minutes; the time is quadratic in the images


def by_loops(scores: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Equations 3–5 as loops."""
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
    """Print both times and their ratio, measured in alternation."""
    rng = np.random.default_rng(0)
    scores, ratings = rng.random((IMAGES, REPLIES)), rng.random(IMAGES)
    some_scores, some_ratings = scores[:LOOP_IMAGES], ratings[:LOOP_IMAGES]
    relative_reward(some_scores, some_ratings)
    seconds, ratios = [], []
    for _ in range(PAIRS):
        start = time.perf_counter()
        relative_reward(scores, ratings)
        absolute_reward(scores, ratings)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        fast = relative_reward(some_scores, some_ratings)
        middle = time.perf_counter()
        slow = by_loops(some_scores, some_ratings)
        ratios.append((time.perf_counter() - middle) / (middle - start))
    span = f"{min(seconds):.3f}–{max(seconds):.3f}"
    print(
        f"{IMAGES} images × {REPLIES} replies: {statistics.median(seconds):.3f} s (target < 0.3 s), {PAIRS} runs {span}"
    )
    times, span = statistics.median(ratios), f"{min(ratios):.0f}–{max(ratios):.0f}"
    largest = np.abs(fast - slow).max()
    print(f"{LOOP_IMAGES} images: {times:.0f} × faster than loops ({span}), largest difference {largest:.1e}")


if __name__ == "__main__":
    main()
