"""kill -9 at a random step, then the same command: the weights, curve and replies of an uninterrupted run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aesr1 import cold_start
from aesr1.rapo import train
from aesr1.records import Rating, Rationale, SampledReply, read_rows, write_rows
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

STEPS = 8
PACE = ["--max_steps", str(STEPS), "--save_steps", "1", "--logging_steps", "1", "--learning_rate", "1e-3"]
CLOCK = ("step_time", "num_tokens")  # TRL begins to count a cold start's tokens anew


def rapo(scenes: Path, model: Path, *more: str) -> list[str]:
    """Three steps an epoch, so that the run ends in its third."""
    sizes = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "4", "--images_together", "8"]
    short = [
        "--num_generations",
        "4",
        "--max_completion_length",
        "16",
        "--validate_every",
        "3",
        "--validate_images",
        "4",
    ]
    return [
        "rapo",
        "--ratings",
        str(scenes / "ratings.jsonl"),
        "--model",
        str(model),
        *sizes,
        *short,
        *PACE,
        *CPU,
        *more,
    ]


def sft(scenes: Path, model: Path, *more: str) -> list[str]:
    """Three steps an epoch, as above."""
    rows = [
        Rationale(rating.image, rating.score, rating.domain, "Light and shadow are soft.", "test")
        for rating in read_rows(scenes / "ratings.jsonl", Rating)[:24]
    ]
    write_rows(scenes / "for-resume.jsonl", rows)
    data = ["--rationales", str(scenes / "for-resume.jsonl"), "--per_device_train_batch_size", "8"]
    return ["sft", "--model", str(model), *data, *PACE, *CPU, *more]


def curve(folder: Path) -> list[dict[str, float]]:
    """A run's log without what a clock says."""
    rows = [json.loads(line) for line in (folder / "figures.jsonl").open()]
    return [{n: row[n] for n in row if not n.startswith("train_") and n not in CLOCK} for row in rows]


@pytest.mark.parametrize(
    ("stage", "more"),
    [(rapo, []), (rapo, ["--lora_rank", "4"]), (rapo, ["--resample", "1", "--rewards", "binary", "format"]), (sft, [])],
    ids=["rapo", "rapo by LoRA", "rapo with resampling", "cold start"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(scene_folder, fluent_model, tmp_path, stage, more):
    name, *arguments = stage(scene_folder, fluent_model, *more)
    main = train.main if name == "rapo" else cold_start.main
    whole = main([*arguments, "--output_dir", str(tmp_path / "whole")])
    output, at = tmp_path / "killed", random.randint(1, STEPS - 1)
    command = [sys.executable, "-W", "ignore", "-m", "aesr1", name, *arguments, "--output_dir", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (output / f"checkpoint-{at}" / "aesr1.json").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.random() / 5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "aesr1.json").exists(), "it was through before it was killed"
    assert main([*arguments, "--output_dir", str(output)]) == output
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (output, whole))
    for tensor in theirs:
        torch.testing.assert_close(ours[tensor], theirs[tensor], atol=1e-6, rtol=0, msg=f"{tensor}, killed after {at}")
    assert len(curve(whole)) >= STEPS
    for row, expected in zip(curve(output), curve(whole), strict=True):
        assert row == pytest.approx(expected, abs=1e-5), f"killed after {at}"
    if name == "rapo":
        replies = [read_rows(folder / "replies.jsonl", SampledReply) for folder in (output, whole)]
        assert replies[0] == replies[1] and replies[0]
