"""Two processes are one: global scope gives the rewards, advantages and weights of one process with the same images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, TrainingArguments
from transformers.conversion_mapping import get_model_conversion_mapping
from two_processes import start

from aesr1.errors import AesError
from aesr1.model.checkpoint import stamp_checkpoint
from aesr1.model.load import load
from aesr1.training.launch import SHARD_ALL, SHARD_OPTIMIZER, Launch, launch_with_flags
from aesr1.training.resume import resume_point

RECIPE = Path(__file__).parents[2] / "recipes" / "accelerate" / "fsdp2.yaml"
RAPO = ["--num_generations", 4, "--validate_every", 0, "--max_completion_length", 24, "--min_readable", 0]
"""Settings of every RAPO here."""


def fsdp2():
    """What `accelerate launch` tells its processes of recipes/accelerate/fsdp2.yaml."""
    settings = yaml.safe_load(RECIPE.read_text())["fsdp_config"]
    return {"ACCELERATE_USE_FSDP": "true", **{name.upper(): str(value).upper() for name, value in settings.items()}}


def launch(stage, folder, processes, *settings, killed=False, **environment):
    """A run of two steps in so many processes; what it saw and said, None where it is to be killed."""
    report = folder / "report.json"
    pace = ["--max_steps", 2, "--learning_rate", 1e-4, "--save_steps", 1, "--max_pixels", 4096]
    cpu = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--output_dir", folder / "run"]
    arguments = [*map(str, [*pace, *cpu, *(RAPO if stage != "sft" else []), *settings])]
    well, said = start(stage, report, arguments, processes=processes, environment=environment)
    assert well != killed, said[-3000:]
    if killed:
        return None
    seen = json.loads(report.read_text())
    assert seen["processes"] == processes
    assert "read for each of them" not in said  # pictures were read once for all replies
    return seen


def weights(folder):
    """The weights of the checkpoint in a folder, as any stage loads them."""
    return dict(load(str(folder)).model.named_parameters())


def check_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def run(scene_folder, random_model, tmp_path_factory):
    """`run(processes, rows a process, scope)`: what a RAPO saw, and its folder; each is trained once."""
    done = {}

    def once(processes, rows, scope="global"):
        if (processes, rows, scope) not in done:
            data = ["--ratings", scene_folder / "ratings.jsonl", "--model", random_model]
            sizes = [
                "--per_device_train_batch_size",
                rows,
                "--comparison_scope",
                scope,
                "--gradient_checkpointing",
                "false",
            ]
            folder = tmp_path_factory.mktemp("run")
            seen = launch("scripted", folder, processes, *data, *sizes)
            done[processes, rows, scope] = seen["steps"], folder / "run"
        return done[processes, rows, scope]

    return once


@pytest.mark.parametrize(
    "rows", [pytest.param(8, marks=pytest.mark.slow), 6], ids=["whole groups", "a group on both processes"]
)
def test_two_processes_give_what_one_gives(run, random_model, rows):
    one, alone_folder = run(1, 2 * rows)
    two, together_folder = run(2, rows)
    for alone, together in zip(one, two, strict=True):
        assert [row[0] for row in alone["rows"]] == [row[0] for row in together["rows"]]
        np.testing.assert_allclose(alone["rows"], together["rows"], atol=1e-5)
        rewards = [row[1] for row in alone["rows"]]
        assert len(set(rewards)) > 4 and 0.0 in rewards  # there was something to agree on
    before, after = weights(random_model), weights(alone_folder)
    assert max((after[name] - before[name]).abs().max() for name in before) > 1e-4
    check_same(weights(together_folder), after)


@pytest.mark.slow
def test_local_scope_ranks_the_images_of_a_process_alone(run):
    local, everywhere = (run(2, 8, scope)[0][0]["rows"] for scope in ("local", "global"))
    assert [row[0] for row in local] == [row[0] for row in everywhere]
    assert any(abs(a[1] - b[1]) > 1e-3 for a, b in zip(local, everywhere, strict=True))


@pytest.mark.slow
def test_a_divided_model_learns_what_a_whole_one_does_even_when_it_was_killed(
    run, scene_folder, random_model, tmp_path
):
    """With the reference's KL, pictures read once, gradient checkpointing, validation and a resume."""
    _, whole = run(1, 12)
    data = ["--ratings", scene_folder / "ratings.jsonl", "--model", random_model, "--comparison_scope", "global"]
    more = ["--gradient_checkpointing", "true", "--validate_every", 1, "--validate_images", 4]
    settings = [*data, "--per_device_train_batch_size", 6, *more]
    launch("scripted", tmp_path, 2, *settings, killed=True, KILLED_AT="1", **fsdp2())
    assert not (tmp_path / "run" / "model.safetensors").exists()
    seen = launch("scripted", tmp_path, 2, *settings, **fsdp2())
    assert len(seen["steps"]) == 1, "it did not go on, but began anew"
    assert seen["held"] == pytest.approx(0.5, abs=0.01)
    check_same(weights(tmp_path / "run"), weights(whole))


