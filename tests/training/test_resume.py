"""kill -9 at a random step, then the same command: the weights, curve and replies of an uninterrupted run."""

import json
import multiprocessing
import random
import time
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from claiming import claim_each
from safetensors.torch import load_file
from trl import GRPOConfig
from two_processes import start_alone

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.rapo import train
from aesr1.records import SampledReply
from aesr1.training.recipe import parse_recipe
from aesr1.training.resume import TRAINER_MAY_CHANGE, require_same_run
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

STEPS = 8
PACE = ["--max_steps", str(STEPS), "--save_steps", "1", "--logging_steps", "1", "--learning_rate", "1e-3"]
CLOCK = ("step_time", "num_tokens")  # TRL begins to count a cold start's tokens anew


def rapo(scenes: Path, model: Path, *more: str) -> list[str]:
    """Three steps an epoch, so that the run ends in its third."""
    sizes = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "4", "--images_per_comparison", "8"]
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
    data = ["--rationales", str(scenes / "rationales-24.jsonl"), "--per_device_train_batch_size", "8"]
    return ["sft", "--model", str(model), *data, *PACE, *CPU, *more]


def curve(folder: Path) -> list[dict[str, float]]:
    """A run's log without what a clock says."""
    rows = [json.loads(line) for line in (folder / "figures.jsonl").open()]
    return [{n: row[n] for n in row if not n.startswith("train_") and n not in CLOCK} for row in rows]


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        (rapo, []),
        pytest.param(rapo, ["--lora_rank", "4"], marks=pytest.mark.slow),
        pytest.param(rapo, ["--dynamic_sampling_rounds", "1", "--rewards", "binary", "format"], marks=pytest.mark.slow),
        (sft, []),
    ],
    ids=["rapo", "rapo by LoRA", "rapo with resampling", "cold start"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(scene_folder, fluent_model, tmp_path, stage, more):
    name, *arguments = stage(scene_folder, fluent_model, *more)
    main = train.main if name == "rapo" else cold_start.main
    whole = main([*arguments, "--output_dir", str(tmp_path / "whole")])
    output, at = tmp_path / "killed", random.randint(1, STEPS - 1)
    process = start_alone(name, [*arguments, "--output_dir", str(output)])
    while not (output / f"checkpoint-{at}" / "aesr1.json").exists() and process.is_alive():
        time.sleep(0.01)
    time.sleep(random.random() / 5)
    process.kill()
    process.join()
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


def bind_rapo(output: Path, *arguments: str) -> None:
    """As the beginning of a run does."""
    *ours, training = parse_recipe(
        train.SETTINGS, [*arguments, "--output_dir", str(output)], derive=train.derive_settings, **train.PAPER
    )
    require_same_run(output, {name: value for part in ours for name, value in vars(part).items()}, training)


@pytest.fixture
def begun(scene_folder, random_model, tmp_path):
    """A folder that is bound, and the settings it is bound to."""
    arguments = rapo(scene_folder, random_model)[1:]
    bind_rapo(tmp_path / "run", *arguments)
    return tmp_path / "run", arguments


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("--seed 7", "seed = 42, now it is 7"),
        ("--learning_rate 1e-4", "learning_rate = 0.001, now it is 0.0001"),
        ("--beta 0.2", "beta = 0.01, now it is 0.2"),
        ("--epsilon_high 0.3", "epsilon_high = 0.28, now it is 0.3"),
        ("--temperature 0.9", "temperature = 1.0, now it is 0.9"),
        ("--loss_type dapo", "loss_type = 'grpo', now it is 'dapo'"),
        ("--lr_scheduler_type cosine", "lr_scheduler_type = 'linear', now it is 'cosine'"),
        ("--max_completion_length 32", "max_completion_length = 16, now it is 32"),
        ("--num_generations 8", "num_generations = 4, now it is 8"),
        ("--gradient_accumulation_steps 8", "gradient_accumulation_steps = 32, now it is 64"),
        ("--per_device_train_batch_size 16", "gradient_accumulation_steps = 32, now it is 64"),
        ("--max_steps 12", "max_steps = 8, now it is 12"),
        ("--num_train_epochs 3", "num_train_epochs = 10"),
        ("--weight_decay 0.1", "weight_decay = 0.0, now it is 0.1"),
        ("--reward_weights 1 1 2", "reward_weights = None, now it is [1.0, 1.0, 2.0]"),
        ("--sigma 0.2", "sigma = 0.1, now it is 0.2"),
        ("--split val", "split = 'train', now it is 'val'"),
    ],
)
def test_a_run_goes_on_under_no_other_setting_of_trls_or_ours(begun, change, problem):
    folder, arguments = begun
    with pytest.raises(AesError) as error:
        bind_rapo(folder, *arguments, *change.split())
    assert problem in error.value.problem
    a_length = problem.startswith(("max_steps", "num_train"))
    assert ("lr_scheduler_type: constant" if a_length else "the same settings") in error.value.fix


