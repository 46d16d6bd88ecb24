"""How well the measures of a picture agree with its true properties, on drawn scenes; prints Markdown tables.

PYTHONPATH=scripts python bench/measure_on_scenes.py [-n 500] [--seed 5]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from aesr1.facts.measured_facts import SCENES, PictureFacts, facts_of
from aesr1.images.measure import MEASURE_NAMES, as_vector, measure
from aesr1.tiny.scenes import draw_scene, sample_scene
from pretrain_backbone import scene_facts

PAIRS = (
    ("exposure", "exposure", 1),
    ("contrast", "contrast", 1),
    ("saturation", "saturation", 1),
    ("blur", "sharpness", -1),
    ("noise", "grain", 1),
    ("tilt", "tilt", 1),
    ("|tilt|", "tilt", 1),
    ("clutter", "clutter", 1),
    ("x", "subject_x", 1),
    ("y", "subject_y", 1),
    ("clash", "clash", 1),
    ("warm hue", "warmth", 1),
)
"""A property of the scene, its measure, and the expected sign of their correlation."""


def main() -> None:
    """Draw scenes, measure them, print the agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=500, help="scenes")
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    scenes = [sample_scene(rng) for _ in range(arguments.n)]
    pictures = [draw_scene(scene) for scene in scenes]
    start = time.perf_counter()
    measured = [measure(picture) for picture in pictures]
    milliseconds = (time.perf_counter() - start) / arguments.n * 1000
    values = np.stack([as_vector(row) for row in measured])
    print(f"{arguments.n} scenes, seed {arguments.seed}, {milliseconds:.1f} ms a picture\n")
    print("| truth | measure | SRCC |\n|---|---|---|")
    for truth, name, sign in PAIRS:
        true = _property([vars(scene) for scene in scenes], truth)
        column = values[:, MEASURE_NAMES.index(name)]
        column = np.abs(column) if truth.startswith("|") else column
        print(f"| {truth} | {name} | {sign * spearmanr(true, column)[0]:.3f} |")
    facts = [facts_of(row, thresholds=SCENES) for row in measured]
    _print_agreement([scene_facts(scene) for scene in scenes], facts)


def _property(scenes: list[dict[str, float]], truth: str) -> NDArray[np.float64]:
    """(n,) values of one property; a hue is warm if it is near red."""
    if truth == "warm hue":
        return np.cos(2 * np.pi * np.array([scene["hue"] for scene in scenes]))
    column = np.array([scene[truth.strip("|")] for scene in scenes])
    return np.abs(column) if truth.startswith("|") else column


def _print_agreement(truth: list[PictureFacts], measured: list[PictureFacts]) -> None:
    """Share of equal steps, of steps that differ by at most one, and the share of the most common step."""
    print("\n| fact | equal | differ by at most one | most common step |\n|---|---|---|---|")
    for name in vars(truth[0]):
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(truth, measured, strict=True)]
        equal = np.mean([one == other for one, other in pairs])
        steps = [one for one, _ in pairs]
        most_common = max(steps.count(step) for step in set(steps)) / len(steps)
        near = "–" if isinstance(steps[0], str) else f"{np.mean([abs(one - other) < 2 for one, other in pairs]):.2f}"
        print(f"| {name} | {equal:.2f} | {near} | {most_common:.2f} |")


if __name__ == "__main__":
    main()
