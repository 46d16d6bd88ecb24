"""How well the measures of a picture follow what is known of it, over drawn scenes; prints a Markdown table.

PYTHONPATH=src:scripts python bench/measure_on_scenes.py [-n 500] [--seed 5]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from aesr1.aescot.measured_facts import SCENES, facts_of
from aesr1.aescot.phrases import PictureFacts
from aesr1.images.measure import MEASURE_NAMES, as_vector, measure
from aesr1.tiny.scenes import draw_scene, sample_scene
from pretrain_backbone import scene_findings

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
"""A scene's property, the measure that should follow it, and the sign it should follow it with."""


def main() -> None:
    """Draw, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=500, help="scenes")
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    scenes = [sample_scene(rng) for _ in range(arguments.n)]
    pictures = [draw_scene(scene) for scene in scenes]
    begun = time.perf_counter()
    measured = [measure(picture) for picture in pictures]
    milliseconds = (time.perf_counter() - begun) / arguments.n * 1000
    values = np.stack([as_vector(row) for row in measured])
    print(f"{arguments.n} scenes, seed {arguments.seed}, {milliseconds:.1f} ms a picture\n")
    print("| truth | measure | SRCC |\n|---|---|---|")
    for truth, name, sign in PAIRS:
        known = _known([vars(scene) for scene in scenes], truth)
        column = values[:, MEASURE_NAMES.index(name)]
        column = np.abs(column) if truth.startswith("|") else column
        print(f"| {truth} | {name} | {sign * spearmanr(known, column)[0]:.3f} |")
    seen = [facts_of(row, thresholds=SCENES) for row in measured]
    _print_agreement([scene_findings(scene) for scene in scenes], seen)


def _known(scenes: list[dict[str, float]], truth: str) -> NDArray[np.float64]:
    """(n,) values of one property; the warmth of a hue is its nearness to red."""
    if truth == "warm hue":
        return np.cos(2 * np.pi * np.array([scene["hue"] for scene in scenes]))
    column = np.array([scene[truth.strip("|")] for scene in scenes])
    return np.abs(column) if truth.startswith("|") else column


def _print_agreement(truth: list[PictureFacts], seen: list[PictureFacts]) -> None:
    """Share of equal steps, of steps at most one apart, and what the commonest step alone would reach."""
    print("\n| finding | equal | at most one apart | commonest step |\n|---|---|---|---|")
    for name in vars(truth[0]):
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(truth, seen, strict=True)]
        equal = np.mean([one == other for one, other in pairs])
        known = [one for one, _ in pairs]
        commonest = max(known.count(step) for step in set(known)) / len(known)
        near = "–" if isinstance(known[0], str) else f"{np.mean([abs(one - other) < 2 for one, other in pairs]):.2f}"
        print(f"| {name} | {equal:.2f} | {near} | {commonest:.2f} |")


if __name__ == "__main__":
    main()
