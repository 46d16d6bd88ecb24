"""Judge models against human ratings: score the held-out images, compare, write results.json and results.md."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aesr1.errors import AesError
from aesr1.evaluation.compare import Comparison, compare, to_markdown, to_results
from aesr1.predict import PredictSettings, predict
from aesr1.progress import bar
from aesr1.records import Appender, Prediction, Rating, of_split, read_rows, write_json, write_run
from aesr1.vlm import MAX_PIXELS, load


@dataclass(frozen=True)
class EvalConfig:
    """Which ratings and models. Several models are compared in the order given, each with the one before."""

    ratings: Path
    models: tuple[tuple[str, str], ...]  # (name in the table, folder or hub id)
    output: Path
    split: str = "test"
    max_pixels: int = MAX_PIXELS
    batch_size: int = 16
    max_new_tokens: int = 512


def evaluate_models(config: EvalConfig) -> Comparison:
    """Score the split with each model (`predictions-NAME.jsonl`, resumed), then write the table."""
    started = time.time()
    ratings = of_split(read_rows(config.ratings, Rating), config.split, where=config.ratings)
    names = [name for name, _ in config.models]
    if len(set(names)) != len(names):
        raise AesError(
            f"two models are called the same: {', '.join(names)}", fix="give them names: --model NAME=FOLDER"
        )
    predictions = {name: _predictions(config, name, model, ratings) for name, model in config.models}
    comparison = compare(ratings, predictions)
    write_json(config.output / "results.json", to_results(comparison))
    (config.output / "results.md").write_text(to_markdown(comparison) + "\n", encoding="utf-8")
    write_run(config.output, "eval", config, started=started)
    return comparison


def _predictions(config: EvalConfig, name: str, model: str, ratings: Sequence[Rating]) -> list[Prediction]:
    vlm = load(model, max_pixels=config.max_pixels)
    path = config.output / f"predictions-{name}.jsonl"
    done = {row.image: row for row in read_rows(path, Prediction)} if path.exists() else {}
    if any(row.revision != vlm.revision for row in done.values()):
        raise AesError(f"{path} was written by another revision of {name}", fix="choose another output folder")
    todo = [rating.image for rating in ratings if rating.image not in done]
    settings = PredictSettings(batch_size=config.batch_size, max_new_tokens=config.max_new_tokens)
    with Appender(path) as rows, bar(f"eval {name}", total=len(ratings)) as progress:
        progress.advance(len(done))
        for prediction in predict(vlm, todo, settings):
            rows.append(prediction)
            done[prediction.image] = prediction
            progress.advance(1)
    return [done[rating.image] for rating in ratings]
