"""Evaluates models: scores the held-out images, then writes results.md, results.html and results.json."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from aesr1.contract import MAX_PIXELS
from aesr1.endpoint.endpoint_judge import is_address
from aesr1.endpoint.profile import AESR1, Profile, load_profile
from aesr1.errors import AesError
from aesr1.evaluation.baselines import BASELINES, baseline_predictions
from aesr1.evaluation.compare import by_domain
from aesr1.evaluation.datasets import Study, compare_datasets
from aesr1.evaluation.describe import describe, measure_pictures
from aesr1.evaluation.judge import judge_of, judged_rows
from aesr1.evaluation.page import write_page
from aesr1.evaluation.provenance import provenance
from aesr1.evaluation.read_predictions import read_predictions
from aesr1.evaluation.reason_judge import judge_reasons
from aesr1.evaluation.tables import to_markdown, to_results
from aesr1.images.prefetch import prefetch_pool
from aesr1.json_lines import ratings_file, read_rows
from aesr1.model.predict import PredictSettings
from aesr1.outputs import require_same_settings, write_json, write_run, write_text
from aesr1.records import Prediction, Rating, ratings_of_split
from aesr1.terminal import say


@dataclass(frozen=True)
class EvalConfig:
    """Which ratings and models. Each model is compared with the one before it."""

    ratings: tuple[Path, ...]  # of one data set or several
    models: tuple[tuple[str, str], ...]  # (name in the table, folder, hub id, or the address of a server)
    output: Path
    prediction_files: tuple[tuple[str, Path], ...] = ()  # (name in the table, scores that another program made)
    scale: tuple[float, float] = (0.0, 1.0)  # of the scores in those files
    split: str | None = None  # default: of each data set test if it exists, else val
    domains: tuple[str, ...] = ()  # data sets to evaluate on; default: all
    baselines: bool = False  # also score by regressions that are learnt from the split train
    in_domain: tuple[str, ...] = ()  # data sets that the models were trained on: their mean stands apart
    reason_judge: str | None = None  # the address of a server that is asked whether the reasons are true
    profiles: tuple[tuple[str, str], ...] = ()  # (name of a model or "" for all, profile); default: the contract's
    max_pixels: int = MAX_PIXELS  # under the contract; a profile has its own
    predict_settings: PredictSettings = field(
        default_factory=PredictSettings
    )  # the paper's: samples=1, temperature 0.6


def evaluate_models(config: EvalConfig) -> Study:
    """Score the split with each model (`predictions-NAME.jsonl`, resumable), then write results.md, .html and .json."""
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
    profiles = chosen_profiles(config)
    given = {
        name: read_predictions(file, ratings, name=name, scale=config.scale) for name, file in config.prediction_files
    }
    require_same_settings(config.output, config)
    images = list(dict.fromkeys(rating.image for rating in ratings))  # two data sets may rate one picture
    with prefetch_pool(len(ratings)) as pool:
        predictions = (baseline_predictions(_of_train(config), ratings, pool) if config.baselines else {}) | given
        for name, model in config.models:
            judge = judge_of(model, profiles[name], config.predict_settings)
            path = config.output / f"predictions-{name}.jsonl"
            predictions[name] = judged_rows(judge, images, path, pool, title=f"eval {name}")
            _warn_of_no_score(name, profiles[name], predictions[name])
        explained = [row.image for rows in predictions.values() for row in rows if row.reasoning]
        pictures = measure_pictures(explained, pool)
        study = compare_datasets(ratings, predictions, in_domain=config.in_domain)
        reasons = {name: describe(ratings, rows, pictures) for name, rows in predictions.items()}
        if config.reason_judge:
            of_rows = partial(
                judge_reasons, config.reason_judge, config.predict_settings, output=config.output, pool=pool
            )
            reasons = {
                name: found and replace(found, judged=of_rows(name, predictions[name]))
                for name, found in reasons.items()
            }
        made_with = provenance(_files(config))
        page = config.output / "results.html"
        write_page(page, study, ratings, predictions, reasons, made_with, pool=pool)
    results = to_results(study)
    for name, found in reasons.items():
        results[name]["rationales"] = found and found.to_results()
    write_text(config.output / "results.md", to_markdown(study, reasons) + "\n")
    write_run(config.output, "eval", config, started=started, **asdict(made_with))
    write_json(config.output / "results.json", results)
    return study


def read_evaluation(folder: Path) -> tuple[list[Rating], dict[str, list[Prediction]]]:
    """The ratings and the models' predictions of a finished evaluation. AesError where the folder is none."""
    try:
        settings = json.loads((folder / "run.json").read_text())["config"]
        ratings, models = (
            tuple(map(Path, settings["ratings"])),
            tuple((name, model) for name, model in settings["models"]),
        )
        config = EvalConfig(ratings, models, folder, split=settings["split"], domains=tuple(settings["domains"]))
    except (OSError, ValueError, KeyError) as error:
        raise AesError(f"{folder} is no finished evaluation", fix="name the output folder of aesr1 eval") from error
    rows = {name: read_rows(folder / f"predictions-{name}.jsonl", Prediction) for name, _ in models}
    return chosen_ratings(config), rows


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


def _files(config: EvalConfig) -> list[Path]:
    """The files of ratings and of predictions that the results come from."""
    own = [config.output / f"predictions-{name}.jsonl" for name, _ in config.models]
    return [*map(ratings_file, config.ratings), *(file for _, file in config.prediction_files), *own]


def _all_ratings(config: EvalConfig) -> list[Rating]:
    return [row for path in config.ratings for row in read_rows(ratings_file(path), Rating)]


def _of_train(config: EvalConfig) -> list[Rating]:
    return [row for row in _all_ratings(config) if row.split == "train"]


def chosen_profiles(config: EvalConfig) -> dict[str, Profile]:
    """The profile of each model. AesError on one that does not exist or is broken, and on a name that is no model's."""
    settings, names = config.predict_settings, [name for name, _ in config.models]
    chosen = dict.fromkeys(names, AESR1.name)
    for name, profile in sorted(config.profiles, key=lambda pair: bool(pair[0])):  # those for all come first
        if name and name not in names:
            raise AesError(
                f"there is no model {name} to ask by profile {profile}", fix=f"name one of {', '.join(names)}"
            )
        chosen |= dict.fromkeys([name] if name else names, profile)
    profiles = {name: load_profile(profile) for name, profile in chosen.items()}
    for name, model in config.models:
        ours = profiles[name].reading == "contract"
        if (settings.samples or settings.fast) and (is_address(model) or not ours):
            raise AesError(
                f"{name} is asked by profile {profiles[name].name}{' at a server' if is_address(model) else ''}, "
                "which has no fast and no samples",
                fix="evaluate it in a folder of its own, without --fast and --samples",
            )
        if ours:
            profiles[name] = replace(
                profiles[name], max_pixels=config.max_pixels, max_new_tokens=settings.max_new_tokens
            )
    return profiles


def _warn_of_no_score(name: str, profile: Profile, rows: Sequence[Prediction]) -> None:
    if all(row.score is None for row in rows):
        first = next((row.reply for row in rows if row.reply), None)
        what = f"the first error: {rows[0].error}" if first is None else f"the first reply: {first[:300]!r}"
        say(f"{name}: 0 of {len(rows):,} pictures have a score by profile {profile.name}; {what}")
