"""bench/gpu.py: its operation counts, and the whole script in miniature."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_shape

    return gpu_shape


@pytest.fixture
def toy(parts):
    """One language layer of width 4 (keys 2, inner 6), a tower of one layer of width 2 (inner 3) on patches of 1."""
    text = parts.Text(4, 1, 2, 1, 6, 10, True)
    return parts.Shape(text, parts.Vision(1, 2, 1, 3, (0,), 1, 1, 2, 4))


def test_operations_are_counted_as_by_hand(parts, toy):
    batch = parts.Batch(rows=2, prompt=3, reply=2, side=2)
    language = 2 * 10 * (4 * 4 * 2 + 4 * 2 * 2 + 4 * 6 * 3)  # 10 tokens: q and o, k and v, three of the inner layer
    seen = 2 * 2 * 4 * 5 * 5  # half of 4 · h · T², two rows
    head = 2 * 4 * 4 * 10  # 4 reply tokens
    layer, merger, embed = 2 * 8 * (4 * 4 + 3 * 6), 2 * 2 * 8 * (8 + 4), 2 * 8 * 3 * 2  # 8 patches, 2 merged
    looks = 4 * 2 * 4 * 4 * 2  # 4 · h · n², two pictures of four patches
    tower = layer + merger + embed
    forward = language + seen + head + tower + looks
    assert parts.forward_operations(toy, batch) == forward
    full = parts.training_operations(toy, batch, vision_trained=True, vision_backward=True)
    assert full.forward == forward
    assert full.backward == 2 * forward - embed
    left_out = 2 * 10 * 4 * 6 + 2 * 8 * 6  # the last product of each layer
    assert full.recomputed == forward - merger - embed - left_out


def test_lora_leaves_out_the_gradients_of_frozen_weights(parts, toy):
    batch = parts.Batch(rows=1, prompt=3, reply=2, side=2)
    language, head = parts.language_part(toy, batch, rank=1), parts.head_part(toy, batch)
    assert language.adapters == 2 * 5 * (8 + 6 + 6 + 8 + 3 * 10)  # in + out of seven matrices
    found = parts.training_operations(toy, batch, rank=1, vision_trained=False, vision_backward=False)
    assert found.backward == language.weights + head.weights + 2 * (language.adapters + language.attention)
    assert found.recomputed == language.forward - 2 * 5 * 4 + head.forward  # but the last adapter's second product


@pytest.mark.parametrize(("name", "parameters"), [("3b", 3_754_622_976), ("7b", 8_292_166_656)])
def test_the_models_have_as_many_parameters_as_the_published_ones(parts, name, parameters):
    import torch

    model = parts.build(parts.SHAPES[name], parts.processor_for(262_144), dtype=torch.bfloat16, device="meta")
    assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_torch_counts_as_many_operations(parts):
    import torch
    from PIL import Image
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    shape, processor = parts.SHAPES["tiny"], parts.processor_for(168 * 168)
    model = parts.build(shape, processor, dtype=torch.float32, device="cpu").train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    inputs = processor(text=[picture + "0123456789"], images=[[Image.new("RGB", (168, 168))]], return_tensors="pt")
    batch = parts.Batch(rows=1, prompt=inputs["input_ids"].shape[1] - 8, reply=8, side=12)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs, logits_to_keep=8, use_cache=False).logits.sum().backward()
    ours = sum(parts.training_operations(shape, batch, vision_trained=True, vision_backward=True))
    unseen = parts.language_part(shape, batch).attention  # torch counts the half that no token sees, four times over
    assert counter.get_total_flops() == ours + 4 * unseen - parts.head_part(shape, batch).repeated


@pytest.mark.slow
def test_the_miniature_runs_through_the_trainers(tmp_path):
    target, rows = tmp_path / "gpu.json", "tiny-lora-k4,tiny-sft-full"
    command = [sys.executable, str(BENCH / "gpu.py"), "--tiny", "--rows", rows, "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "| tiny-lora-k4 |" in done.stdout
    rapo, sft = json.loads(target.read_text())["rows"]
    assert rapo["batch"] == {"rows": 8, "prompt": 110, "reply": 8, "side": 8}
    assert sft["batch"] == {"rows": 4, "prompt": 110, "reply": 8, "side": 8}
    assert rapo["generated"] == 2 * 4 * 8
    for row in (rapo, sft):
        assert row["status"] == "measured"
        assert len(row["steps"]) == 3
        assert row["training_tflops"] > 0
        for step in row["steps"]:
            whole = step.pop("step")
            assert sum(step.values()) == pytest.approx(whole)
            assert 0 <= step["rest"] < 0.5 * whole
            assert step["backward"] > 0
            assert step["optimizer"] > 0
    assert rapo["median"]["rollout"] > 0
    assert rapo["median"]["logprobs"] > 0
    assert sft["median"]["rollout"] == 0


def test_a_row_without_memory_or_time_says_so(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    for name, value in (("HF_HUB_OFFLINE", "1"), ("CUDA_VISIBLE_DEVICES", "0")):  # the script sets them for good
        monkeypatch.setenv(name, value)
    import torch

    import gpu

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert gpu.guarded(full, "cpu")["status"] == "out of memory"
    assert gpu.guarded(lambda: 1 / 0, "cpu")["status"] == "failed: ZeroDivisionError: division by zero"
    monkeypatch.setattr(gpu.transformers.logging, "set_verbosity_error", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", "--budget", "0", "-o", str(tmp_path / "gpu.json")])
    gpu.main()
    assert all(row["status"].startswith("skipped") for row in json.loads((tmp_path / "gpu.json").read_text())["rows"])
