"""The demo over several seeds and the paper's reward ablation on its scenes: the numbers of README and docs/log.md.

    python bench/seeds.py -o DIR [--seeds 0 1 2] [--no-ablation]

Each seed draws its own scenes, writes its own rationales and trains its own models; the ablation starts from that
seed's cold start. Every stage resumes, so the script may be stopped and called again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from aesr1.demo import PREDICT_SETTINGS, DemoConfig, run_demo
from aesr1.evaluation.compare import compare
from aesr1.evaluation.datasets import compare_datasets
from aesr1.evaluation.reasons import distinct_texts, text_follows_picture, text_predicts_score
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.evaluation.tables import to_results
from aesr1.images.load import open_image
from aesr1.images.measure import as_vector, measure
from aesr1.outputs import write_json
from aesr1.rapo import train
from aesr1.records import Prediction, Rating, read_rows

ARMS = {"error only": ["absolute", "format"], "rank only": ["relative", "format"]}


def ablate(folder: Path, seed: int) -> dict[str, dict[str, object]]:
    """RAPO from this seed's cold start with a part of the reward left out; results by arm."""
    test = folder / "test" / "ratings.jsonl"
    models = []
    for arm, rewards in ARMS.items():
        target = folder / arm.replace(" ", "-")
        models.append((arm.replace(" ", "-"), str(target)))
        if not (target / "aesr1.json").exists():
            recipe = ["--config", str(files("aesr1.tiny") / "rapo.yaml"), "--seed", str(seed), "--rewards", *rewards]
            data = ["--ratings", str(folder / "train" / "ratings.jsonl"), "--model", str(folder / "cold_start")]
            train.main([*recipe, *data, "--output_dir", str(target)])
    evaluate_models(EvalConfig((test,), tuple(models), folder / "ablation", predict_settings=PREDICT_SETTINGS))
    rows = {name: read_rows(folder / "ablation" / f"predictions-{name}.jsonl", Prediction) for name, _ in models}
    rows["both"] = read_rows(folder / "eval" / "predictions-rapo.jsonl", Prediction)
    return to_results(compare_datasets(read_rows(test, Rating), rows))


def gains(folders: list[Path], before: str, after: str) -> dict[str, dict[str, object]]:
    """What `after` has over `before` (folder/name of their predictions): the mean over seeds and its interval over
    test images, and every seed's gain.

    Seeds are judged on different scenes, so the mean's variance is that of the seeds' own intervals.
    """
    each = []
    for folder in folders:
        rows = {}
        for place in (before, after):
            part, name = place.split("/")
            rows[place] = read_rows(folder / part / f"predictions-{name}.jsonl", Prediction)
        each.append(compare(read_rows(folder / "test" / "ratings.jsonl", Rating), rows).differences[0].gain)
    found: dict[str, dict[str, object]] = {}
    for name in ("plcc", "srcc", "mae"):
        intervals = [gain.values[name] for gain in each]
        mean = float(np.mean([interval.value for interval in intervals]))
        half = float(np.linalg.norm([(interval.high - interval.low) / 2 for interval in intervals])) / len(intervals)
        seeds = [[interval.value, interval.low, interval.high] for interval in intervals]
        found[name] = {"mean": mean, "low": mean - half, "high": mean + half, "seeds": seeds}
    return found


def sample(folder: Path) -> dict[str, dict[str, object]]:
    """Cold start and RAPO as the paper reads a score: one reply at temperature 0.6."""
    models = tuple((name, str(folder / name)) for name in ("cold_start", "rapo"))
    reading = replace(PREDICT_SETTINGS, samples=1)
    evaluate_models(
        EvalConfig((folder / "test" / "ratings.jsonl",), models, folder / "sampled", predict_settings=reading)
    )
    return dict(json.loads((folder / "sampled" / "results.json").read_text()))


def texts(folder: Path) -> dict[str, object]:
    """Do the rationale's words differ as the pictures do? Bag of words against the picture's own measures."""
    rows = read_rows(folder / "eval" / "predictions-rapo.jsonl", Prediction)
    read = [(row.reasoning, row) for row in rows if row.reasoning is not None]
    reasonings = [reasoning for reasoning, _ in read]
    measured = np.array([as_vector(measure(open_image(row.image))) for _, row in read])
    fit = text_follows_picture(reasonings, measured, seed=0)
    human = {row.image: row.score for row in read_rows(folder / "test" / "ratings.jsonl", Rating)}
    return {
        "n": len(read),
        "distinct texts": distinct_texts(reasonings),
        "R² of measures from words, own picture": fit.own.value,
        "R² with another picture's words": fit.shuffled.value,
        "difference": [fit.difference.value, fit.difference.low, fit.difference.high],
        "SRCC of human scores from words": text_predicts_score(
            reasonings, [human[r.image] for _, r in read], seed=0
        ).value,
    }


def main() -> None:
    """Run what is missing, print one line a seed and arm, and write `seeds.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-ablation", action="store_true")
    arguments = parser.parse_args()
    collected = {}
    for seed in arguments.seeds:
        folder = arguments.output / f"seed-{seed}"
        run_demo(DemoConfig(folder, seed=seed))
        demo = json.loads((folder / "results.json").read_text())
        found = {"demo": demo, "sampled": sample(folder), "texts": texts(folder)}
        if not arguments.no_ablation:
            found["ablation"] = ablate(folder, seed)
        collected[str(seed)] = found
        write_json(arguments.output / "seeds.json", collected)
        for part in ("demo", "sampled", "ablation"):
            for name, result in found.get(part, {}).items():
                if isinstance(result, dict) and "srcc" in result and result["srcc"]:
                    print(
                        f"seed {seed} {part:8} {name:12} PLCC {result['plcc']['value']:.3f} "
                        f"SRCC {result['srcc']['value']:.3f}"
                    )
        print(f"seed {seed} texts: {json.dumps(found['texts'], ensure_ascii=False)}")
    folders = [arguments.output / f"seed-{seed}" for seed in arguments.seeds]
    pairs = [("eval/cold_start", "eval/rapo"), ("sampled/cold_start", "sampled/rapo")]
    if not arguments.no_ablation:
        pairs += [(f"ablation/{arm.replace(' ', '-')}", "eval/rapo") for arm in ARMS]
    for before, after in pairs:
        collected[f"{before} → {after}"] = gain = gains(folders, before, after)
        for name, value in gain.items():
            interval = f"{value['mean']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"
            print(f"{before} → {after}: {name} {interval}")
    write_json(arguments.output / "seeds.json", collected)


if __name__ == "__main__":
    main()
