"""The whole loop on real rated photographs from the embedded backbone, beside two baselines on the same rows.

    python bench/photographs.py RATINGS.csv -o DIR --scale 1 7

Made for a few hundred pictures (OASIS beauty: 445 train, 108 val). Baselines: the mean of the training ratings, and
ridge regression on the sixteen measures of `aesr1.images.measure`. Whatever the table says is the result. Every stage
resumes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from aesr1 import cold_start
from aesr1.aescot.build import build
from aesr1.aescot.settings import CotConfig
from aesr1.demo import PREDICT_SETTINGS
from aesr1.evaluation.datasets import compare_datasets
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.evaluation.tables import to_markdown, to_results
from aesr1.images.load import open_image
from aesr1.images.measure import as_vector, measure
from aesr1.model.load import BACKBONE
from aesr1.outputs import write_json
from aesr1.rapo import train
from aesr1.ratings.own_table import CsvConfig, import_csv
from aesr1.records import Prediction, Rating, ratings_of_split, read_rows

PENALTIES = np.logspace(-2, 3, 26)


def ridge(train_rows: list[Rating], test_rows: list[Rating]) -> np.ndarray:
    """Scores of the test rows by ridge regression on the measures; the penalty by ten-fold cross-validation."""
    features = {row.image: as_vector(measure(open_image(row.image))) for row in (*train_rows, *test_rows)}
    known = np.array([features[row.image] for row in train_rows])
    centre, scale = known.mean(axis=0), known.std(axis=0) + 1e-9
    known = (known - centre) / scale
    human = np.array([row.score for row in train_rows])

    def fit(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
        return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean()))

    fold = np.arange(len(known)) % 10

    def error(penalty: float) -> float:
        left = 0.0
        for part in range(10):
            rest = fold != part
            guess = known[~rest] @ fit(known[rest], human[rest], penalty) + human[rest].mean()
            left += float(((guess - human[~rest]) ** 2).sum())
        return left

    weights = fit(known, human, min(PENALTIES, key=error))
    asked = (np.array([features[row.image] for row in test_rows]) - centre) / scale
    return np.clip(asked @ weights + human.mean(), 0, 1)


def main() -> None:
    """Run every stage that is not done yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--scale", type=float, nargs=2)
    parser.add_argument("--epochs", type=int, default=8, help="of the cold start")
    parser.add_argument("--steps", type=int, default=40, help="of RAPO")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    output, seed = arguments.output, str(arguments.seed)
    ratings = output / "ratings" / "ratings.jsonl"
    if not ratings.exists():
        scale = tuple(arguments.scale) if arguments.scale else None
        import_csv(CsvConfig(arguments.ratings, output / "ratings", scale=scale))
    rationales = output / "cot" / "rationales.jsonl"
    if not rationales.exists():
        print(build(CotConfig(ratings, output / "cot", n=300)))
    recipes = files("aesr1.tiny")
    started, trained = output / "cold_start", output / "rapo"
    if not (started / "aesr1.json").exists():
        place = ["--output_dir", str(started), "--seed", seed]
        data = ["--rationales", str(rationales), "--num_train_epochs", str(arguments.epochs)]
        cold_start.main(["--config", str(recipes / "cold_start.yaml"), *data, *place])
    if not (trained / "aesr1.json").exists():
        data = ["--ratings", str(ratings), "--model", str(started), "--max_steps", str(arguments.steps)]
        place = ["--output_dir", str(trained), "--seed", seed]
        train.main(["--config", str(recipes / "rapo.yaml"), *data, *place])
    models = (("backbone", BACKBONE), ("cold_start", str(started)), ("rapo", str(trained)))
    evaluate_models(EvalConfig((ratings,), models, output / "eval", split="val", predict_settings=PREDICT_SETTINGS))
    rows = read_rows(ratings, Rating)
    known, asked = ratings_of_split(rows, "train", where=ratings), ratings_of_split(rows, "val", where=ratings)
    predictions = {name: read_rows(output / "eval" / f"predictions-{name}.jsonl", Prediction) for name, _ in models}
    mean = float(np.mean([row.score for row in known]))
    baselines = {"mean of train": np.full(len(asked), mean), "ridge on measures": ridge(known, asked)}
    for name, scores in baselines.items():
        template = replace(predictions["rapo"][0], model=name, revision="-", readable=True, reply="", reasoning=None)
        predictions[name] = [
            replace(template, image=row.image, score=float(score)) for row, score in zip(asked, scores, strict=True)
        ]
    study = compare_datasets(asked, predictions)
    write_json(output / "results.json", to_results(study))
    print(to_markdown(study))


if __name__ == "__main__":
    main()
