"""What cannot be is refused before a model loads, in a run and in its plan alike, and each time with what to do."""

import pytest
from trl import GRPOConfig

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.rapo import train
from aesr1.rapo.reward_functions import RewardSettings
from aesr1.rapo.settings import RapoConfig, check_config
from aesr1.training.launch import Launch
from aesr1.training.settings import ModelSettings
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

BOTH = [
    (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps is 0", "give 1 or more"),
    (["--per_device_train_batch_size", "0"], "per_device_train_batch_size is 0", "give 1 or more"),
    (["--max_pixels", "0"], "max_pixels is 0", "give 1,024 or more (32 × 32"),
    (["--max_pixels", "900"], "max_pixels is 900", "give 1,024 or more (32 × 32"),
    (["--lora_alpha", "0"], "lora_alpha is 0", "give 1 or more"),
    (["--lora_rank", "-1"], "lora_rank is -1", "0 to train all weights"),
    (["--learning_rate", "-1"], "learning_rate is -1", "give 0 or more"),
    (["--learning_rate", "nan"], "learning_rate is nan", "give 0 or more"),
    (["--num_train_epochs", "0"], "max_steps is -1 and num_train_epochs 0", "num_train_epochs above 0"),
    (["--max_steps", "0"], "max_steps is 0", "nothing to train|num_train_epochs above 0"),
    (["--remove_unused_columns", "true"], "remove_unused_columns is set", "leave remove_unused_columns out"),
    (["--eval_strategy", "steps"], "TRL has no data set to evaluate on", "validate_every"),
    (["--eval_strategy", "epoch"], "TRL has no data set to evaluate on", "validate_every"),
    (["--save_strategy", "best"], "save_strategy is best", "save_strategy: steps"),
    (["--dtype", "bf16"], "dtype is 'bf16'", "float32, bfloat16, float16"),
    (["--attention", "nonsense"], "attention is 'nonsense'", "sdpa, eager, flash_attention_2"),
    (["--attention", "flash_attention_2"], "needs a GPU", "leave attention out"),
    (["--deepspeed", "ds.json"], "--deepspeed needs deepspeed", "pip install deepspeed"),
    (["--report_to", "diary"], "not a logger", "choose from"),
]
SFT = [
    (["--score_weight", "-1"], "score_weight is -1", "give 0 or more"),
    (["--score_weight", "5", "--loss_type", "dft"], "no meaning in the loss dft", "leave out score_weight"),
    (["--packing", "true"], "packing is set, and TRL cannot pack", "leave packing out"),
    (["--padding_free", "true"], "padding_free is set", "leave padding_free out"),
    (["--max_length", "16"], "max_length 16 would cut rows short: a picture takes 16 tokens", "leave max_length out"),
]
RAPO = [
    (["--num_iterations", "0"], "num_iterations is 0", "give 1 or more"),
    (["--temperature", "0"], "temperature is 0", "above 0"),
    (["--num_generations", "1"], "num_generations is 1", "give 2 or more"),
    (["--num_generations", "0"], "num_generations is 0", "give 2 or more"),
    (["--steps_per_generation", "0"], "steps_per_generation is 0", "give 1 or more"),
    (["--validate_images", "-3"], "validate_images is -3", "validate_every: 0 turns validation off"),
    (["--validate_images", "0"], "validate_images is 0", "validate_every: 0 turns validation off"),
    (["--validate_every", "-1"], "validate_every is -1", "give 0 or more"),
    (["--images_per_comparison", "-8"], "images_per_comparison is -8", "give 0 or more"),
    (["--images_per_comparison", "8", "--per_device_train_batch_size", "0"], "train_batch_size is 0", "give 1 or more"),
    (["--max_completion_length", "0"], "max_completion_length is 0", "give 1 or more"),
    (["--max_completion_length", "3"], "max_completion_length is 3, and the shortest reply", "reasons take hundreds"),
    (["--use_vllm", "true"], "trainer sends its weights by vLLM's code", "pip install 'vllm"),
    (["--use_vllm", "true", "--vllm_mode", "colocate"], "needs vllm, which is not installed", "pip install 'vllm"),
    (["--use_transformers_continuous_batching", "true"], "it takes no pictures", "leave use_transformers"),
]


@pytest.fixture(autouse=True)
def no_model_loads(monkeypatch):
    def loaded(*_, **__):
        pytest.fail("a model was loaded")

    monkeypatch.setattr("aesr1.training.run.load", loaded)


def refused(stage, arguments, problem, fix):
    with pytest.raises(AesError, match=problem) as error:
        stage.main(arguments)
    assert any(part in error.value.fix for part in fix.split("|"))


@pytest.mark.parametrize("plan", [[], ["--dry_run"]], ids=["run", "plan"])
@pytest.mark.parametrize(("more", "problem", "fix"), BOTH + RAPO, ids=lambda value: " ".join(value)[:40])
def test_rapo_refuses_what_cannot_be(scene_folder, random_model, tmp_path, plan, more, problem, fix):
    data = ["--ratings", str(scene_folder / "ratings.jsonl"), "--model", str(random_model)]
    sizes = ["--per_device_train_batch_size", "8", "--output_dir", str(tmp_path / "out"), *CPU]
    refused(train, [*data, *sizes, *more, *plan], problem, fix)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plan", [[], ["--dry_run"]], ids=["run", "plan"])
@pytest.mark.parametrize(("more", "problem", "fix"), BOTH + SFT, ids=lambda value: " ".join(value)[:40])
def test_a_cold_start_refuses_what_cannot_be(rationales, random_model, tmp_path, plan, more, problem, fix):
    data = ["--rationales", str(rationales), "--model", str(random_model)]
    refused(cold_start, [*data, "--output_dir", str(tmp_path / "out"), *CPU, *more, *plan], problem, fix)
    assert not (tmp_path / "out").exists()


def test_a_length_that_cuts_nothing_may_be_given(rationales, random_model, tmp_path):
    data = ["--rationales", str(rationales), "--model", str(random_model), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(AesError, match="would cut rows short") as error:
        cold_start.main([*data, *CPU, "--max_length", "16", "--dry_run"])
    enough = error.value.fix.split()[-3].replace(",", "")
    assert "rationales: 8" in cold_start.main([*data, *CPU, "--max_length", enough, "--dry_run"])


def test_flash_attention_wants_its_package(scene_folder, random_model, tmp_path, monkeypatch):
    data = ["--ratings", str(scene_folder / "ratings.jsonl"), "--model", str(random_model)]
    flash = ["--output_dir", str(tmp_path / "out"), "--dry_run", "--max_pixels", "4096", "--report_to", "none"]
    arguments = [*data, *flash, "--attention", "flash_attention_2"]
    refused(train, arguments, "needs flash_attn, which is not installed", "pip install flash-attn")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert "comparison_scope: local" in train.main(arguments)  # a plan needs no GPU


def test_deepspeed_wants_its_file(scene_folder, random_model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    data = ["--ratings", str(scene_folder / "ratings.jsonl"), "--model", str(random_model)]
    arguments = [*data, "--output_dir", str(tmp_path / "out"), *CPU, "--deepspeed", str(tmp_path / "ds.json")]
    refused(train, arguments, "there is no such file", "JSON file")


@pytest.mark.parametrize(
    ("ours", "theirs", "problem"),
    [
        ({"lora_alpha": 0}, {}, "lora_alpha is 0"),
        ({"dtype": "bf16"}, {}, "dtype is 'bf16'"),
        ({}, {"temperature": 0.0}, "temperature is 0"),
        ({}, {"remove_unused_columns": True}, "remove_unused_columns is set"),
    ],
)
def test_settings_made_in_python_are_checked_alike(tmp_path, ours, theirs, problem):
    training = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, num_generations=4, **theirs)
    with pytest.raises(AesError, match=problem):
        check_config(RapoConfig(ratings="r.jsonl"), RewardSettings(), ModelSettings(**ours), training, Launch())
