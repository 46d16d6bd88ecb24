"""The demo over several seeds and the paper's reward ablation on its scenes: the numbers of README and docs/log.md.

    python bench/seeds.py -o DIR [--seeds 0 1 2] [--no-ablation]

Each seed draws its own scenes, writes its own rationales and trains its own models; the ablation starts from that
seed's cold start. Every stage resumes, so the script may be stopped and called again.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path

import numpy as np

from aesr1.demo import MAX_NEW_TOKENS, DemoConfig, run_demo
from aesr1.evaluation.compare import compare, to_results
from aesr1.evaluation.rationales import distinct_texts, template_rate, text_follows_picture, text_predicts_score
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.images import open_image
from aesr1.measure import as_vector, measure
from aesr1.rapo import train
from aesr1.records import Prediction, Rating, read_rows, write_json

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
    config = EvalConfig(test, tuple(models), folder / "ablation", batch_size=64, max_new_tokens=MAX_NEW_TOKENS)
    evaluate_models(config)
    rows = {name: read_rows(folder / "ablation" / f"predictions-{name}.jsonl", Prediction) for name, _ in models}
    rows["both"] = read_rows(folder / "eval" / "predictions-rapo.jsonl", Prediction)
    return to_results(compare(read_rows(test, Rating), rows))


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
        "template rate": template_rate(reasonings),
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
        found = {"demo": json.loads((folder / "results.json").read_text()), "texts": texts(folder)}
        if not arguments.no_ablation:
            found["ablation"] = ablate(folder, seed)
        collected[str(seed)] = found
        write_json(arguments.output / "seeds.json", collected)
        for part in ("demo", "ablation"):
            for name, result in found.get(part, {}).items():
                if isinstance(result, dict) and "srcc" in result and result["srcc"]:
                    print(
                        f"seed {seed} {name:12} PLCC {result['plcc']['value']:.3f} SRCC {result['srcc']['value']:.3f}"
                    )
        print(f"seed {seed} texts: {json.dumps(found['texts'], ensure_ascii=False)}")


if __name__ == "__main__":
    main()
