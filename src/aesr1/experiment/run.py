"""`aesr1 experiment`: runs the steps that are not done, then writes one table over all cells and seeds."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from aesr1.errors import AesError
from aesr1.experiment.page import write_page
from aesr1.experiment.plan import Plan, Step, make_plan
from aesr1.experiment.recipe import Experiment
from aesr1.experiment.summary import summarize, to_markdown
from aesr1.model.checkpoint import STAMP
from aesr1.outputs import write_json, write_text
from aesr1.terminal import say

DONE = "step.json"
"""In the folder of a step that is done."""
RESUMES = {"sft": STAMP, "rapo": STAMP, "cot build": "rationales.jsonl", "eval": None}
"""Commands that go on in the folder where they were stopped, and the file with which they end, if they refuse to run
again; other commands begin in an empty folder."""
LOG_LINES = 3


@dataclass(frozen=True)
class ExperimentConfig:
    """What to run, where, and how many steps at once."""

    experiment: Experiment
    output: Path
    jobs: int = 1  # each gets its share of the processor's cores


def run_experiment(config: ExperimentConfig) -> str:
    """Run all steps and write results.md, .html and .json; returns the table. A step that is done is not run again.

    AesError names the first step that failed and its log; the same command goes on from there.
    """
    plan = make_plan(config.experiment, config.output)
    _run_all(plan, config.jobs)
    summary = summarize(config.experiment, plan)
    table = to_markdown(summary)
    write_text(config.output / "results.md", table)
    write_page(config.output / "results.html", summary, plan)
    write_json(config.output / "results.json", asdict(summary))
    return table


def describe_plan(experiment: Experiment, output: Path) -> str:
    """What would be run: each command with the cells that use it."""
    plan = make_plan(experiment, output)
    lines = []
    for step in plan.steps:
        state = "done" if _is_done(step) else "to do"
        lines.append(f"# {step.name}, {state}, for {step.used_by}\n{shlex.join(_command(step))}")
    counts = f"cells: {len(experiment.cells)}; seeds: {len(experiment.seeds)}; steps: {len(plan.steps)}"
    return "\n".join([*lines, f"{counts}, of which {sum(map(_is_done, plan.steps))} are done"])


def _run_all(plan: Plan, jobs: int) -> None:
    """Run the steps in the order of the plan, each after those that it needs."""
    cores = max(1, (os.cpu_count() or 1) // jobs)
    begun: dict[Path, Future[None]] = {}
    left = [step for step in plan.steps if not _is_done(step)]
    number = {step.folder: place for place, step in enumerate(left, start=1)}

    def run(step: Step) -> None:
        for needed in step.needs:
            if needed.folder in begun:
                begun[needed.folder].result()
        say(f"[{number[step.folder]}/{len(left)}] {step.name} ({step.used_by})")
        _run(step, cores if jobs > 1 else None)

    with ThreadPoolExecutor(jobs) as pool:
        for step in left:  # those that a step needs are before it, so that no step waits for one that has no thread
            begun[step.folder] = pool.submit(run, step)
        finished, running = wait(begun.values(), return_when=FIRST_EXCEPTION)
        pool.shutdown(wait=False, cancel_futures=True)
        failed = [error for future in finished if (error := future.exception())]
        if failed and any(future.running() for future in running):
            say("a step has failed; waiting for those that run")
    if failed:
        raise failed[0]


def _is_done(step: Step) -> bool:
    return (step.folder / DONE).exists()


def _command(step: Step) -> list[str]:
    return [*(step.launch or (sys.executable, "-m")), "aesr1", *step.words]


def _run(step: Step, cores: int | None) -> None:
    """Run one step, its messages in log.txt. AesError where it fails."""
    step.folder.mkdir(parents=True, exist_ok=True)
    started, log, seconds = time.time(), step.folder / "log.txt", None
    command = _command(step)
    with log.open("a") as file:
        # The command inherits the lock: where the experiment was killed, its last command may still run.
        fcntl.flock(file, fcntl.LOCK_EX)
        named = [name for name in RESUMES if " ".join(step.words).startswith(f"{name} ")]
        if not named:
            shutil.rmtree(step.output, ignore_errors=True)
        if not any((step.output / last).exists() for name in named if (last := RESUMES[name])):
            print(f"\n$ {shlex.join(command)}", file=file, flush=True)
            threads = {"OMP_NUM_THREADS": str(cores)} if cores else {}
            done = subprocess.run(command, check=False, stdout=file, stderr=file, env=os.environ | threads)
            if done.returncode:
                raise _failure(step, log, done.returncode)
            seconds = round(time.time() - started, 1)
    write_json(step.folder / DONE, {"command": shlex.join(command), "seconds": seconds})


def _failure(step: Step, log: Path, status: int) -> AesError:
    said = log.read_text(errors="replace").rpartition("\n$ ")[2].splitlines()[1:]
    last = [line.strip() for line in said if line.strip()][-LOG_LINES:]
    return AesError(
        f"{step.name} of {step.users[0]} ended with status {status}: {' / '.join(last)}",
        fix=f"read {log}; the same command runs the steps that are left",
    )
