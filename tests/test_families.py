"""Every model family through the whole flow as a tiny random model: load, score, cold start, RAPO, score."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from families import BUILDERS
from peft import get_peft_model
from safetensors.torch import load_file

from aesr1 import cold_start
from aesr1.contract import SCORE_TEXTS, reply_until_score
from aesr1.images.load import open_image
from aesr1.model.generate import generate, model_inputs, picture_tokens
from aesr1.model.load import load
from aesr1.model.predict import PredictSettings, predict
from aesr1.model.score_expectation import expect_scores
from aesr1.rapo import train
from aesr1.training.parameters import VISION_PARTS, lora_config, lora_targets
from conftest import make_once

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

PIXELS = 4096
COMMON = {
    "use_cpu": "true",
    "bf16": "false",
    "gradient_checkpointing": "false",
    "max_pixels": PIXELS,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "per_device_train_batch_size": 8,
}


def arguments(**settings):
    return [text for name, value in {**COMMON, **settings}.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module", params=BUILDERS)
def checkpoint(request, tmp_path_factory):
    return make_once(tmp_path_factory, request.param, BUILDERS[request.param])


@pytest.fixture(scope="module")
def vlm(checkpoint):
    return load(str(checkpoint), device="cpu", max_pixels=PIXELS)


@pytest.fixture(scope="module")
def started(checkpoint, scene_folder, tmp_path_factory):
    """A cold start whose replies can be read: equal rewards would move nothing in RAPO."""
    data = {"rationales": scene_folder / "short.jsonl", "model": checkpoint}
    pace = {"max_steps": 40, "learning_rate": 1e-2}
    return make_once(
        tmp_path_factory,
        f"{checkpoint.name}-sft",
        lambda folder: cold_start.main(arguments(output_dir=folder, **data, **pace)),
    )


@pytest.fixture(scope="module")
def trained(started, scene_folder, tmp_path_factory):
    data = {"ratings": scene_folder / "ratings.jsonl", "model": started}
    sizes = {"num_generations": 4, "max_completion_length": 20, "validate_every": 2, "validate_images": 4}
    pace = {"max_steps": 2, "learning_rate": 2e-4}
    return make_once(
        tmp_path_factory,
        f"{started.name}-rapo",
        lambda folder: train.main(arguments(output_dir=folder, **data, **sizes, **pace)),
    )


@pytest.fixture(scope="module")
def pictures(scene_folder):
    """Square, wide and tall, so that rows have unequal numbers of picture tokens."""
    square, wide, tall = (open_image(scene_folder / f"{number:02d}.png") for number in range(3))
    return [square.resize((64, 64)), wide.resize((90, 40)), tall.resize((30, 90))]


def figures(folder, name):
    return [row[name] for row in map(json.loads, (folder / "figures.jsonl").open()) if name in row]


def changed(before, after):
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys() and all(tensor.isfinite().all() for tensor in new.values())
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_expectation_equals_a_forward_pass_of_every_answer(vlm, pictures):
    """Teacher forcing without a cache, each picture alone and so without padding."""
    prefixes = [reply_until_score("x " * length) for length in (1, 9, 3)]
    together = expect_scores(vlm, pictures, prefixes)
    for picture, prefix, found in zip(pictures, prefixes, together, strict=True):
        inputs = model_inputs(vlm, [picture] * 101, [prefix + text for text in SCORE_TEXTS], "Describe it.")
        start = model_inputs(vlm, [picture], [prefix], "Describe it.")["input_ids"].shape[1]
        assert inputs["attention_mask"].all()
        with torch.inference_mode():
            log_p = torch.log_softmax(vlm.model(**inputs).logits[:, start - 1 : -1], dim=-1)
        log_p = log_p.gather(-1, inputs["input_ids"][:, start:, None]).sum((1, 2))
        weights, values = torch.softmax(log_p.double(), 0).numpy(), np.linspace(0, 1, 101)
        (alone,) = expect_scores(vlm, [picture], [prefix], prompt="Describe it.")
        assert alone.score == pytest.approx(weights @ values, abs=1e-5)
        assert alone.score_std == pytest.approx(math.sqrt(weights @ values**2 - (weights @ values) ** 2), abs=1e-5)
        assert found == pytest.approx(expect_scores(vlm, [picture], [prefix])[0], abs=1e-5)


def test_replies_do_not_depend_on_the_batch_and_hold_no_picture_tokens(vlm, pictures):
    replies = generate(vlm, pictures, max_new_tokens=6)
    assert replies == [generate(vlm, [picture], max_new_tokens=6)[0] for picture in pictures]
    tokens = picture_tokens(vlm.model.config)
    assert (
        vlm.processor.tokenizer.convert_tokens_to_ids(vlm.processor.tokenizer.convert_ids_to_tokens(tokens)) == tokens
    )
    assert {int(token) for token in model_inputs(vlm, pictures, [""] * 3, "x")["input_ids"].unique()} & set(tokens)


def test_a_reply_is_trained_as_it_is_asked_for(vlm, pictures):
    """Also with the same tokens: scoring and RAPO leave special ones to the processor, TRL's SFT asks for none."""
    picture = {"type": "image", "image": pictures[0]}
    question = [{"role": "user", "content": [picture, {"type": "text", "text": "x"}]}]
    answer = [{"role": "assistant", "content": [{"type": "text", "text": "reply"}]}]
    asked = vlm.processor.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    trained = vlm.processor.apply_chat_template(question + answer, tokenize=False)
    assert trained.startswith(asked + "reply" + vlm.processor.tokenizer.eos_token)
    (ids,) = vlm.processor.apply_chat_template([question], add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]
    for special in ({}, {"add_special_tokens": False}):
        assert vlm.processor(text=[asked], images=[pictures[:1]], **special)["input_ids"] == [ids]


