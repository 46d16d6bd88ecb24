"""A training stage in several processes, watched: for test_two_processes.py.

They are forked from one that has torch and TRL imported, which takes most of a short run's time, and find each other by
the variables that torchrun would set. STAGE: `scripted`, RAPO whose replies do not depend on how many processes there
are; `rapo`, which draws them; `sft`.
Where accelerate's environment asks for FSDP the model is divided. KILLED_AT=N kills the first process after step N.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, gather_object

from aesr1 import cold_start
from aesr1.contract import Judgement, render_reply
from aesr1.rapo import train
from aesr1.rapo.trainer import RapoTrainer

SEEN: list[dict[str, Any]] = []
LENGTHS: list[list[list[int]]] = []  # of replies, by step and process
HELD: list[float] = []  # the share of the weights that this process holds


def divide_on_cpu() -> None:
    """Have accelerate divide a model among CPU processes.

    Torch's FSDP2 does so with gloo, but accelerate looks at FSDP's settings only where it has found several GPUs
    (AcceleratorState.__init__). This says FSDP where it said MULTI_CPU; all that follows is as on GPUs.
    """
    whole = AcceleratorState.__init__

    def divided(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        whole(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = divided  # type: ignore[method-assign]


class Watched:
    """For a Trainer: notes how much of the model is here, and dies when it is told to."""

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        state: Any = self.state  # type: ignore[attr-defined]
        if state.is_world_process_zero and os.environ.get("KILLED_AT") == str(state.global_step):
            os.kill(os.getpid(), signal.SIGKILL)
        here = sum(getattr(weights, "_local_tensor", weights).numel() for weights in model.parameters())
        HELD.append(here / sum(weights.numel() for weights in model.parameters()))
        return super().training_step(model, *args, **kwargs)  # type: ignore[misc]


class WatchedColdStart(Watched, cold_start.ColdStartTrainer):
    """The real trainer."""


class WatchedRapo(Watched, RapoTrainer):
    """The real trainer, which tells what it has generated."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        replies, log_probs = super()._generate_single_turn(*args, **kwargs)
        LENGTHS.append(gather_object([[len(reply) for reply in replies]]))
        return replies, log_probs


class Scripted(WatchedRapo):
    """One that tells its rewards; its replies are a function of picture and place in the group instead of drawn."""

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        rank = self.accelerator.process_index
        replies = []
        for row, (picture,) in enumerate(images):
            place = (rank * len(images) + row) % self.num_generations
            number = sum(picture.resize((4, 4)).convert("L").tobytes()) + 37 * place
            text = render_reply(Judgement(number % 101 / 100, "Soft light."))
            text = text if number % 7 else text[:-3]  # one in seven is unreadable
            replies.append(self._tokenizer(text, add_special_tokens=False)["input_ids"] + [self.eos_token_ids[0]])
        return replies, None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        rows = [
            (row["sample"], reward, advantage)
            for row, reward, advantage in zip(
                inputs, self._local_rewards.tolist(), batch["advantages"].tolist(), strict=True
            )
        ]
        SEEN.append({"rows": gather_object(rows), "images": len({row["sample"] for row in inputs})})
        return batch


def fork_context() -> Any:
    """Return the context whose processes are forked from one that has the stages imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aesr1.rapo.train", "aesr1.cold_start"])
    return context


def start_alone(stage: str, arguments: Sequence[str]) -> Any:
    """Start the stage in one process, which the caller may kill. Its output is thrown away."""
    process = fork_context().Process(target=_run_alone, args=(stage, arguments))
    process.start()
    return process


def _run_alone(stage: str, arguments: Sequence[str]) -> None:
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    torch.set_num_threads(1)
    (cold_start if stage == "sft" else train).main(arguments)


def start(
    stage: str, report: Path, arguments: Sequence[str], *, processes: int, environment: dict[str, str]
) -> tuple[bool, str]:
    """Run it; whether all went well, and what was said on stderr. Where one fails the others are ended."""
    context = fork_context()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    said = report.with_suffix(".err")
    said.unlink(missing_ok=True)
    ranks = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), **place}
        variables = {**environment, **(own if processes > 1 else {})}
        ranks.append(context.Process(target=_run, args=(stage, report, said, arguments, variables)))
    for process in ranks:
        process.start()
    while any(process.is_alive() for process in ranks) and not any(process.exitcode for process in ranks):
        time.sleep(0.02)
    for process in ranks:
        if any(other.exitcode for other in ranks):
            process.kill()
        process.join()
    return not any(process.exitcode for process in ranks), said.read_text()


def _run(stage: str, report: Path, said: Path, arguments: Sequence[str], variables: dict[str, str]) -> None:
    os.environ.update(variables)
    with said.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        divide_on_cpu()
    train.RapoTrainer = Scripted if stage == "scripted" else WatchedRapo  # type: ignore[misc]
    cold_start.ColdStartTrainer = WatchedColdStart  # type: ignore[misc]
    (cold_start if stage == "sft" else train).main(arguments)
    state = PartialState()
    if state.is_main_process:
        seen = {"processes": state.num_processes, "steps": SEEN, "lengths": LENGTHS, "held": max(HELD)}
        report.write_text(json.dumps(seen))
    state.wait_for_everyone()
    if state.num_processes > 1:
        state.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # in one of some forty runs a thread of gloo's aborted a process that was through, on its way out
