"""Two processes of one run: errors and results are said once, and a checkpoint is whole when both have written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aesr1.training.processes import is_first_process, should_print_error, wait_for_all
from conftest import CPU

SCRIPT = Path(__file__).parents[1] / "helpers" / "failing_processes.py"


def started(mode: str, scenes: Path, model: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT), mode]
    data = ["--ratings", str(scenes / "ratings.jsonl"), "--model", str(model), "--output_dir", str(output)]
    sizes = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "24"]
    pace = ["--max_steps", "1", "--save_steps", "1", "--validate_every", "0"]
    return subprocess.Popen(
        [*launch, *data, *sizes, *pace, *CPU, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "more", "said"),
    [
        ("well", ["--nonsense", "1"], "error: unknown settings: --nonsense"),
        ("well", ["--split", "holiday"], "error: "),
        ("full", [], "error: the GPU's memory is full while loading the model"),
    ],
    ids=["before they are joined", "after", "on one process alone"],
)
def test_an_error_is_said_once(mode, more, said, scene_folder, random_model, tmp_path):
    process = started(mode, scene_folder, random_model, tmp_path / "run", *more)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith(said), errors


@pytest.mark.slow
def test_a_checkpoint_is_whole_when_the_slowest_has_written(scene_folder, random_model, tmp_path):
    process = started("slow", scene_folder, random_model, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-1"
    while not (checkpoint / "aesr1.json").exists() and process.poll() is None:
        time.sleep(0.01)
    written = {path.name for path in checkpoint.glob("rng_state*")}
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    assert written == {"rng_state_0.pth", "rng_state_1.pth"}
    assert out.split() == [str(tmp_path / "run")]


def test_a_process_alone_always_speaks_and_waits_for_nobody():
    assert is_first_process() and should_print_error("x") and should_print_error("x")
    wait_for_all()