def test_the_processor_is_saved_under_the_familys_name_and_can_be_pickled(vlm, checkpoint, pictures, tmp_path):
    vlm.processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == json.loads((checkpoint / "processor_config.json").read_text())["processor_class"]
    copy = pickle.loads(pickle.dumps(vlm.processor))
    for name, tensor in copy(text=[copy.image_token], images=pictures[:1], return_tensors="pt").items():
        assert torch.equal(
            tensor, vlm.processor(text=[copy.image_token], images=pictures[:1], return_tensors="pt")[name]
        )


def test_the_cold_start_learns_and_leaves_the_eyes_alone(checkpoint, started):
    losses = figures(started, "loss")
    assert all(map(math.isfinite, losses)) and losses[-1] < 0.5 * losses[0]
    names = changed(checkpoint, started)
    assert names and not any(part in VISION_PARTS for name in names for part in name.split("."))


def test_rapo_trains_everything(started, trained):
    assert figures(trained, "readable")[0] > 0 and figures(trained, "reward_std")[0] > 0
    assert all(map(math.isfinite, figures(trained, "loss"))) and figures(trained, "validation/srcc")
    names = changed(started, trained)
    assert {any(part in VISION_PARTS for part in name.split(".")) for name in names} == {True, False}
    assert not any("running_" in name for name in names), "batch norm's statistics are those of scoring"


def test_a_trained_model_scores(trained, scene_folder):
    again = load(str(trained), device="cpu", max_pixels=PIXELS)
    (row,) = predict(again, [scene_folder / "30.png"], PredictSettings(max_new_tokens=20))
    assert row.readable and 0 <= row.score <= 1 and row.error is None


def test_lora_is_on_the_language_model_alone(vlm):
    names = lora_targets(vlm.model)
    adapted = get_peft_model(copy.deepcopy(vlm.model), lora_config(vlm.model, rank=2, alpha=4))
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    pair = ("lora_A.default.weight", "lora_B.default.weight")
    assert trained == {f"base_model.model.{name}.{part}" for name in names for part in pair}
    assert not any(part in VISION_PARTS for name in names for part in name.split("."))
    config = vlm.model.config.get_text_config()
    linear = (getattr(config, "layer_types", None) or []).count("linear_attention")
    assert sum(name.endswith("q_proj") for name in names) == config.num_hidden_layers - linear
    assert sum(name.endswith("linear_attn.out_proj") for name in names) == linear
