"""A checkpoint that holds only a LoRA adapter can be scored with and trained further like a whole model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.model.load import load, load_config
from aesr1.model.predict import PredictSettings, predict
from aesr1.rapo import train
from aesr1.training.launch import SHARD_ALL, Launch
from aesr1.training.run import begin_run
from aesr1.training.settings import ModelSettings
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

LORA = ["--lora_rank", "4", "--lora_alpha", "8", "--learning_rate", "1e-2", "--save_steps", "1"]


def sft(rationales: Path, model: Path, output: Path, *more: str) -> Path:
    data = ["--rationales", str(rationales), "--model", str(model), "--output_dir", str(output)]
    return Path(cold_start.main([*data, "--max_steps", "2", *CPU, *more]))


def rapo(scenes: Path, model: Path, output: Path, *more: str) -> Path:
    data = ["--ratings", str(scenes / "ratings.jsonl"), "--model", str(model), "--output_dir", str(output)]
    sizes = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "16"]
    pace = ["--max_steps", "1", "--validate_every", "0", "--logging_steps", "1"]
    return Path(train.main([*data, *sizes, *pace, *CPU, *more]))


@pytest.fixture(scope="module")
def adapted(fluent_model, rationales, tmp_path_factory):
    """A finished LoRA run, begun from a relative path."""
    folder = tmp_path_factory.mktemp("lora")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fluent_model.parent)
        return sft(rationales, Path(fluent_model.name), folder / "run", *LORA)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0, msg=name)


def test_the_last_checkpoint_has_the_weights_of_the_finished_model(adapted, scene_folder):
    checkpoint = adapted / "checkpoint-2"
    assert not (checkpoint / "config.json").exists()
    on_the_way, finished = (load(str(folder), device="cpu", max_pixels=4096) for folder in (checkpoint, adapted))
    assert_same(weights(on_the_way.model), weights(finished.model))
    pictures = [scene_folder / f"{n:02d}.png" for n in range(4)]
    rows = [[*predict(vlm, pictures, PredictSettings(max_new_tokens=24))] for vlm in (on_the_way, finished)]
    assert [row.reply for row in rows[0]] == [row.reply for row in rows[1]]
    assert rows[0][0].model == str(checkpoint) and rows[0][0].revision


def test_a_lora_checkpoint_loads_in_the_given_dtype(adapted):
    checkpoint = str(adapted / "checkpoint-2")
    half, whole = (load(checkpoint, device="cpu", dtype=dtype).model for dtype in ("bfloat16", "auto"))
    assert (half.dtype, whole.dtype) == (torch.bfloat16, torch.float32)
    assert_same(weights(half), {name: tensor.bfloat16() for name, tensor in weights(whole).items()})


def test_the_kl_reference_of_a_run_from_a_lora_checkpoint_is_that_checkpoint(adapted, scene_folder, tmp_path):
    output = rapo(scene_folder, adapted / "checkpoint-2", tmp_path / "run", "--learning_rate", "0")
    kl = [row["kl"] for row in map(json.loads, (output / "figures.jsonl").open()) if "kl" in row]
    assert kl == [pytest.approx(0, abs=1e-6)]
    ours = load_file(output / "model.safetensors")
    assert_same(ours, load_file(adapted / "model.safetensors"))


def test_lora_trained_on_a_lora_checkpoint_loads_again(adapted, scene_folder, tmp_path):
    output = rapo(scene_folder, adapted / "checkpoint-2", tmp_path / "run", *LORA)
    second = load(str(output / "checkpoint-1"), device="cpu").model
    assert_same(weights(second), weights(load(str(output), device="cpu").model))
    assert (
        max(
            (a - b).abs().max()
            for a, b in zip(second.parameters(), load(str(adapted), device="cpu").model.parameters(), strict=True)
        )
        > 1e-4
    )


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ('{"base_model_name_or_path": "/gone/away"}', "LoRA adapter for /gone/away: there is no folder", "base_model_"),
        ('{"base_model_name_or_path": null}', "names no base", "hub id"),
        ("{", "is broken", "copy the checkpoint again"),
    ],
)
def test_a_missing_base_model_is_a_clear_error(adapted, tmp_path, text, problem, fix):
    shutil.copytree(adapted / "checkpoint-2", tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2" / "adapter_config.json").write_text(text)
    for read in (load, load_config):
        with pytest.raises(AesError, match=problem) as error:
            read(str(tmp_path / "checkpoint-2"), max_pixels=4096)
        assert fix in error.value.fix


def test_an_adapter_for_another_model_is_a_clear_error(adapted, tmp_path):
    shutil.copytree(adapted / "checkpoint-2", tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2" / "adapter_config.json").write_text(
        (adapted / "checkpoint-2" / "adapter_config.json")
        .read_text()
        .replace(
            str(json.loads((adapted / "checkpoint-2" / "adapter_config.json").read_text())["base_model_name_or_path"]),
            "tiny-backbone",
        )
    )
    with pytest.raises(AesError, match="does not fit its base"):
        load(str(tmp_path / "checkpoint-2"), device="cpu")


def test_sharded_training_refuses_a_lora_checkpoint(adapted, tmp_path):
    model = ModelSettings(str(adapted / "checkpoint-2"))
    with pytest.raises(AesError, match="divides the weights") as error:
        training = cold_start.SFTConfig(str(tmp_path / "x"), use_cpu=True, bf16=False)
        begin_run(model, training, Launch(2, SHARD_ALL), settings={})
    assert "zero2" in error.value.fix and not (tmp_path / "x").exists()
