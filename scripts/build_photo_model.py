"""Makes the embedded photo model end to end, seeded, from OASIS's photographs and ratings of beauty.

    python scripts/build_photo_model.py OASIS -o DIR [--seed 0]

OASIS is the folder with ratings.csv and images/. Each stage is a command that anyone
can run on other rated photographs; the same command continues where it was stopped. DIR/photo_backbone and DIR/photo
are what stands in src/aesr1/tiny. The stages after the backbone use the embedded one: copy DIR/photo_backbone there
first if it was made anew. DIR/photo is the cold start: on so few photographs RAPO has made the order worse so far
(docs/results.md).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from aesr1.model.load import load
from aesr1.model.predict import PredictSettings, predict
from aesr1.outputs import write_json
from aesr1.records import Rating, read_rows
from tiny_model import save_half

SCRIPTS = Path(__file__).parent
RECIPES = SCRIPTS.parent / "recipes"
VIEWS, VOTES, RATIONALES = 8, 4, 4_500


def run(result: Path, *command: object) -> None:
    """Run a command unless its result is there."""
    if not result.exists():
        print("+", *command, file=sys.stderr, flush=True)
        subprocess.run(list(map(str, command)), check=True)


def build(oasis: Path, output: Path, *, seed: int) -> None:
    """All stages."""
    aesr1 = (sys.executable, "-m", "aesr1")
    ratings, views = output / "ratings" / "ratings.jsonl", output / "views" / "ratings.jsonl"
    backbone, rationales = output / "photo_backbone", output / "rationales" / "rationales.jsonl"
    cold = output / "cold-start"
    made = SCRIPTS / "pretrain_photo_backbone.py"
    run(backbone / "aesr1.json", sys.executable, made, oasis / "ratings.csv", "-o", backbone, "--seed", seed)
    run(ratings, *aesr1, "ratings", "import", "csv", oasis / "ratings.csv", "-o", ratings.parent, "--scale", 1, 7)
    run(views, *aesr1, "ratings", "views", ratings, "-o", views.parent, "--views", VIEWS, "--seed", seed)
    drawn = ("--votes", VOTES, "--n", RATIONALES, "--seed", seed)
    run(rationales, *aesr1, "cot", "build", views, "-o", rationales.parent, *drawn)
    seeded = ("--seed", seed, "--report_to", "none")
    recipe = ("--config", RECIPES / "photos-cold-start.yaml", "--rationales", rationales, "--ratings", ratings)
    run(cold / "aesr1.json", *aesr1, "sft", *recipe, "--output_dir", cold, *seeded)
    if not (output / "photo" / "aesr1.json").exists():
        export(cold, read_rows(ratings, Rating), output / "photo")


def export(checkpoint: Path, ratings: list[Rating], output: Path) -> None:
    """The checkpoint in half precision, and how its scores of all rated photographs are distributed."""
    vlm = load(str(checkpoint), device="cpu")
    save_half(vlm.model, vlm.processor, output, stage="cold start")
    vlm = load(str(output), device="cpu")
    reference: dict[str, object] = {"set": f"OASIS, {len(ratings)} photographs", "quantiles": "0, .01 … 1"}
    for name, fast in (("expectation", False), ("fast", True)):
        rows = predict(vlm, [rating.image for rating in ratings], PredictSettings(fast=fast))
        scores = [row.score for row in rows if row.score is not None]
        reference[name] = np.quantile(scores, np.linspace(0, 1, 101)).round(4).tolist()
    write_json(output / "reference_scores.json", reference)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oasis", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    build(given.oasis, given.output, seed=given.seed)


if __name__ == "__main__":
    main()
