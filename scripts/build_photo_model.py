"""Makes the embedded photo model end to end, seeded, from OASIS's photographs and ratings of beauty.

    python scripts/build_photo_model.py OASIS/ratings.csv -o DIR [--seed 0]

The rows of the split train are trained on and those of val are scored at the end; others are not used. Each stage
is a command that anyone can run on other rated photographs; the same command continues where it was stopped.
DIR/photo_backbone and DIR/photo are what stands in src/aesr1/tiny. Twenty minutes on one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from aesr1.json_lines import read_rows
from aesr1.model.load import load
from aesr1.model.predict import PredictSettings, predict
from aesr1.outputs import write_json
from aesr1.records import Rating
from tiny_model import save_half

SCRIPTS = Path(__file__).parent
RECIPES = SCRIPTS.parent / "recipes"
AESR1 = (sys.executable, "-m", "aesr1")
VIEWS, VOTES = 4, 4
ALL = 1_000_000
"""As many rationales as there are."""


def run(result: Path, *command: object) -> None:
    """Run a command unless its result is there."""
    if not result.exists():
        print("+", *command, file=sys.stderr, flush=True)
        subprocess.run(list(map(str, command)), check=True)


def write_data(table: Path, images: Path, output: Path, *, seed: int) -> None:
    """Ratings, views and rationales: `output` gets ratings/, views/ and rationales/."""
    ratings, views = output / "ratings" / "ratings.jsonl", output / "views" / "ratings.jsonl"
    rationales = output / "rationales" / "rationales.jsonl"
    seeded, pictures = ("--seed", seed), ("--images", images)
    run(ratings, *AESR1, "ratings", "import", "csv", table, *pictures, "-o", ratings.parent, "--scale", 1, 7)
    run(views, *AESR1, "ratings", "views", ratings, "-o", views.parent, "--views", VIEWS, *seeded)
    drawn = ("--votes", VOTES, "--n", ALL, *seeded)
    run(rationales, *AESR1, "cot", "build", views, "-o", rationales.parent, *drawn)


def train(table: Path, images: Path, output: Path, *, seed: int) -> None:
    """Lesson, cold start and RAPO: `output` gets photo_backbone/, cold-start/ and rapo/."""
    backbone, cold, rapo = (output / name for name in ("photo_backbone", "cold-start", "rapo"))
    lesson = (SCRIPTS / "pretrain_photo_backbone.py", table, "--images", images, "-o", backbone, "--seed", seed)
    run(backbone / "aesr1.json", sys.executable, *lesson)
    ratings, rationales = output / "ratings" / "ratings.jsonl", output / "rationales" / "rationales.jsonl"
    quiet = ("--seed", seed, "--report_to", "none")
    recipe = ("--config", RECIPES / "photos-cold-start.yaml", "--model", backbone)
    files = ("--rationales", rationales, "--ratings", ratings, "--output_dir", cold)
    run(cold / "aesr1.json", *AESR1, "sft", *recipe, *files, *quiet)
    recipe = ("--config", RECIPES / "photos-rapo.yaml", "--model", cold)
    files = ("--ratings", output / "views" / "ratings.jsonl", "--output_dir", rapo)
    run(rapo / "aesr1.json", *AESR1, "rapo", *recipe, *files, *quiet)


def judge(output: Path) -> None:
    """Score the split val with the cold start and after RAPO, in both readings: `output` gets judged/."""
    models = [f"--model={name}={output / name}" for name in ("cold-start", "rapo")]
    for reading, options in (("expectation", ()), ("fast", ("--fast",))):
        judged = output / "judged" / reading
        command = (*AESR1, "eval", output / "ratings" / "ratings.jsonl", "--split", "val")
        run(judged / "results.json", *command, *options, *models, "-o", judged)


def export(checkpoint: Path, ratings: list[Rating], output: Path) -> None:
    """The checkpoint in half precision, and how its scores of all rated photographs are distributed."""
    vlm = load(str(checkpoint), device="cpu")
    save_half(vlm.model, vlm.processor, output, stage="rapo")
    vlm = load(str(output), device="cpu", for_scoring=True)
    reference: dict[str, object] = {"set": f"OASIS, {len(ratings)} photographs", "quantiles": "0, .01 … 1"}
    for name, fast in (("expectation", False), ("fast", True)):
        rows = predict(vlm, [rating.image for rating in ratings], PredictSettings(fast=fast))
        scores = [row.score for row in rows if row.score is not None]
        reference[name] = np.quantile(scores, np.linspace(0, 1, 101)).round(4).tolist()
    write_json(output / "reference_scores.json", reference)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--images", type=Path, help="folder of the pictures; default: the folder of the table")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-only", action="store_true", help="ratings, views and rationales, and no training")
    parser.add_argument("--no-export", action="store_true", help="leave out DIR/photo")
    given = parser.parse_args()
    output: Path = given.output
    images = given.images or given.table.parent
    write_data(given.table, images, output, seed=given.seed)
    if given.data_only:
        return
    train(given.table, images, output, seed=given.seed)
    judge(output)
    if not given.no_export and not (output / "photo" / "aesr1.json").exists():
        export(output / "rapo", read_rows(output / "ratings" / "ratings.jsonl", Rating), output / "photo")


if __name__ == "__main__":
    main()
