"""Estimates the GPU memory of a run before anything is loaded. Pure arithmetic.

Weights, gradients, optimizer and reference are counted exactly; activations by the rule below, which has not been
checked on a GPU. CUDA, NCCL and fragmentation need 2 to 4 GiB more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from aesr1.training.launch import SHARD_ALL, SHARD_OPTIMIZER, Launch

GIB = 2**30
ADAM = 8  # bytes a trained parameter: two float32 moments
MASTER = 4  # bytes: the float32 copy that DeepSpeed keeps of 16-bit weights


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a model that determine its memory."""

    parameters: int
    trained: int
    weight_bytes: int  # of one weight: 4, or 2 for bfloat16
    hidden: int
    intermediate: int
    layers: int
    cache_width: int  # of keys or of values of one token in one layer: key-value heads × their width
    largest_layer: int  # parameters


@dataclass(frozen=True)
class StepWork:
    """The work of one process at a time."""

    at_once: int  # tokens in one forward and backward pass
    tokens: int  # of one prompt, picture and reply
    rollout: int  # replies generated at once; 0 for SFT
    reference: bool  # a second copy of the model for the KL term
    checkpointing: bool  # gradient checkpointing: activations are computed again in the backward pass
    autocast: bool = False  # float32 weights under 16-bit arithmetic: cast copies are kept for a step
    validation: int = 0  # replies generated at once in validating; 0 for none


class MemoryEstimate(NamedTuple):
    """Bytes a GPU."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    rollout: float
    validation: float

    @property
    def peak(self) -> float:
        """The memory needed at the same time: rollout, backward pass and validation run one after another."""
        turns = (self.activations, self.rollout, self.validation)
        return sum(self) - sum(turns) + max(turns)


def estimate_memory(shape: ModelShape, work: StepWork, launch: Launch) -> MemoryEstimate:
    """Bytes that one process needs on its GPU."""
    shared = launch.processes
    divided = shared if launch.shards == SHARD_ALL else 1
    states = shared if launch.shards in (SHARD_ALL, SHARD_OPTIMIZER) else 1
    at_work = (
        2.0 * shape.largest_layer * shape.weight_bytes if launch.shards == SHARD_ALL else 0.0
    )  # gathered temporarily
    weights = shape.parameters * shape.weight_bytes / divided
    master = MASTER * shape.trained if launch.deepspeed and shape.weight_bytes == 2 else 0
    optimizer = (ADAM * shape.trained + master) / states
    if work.autocast and launch.shards != SHARD_ALL:
        at_work += 2 * shape.trained
    if launch.offload:
        weights, optimizer = 0.0, 0.0
    return MemoryEstimate(
        weights=weights + at_work,
        gradients=shape.trained * shape.weight_bytes / states,
        optimizer=optimizer,
        reference=shape.parameters * shape.weight_bytes / divided if work.reference else 0.0,
        activations=_activations(shape, work),
        rollout=_rollout(shape, work, launch),
        validation=_replies(shape, work, work.validation),
    )


def _activations(shape: ModelShape, work: StepWork) -> float:
    """Bytes kept for the backward pass, in 16-bit arithmetic with fused attention.

    A layer keeps about 10 vectors of the hidden and 4 of the intermediate width a token; under gradient checkpointing
    one hidden vector a layer is kept and one layer's all are there at a time.
    """
    one_layer = work.at_once * (10 * shape.hidden + 4 * shape.intermediate) * 2
    if work.checkpointing:
        return float(shape.layers * work.at_once * shape.hidden * 2 + one_layer)
    return float(shape.layers * one_layer)


def _rollout(shape: ModelShape, work: StepWork, launch: Launch) -> float:
    """Bytes of all replies and of the gathered weights.

    Under ZeRO-3 TRL gathers all weights to generate (`ds3_gather_for_generation`).
    """
    if not work.rollout:
        return 0.0
    gathered = shape.parameters * shape.weight_bytes if launch.deepspeed and launch.shards == SHARD_ALL else 0
    return _replies(shape, work, work.rollout) + gathered


def _replies(shape: ModelShape, work: StepWork, replies: int) -> float:
    """Bytes of the key-value cache of `replies` replies, and of one layer of the prefill."""
    cache = replies * work.tokens * shape.layers * 2 * shape.cache_width * 2
    prefill = replies * work.tokens * (4 * shape.hidden + 2 * shape.intermediate) * 2
    return float(cache + prefill)
