"""Cross-validation of the photo model: every photograph is judged by models that have not seen it.

    python bench/photo_folds.py OASIS/ratings.csv -o DIR [--seeds 0 1 2] [--parts fold-0 … people things] [--jobs 2]

A part is what is held out: a fifth of the themes (fold-0 to fold-4), all persons and animals (people), or all scenes
and objects (things). For each, `scripts/build_photo_model.py` runs on the rest, from the first lesson on; views and
rationales, which know one picture each, are made once for a seed. A run that was stopped goes on. For each seed, the
folds together and each category part: agreement with people, gains, and what the reasons say; then means over seeds.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesr1.aescot.subjects import KINDS, PERSON, SUBJECTS
from aesr1.evaluation.reasons import text_follows_picture
from aesr1.facts.claims import claims_of
from aesr1.facts.measured_facts import measure_facts
from aesr1.images.load import open_image
from aesr1.images.measure import as_vector, measure
from aesr1.intervals import Interval, bootstrap, paired_bootstrap, seeds_bootstrap
from aesr1.json_lines import read_rows, write_rows
from aesr1.metrics import mae, plcc, srcc
from aesr1.records import Prediction, Rating, Rationale
from photo_ridge import PENALTY, mean_features, ridge
from photo_table import FOLDS, PhotoTable, read_table

BUILD = Path(__file__).parent.parent / "scripts" / "build_photo_model.py"
CATEGORIES = {"people": ("person", "animal"), "things": ("scene", "object")}
MODELS, READINGS = ("cold-start", "rapo"), ("expectation", "fast")
METRICS = (plcc, srcc, mae)


def held_out(table: PhotoTable) -> dict[str, NDArray[np.bool_]]:
    """(n,) for each part: the photographs that its models do not see."""
    parts = {f"fold-{number}": table.fold == number for number in range(FOLDS)}
    return parts | {name: np.isin(table.of("category"), kinds) for name, kinds in CATEGORIES.items()}


def build(images: Path, folder: Path, seed: int, threads: int, *options: str) -> None:
    """Run the script that makes the photo model, its log in `folder`."""
    command = [sys.executable, BUILD, folder / "ratings.csv", "--images", images, "-o", folder, "--seed", seed]
    with (folder / "log.txt").open("a") as log:
        subprocess.run(
            [*map(str, command), *options],
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            check=True,
        )


def write_table(table: PhotoTable, out: NDArray[np.bool_], folder: Path) -> None:
    """The table with the held-out photographs as the split val."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table.rows[0]))
        writer.writeheader()
        writer.writerows(row | {"split": "val" if held else "train"} for row, held in zip(table.rows, out, strict=True))


def write_part(whole: Path, out: NDArray[np.bool_], folder: Path) -> None:
    """The views and rationales of the photographs that are not held out, from those of all photographs."""
    if (folder / "rationales" / "rationales.jsonl").exists():
        return
    views = read_rows(whole / "views" / "ratings.jsonl", Rating)
    of_picture = len(views) // len(out)
    shown = [each for each, held in zip(views, np.repeat(out, of_picture), strict=True) if not held]
    hidden = [replace(views[number * of_picture], split="val") for number in np.flatnonzero(out)]
    seen = {each.image for each in shown}
    rationales = [
        each for each in read_rows(whole / "rationales" / "rationales.jsonl", Rationale) if each.image in seen
    ]
    for name in ("views", "rationales"):
        (folder / name).mkdir(exist_ok=True)
    write_rows(folder / "views" / "ratings.jsonl", [*shown, *hidden])
    write_rows(folder / "rationales" / "rationales.jsonl", rationales)


def predictions(
    table: PhotoTable, folders: Sequence[Path], model: str, reading: str
) -> tuple[NDArray[np.int64], list[Prediction]]:
    """The indices of the photographs that these runs held out, and the predictions about them."""
    index = {path: number for number, path in enumerate(table.paths)}
    rows = [
        row
        for folder in folders
        for row in read_rows(folder / "judged" / reading / f"predictions-{model}.jsonl", Prediction)
    ]
    return np.array([index[row.image] for row in rows]), rows


def row(name: str, cells: Sequence[Interval], *, signed: bool = False) -> str:
    """A line of a table."""
    style = "+.3f" if signed else ".3f"
    return " | ".join((f"| {name}", *(f"{c.value:{style}} [{c.low:{style}}, {c.high:{style}}]" for c in cells))) + " |"


def report_scores(table: PhotoTable, folders: Sequence[Path], ridge_scores: NDArray[np.float64]) -> None:
    """Print the agreement of ridge, cold start and RAPO with people, and RAPO's gain."""
    print("\n| | PLCC | SRCC | MAE |\n|---|---|---|---|")
    for reading in READINGS:
        scores = {}
        for model in MODELS:
            indices, rows = predictions(table, folders, model, reading)
            scores[model] = [each.score for each in rows]
        human = table.human[indices]
        if reading == READINGS[0]:
            print(row("ridge", [bootstrap(metric, ridge_scores[indices], human) for metric in METRICS]))
        for model in MODELS:
            print(row(f"{model}, {reading}", [bootstrap(metric, scores[model], human) for metric in METRICS]))
        gains = [paired_bootstrap(metric, *scores.values(), human) for metric in METRICS]
        print(row(f"RAPO − cold start, {reading}", gains, signed=True))


