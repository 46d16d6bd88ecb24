"""`aesr1 demo`: all stages on drawn scenes, with a table and a report at the end."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from aesr1.json_lines import read_rows, write_rows
from aesr1.model.load import BACKBONE
from aesr1.model.predict import PredictSettings
from aesr1.outputs import require_same_settings, write_json
from aesr1.records import Prediction
from aesr1.terminal import say

PREDICT_SETTINGS = PredictSettings(batch_size=64, max_new_tokens=96)
HELD_OUT_SEED = 1_000_000
"""The seeds of held-out scenes differ from those of all training scenes."""


@dataclass(frozen=True)
class DemoConfig:
    """Output folder, seed and sizes of a demo run."""

    output: Path
    seed: int = 0
    train: int = 3_000
    test: int = 1_000
    rationales: int = 300
    shown: int = 48  # pictures on the page
    rapo_settings: tuple[str, ...] = ()  # flags over tiny/rapo.yaml


def run_demo(config: DemoConfig) -> str:
    """Run every stage into the output folder and return the table. A stage that is finished is not run again."""
    output = config.output
    require_same_settings(output, config)
    seconds: dict[str, float] = _read(output / "seconds.json")

    def stage(name: str, done: Path, run: Callable[[DemoConfig], None]) -> None:
        if done.exists():
            say(f"{name}: done before")
            return
        start = time.time()
        try:
            run(config)
        finally:  # a stage that stops and resumes counts both times
            seconds[name] = round(seconds.get(name, 0.0) + time.time() - start, 1)
            write_json(output / "seconds.json", seconds)

    stage("scenes", output / "test" / "ratings.jsonl", _make_scenes)
    stage("aescot", output / "cot" / "rationales.jsonl", _write_rationales)
    stage("cold_start", output / "cold_start" / "aesr1.json", _cold_start)
    stage("rapo", output / "rapo" / "aesr1.json", _rapo)
    stage("evaluate", output / "eval" / "results.json", _evaluate)
    stage("report", output / "report.html", _report)
    results = {**_read(output / "eval" / "results.json"), "seconds": seconds, **_peak_memory()}
    write_json(output / "results.json", results)
    return "\n".join(
        [
            (output / "eval" / "results.md").read_text(),
            f"pictures, scores and reasons: {output / 'report.html'}",
            f"all numbers: {output / 'results.json'}",
        ]
    )


def _peak_memory() -> dict[str, float]:
    """Peak resident memory in GiB (Linux reports KiB), of this process and of its largest worker.

    Do not add them: a worker shares most of its memory pages with this process.
    """
    processes = {"peak_memory_gib": resource.RUSAGE_SELF, "peak_worker_memory_gib": resource.RUSAGE_CHILDREN}
    return {name: round(resource.getrusage(which).ru_maxrss / 2**20, 2) for name, which in processes.items()}


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _make_scenes(config: DemoConfig) -> None:
    from aesr1.tiny.album import AlbumConfig, make_album

    if not (config.output / "train" / "ratings.jsonl").exists():
        make_album(AlbumConfig(config.output / "train", n=config.train, seed=config.seed))
    make_album(AlbumConfig(config.output / "test", n=config.test, seed=HELD_OUT_SEED + config.seed, split="test"))


def _write_rationales(config: DemoConfig) -> None:
    from aesr1.aescot.build import build
    from aesr1.aescot.settings import CotConfig

    ratings = config.output / "train" / "ratings.jsonl"
    build(CotConfig(ratings, config.output / "cot", n=config.rationales, seed=config.seed))


def _cold_start(config: DemoConfig) -> None:
    from aesr1.cold_start import main

    rationales = str(config.output / "cot" / "rationales.jsonl")
    main(["--config", _recipe("cold_start.yaml"), "--rationales", rationales, *_output_flags(config, "cold_start")])


def _rapo(config: DemoConfig) -> None:
    from aesr1.rapo.train import main

    data = ["--ratings", str(config.output / "train" / "ratings.jsonl"), "--model", str(config.output / "cold_start")]
    main(["--config", _recipe("rapo.yaml"), *data, *_output_flags(config, "rapo"), *config.rapo_settings])


def _recipe(name: str) -> str:
    return str(files("aesr1.tiny") / name)


def _output_flags(config: DemoConfig, folder: str) -> list[str]:
    return ["--output_dir", str(config.output / folder), "--seed", str(config.seed)]


def _evaluate(config: DemoConfig) -> None:
    from aesr1.evaluation.run import EvalConfig, evaluate_models

    trained = tuple((name, str(config.output / name)) for name in ("cold_start", "rapo"))
    models = (("backbone", BACKBONE), *trained)
    test = config.output / "test" / "ratings.jsonl"
    evaluate_models(EvalConfig((test,), models, config.output / "eval", predict_settings=PREDICT_SETTINGS))


def _report(config: DemoConfig) -> None:
    from aesr1.app.report import write_report

    scored = read_rows(config.output / "eval" / "predictions-rapo.jsonl", Prediction)
    shown = config.output / "shown.jsonl"
    write_rows(shown, scored[: config.shown])
    ratings = config.output / "test" / "ratings.jsonl"
    write_report(shown, config.output / "report.html", ratings=ratings, title="Aes-R1 on drawn scenes")
