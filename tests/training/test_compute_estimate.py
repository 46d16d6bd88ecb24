"""FLOPs by hand and by torch's counter, and the hours that follow from them."""

from dataclasses import replace

import pytest
import torch
from families import BUILDERS
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainingArguments

from aesr1.model.load import load
from aesr1.training import compute_estimate
from aesr1.training.compute_estimate import (
    Accelerator,
    Pass,
    PassShape,
    RunWork,
    compute_lines,
    decoding_pass,
    estimate_compute,
    estimate_hours,
    forward_flops,
    group_pass,
    picture_flops,
    prefill_pass,
    training_flops,
)
from aesr1.training.launch import Launch
from aesr1.training.memory_estimate import ModelShape
from aesr1.training.model_summary import prompt_inputs, summarize_model
from aesr1.training.parameters import freeze_vision, lora_config
from aesr1.training.settings import ModelSettings

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

SHAPE = PassShape(
    language=100, adapter=0, head=10, layers=2, attention=4, picture=1000, trains_language=True, trains_vision=True
)
WORK = RunWork(groups=6, replies=3, prompt=4, reply=2, read_once=True, checkpointing=False, rollout=6, forwards=1)
MODEL = ModelShape(
    parameters=120, trained=120, weight_bytes=2, hidden=4, intermediate=8, layers=2, cache_width=2, largest_layer=50
)
MAX_PIXELS = 4096


def test_a_picture_by_hand():
    assert picture_flops(tower=5, patches=16, projector=7, tokens=4, width=3, pairs=20) == 2 * (80 + 28) + 4 * 3 * 20


def test_a_group_reads_its_picture_once_or_for_every_reply():
    assert group_pass(WORK) == Pass(1, 4 + 3 * 2, 8 + 3 * (2 * 4 + 2), 3 * 2)
    every = replace(WORK, read_once=False)
    assert group_pass(every) == Pass(3, 3 * 6, 3 * 6 * 6 / 2, 3 * 2)  # half of all pairs: a token sees those before it
    assert prefill_pass(WORK) == Pass(1, 4, 8, 1)
    assert prefill_pass(every) == Pass(3, 12, 24, 3)
    assert decoding_pass(WORK) == Pass(0, 6, 6 * (4 + 1), 6)


ONE = Pass(pictures=2, tokens=10, pairs=30, logits=6)
WEIGHTS, LOOKS = 2 * (100 * 10 + 10 * 6), 4 * 4 * 2 * 30


def test_a_forward_pass_by_hand():
    assert forward_flops(SHAPE, ONE) == 2 * 1000 + WEIGHTS + LOOKS


@pytest.mark.parametrize(
    ("changes", "checkpointing", "flops"),
    [
        ({}, False, 3 * (2000 + WEIGHTS + LOOKS)),
        ({}, True, 4 * (2000 + WEIGHTS + LOOKS)),
        ({"trains_vision": False}, False, 2000 + 3 * (WEIGHTS + LOOKS)),
        ({"trains_vision": False}, True, 2000 + 4 * (WEIGHTS + LOOKS)),
        # LoRA: a frozen weight has no gradient of its own, an adapter has
        (
            {"trains_vision": False, "trains_language": False, "adapter": 5},
            False,
            2000 + 2 * WEIGHTS + 3 * (LOOKS + 2 * 5 * 10),
        ),
    ],
)
def test_a_training_pass_by_hand(changes, checkpointing, flops):
    assert training_flops(replace(SHAPE, **changes), ONE, checkpointing=checkpointing) == flops


def test_a_run_by_hand():
    one = forward_flops(SHAPE, group_pass(WORK))
    prefill, decoding = (forward_flops(SHAPE, make(WORK)) for make in (prefill_pass, decoding_pass))
    assert estimate_compute(SHAPE, WORK) == (6 * prefill, 6 * decoding, 6 * one, 6 * 3 * one)
    twice = estimate_compute(SHAPE, replace(WORK, iterations=2))  # each reply is trained on twice: half as many
    assert twice == (3 * prefill, 3 * decoding, 3 * one, 6 * 3 * one)
    tuned = estimate_compute(SHAPE, replace(WORK, rollout=0, forwards=0))
    assert tuned == (0, 0, 0, 6 * 3 * one) and tuned.total == 18 * one


def test_hours_by_hand(monkeypatch):
    monkeypatch.setattr(compute_estimate, "UTILIZATION", 0.5)
    flops = estimate_compute(SHAPE, WORK)
    others = (flops.total - flops.decoding) / (0.5 * 1e4 * 2) / 3600
    steps = 6 * 3 / (6 * 2) * 2  # 18 replies, 6 at a time on each of two GPUs, two steps each
    read = 110 * 2 + 6 * (4 + 1) * 2 * 2 * 2 * 2  # weights, and keys and values of six replies
    reading = Accelerator("slow memory", flops=1e4, bandwidth=10, price=1)
    hours = estimate_hours(MODEL, SHAPE, WORK, reading, gpus=2)
    assert hours == pytest.approx((steps * read / 10 / 3600, others))
    calculating = Accelerator("slow products", flops=1e4, bandwidth=1e9, price=1)
    hours = estimate_hours(MODEL, SHAPE, WORK, calculating, gpus=2)
    assert hours.decoding == pytest.approx(flops.decoding / (0.5 * 1e4 * 2) / 3600)
    launching = Accelerator("fast", flops=1e12, bandwidth=1e12, price=1)
    hours = estimate_hours(MODEL, SHAPE, WORK, launching, gpus=2)
    assert hours.decoding == pytest.approx(steps * 2 * 0.8e-3 / 3600)
    adapted = estimate_hours(MODEL, replace(SHAPE, adapter=1), WORK, launching, gpus=2)
    assert adapted.decoding == pytest.approx(steps * 4 * 0.8e-3 / 3600)
    engine = estimate_hours(MODEL, SHAPE, replace(WORK, by_engine=True), replace(reading, flops=1e15), gpus=2)
    assert engine.decoding == pytest.approx(steps * read / 10 / 3600)


