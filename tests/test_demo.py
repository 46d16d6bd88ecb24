"""A small demo: the files of every stage, the table, the page, and resuming after an interruption."""

import json
import shutil
from dataclasses import replace

import pytest

from aesr1.demo import PREDICT_SETTINGS, DemoConfig, run_demo
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.json_lines import read_rows
from aesr1.records import Prediction

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

SIZES = ("--per_device_train_batch_size", "8", "--num_generations", "4", "--validate_images", "4")
SHORT = ("--max_steps", "2", "--min_readable", "0", *SIZES)


def test_a_small_demo_runs_resumes_and_writes_its_numbers(tmp_path):
    config = DemoConfig(tmp_path / "demo", train=60, test=12, rationales=12, shown=6, rapo_settings=SHORT)
    table = run_demo(config)
    assert "rapo" in table and "report.html" in table
    results = json.loads((config.output / "results.json").read_text())
    for name in ("backbone", "cold_start", "rapo"):
        for metric in ("plcc", "srcc", "mae", "parse_rate"):
            assert set(results[name][metric]) == {"value", "low", "high"}
            assert results[name][metric]["low"] <= results[name][metric]["value"] <= results[name][metric]["high"]
        assert results[name]["n"] == 12
    assert set(results["seconds"]) == {"scenes", "aescot", "cold_start", "rapo", "evaluate", "report"}
    assert "<html" in (config.output / "report.html").read_text()
    models = (("rapo", str(config.output / "rapo")),)
    test = config.output / "test" / "ratings.jsonl"
    evaluate_models(
        EvalConfig((test,), models, tmp_path / "sampled", predict_settings=replace(PREDICT_SETTINGS, samples=2))
    )
    sampled = read_rows(tmp_path / "sampled" / "predictions-rapo.jsonl", Prediction)
    assert len(sampled) == 12 and all("mean of 2 at temperature 0.6" in row.decoding for row in sampled)
    weights = (config.output / "rapo" / "model.safetensors").read_bytes()
    shutil.rmtree(config.output / "eval")
    (config.output / "report.html").unlink()
    assert run_demo(config) == table
    assert (config.output / "rapo" / "model.safetensors").read_bytes() == weights