@pytest.mark.slow
def test_a_divided_cold_start_learns_what_a_whole_one_does(rationales, random_model, tmp_path):
    data = ["--rationales", rationales, "--model", random_model]
    folders = [tmp_path / "one", tmp_path / "two"]
    for processes, folder in enumerate(folders, start=1):
        folder.mkdir()
        sizes = ["--per_device_train_batch_size", 8 // processes, "--gradient_checkpointing", "true"]
        seen = launch("sft", folder, processes, *data, *sizes, **(fsdp2() if processes == 2 else {}))
        assert seen["held"] == pytest.approx(1 / processes, abs=0.01)
    check_same(weights(folders[1] / "run"), weights(folders[0] / "run"))


@pytest.mark.slow
def test_processes_whose_replies_end_at_different_times_wait_for_each_other(scene_folder, fluent_model, tmp_path):
    """Each needs the other's part of the weights for every token, to the last of the longest reply of both."""
    data = ["--ratings", scene_folder / "ratings.jsonl", "--model", fluent_model, "--temperature", 1.5]
    sizes = [
        "--per_device_train_batch_size",
        4,
        "--comparison_scope",
        "global",
        "--max_completion_length",
        48,
        "--dynamic_sampling_rounds",
        1,
    ]
    seen = launch("rapo", tmp_path, 2, *data, *sizes, **fsdp2())
    assert any(max(here) != max(there) for here, there in seen["lengths"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Launch(2, SHARD_ALL, fsdp=True)),
        ({"reshard_after_forward": False, "cpu_offload": True}, Launch(2, SHARD_OPTIMIZER, offload=True, fsdp=True)),
        ({"version": 1}, Launch(2, SHARD_ALL, fsdp=True)),
        ({"version": 1, "reshard_after_forward": "shard_grad_op"}, Launch(2, SHARD_OPTIMIZER, fsdp=True)),
    ],
)
def test_the_trainers_own_flag_divides_as_well(settings, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")  # which TrainingArguments sets: put back in the end
    training = TrainingArguments(str(tmp_path), use_cpu=True, fsdp=True, fsdp_config=settings)
    assert launch_with_flags(Launch(2), training) == expected


def test_a_checkpoint_goes_on_only_as_it_was_divided(tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    for name in ("rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "trainer_state.json"):
        (checkpoint / name).touch()
    stamp_checkpoint(checkpoint, stage="test")
    whole, fsdp, deepspeed = Launch(2), Launch(2, SHARD_ALL, fsdp=True), Launch(2, SHARD_ALL, deepspeed=True)
    assert resume_point(tmp_path, whole) == str(checkpoint)
    with pytest.raises(AesError, match="under neither FSDP nor DeepSpeed, and this run is under FSDP"):
        resume_point(tmp_path, fsdp)
    (checkpoint / "optimizer.pt").rename(checkpoint / "pytorch_model_fsdp.bin")
    assert resume_point(tmp_path, fsdp) == str(checkpoint)
    with pytest.raises(AesError, match="under FSDP, and this run is under DeepSpeed"):
        resume_point(tmp_path, deepspeed)
    (checkpoint / "pytorch_model_fsdp.bin").rename(checkpoint / "latest")
    assert resume_point(tmp_path, deepspeed) == str(checkpoint)
    with pytest.raises(AesError, match="under DeepSpeed, and this run is under neither"):
        resume_point(tmp_path, whole)


def test_a_model_loaded_under_zero3_is_saved_under_the_names_it_was_loaded_by(random_model, tmp_path, monkeypatch):
    """There transformers keeps every renaming for the way back, those for older checkpoints too: model.model.layers…"""
    real = AutoModelForImageTextToText.from_pretrained

    def as_under_zero3(*args, **kwargs):
        model = real(*args, **kwargs)
        model._weight_conversions = [*model._weight_conversions, *get_model_conversion_mapping(model)]
        return model

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", as_under_zero3)
    load(str(random_model)).model.save_pretrained(tmp_path)
    names = [load_file(folder / "model.safetensors").keys() for folder in (tmp_path, random_model)]
    assert names[0] == names[1]
