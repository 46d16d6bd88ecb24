"""Two processes are one: global scope gives the rewards, advantages and weights of one process with the same images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")
QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def trained(folder, processes, ratings, model, *settings):
    """A run of two steps in so many processes; what it saw and the weights it ended with."""
    report = folder / "report.json"
    common = ["--ratings", ratings, "--model", model, "--output_dir", folder / "run", "--max_steps", "2"]
    pace = ["--learning_rate", "1e-4", "--validate_every", "0", "--save_steps", "2", "--max_pixels", "4096"]
    cpu = ["--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false", "--report_to", "none"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, SCRIPT]
    command = [*launch, report, *common, *pace, *cpu, "--max_completion_length", "24", *settings]
    environment = {**os.environ, **QUIET}
    done = subprocess.run([*map(str, command)], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(report.read_text())
    assert seen["processes"] == processes
    return seen["steps"], load_file(folder / "run" / "model.safetensors")


@pytest.fixture(scope="module")
def run(scene_folder, random_model, tmp_path_factory):
    """`run(processes, rows a process, scope)`: each is trained once."""
    done = {}

    def once(processes, rows, scope="global"):
        if (processes, rows, scope) not in done:
            settings = ["--per_device_train_batch_size", rows, "--num_generations", 4, "--scope", scope]
            ratings = scene_folder / "ratings.jsonl"
            folder = tmp_path_factory.mktemp("run")
            done[processes, rows, scope] = trained(folder, processes, ratings, random_model, *settings)
        return done[processes, rows, scope]

    return once


@pytest.mark.parametrize("rows", [8, 6], ids=["whole groups", "a group on both processes"])
def test_two_processes_give_what_one_gives(run, random_model, rows):
    one, one_weights = run(1, 2 * rows)
    two, two_weights = run(2, rows)
    for alone, together in zip(one, two, strict=True):
        assert [row[0] for row in alone["rows"]] == [row[0] for row in together["rows"]]
        np.testing.assert_allclose(alone["rows"], together["rows"], atol=1e-5)
        rewards = [row[1] for row in alone["rows"]]
        assert len(set(rewards)) > 4 and 0.0 in rewards  # there was something to agree on
    before = load_file(random_model / "model.safetensors")
    assert max((one_weights[name] - before[name]).abs().max() for name in before) > 1e-4
    for name in one_weights:
        torch.testing.assert_close(one_weights[name], two_weights[name], atol=1e-5, rtol=0)


def test_local_scope_ranks_the_images_of_a_process_alone(run):
    local, everywhere = (run(2, 8, scope)[0][0]["rows"] for scope in ("local", "global"))
    assert [row[0] for row in local] == [row[0] for row in everywhere]
    assert any(abs(a[1] - b[1]) > 1e-3 for a, b in zip(local, everywhere, strict=True))
