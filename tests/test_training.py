"""Cold start and RAPO with a small real model: two steps each, an overfit, a resume after kill -9."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOConfig, SFTConfig

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.rapo import train
from aesr1.records import Rating, Rationale, read_rows, write_rows
from aesr1.training import parse_recipe

RECIPES = Path(__file__).parents[1] / "recipes"

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

CPU = [
    "--use_cpu",
    "true",
    "--bf16",
    "false",
    "--gradient_checkpointing",
    "false",
    "--max_pixels",
    "4096",
    "--report_to",
    "none",
]


@pytest.fixture(scope="module")
def rationales(scene_folder):
    rows = [
        Rationale(rating.image, rating.score, rating.domain, "Light and shadow are soft.", "test")
        for rating in read_rows(scene_folder / "ratings.jsonl", Rating)[:8]
    ]
    path = scene_folder / "rationales.jsonl"
    write_rows(path, rows)
    return path


@pytest.fixture(scope="module")
def started(random_model, rationales, tmp_path_factory):
    """A cold start that has learnt the form by heart."""
    folder = tmp_path_factory.mktemp("runs") / "sft"
    settings = [
        "--per_device_train_batch_size",
        "8",
        "--num_train_epochs",
        "80",
        "--learning_rate",
        "5e-3",
        "--save_steps",
        "1000",
    ]
    return cold_start.main(
        ["--rationales", str(rationales), "--model", str(random_model), "--output_dir", str(folder), *settings, *CPU]
    )


def rapo_arguments(scene_folder, model, output, *more):
    sizes = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "24"]
    pace = [
        "--max_steps",
        "4",
        "--learning_rate",
        "1e-3",
        "--save_steps",
        "1",
        "--logging_steps",
        "1",
        "--validate_every",
        "2",
        "--validate_images",
        "4",
    ]
    return [
        "--ratings",
        str(scene_folder / "ratings.jsonl"),
        "--model",
        str(model),
        "--output_dir",
        str(output),
        *sizes,
        *pace,
        *CPU,
        *more,
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_cold_start_overfits_and_leaves_the_eyes_alone(started, random_model):
    losses = [row["loss"] for row in map(json.loads, (started / "figures.jsonl").open()) if "loss" in row]
    assert losses[-1] < 0.5 < losses[0]
    before, after = weights(random_model), weights(started)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name for name in changed)
    assert json.loads((started / "run.json").read_text())["config"]["freeze_vision"]


def test_the_cold_start_teaches_the_form(started, scene_folder):
    from aesr1.predict import PredictSettings, predict
    from aesr1.vlm import load

    vlm = load(str(started), device="cpu", max_pixels=4096)
    rows = list(predict(vlm, [scene_folder / f"{n:02d}.png" for n in range(4)], PredictSettings(max_new_tokens=24)))
    assert all(row.readable for row in rows)


@pytest.fixture(scope="module")
def uninterrupted(started, scene_folder, tmp_path_factory):
    return train.main(rapo_arguments(scene_folder, started, tmp_path_factory.mktemp("runs") / "rapo"))


def test_rapo_trains_everything_and_logs_each_part(uninterrupted, started):
    rows = [json.loads(line) for line in (uninterrupted / "figures.jsonl").open()]
    steps = [row for row in rows if "reward" in row]
    for name in ("relative", "absolute", "format"):
        assert f"rewards/{name}/mean" in steps[0]
    assert {"readable", "score/spread", "kl", "entropy", "frac_reward_zero_std"} <= set(steps[0])
    assert [row["step"] for row in rows if "validation/srcc" in row] == [2, 4]
    before, after = weights(started), weights(uninterrupted)
    assert any("visual" in name for name in before if not torch.equal(before[name], after[name]))


def test_rapo_leaves_the_eyes_alone_when_asked(started, scene_folder, tmp_path):
    frozen = train.main(rapo_arguments(scene_folder, started, tmp_path / "rapo", "--freeze_vision", "true"))
    before, after = weights(started), weights(frozen)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name for name in changed)


def test_a_killed_run_resumes_to_the_same_weights(uninterrupted, started, scene_folder, tmp_path):
    output = tmp_path / "killed"
    arguments = rapo_arguments(scene_folder, started, output)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "aesr1", "rapo", *arguments], stderr=subprocess.DEVNULL
    )
    while not (output / "checkpoint-2" / "aesr1.json").exists() and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "aesr1.json").exists()
    train.main(arguments)
    killed, whole = weights(output), weights(uninterrupted)
    for name in whole:
        torch.testing.assert_close(killed[name], whole[name], atol=1e-6, rtol=0)


def test_a_run_begun_with_other_settings_is_not_resumed(uninterrupted, started, scene_folder, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "rapo")
    (tmp_path / "rapo" / "aesr1.json").unlink()
    with pytest.raises(AesError, match=r"begun with sigma = 0\.1"):
        train.main(rapo_arguments(scene_folder, started, tmp_path / "rapo", "--sigma", "0.2"))


def test_a_finished_run_is_not_overwritten(uninterrupted, started, scene_folder):
    with pytest.raises(AesError, match="finished run"):
        train.main(rapo_arguments(scene_folder, started, uninterrupted))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--per_device_train_batch_size", "4"], "only 1 image"),
        (["--scope", "galaxy"], "scope is"),
        (["--reward_weights", "1", "1"], "2 reward_weights for 3"),
        (["--rewards", "beauty"], "unknown reward"),
        (["--split", "holiday"], "no ratings of split"),
        (["--nonsense", "1"], "unknown settings: --nonsense"),
        (["--num_generations", "3"], "settings"),
        (["--config", "nowhere.yaml"], "no such recipe"),
        (["--validate_on", "holiday"], "no ratings of split 'holiday' to validate on"),
        (["--sigma", "0"], "sigma is"),
        (["--tie", "2"], "tie is"),
        (["--max_steps", "many"], "invalid"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_model_loads(scene_folder, tmp_path, more, message):
    with pytest.raises(AesError, match=message):
        train.main(rapo_arguments(scene_folder, tmp_path / "no-model", tmp_path / "out", *more))


@pytest.mark.parametrize(
    "recipe", sorted({*RECIPES.glob("*.yaml")} - {RECIPES / "aescot.yaml"}), ids=lambda path: path.name
)
def test_every_recipe_can_be_read_and_ranked(recipe, tmp_path):
    run = ["--config", str(recipe), "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    if "rapo" in recipe.name:
        settings = parse_recipe([train.RapoConfig, GRPOConfig], [*run, "--ratings", "r.jsonl"], **train.PAPER)
        train.check(*settings)
        assert settings[1].loss_type == "grpo" and settings[1].epsilon_high == 0.28
    else:
        settings = parse_recipe(
            [cold_start.ColdStartConfig, SFTConfig], [*run, "--rationales", "r.jsonl"], **cold_start.PAPER
        )
        assert settings[1].max_length is None


def test_missing_pictures_and_empty_rationales_are_clear_errors(random_model, tmp_path):
    write_rows(tmp_path / "r.jsonl", [Rationale("gone.png", 0.5, "d", "x", "test")])
    (tmp_path / "empty.jsonl").touch()
    for name, message in (("r.jsonl", "1 of 1 images are missing or no pictures"), ("empty.jsonl", "no rationales")):
        with pytest.raises(AesError, match=message):
            cold_start.main(
                [
                    "--rationales",
                    str(tmp_path / name),
                    "--model",
                    str(random_model),
                    "--output_dir",
                    str(tmp_path / "out"),
                    *CPU,
                ]
            )