@pytest.mark.parametrize(
    "change",
    [
        "--validate_every 1 --validate_images 2 --validate_on test --validate_batch 4",
        "--logging_steps 3 --report_to tensorboard --run_name other --disable_tqdm false --log_completions true",
        "--save_steps 2 --save_total_limit 9 --save_only_model true",
        "--gradient_checkpointing true --dataloader_num_workers 2 --ddp_timeout 9",
        "--per_device_train_batch_size 4 --gradient_accumulation_steps 8",
    ],
)
def test_what_leaves_the_result_alone_may_change(begun, change):
    folder, arguments = begun
    bind_rapo(folder, *arguments, *change.split())


def test_what_may_change_are_settings_that_there_are():
    fields = {*GRPOConfig.__dataclass_fields__, *cold_start.SFTConfig.__dataclass_fields__}
    assert fields >= TRAINER_MAY_CHANGE


def test_a_model_and_ratings_may_be_spelt_otherwise(begun, scene_folder, random_model, tmp_path, monkeypatch):
    folder, arguments = begun
    (tmp_path / "link").symlink_to(random_model)
    monkeypatch.chdir(scene_folder)
    bind_rapo(
        folder,
        *arguments,
        "--model",
        str(tmp_path / "link") + "/",
        "--ratings",
        f"../{scene_folder.name}/ratings.jsonl",
    )
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(AesError, match="started with model ="):
        bind_rapo(folder, *arguments, "--model", str(tmp_path / "elsewhere"))


def test_the_same_relative_path_elsewhere_is_another_file(scene_folder, random_model, tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.jsonl").touch()
    arguments = [*rapo(scene_folder, random_model)[1:], "--ratings", "r.jsonl"]
    monkeypatch.chdir(tmp_path / "one")
    bind_rapo(tmp_path / "run", *arguments)
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(AesError, match="started with ratings ="):
        bind_rapo(tmp_path / "run", *arguments)


def test_a_split_is_no_folder_of_its_name(begun, tmp_path, monkeypatch):
    _, arguments = begun
    for name in ("one", "two"):
        (tmp_path / name / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one")
    bind_rapo(tmp_path / "run", *arguments)
    monkeypatch.chdir(tmp_path / "two")
    bind_rapo(tmp_path / "run", *arguments)


def test_a_folder_that_an_older_version_bound_may_go_on(begun):
    folder, arguments = begun
    settings = json.loads((folder / "settings.json").read_text())
    older = {name: value for name, value in settings.items() if name not in ("training", "places", "validate_batch")}
    (folder / "settings.json").write_text(json.dumps(older))
    bind_rapo(folder, *arguments, "--seed", "7")
    with pytest.raises(AesError, match="sigma"):
        bind_rapo(folder, *arguments, "--sigma", "0.2")


def test_under_a_constant_rate_a_run_may_be_lengthened_unless_sigma_moves(scene_folder, random_model, tmp_path):
    arguments = [*rapo(scene_folder, random_model)[1:], "--lr_scheduler_type", "constant"]
    bind_rapo(tmp_path / "run", *arguments)
    bind_rapo(tmp_path / "run", *arguments, "--max_steps", "20")
    bind_rapo(tmp_path / "moving", *arguments, "--sigma_end", "0.05")
    with pytest.raises(AesError, match="max_steps = 8, now it is 20"):
        bind_rapo(tmp_path / "moving", *arguments, "--sigma_end", "0.05", "--max_steps", "20")


@pytest.mark.slow
def test_a_lengthened_run_in_smaller_micro_batches_is_the_long_run(scene_folder, fluent_model, tmp_path):
    _, *arguments = rapo(scene_folder, fluent_model, "--lr_scheduler_type", "constant")
    long = train.main([*arguments, "--max_steps", "5", "--output_dir", str(tmp_path / "long")])
    output = train.main([*arguments, "--max_steps", "2", "--output_dir", str(tmp_path / "run")])
    (output / "aesr1.json").unlink()  # as if it had been killed at its end
    other = ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "8", "--validate_batch", "3"]
    assert train.main([*arguments, *other, "--max_steps", "5", "--output_dir", str(output)]) == output
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (output, long))
    start = load_file(fluent_model / "model.safetensors")
    assert max((theirs[name] - start[name]).abs().max() for name in start) > 1e-3
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)], ids=["one run", "two runs"])
def test_of_processes_that_claim_a_folder_at_once_one_binds_it(tmp_path, seeds):
    rounds, spawn = 40, multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(2), spawn.Queue()
    processes = [
        spawn.Process(target=claim_each, args=(tmp_path, barrier, answers), kwargs={"seed": seed, "rounds": rounds})
        for seed in seeds
    ]
    for process in processes:
        process.start()
    found = defaultdict(list)
    for _ in range(2 * rounds):
        number, answer = answers.get(timeout=60)
        found[number].append(answer)
    for process in processes:
        process.join()
    refused = 0 if seeds[0] == seeds[1] else 1
    assert all(sum("started with seed" in answer for answer in each) == refused for each in found.values())
    assert all(answer == "bound" or "started with seed" in answer for each in found.values() for answer in each)
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["settings.json"]  # nothing half-written is left
