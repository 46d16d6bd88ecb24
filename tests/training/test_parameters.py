"""What a stage trains: frozen eyes cost no backward pass, LoRA leaves eyes and head alone and ends merged."""

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.model.load import load
from aesr1.rapo import train
from aesr1.training.launch import SHARD_ALL, SHARD_OPTIMIZER, Launch
from aesr1.training.parameters import (
    check_dtype,
    check_lora,
    count_lora_parameters,
    freeze_vision,
    lora_config,
    save_merged,
)
from aesr1.training.settings import ModelSettings
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names


@pytest.fixture
def model(random_model):
    return load(str(random_model), device="cpu").model


def batch(model):
    """A picture of 4 × 4 patches and a few words."""
    vision = model.config.vision_config
    token = model.config.image_token_id
    ids = torch.tensor([[30, model.config.vision_start_token_id, *[token] * 4, 31, 32, 33, 34]])
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    torch.manual_seed(0)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(16, width),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": (ids == token).long(),
        "labels": ids.masked_fill(ids == token, -100),
    }


def gradients(model):
    model.train()
    model.zero_grad()
    model(**batch(model)).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_no_gradient_passes_a_frozen_tower_under_checkpointing(model):
    expected = gradients(model)
    freeze_vision(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    seen = []
    model.model.visual.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    ours = gradients(model)
    outputs = [value for value in vars(seen[0]).values() if isinstance(value, torch.Tensor)]
    assert outputs and not any(output.requires_grad for output in outputs)
    assert ours and not any("visual" in name for name in ours)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("name", ["tiny-photo-backbone", "tiny"])
def test_the_projector_of_a_frozen_tower_can_be_trained(name):
    model = load(name, device="cpu").model
    freeze_vision(model, train_projector=True)
    trained = {part for part, weight in model.named_parameters() if weight.requires_grad and "language" not in part}
    assert trained and all("projector" in part or "merger" in part for part in trained - {"lm_head.weight"})
    frozen = sum(not weight.requires_grad for weight in model.parameters())
    assert frozen == sum("vision_tower" in part or "visual." in part for part, _ in model.named_parameters()) - sum(
        "merger" in part for part in trained
    )


def test_a_projector_is_trained_alone_where_that_says_something():
    for settings in ({}, {"freeze_vision": True, "lora_rank": 4}):
        with pytest.raises(AesError, match="train_projector needs freeze_vision and no LoRA"):
            ModelSettings(train_projector=True, **settings)
    model = torch.nn.ModuleDict({"vision_tower": torch.nn.Linear(2, 2)})
    with pytest.raises(AesError, match="no projector"):
        freeze_vision(model, train_projector=True)


def test_a_model_without_eyes_cannot_be_frozen():
    with pytest.raises(AesError, match="no vision part"):
        freeze_vision(torch.nn.Linear(2, 2))


def test_lora_is_on_the_language_model_alone(model):
    added = count_lora_parameters(model, 4)
    adapted = get_peft_model(model, lora_config(model, rank=4, alpha=8))
    trained = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == added > 0
    assert all("language_model" in name and "lora_" in name for name in trained)
    assert any("q_proj" in name for name in trained) and any("down_proj" in name for name in trained)


def test_lora_ends_as_a_whole_model_and_an_adapter(scene_folder, fluent_model, rationales, tmp_path):
    data = ["--rationales", str(rationales), "--model", str(fluent_model), "--output_dir", str(tmp_path / "sft")]
    lora = ["--lora_rank", "4", "--lora_alpha", "8", "--learning_rate", "1e-2", "--max_steps", "3"]
    cold = cold_start.main([*data, *lora, "--gradient_checkpointing", "true", *CPU[:4], *CPU[6:]])
    before, after = (load_file(folder / "model.safetensors") for folder in (fluent_model, cold))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name or "embed" in name for name in changed)
    assert (cold / "adapter" / "adapter_model.safetensors").exists()
    assert AutoModelForImageTextToText.from_pretrained(cold).num_parameters() == sum(t.numel() for t in before.values())
    ratings = ["--ratings", str(scene_folder / "ratings.jsonl"), "--model", str(cold), "--validate_every", "0"]
    sizes = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "16"]
    after = train.main([*ratings, *sizes, *lora, "--save_steps", "9", "--output_dir", str(tmp_path / "rapo"), *CPU])
    assert load(str(after), device="cpu").model.num_parameters() == load(str(cold), device="cpu").model.num_parameters()


def test_a_merge_in_16_bits_loses_nothing_of_a_small_update(random_model, tmp_path):
    model = load(str(random_model), device="cpu", dtype="bfloat16").model
    adapted = get_peft_model(model, lora_config(model, rank=2, alpha=2))
    layer = next(module for name, module in adapted.named_modules() if name.endswith("layers.0.self_attn.q_proj"))
    torch.manual_seed(0)
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_(std=1e-5)
    base = layer.base_layer.weight.detach().float().clone()
    update = (layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()).detach()
    save_merged(adapted, tmp_path)
    merged = load_file(tmp_path / "model.safetensors")
    (name,) = [name for name in merged if name.endswith("layers.0.self_attn.q_proj.weight") and "visual" not in name]
    torch.testing.assert_close(merged[name] - base, update, rtol=0.05, atol=1e-8)


def test_frozen_parameters_count_where_zero_3_holds_them(model):
    expected = freeze_vision(model)
    for parameter in model.parameters():
        parameter.ds_numel = parameter.numel()
        parameter.data = torch.empty(0)
    assert freeze_vision(model) == expected > 0


@pytest.mark.parametrize(
    ("rank", "launch", "refused"),
    [
        (0, Launch(8, SHARD_ALL), False),
        (8, Launch(8, SHARD_OPTIMIZER), False),
        (8, Launch(8, SHARD_ALL), True),
        (8, Launch(8, SHARD_OPTIMIZER, fsdp=True), True),
    ],
)
def test_lora_and_divided_weights_do_not_go_together(rank, launch, refused):
    if not refused:
        check_lora(rank, launch)
        return
    with pytest.raises(AesError, match="lora_rank"):
        check_lora(rank, launch)


@pytest.mark.parametrize(
    ("dtype", "rank", "launch", "refused"),
    [
        ("float32", 0, Launch(), False),
        ("bfloat16", 8, Launch(), False),
        ("bfloat16", 0, Launch(8, SHARD_ALL, deepspeed=True), False),
        ("bfloat16", 0, Launch(8, SHARD_ALL), True),
        ("float16", 0, Launch(), True),
    ],
)
def test_trained_weights_have_a_float32_copy(dtype, rank, launch, refused):
    if not refused:
        check_dtype(dtype, rank, launch)
        return
    with pytest.raises(AesError, match="float32 copy"):
        check_dtype(dtype, rank, launch)
