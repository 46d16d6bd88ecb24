"""The trainers under a clock, and what the machine can do at most: for bench/gpu.py."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import peft
import torch
import transformers
import trl
from transformers import TrainerCallback

from aesr1.cold_start import ColdStartTrainer
from aesr1.rapo.train import RapoTrainer

GIB = 2**30
BEGAN = time.perf_counter() - time.process_time()
"""When the process began: the imports until here are little but the processor's work."""

PHASES = ("inputs", "rollout", "logprobs", "backward", "optimizer", "rest")


def elapsed() -> float:
    """Seconds since the process began."""
    return time.perf_counter() - BEGAN


class Clock:
    """Seconds of each phase, the device waited for; a phase inside another is taken out of the outer one."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps: list[dict[str, float]] = []
        self.spent: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.last = self.begun = 0.0

    def now(self) -> float:
        """Wall time once the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase as a block."""
        self._pass_to(self.open[-1] if self.open else None)
        self.open.append(name)
        try:
            yield
        finally:
            self._pass_to(self.open.pop())

    def _pass_to(self, name: str | None) -> None:
        now = self.now()
        if name:
            self.spent[name] += now - self.last
        self.last = now

    def lap(self) -> None:
        """End a step, which began where the one before ended."""
        now = self.now()
        step = {name: self.spent[name] for name in PHASES[:-1]}
        whole = now - self.begun
        self.steps.append({**step, "rest": whole - sum(step.values()), "step": whole})
        self.spent.clear()
        self.begun = now


class Watch(TrainerCallback):
    """Tells the clock of steps and the optimizer; ends the training when enough was measured or time is up."""

    def __init__(self, clock: Clock, budget: float) -> None:
        self.clock, self.budget = clock, budget

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.clock.begun = self.clock.now()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:  # gradients are clipped by now
        self.optimizing = self.clock.phase("optimizer")
        self.optimizing.__enter__()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.optimizing.__exit__(None, None, None)

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        self.clock.lap()
        if elapsed() > self.budget and len(self.clock.steps) > 1:  # the first was the warm-up
            control.should_training_stop = True


class Timed:
    """For a Trainer: time of forward and backward, and the size of what it sees."""

    clock: Clock
    lengths: tuple[int, int] = (0, 0)  # tokens of prompt and reply, the same in every row
    generated: int = 0  # tokens in the last rollout

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        """A micro-batch; what is prepared inside it has phases of its own."""
        with self.clock.phase("backward"):
            return super().training_step(*arguments, **named)  # type: ignore[misc]

    def get_batch_samples(self, *arguments: Any, **named: Any) -> Any:
        """The step's pictures are opened, a cold start's made into tensors."""
        with self.clock.phase("inputs"):
            return super().get_batch_samples(*arguments, **named)  # type: ignore[misc]

    def _prepare_inputs(self, inputs: Any) -> Any:
        with self.clock.phase("inputs"):
            prepared = super()._prepare_inputs(inputs)  # type: ignore[misc]
            reply = prepared["completion_mask"] if "completion_mask" in prepared else prepared["labels"] != -100
            whole = prepared["prompt_mask"] if "prompt_mask" in prepared else prepared["attention_mask"] - reply.long()
            self.lengths = int(whole[0].sum()), int(reply[0].sum())
            if (whole.sum(1) != self.lengths[0]).any() or (reply.sum(1) != self.lengths[1]).any():
                raise ValueError("the rows of a micro-batch differ in length")
            return prepared


class TimedColdStart(Timed, ColdStartTrainer):
    """The project's cold start under the clock."""


class TimedRapo(Timed, RapoTrainer):
    """The project's RAPO under the clock."""

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
        with self.clock.phase("rollout"):
            replies, probabilities = super()._generate_single_turn(*arguments, **named)
        self.generated = sum(map(len, replies))
        return replies, probabilities

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():  # the loss's own
            return super()._get_per_token_logps_and_entropies(*arguments, **named)
        with self.clock.phase("logprobs"):
            return super()._get_per_token_logps_and_entropies(*arguments, **named)


def ceilings(device: str, *, matrix: int, copied: int) -> dict[str, float]:
    """Measured: bf16 TFLOP/s of a large square product, GB/s of a large copy (bytes read and written)."""
    clock = Clock(device)

    def median(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(13):
            began = clock.now()
            run()
            seconds.append(clock.now() - began)
        return statistics.median(seconds[3:])

    torch.manual_seed(0)
    left, right = (torch.randn(matrix, matrix, device=device).bfloat16() for _ in range(2))
    product = torch.empty_like(left)
    source = torch.randint(256, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "matmul_tflops": 2 * matrix**3 / median(lambda: torch.mm(left, right, out=product)) / 1e12,
        "copy_gb_per_second": 2 * copied / median(lambda: target.copy_(source)) / 1e9,
    }


def machine(device: str) -> dict[str, str]:
    """What it runs on."""
    found = {module.__name__: module.__version__ for module in (torch, transformers, trl, peft)}
    if device == "cpu":
        return {**found, "device": platform.processor() or platform.machine(), "driver": "none"}
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        driver = "unknown"
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    return {**found, "device": f"{torch.cuda.get_device_name(0)}, {memory:.1f} GiB", "driver": driver}