def test_the_lines_name_their_assumptions():
    big = replace(SHAPE, language=7_000_000_000, trains_vision=False)
    lines = compute_lines(MODEL, big, replace(WORK, groups=1e5), processes=2)
    flops = estimate_compute(big, replace(WORK, groups=1e5)).total
    assert lines[0].startswith(f"compute: {flops:.2g} FLOP ({flops / 8.64e19:.2g} PFLOP-days: prefill ")
    assert [part.split(" 80 GB")[0] for part in lines[1].removeprefix("time: ").split("; ")] == [
        *("2 × A100", "2 × H100", "8 × A100", "8 × H100")
    ]
    assert lines[2] == (
        "  assumed: 25% of 312 and 989 TFLOP/s, 2 and 3.35 TB/s in decoding but 0.8 ms a layer at least; 1.5 and 2.5 "
        "USD a GPU and hour; no transfers"
    )
    tuning = compute_lines(MODEL, replace(big, picture=0), replace(WORK, rollout=0), processes=8)
    assert "decoding" not in "".join(tuning) and tuning[1].count("8 ×") == 2
    assert tuning[0].endswith("without the vision tower, whose convolutions are not counted")


def compute_shape(folder, **settings):
    training = TrainingArguments(output_dir="x", use_cpu=True)
    return summarize_model(
        ModelSettings(model=str(folder), max_pixels=MAX_PIXELS, **settings), training, Launch()
    ).compute


def counted(vlm, *, backward):
    """FLOPs of a real pass over prompt and picture, by torch's counter; and the pass."""
    inputs = prompt_inputs(vlm.processor, max_pixels=MAX_PIXELS)
    with FlopCounterMode(display=False) as counter:
        logits = vlm.model(**inputs).logits
        if backward:
            logits.sum().backward()
    tokens = inputs["input_ids"].shape[1]
    return counter.get_total_flops(), Pass(1, tokens, tokens**2, tokens)  # eager attention multiplies all pairs


@pytest.mark.parametrize("frozen", [False, True])
def test_training_takes_as_many_flops_as_torch_counts(random_model, frozen):
    vlm = load(str(random_model), max_pixels=MAX_PIXELS, device="cpu", attention="eager")
    if frozen:
        freeze_vision(vlm.model)
    found, one = counted(vlm, backward=True)
    shape = compute_shape(random_model, freeze_vision=frozen)
    assert training_flops(shape, one, checkpointing=False) == pytest.approx(found, rel=0.1)


def test_checkpointing_takes_as_many_flops_as_torch_counts(random_model):
    vlm = load(str(random_model), max_pixels=MAX_PIXELS, device="cpu", attention="eager")
    vlm.model.gradient_checkpointing_enable()
    vlm.model.train()
    found, one = counted(vlm, backward=True)
    assert training_flops(compute_shape(random_model), one, checkpointing=True) == pytest.approx(found, rel=0.1)


def test_lora_takes_as_many_flops_as_torch_counts(random_model):
    vlm = load(str(random_model), max_pixels=MAX_PIXELS, device="cpu", attention="eager")
    adapted = get_peft_model(vlm.model, lora_config(vlm.model, rank=8, alpha=8))
    found, one = counted(replace(vlm, model=adapted), backward=True)
    shape = compute_shape(random_model, lora_rank=8)
    assert training_flops(shape, one, checkpointing=False) == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("family", sorted(BUILDERS.keys() - {"fastvlm"}))
def test_a_forward_pass_takes_as_many_flops_as_torch_counts(family, tmp_path):
    folder = BUILDERS[family](tmp_path)
    vlm = load(str(folder), max_pixels=MAX_PIXELS, device="cpu", attention="eager")
    if "moe" in family:
        vlm.model.set_experts_implementation("eager")  # torch does not count the grouped product of the default
    with torch.no_grad():
        found, one = counted(vlm, backward=False)
    assert forward_flops(compute_shape(folder), one) == pytest.approx(found, rel=0.1)


def test_convolutions_are_not_counted(tmp_path):
    assert compute_shape(BUILDERS["fastvlm"](tmp_path)).picture == 0


@pytest.mark.parametrize(
    ("size", "rank", "measured"),
    [("3B", 0, 10.07), ("3B", 16, 14.29), ("7B", 0, 7.45), ("7B", 16, 11.44)],  # docs/results.md: rows of K = 4
)
def test_an_estimated_step_of_rapo_is_two_thirds_to_nine_tenths_of_one_on_an_h200(size, rank, measured):
    settings = ModelSettings(model=f"Qwen/Qwen2.5-VL-{size}-Instruct", dtype="bfloat16", lora_rank=rank)
    model = summarize_model(settings, TrainingArguments(output_dir="x", use_cpu=True), Launch())
    prompt = sum(model.prompt)
    work = RunWork(4, 4, prompt, 200, read_once=True, checkpointing=True, rollout=16, forwards=1)
    h200 = Accelerator("H200", flops=989e12, bandwidth=4.24e12, price=1)
    seconds = sum(estimate_hours(model.shape, model.compute, work, h200, gpus=1)) * 3600
    assert 0.64 < seconds / measured < 0.92
