"""What each setting beyond the paper does on the demo's scenes, over three seeds: the tables of docs/log.md.

    python bench/beyond.py -o DIR --demos SEEDS_DIR [--seeds 0 1 2] [--arms tie soft …] [--steps 30] [--scenes 400]

SEEDS_DIR holds `seed-N/` as bench/seeds.py writes them: every arm starts from that seed's cold start, on its scenes.
All arms have the same number of steps; each is compared with its own baseline. Arms that are done are not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from aesr1.demo import PREDICT_SETTINGS
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.outputs import write_json
from aesr1.rapo import train
from aesr1.records import Rating, read_rows, write_rows
from seeds import gains

ARMS: dict[str, tuple[str | None, list[str]]] = {
    "paper": (None, []),
    "rounded": (None, []),
    "tie": ("rounded", ["--tie_target", "0.5"]),
    "soft": ("paper", ["--soft_preferences", "true"]),
    "weights": ("paper", ["--reward_weights", "2", "1", "1"]),
    "sigma": ("paper", ["--sigma", "0.2", "--sigma_end", "0.05"]),
    "binary": (None, ["--rewards", "binary", "format"]),
    "resample": ("binary", ["--rewards", "binary", "format", "--dynamic_sampling_rounds", "2"]),
    "across": (None, ["--compare_across_datasets", "true"]),
    "apart": ("across", []),
}
"""Name → baseline, flags over tiny/rapo.yaml. `RATINGS`: which are trained on other ratings than the scenes have."""


def two_sets(rows: list[Rating]) -> list[Rating]:
    """Every second rating comes from a kinder data set: the same order, mapped onto the upper half."""
    return [
        replace(row, domain="kind", score=0.5 + row.score / 2) if number % 2 else row for number, row in enumerate(rows)
    ]


def rounded(rows: list[Rating]) -> list[Rating]:
    """Ratings in tenths, so that many are equal."""
    return [replace(row, score=round(row.score, 1)) for row in rows]


RATINGS = {"across": two_sets, "apart": two_sets, "rounded": rounded, "tie": rounded}


def run_arm(demo: Path, output: Path, arm: str, *, seed: int, steps: int, scenes: int) -> None:
    """Train one arm and let it judge the seed's first held-out scenes."""
    flags = ARMS[arm][1]
    ratings = demo / "train" / "ratings.jsonl"
    if arm in RATINGS:
        made = output / f"{RATINGS[arm].__name__}.jsonl"
        made.parent.mkdir(parents=True, exist_ok=True)
        if not made.exists():
            write_rows(made, RATINGS[arm](read_rows(ratings, Rating)))
        ratings = made
    test = output / "test" / "ratings.jsonl"
    if not test.exists():
        test.parent.mkdir(parents=True, exist_ok=True)
        write_rows(test, read_rows(demo / "test" / "ratings.jsonl", Rating)[:scenes])
    target = output / arm
    if not (target / "aesr1.json").exists():
        pace = ["--max_steps", str(steps), "--validate_every", "0", "--seed", str(seed), "--save_steps", "20"]
        model = ["--model", str(demo / "cold_start"), "--output_dir", str(target)]
        recipe = ["--config", str(files("aesr1.tiny") / "rapo.yaml")]
        train.main([*recipe, "--ratings", str(ratings), *model, *pace, *flags])
    if not (output / "eval" / f"predictions-{arm}.jsonl").exists():
        evaluate_models(
            EvalConfig((test,), ((arm, str(target)),), output / f"eval-{arm}", predict_settings=PREDICT_SETTINGS)
        )
        (output / "eval").mkdir(exist_ok=True)
        (output / f"eval-{arm}" / f"predictions-{arm}.jsonl").rename(output / "eval" / f"predictions-{arm}.jsonl")


def table(folders: list[Path], arms: list[str]) -> str:
    """Gains of each arm over its baseline: mean over seeds with its 95 % interval."""
    lines = ["| arm | over | PLCC | SRCC | MAE |", "|---|---|---|---|---|"]
    found = {}
    for arm in arms:
        base = ARMS[arm][0]
        if base is None:
            continue
        gain = gains(folders, f"eval/{base}", f"eval/{arm}")
        found[arm] = gain
        cells = [
            f"{gain[n]['mean']:+.4f} [{gain[n]['low']:+.4f}, {gain[n]['high']:+.4f}]" for n in ("plcc", "srcc", "mae")
        ]
        lines.append(f"| {arm} | {base} | {' | '.join(cells)} |")
    write_json(folders[0].parent / "beyond.json", found)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--demos", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--scenes", type=int, default=300)
    options = parser.parse_args()
    folders = [options.output / f"seed-{seed}" for seed in options.seeds]
    for arm in options.arms:
        for seed, folder in zip(options.seeds, folders, strict=True):
            demo = options.demos / f"seed-{seed}"
            run_arm(demo, folder, arm, seed=seed, steps=options.steps, scenes=options.scenes)
            rows = [json.loads(line) for line in (folder / arm / "figures.jsonl").open()]
            flat = [row["frac_reward_zero_std"] for row in rows if "frac_reward_zero_std" in row]
            print(f"{arm}, seed {seed}: {sum(flat) / len(flat):.3f} of the groups without spread", flush=True)
    print(table(folders, options.arms))


if __name__ == "__main__":
    main()