def report_seeds(table: PhotoTable, folders: Sequence[Sequence[Path]]) -> None:
    """Print the means over seeds, and RAPO's gain, on the same photographs; folders: those of each seed."""
    print("\n| mean over seeds | PLCC | SRCC | MAE |\n|---|---|---|---|")
    for reading in READINGS:
        runs: dict[str, list[list[float | None]]] = {model: [] for model in MODELS}
        for of_seed in folders:
            for model in MODELS:
                indices, rows = predictions(table, of_seed, model, reading)
                runs[model].append([each.score for each in rows])
        human = table.human[indices]
        for model in MODELS:
            print(row(f"{model}, {reading}", list(seeds_bootstrap(METRICS, runs[model], human).values())))
        before, after = runs.values()
        gains = seeds_bootstrap(METRICS, after, human, before=before)
        print(row(f"RAPO − cold start, {reading}", list(gains.values()), signed=True))


def report_reasons(table: PhotoTable, folders: Sequence[Path]) -> None:
    """Print how many replies are readable, how many claims are right, and whether texts follow their pictures."""
    for model in MODELS:
        indices, rows = predictions(table, folders, model, "expectation")
        print(f"\n{model}: readable {sum(bool(each.readable) for each in rows)} of {len(rows)}")
        texts, pictures = zip(
            *((each.reasoning, open_image(each.image)) for each in rows if each.reasoning), strict=True
        )
        facts = [measure_facts(picture, domain="photographs") for picture in pictures]
        others = [facts[i] for i in np.random.default_rng(0).permutation(len(facts))]
        claims = [claims_of(text) for text in texts]
        for name, about in (("own picture", facts), ("another picture (chance)", others)):
            pairs = [(claim, fact) for each, fact in zip(claims, about, strict=True) for claim in each]
            right = np.mean([claim.distance(fact) == 0 for claim, fact in pairs])
            stands = np.mean([not claim.contradicts(fact) for claim, fact in pairs])
            print(f"{len(pairs)} claims, {name}: {right:.3f} exactly right, {stands:.3f} not contradicted")
        named = [
            (subject, table.shows(subject, number))
            for number, each in zip(indices, rows, strict=True)
            for subject in (*SUBJECTS, *KINDS, PERSON)
            if each.reasoning and subject in each.reasoning.lower()
        ]
        wrong = Counter(subject for subject, right in named if not right)
        print(f"{len(named)} subjects named, {wrong.total()} of them wrong: {dict(wrong.most_common())}")
        fit = text_follows_picture(texts, np.array([as_vector(measure(picture)) for picture in pictures]), seed=0)
        print(f"R² of the measures from the words: {fit.own.value:.3f}, another's {fit.shuffled.value:.3f}; difference")
        print(f"{fit.difference.value:+.3f} [{fit.difference.low:+.3f}, {fit.difference.high:+.3f}]")


def ridge_of(table: PhotoTable, out: Sequence[NDArray[np.bool_]], features: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) scores by ridge on the features of the photographs that are not held out; NaN for the others."""
    scores = np.full(len(table.rows), np.nan)
    for held in out:
        scores[held] = ridge(features[~held], table.human[~held], features[held], PENALTY)
    return scores


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", default=[*(f"fold-{number}" for number in range(FOLDS)), *CATEGORIES])
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    table = read_table(given.table)
    parts = held_out(table)
    folders = {seed: given.output / f"seed-{seed}" for seed in given.seeds}
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    nobody = np.zeros(len(table.rows), dtype=np.bool_)
    with ThreadPoolExecutor(given.jobs) as pool:
        for seed, folder in folders.items():
            write_table(table, nobody, folder / "all")
            build(given.table.parent, folder / "all", seed, threads, "--data-only")
        runs = []
        for seed, folder in folders.items():
            for part in given.parts:
                write_table(table, parts[part], folder / part)
                write_part(folder / "all", parts[part], folder / part)
                runs.append(pool.submit(build, given.table.parent, folder / part, seed, threads, "--no-export"))
        for run in runs:
            run.result()
    features = mean_features(table.paths)
    folds = [part for part in given.parts if part not in CATEGORIES]
    for group in (folds, *([part] for part in given.parts if part in CATEGORIES)):
        ridge_scores = ridge_of(table, [parts[part] for part in group], features)
        for seed, folder in folders.items() if group else ():
            print(f"\nheld out: {', '.join(group)}; seed {seed}")
            report_scores(table, [folder / part for part in group], ridge_scores)
            report_reasons(table, [folder / part for part in group])
        if group and len(folders) > 1:
            report_seeds(table, [[folder / part for part in group] for folder in folders.values()])


if __name__ == "__main__":
    main()
