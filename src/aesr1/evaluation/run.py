"""Evaluates models: scores the held-out images, then writes results.json and results.md."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError
from aesr1.evaluation.baselines import BASELINES, baseline_predictions
from aesr1.evaluation.compare import by_domain
from aesr1.evaluation.datasets import Study, compare_datasets
from aesr1.evaluation.describe import describe, measure_pictures
from aesr1.evaluation.read_predictions import read_predictions
from aesr1.evaluation.tables import to_markdown, to_results
from aesr1.images.prefetch import prefetch_pool
from aesr1.model.load import load
from aesr1.model.predict import PredictSettings, completed_rows, predict, with_identity
from aesr1.outputs import require_same_settings, write_json, write_run, write_text
from aesr1.progress import progress_bar
from aesr1.records import Appender, Prediction, Rating, ratings_file, ratings_of_split, read_rows


@dataclass(frozen=True)
class EvalConfig:
    """Which ratings and models. Each model is compared with the one before it."""

    ratings: tuple[Path, ...]  # of one data set or several
    models: tuple[tuple[str, str], ...]  # (name in the table, folder or hub id)
    output: Path
    prediction_files: tuple[tuple[str, Path], ...] = ()  # (name in the table, scores that another program made)
    scale: tuple[float, float] = (0.0, 1.0)  # of the scores in those files
    split: str | None = None  # default: of each data set test if it exists, else val
    domains: tuple[str, ...] = ()  # data sets to evaluate on; default: all
    baselines: bool = False  # also score by regressions that are learnt from the split train
    in_domain: tuple[str, ...] = ()  # data sets that the models were trained on: their mean stands apart
    max_pixels: int = MAX_PIXELS
    predict_settings: PredictSettings = field(
        default_factory=PredictSettings
    )  # the paper's: samples=1, temperature 0.6


def evaluate_models(config: EvalConfig) -> Study:
    """Score the split with each model (`predictions-NAME.jsonl`, resumable), then write results.md and results.json."""
    started = time.time()
    ratings = chosen_ratings(config)
    names = [
        *(BASELINES if config.baselines else ()),
        *(name for name, _ in (*config.prediction_files, *config.models)),
    ]
    if not names:
        raise AesError(
            "there is nothing to evaluate",
            fix="name a --model, or a file of scores with --predictions, or take --baselines",
        )
    if len(set(names)) != len(names):
        raise AesError(f"two models have the same name: {', '.join(names)}", fix="name them: --model NAME=FOLDER")
    given = {
        name: read_predictions(file, ratings, name=name, scale=config.scale) for name, file in config.prediction_files
    }
    require_same_settings(config.output, config)
    with prefetch_pool(len(ratings)) as pool:
        predictions = (baseline_predictions(_of_train(config), ratings, pool) if config.baselines else {}) | given
        predictions |= {name: _predictions(config, name, model, ratings, pool) for name, model in config.models}
        explained = [row.image for rows in predictions.values() for row in rows if row.reasoning]
        pictures = measure_pictures(explained, pool)
    study = compare_datasets(ratings, predictions, in_domain=config.in_domain)
    reasons = {name: describe(ratings, rows, pictures) for name, rows in predictions.items()}
    results = to_results(study)
    for name, found in reasons.items():
        results[name]["rationales"] = found and found.to_results()
    write_text(config.output / "results.md", to_markdown(study, reasons) + "\n")
    write_run(config.output, "eval", config, started=started)
    write_json(config.output / "results.json", results)
    return study


def chosen_ratings(config: EvalConfig) -> list[Rating]:
    """The ratings to evaluate on. AesError on a data set or a split that the files do not have."""
    where = ", ".join(str(ratings_file(path)) for path in config.ratings)
    sets = by_domain(_all_ratings(config))
    unknown = [name for name in config.domains if name not in sets]
    if unknown:
        raise AesError(
            f"{where} holds no ratings of {', '.join(unknown)}; it has {', '.join(sets)}", fix="choose one of those"
        )
    chosen = []
    for name in config.domains or sets:
        split = config.split or ("test" if any(row.split == "test" for row in sets[name]) else "val")
        chosen += ratings_of_split(sets[name], split, where=f"{where} ({name})" if len(sets) > 1 else where)
    return chosen


def _all_ratings(config: EvalConfig) -> list[Rating]:
    return [row for path in config.ratings for row in read_rows(ratings_file(path), Rating)]


def _of_train(config: EvalConfig) -> list[Rating]:
    return [row for row in _all_ratings(config) if row.split == "train"]


def _predictions(
    config: EvalConfig, name: str, model: str, ratings: Sequence[Rating], pool: Executor | None
) -> list[Prediction]:
    images = list(dict.fromkeys(rating.image for rating in ratings))  # two data sets may rate one picture
    vlm = load(model, max_pixels=config.max_pixels, for_scoring=True)
    path = config.output / f"predictions-{name}.jsonl"
    with Appender(path) as rows, progress_bar(f"eval {name}", total=len(images)) as progress:
        done = completed_rows(rows, vlm, config.predict_settings, images)
        todo = [image for image in images if image not in done]
        progress.advance(len(done))
        for prediction in predict(vlm, todo, config.predict_settings, pool=pool):
            done[prediction.image] = with_identity(prediction)
            rows.append(done[prediction.image])
            progress.advance(1)
    return [done[image] for image in images]
