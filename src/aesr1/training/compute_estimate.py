"""Estimates the FLOPs, hours and cost of a run before anything is loaded. Pure arithmetic.

A multiplication and its addition are 2 FLOPs. A weight takes 2 a token in a forward pass, 2 in the backward pass for
the gradient of its input, and 2 for its own where it is trained; gradient checkpointing adds one forward pass.
Attention takes 4 · width for each token and each token that it sees, and twice that in the backward pass. Norms,
activations and embeddings are left out. Every reply is taken to be as long as it may be. Not counted: validation,
dynamic sampling, the optimizer, and transfers between GPUs and from the computer's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aesr1.training.memory_estimate import ModelShape

UTILIZATION = 0.25
"""Share of a GPU's peak that all passes except decoding are assumed to reach, with what checkpointing computes again.

On an H200 (peak as H100) full tuning of 7B reached 27 % of it in the cold start, and 13 % over a step of RAPO with 16
replies of 200 tokens, decoding among it (docs/results.md). Long replies make larger products.
"""
STEP_OF_A_LAYER = 0.8e-3
"""Least seconds of a decoding step in one layer by transformers: 22 ms for the 28 layers of 7B and 30 ms for the 36 of
3B on an H200 (docs/results.md). Launching kernels takes longer there than reading the weights."""
LORA_STEP = 2
"""LoRA's layers double it (same table)."""


@dataclass(frozen=True)
class Accelerator:
    """A GPU. Peak and bandwidth are the vendor's; the price is an assumption, of the kind of a public list price."""

    name: str
    flops: float  # dense bfloat16 a second
    bandwidth: float  # bytes a second
    price: float  # USD an hour


ACCELERATORS = (
    Accelerator("A100 80 GB", 312e12, 2.0e12, 1.50),
    Accelerator("H100 80 GB", 989e12, 3.35e12, 2.50),
)
PFLOP_DAY = 1e15 * 24 * 3600
NODE = 8
"""GPUs of the machine that the paper's recipes are for."""


@dataclass(frozen=True)
class PassShape:
    """What one token and one picture cost in a forward pass."""

    language: int  # weights of the language model's linear layers
    adapter: int  # weights of LoRA beside them
    head: int  # weights of the output head
    layers: int
    attention: int  # width of all query heads of a layer
    picture: float  # FLOPs of the vision tower and the projector for one picture
    trains_language: bool
    trains_vision: bool


def picture_flops(*, tower: int, patches: int, projector: int, tokens: int, width: int, pairs: int) -> float:
    """Forward FLOPs of a vision tower for one picture.

    `tower` weights for each of its `patches`, `projector` weights for each of its `tokens`, and attention of `width`
    over so many `pairs` of patches, those of all layers.
    """
    return 2.0 * (tower * patches + projector * tokens) + 4.0 * width * pairs


@dataclass(frozen=True)
class RunWork:
    """All pictures and replies of a run, over all processes."""

    groups: float  # pictures that are trained on, each with all its replies; a picture counts at every use
    replies: int  # to each picture
    prompt: int  # tokens, the picture's among them
    reply: int  # tokens
    read_once: bool  # picture and prompt once for all replies
    checkpointing: bool
    iterations: int = 1  # times that replies are trained on
    rollout: int = 0  # replies that a process generates at once; 0 for SFT
    forwards: int = 0  # passes without gradient over the replies: of the reference, and of the policy for old ones
    by_engine: bool = False  # vLLM generates, which has no such least time of a decoding step


class Pass(NamedTuple):
    """A forward pass."""

    pictures: int
    tokens: int
    pairs: float  # of tokens, and of tokens that they see: in one layer
    logits: int  # tokens whose next one is predicted


def group_pass(work: RunWork) -> Pass:
    """The pass that scores all replies to one picture."""
    prompt, reply, replies = work.prompt, work.reply, work.replies
    readings = 1 if work.read_once else replies
    pairs = readings * prompt**2 / 2 + replies * reply * (prompt + reply / 2)
    return Pass(readings, readings * prompt + replies * reply, pairs, replies * reply)


def prefill_pass(work: RunWork) -> Pass:
    """The pass before the first tokens of all replies to one picture."""
    readings = 1 if work.read_once else work.replies
    return Pass(readings, readings * work.prompt, readings * work.prompt**2 / 2, readings)


def decoding_pass(work: RunWork) -> Pass:
    """All decoding steps of all replies to one picture, together."""
    tokens = work.replies * work.reply
    return Pass(0, tokens, tokens * (work.prompt + work.reply / 2), tokens)


def forward_flops(shape: PassShape, one: Pass) -> float:
    """FLOPs without gradients."""
    return one.pictures * shape.picture + _language_flops(shape, one)


