"""Cold start: supervised tuning on AesCoT's rationales with TRL's SFTTrainer, vision frozen, loss on the reply only."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trl import SFTConfig, SFTTrainer

from aesr1.contract import MAX_PIXELS, Judgement, render_reply
from aesr1.dry_run import DryRun, body_of, launch_of, report, steps_of, without_gpu
from aesr1.errors import AesError
from aesr1.estimate import Work
from aesr1.launch import Launch, launched
from aesr1.recipe import parse_recipe
from aesr1.records import Rationale, read_rows
from aesr1.trainable import check_dtype, check_lora, lora_config
from aesr1.training import (
    Resuming,
    as_dataset,
    begin,
    check_images,
    finish,
    resume_point,
    run,
)
from aesr1.vlm import BACKBONE
from aesr1.watch import Progressing, check_loggers

PAPER: dict[str, Any] = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
    "num_train_epochs": 1.0,
    "max_length": None,  # TRL's 1,024 would cut picture tokens off
    "report_to": "tensorboard",
    "logging_steps": 5,
    "save_steps": 100,
    "save_total_limit": 2,
    "disable_tqdm": True,
    "remove_unused_columns": False,
}
"""The paper's settings where they differ from TRL's; any may be set in a recipe or on the command line."""


@dataclass(frozen=True)
class ColdStartConfig:
    """What TRL's SFTConfig does not say. `output_dir` is TRL's."""

    rationales: str  # rationales.jsonl of AesCoT
    model: str = BACKBONE
    max_pixels: int = MAX_PIXELS
    dtype: str = "float32"  # of the weights that are trained; bf16 then comes from TRL's bf16: true
    freeze_vision: bool = True
    lora_rank: int = 0  # 0 trains all weights of the language model
    lora_alpha: int = 32
    attention: str = "sdpa"  # or flash_attention_2, where it is installed


def cold_start(config: ColdStartConfig, training: SFTConfig) -> Path:
    """Tune the language model on rationales; the folder of the checkpoint. Resumes an unfinished run."""
    started = time.time()
    launch = launched(training.world_size)
    rationales, resume = _checked(config, training, launch)
    vlm = begin(config, training, launch)
    progress = Progressing("cold start")
    trainer = ColdStartTrainer(
        model=vlm.model,
        args=training,
        train_dataset=as_dataset(_rows(rationales), max_pixels=config.max_pixels),
        processing_class=vlm.processor,
        callbacks=[progress],
        peft_config=lora_config(vlm.model, rank=config.lora_rank, alpha=config.lora_alpha),
    )
    run(trainer, progress, resume=resume)
    return finish(trainer, vlm.processor, config, stage="cold start", started=started)


class _Given(NamedTuple):
    """What a run starts from."""

    rationales: list[Rationale]
    resume: str | None


def _checked(config: ColdStartConfig, training: SFTConfig, launch: Launch) -> _Given:
    """All that can be checked before a model loads. AesError for a run that cannot be."""
    check_loggers(training.report_to)
    check_lora(config.lora_rank, launch)
    check_dtype(config.dtype, config.lora_rank, launch)
    rationales = read_rows(Path(config.rationales), Rationale)
    if not rationales:
        raise AesError(f"{config.rationales} holds no rationales", fix="build them with `aesr1 cot build`")
    check_images([rationale.image for rationale in rationales])
    return _Given(rationales, resume_point(Path(training.output_dir), launch.processes))


class ColdStartTrainer(Resuming, SFTTrainer):  # type: ignore[misc]  # TRL is untyped
    """SFTTrainer whose weights survive a resume."""


def _rows(rationales: Sequence[Rationale]) -> list[dict[str, Any]]:
    return [
        {
            "image": row.image,
            "completion": [{"role": "assistant", "content": render_reply(Judgement(row.score, row.reasoning))}],
        }
        for row in rationales
    ]


def plan(config: ColdStartConfig, training: SFTConfig, dry: DryRun) -> str:
    """What a cold start would be, in words and numbers. AesError for one that cannot be."""
    launch = launch_of(dry, training)
    rationales, _ = _checked(config, training, launch)
    micro_batch = training.per_device_train_batch_size
    steps = steps_of(training, math.ceil(len(rationales) / (micro_batch * launch.processes)))
    body = body_of(config, training, launch)
    longest = max(len(row.reasoning) for row in rationales) // 4  # four characters a token, as English is
    tokens = body.picture_tokens + body.text_tokens + longest
    work = Work(micro_batch * tokens, tokens, 0, False, training.gradient_checkpointing, training.bf16)
    batch = micro_batch * training.gradient_accumulation_steps * launch.processes
    lines = [f"rationales: {len(rationales):,}, {batch} a step; micro-batch: {micro_batch}"]
    return report(body, work, launch, training, steps=steps, lines=lines)


def main(arguments: Sequence[str]) -> Path | str:
    """`aesr1 sft --config recipe.yaml [--any_setting value]`; the checkpoint's folder, or the plan of a dry run."""
    config, training, dry = parse_recipe([ColdStartConfig, SFTConfig, DryRun], arguments, derive=without_gpu, **PAPER)
    return plan(config, training, dry) if dry.dry_run else cold_start(config, training)
