"""Experiments run for real: commands as processes, failures, and a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from aesr1.cli.main import app
from aesr1.errors import AesError
from aesr1.experiment.recipe import read_experiment
from aesr1.experiment.run import ExperimentConfig, run_experiment

SCENES = {"command": "ratings scenes", "n": 6, "split": "test", "output": "{here}"}
EVAL = {"command": "eval {scenes}", "model": "{cell}={model}", "fast": [], "output": "{here}"}
BASE = {"stages": {"scenes": SCENES}, "tests": {"scenes test": EVAL}, "model": "tiny"}
TRAIN = {"max_steps": 2, "save_steps": 1, "seed": "{seed}", "output_dir": "{here}"}
TRAINED = {
    "stages": {
        "scenes": SCENES,
        "train": {"command": "ratings scenes", "n": 24, "seed": "{seed}", "output": "{here}"},
        "cot": {"command": "cot build {train}/ratings.jsonl", "n": 8, "seed": "{seed}", "output": "{here}"},
        "sft": {"command": "sft", "rationales": "{cot}/rationales.jsonl", **TRAIN},
        "rapo": {"command": "rapo", "model": "{sft}", "ratings": "{train}/ratings.jsonl", "min_readable": 0, **TRAIN},
    },
    "model": "{rapo}",
    "cells": {"cold start": {"model": "{sft}"}, "rapo": {}},
    "seeds": [0, 1],
}


def write(folder: Path, **fields: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**BASE, **fields}, sort_keys=False))
    return path


def test_an_experiment_runs_once_and_shares_its_stages(tmp_path, capsys):
    cells = {"demo": {}, "backbone": {"model": "tiny-backbone"}}
    experiment = read_experiment(write(tmp_path, cells=cells))
    output = tmp_path / "out"
    table = run_experiment(ExperimentConfig(experiment, output, jobs=2))
    assert "| demo |" in table
    assert "scenes test, 6 images" in table
    assert (output / "results.md").read_text() == table
    assert json.loads((output / "results.json").read_text())["compare_with"] == "demo"
    assert "demo=tiny" in (output / "results.html").read_text()
    assert len(list((output / "stages").iterdir())) == 1
    assert "[3/3]" in capsys.readouterr().err
    assert run_experiment(ExperimentConfig(experiment, output)) == table
    assert "[" not in capsys.readouterr().err


def test_a_step_that_fails_is_named_with_its_log_and_runs_again(tmp_path):
    output = tmp_path / "out"
    stages = {"scenes": SCENES | {"style": "none"}}
    with pytest.raises(AesError, match=r"scenes of all, seed 0 ended with status 1: .*unknown style none") as caught:
        run_experiment(ExperimentConfig(read_experiment(write(tmp_path, stages=stages)), output))
    log = Path(str(caught.value.fix).split()[1].rstrip(";"))
    assert "ratings scenes" in log.read_text()
    assert not (log.parent / "step.json").exists()


def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path):
    run = CliRunner().invoke(app, ["experiment", str(write(tmp_path)), "-o", str(tmp_path / "out"), "--dry-run"])
    assert "aesr1 ratings scenes --n 6" in run.output
    assert "steps: 2, of which 0 are done" in run.output
    assert not (tmp_path / "out").exists()


def test_a_variable_without_a_value_is_refused(tmp_path):
    run = CliRunner().invoke(app, ["experiment", str(write(tmp_path)), "-o", "out", "--set", "photos"])
    assert isinstance(run.exception, AesError)
    assert "--set photos has no value" in run.exception.problem


@pytest.mark.slow
def test_an_experiment_that_is_killed_many_times_ends_with_the_same_rows(tmp_path):
    recipe = str(Path("src/aesr1/tiny/rapo.yaml").absolute())
    cold = str(Path("src/aesr1/tiny/cold_start.yaml").absolute())
    stages = {name: dict(stage) for name, stage in TRAINED["stages"].items()}
    stages["sft"]["config"] = cold
    stages["rapo"] |= {"config": recipe, "per_device_train_batch_size": 8, "validate_every": 0}
    path = write(tmp_path, **{**TRAINED, "stages": stages})
    command = [sys.executable, "-m", "aesr1", "experiment", str(path), "-o", str(tmp_path / "out"), "--jobs", "2"]
    for number in range(6):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(9 + number)
            break  # it ended in less time than the kills leave it
        if number % 2:
            os.killpg(process.pid, signal.SIGKILL)  # with its commands
        else:
            process.kill()  # its commands go on
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| cold start |" in done.stdout
    for rows in (tmp_path / "out").glob("cells/*/*/*/output/predictions-*.jsonl"):
        images = [json.loads(line)["image"] for line in rows.read_text().splitlines()]
        assert len(images) == len(set(images)) == 6