def _language_flops(shape: PassShape, one: Pass) -> float:
    weights = 2.0 * ((shape.language + shape.adapter) * one.tokens + shape.head * one.logits)
    return weights + 4.0 * shape.attention * shape.layers * one.pairs


def training_flops(shape: PassShape, one: Pass, *, checkpointing: bool) -> float:
    """FLOPs of forward and backward pass. A vision tower that is not trained has no backward pass."""
    language = _language_flops(shape, one)
    frozen = 0.0 if shape.trains_language else 2.0 * (shape.language * one.tokens + shape.head * one.logits)
    vision = one.pictures * shape.picture * shape.trains_vision
    return forward_flops(shape, one) + (2 + checkpointing) * (language + vision) - frozen


class ComputeEstimate(NamedTuple):
    """FLOPs of a run, over all processes."""

    prefill: float
    decoding: float
    log_probabilities: float  # without gradient
    training: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


def estimate_compute(shape: PassShape, work: RunWork) -> ComputeEstimate:
    """FLOPs of a whole run."""
    generated = work.groups / work.iterations
    one = group_pass(work)
    return ComputeEstimate(
        prefill=generated * forward_flops(shape, prefill_pass(work)) if work.rollout else 0.0,
        decoding=generated * forward_flops(shape, decoding_pass(work)) if work.rollout else 0.0,
        log_probabilities=generated * work.forwards * forward_flops(shape, one),
        training=work.groups * training_flops(shape, one, checkpointing=work.checkpointing),
    )


class Hours(NamedTuple):
    """Hours of a run on some GPUs."""

    decoding: float
    others: float


def estimate_hours(model: ModelShape, shape: PassShape, work: RunWork, gpu: Accelerator, *, gpus: int) -> Hours:
    """Hours on so many GPUs, which share the pictures; each decodes `work.rollout` replies at once.

    A decoding step takes the longest of three: reading the weights and the keys and values of all replies at the full
    bandwidth, the FLOPs at `UTILIZATION`, and `STEP_OF_A_LAYER` in every layer.
    """
    flops = estimate_compute(shape, work)
    speed = UTILIZATION * gpu.flops
    others = (flops.total - flops.decoding) / (speed * gpus) / 3600
    if not work.rollout:
        return Hours(0.0, others)
    steps = work.groups / work.iterations * work.replies / (work.rollout * gpus) * work.reply
    cache = work.rollout * (work.prompt + work.reply / 2) * model.layers * 2 * model.cache_width * 2
    read = (shape.language + shape.adapter + shape.head) * model.weight_bytes + cache
    least = 0.0 if work.by_engine else STEP_OF_A_LAYER * shape.layers * (LORA_STEP if shape.adapter else 1)
    step = max(read / gpu.bandwidth, flops.decoding / (steps * gpus) / speed, least)
    return Hours(steps * step / 3600, others)


def compute_lines(model: ModelShape, shape: PassShape, work: RunWork, *, processes: int) -> Sequence[str]:
    """FLOPs, hours and cost as lines of a dry run, for the launch's number of GPUs and for a node."""
    flops = estimate_compute(shape, work)
    shares = {name.replace("_", "-"): part / flops.total for name, part in flops._asdict().items() if part}
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    unseen = "" if shape.picture else "; without the vision tower, whose convolutions are not counted"
    runs = [
        _on_gpus(gpu, gpus, estimate_hours(model, shape, work, gpu, gpus=gpus))
        for gpus in dict.fromkeys((processes, NODE))
        for gpu in ACCELERATORS
    ]
    peaks, speeds, prices = (
        " and ".join(f"{value:g}" for value in values)
        for values in zip(*((gpu.flops / 1e12, gpu.bandwidth / 1e12, gpu.price) for gpu in ACCELERATORS), strict=True)
    )
    decoding = f", {speeds} TB/s in decoding" if work.rollout else ""
    least = f" but {STEP_OF_A_LAYER * 1e3:g} ms a layer at least" if work.rollout and not work.by_engine else ""
    return [
        f"compute: {flops.total:.2g} FLOP ({flops.total / PFLOP_DAY:,.2g} PFLOP-days: {parts}), with the longest "
        f"replies{unseen}",
        f"time: {'; '.join(runs)}",
        f"  assumed: {UTILIZATION:.0%} of {peaks} TFLOP/s{decoding}{least}; {prices} USD a GPU and hour; no transfers",
    ]


def _on_gpus(gpu: Accelerator, gpus: int, hours: Hours) -> str:
    total = sum(hours)
    decoding = f" ({_time(hours.decoding)} decoding)" if hours.decoding else ""
    cost = total * gpus * gpu.price
    return f"{gpus} × {gpu.name} {_time(total)}{decoding}, {cost:,.{0 if cost >= 10 else 2}f} USD"


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
