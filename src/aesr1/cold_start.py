"""Cold start: supervised tuning on AesCoT's rationales with TRL's SFTTrainer, vision frozen, loss on the reply only."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from trl import SFTConfig, SFTTrainer

from aesr1.contract import MAX_PIXELS, Judgement, render_reply
from aesr1.errors import AesError
from aesr1.model.load import BACKBONE, load_config
from aesr1.model.out_of_memory import explain_out_of_memory
from aesr1.records import Rationale, read_rows
from aesr1.training.callbacks import ProgressBar
from aesr1.training.checks import check_loggers, check_stage
from aesr1.training.dry_run import (
    DryRun,
    adapt_settings,
    count_prompt_tokens,
    format_plan,
    planned_launch,
    schedule,
    summarize_model,
)
from aesr1.training.launch import Launch, launch_from_environment
from aesr1.training.memory_advice import advice_for_loading
from aesr1.training.memory_estimate import StepWork
from aesr1.training.parameters import lora_config
from aesr1.training.picture_dataset import check_images, picture_dataset
from aesr1.training.recipe import parse_recipe
from aesr1.training.resume import ResumableTrainer, resume_point
from aesr1.training.run import begin_run, finish_run, train

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

    _argument_group_name = "settings of the cold start"

    rationales: str = field(metadata={"help": "rationales.jsonl, as `aesr1 cot build` writes it."})
    model: str = field(
        default=BACKBONE, metadata={"help": "What to begin with: a folder, a hub id, or an embedded name."}
    )
    max_pixels: int = field(default=MAX_PIXELS, metadata={"help": "A larger picture is shrunk to so many pixels."})
    dtype: str = field(
        default="float32",
        metadata={"help": "Of the weights: float32, bfloat16, float16; bf16: true makes arithmetic fast by itself."},
    )
    freeze_vision: bool = field(default=True, metadata={"help": "Leave the vision tower as it is, as the paper does."})
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA; 0 trains all weights of the language model."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA's scale, often twice its rank."})
    attention: str = field(
        default="sdpa", metadata={"help": "sdpa, eager, or flash_attention_2 where flash-attn is installed."}
    )


def cold_start(config: ColdStartConfig, training: SFTConfig) -> Path:
    """Tune the language model on rationales; the folder of the checkpoint. Resumes an unfinished run."""
    started = time.time()
    launch = launch_from_environment(training)
    rationales, resume = _checked(config, training, launch)
    vlm = begin_run(config, training, launch)
    progress = ProgressBar("cold start")
    with explain_out_of_memory("setting up the training", advice_for_loading(config, training)):
        trainer = ColdStartTrainer(
            model=vlm.model,
            args=training,
            train_dataset=picture_dataset(_rows(rationales), max_pixels=config.max_pixels),
            processing_class=vlm.processor,
            callbacks=[progress],
            peft_config=lora_config(vlm.model, rank=config.lora_rank, alpha=config.lora_alpha),
        )
    train(trainer, progress, resume=resume)
    return finish_run(trainer, vlm.processor, config, stage="cold start", started=started)


class _Given(NamedTuple):
    """What a run starts from."""

    rationales: list[Rationale]
    resume: str | None


def _checked(config: ColdStartConfig, training: SFTConfig, launch: Launch) -> _Given:
    """All that can be checked before a model loads. AesError for a run that cannot be."""
    check_loggers(training.report_to)
    check_stage(config, training, launch)
    rationales = read_rows(Path(config.rationales), Rationale)
    if not rationales:
        raise AesError(f"{config.rationales} holds no rationales", fix="build them with `aesr1 cot build`")
    check_images([rationale.image for rationale in rationales])
    _check_length(config, training.max_length, rationales)
    return _Given(rationales, resume_point(Path(training.output_dir), launch))


def _check_length(config: ColdStartConfig, longest: int | None, rationales: Sequence[Rationale]) -> None:
    """AesError where TRL would cut rows short: of a picture's tokens the model needs all, of a reply its score."""
    if longest is None:
        return
    model, processor = load_config(config.model, max_pixels=config.max_pixels)
    shapes = (1, 4 / 3, 3 / 2, 16 / 9)  # how a shape falls into patches makes a few tokens' difference
    question = max(count_prompt_tokens(model, processor, max_pixels=config.max_pixels, shape=shape) for shape in shapes)
    reply = max((_reply(row) for row in rationales), key=len)
    need = sum(question) + len(processor.tokenizer(reply)["input_ids"]) + 1  # and the end of the text
    if longest < need:
        raise AesError(
            f"max_length {longest} would cut rows short: a picture takes {question.picture} tokens, the prompt "
            f"{question.text}, and with the longest rationale they are {need}",
            fix=f"leave max_length out (nothing is cut then), or give {need:,} or more",
        )


class ColdStartTrainer(ResumableTrainer, SFTTrainer):  # type: ignore[misc]  # TRL is untyped
    """SFTTrainer whose weights survive a resume."""


def _rows(rationales: Sequence[Rationale]) -> list[dict[str, Any]]:
    return [
        {
            "image": row.image,
            "completion": [{"role": "assistant", "content": _reply(row)}],
        }
        for row in rationales
    ]


def _reply(row: Rationale) -> str:
    return render_reply(Judgement(row.score, row.reasoning))


def describe_run(config: ColdStartConfig, training: SFTConfig, dry: DryRun) -> str:
    """What a cold start would be, in words and numbers. AesError for one that cannot be."""
    launch = planned_launch(dry, training)
    rationales, _ = _checked(config, training, launch)
    micro_batch = training.per_device_train_batch_size
    planned = schedule(training, math.ceil(len(rationales) / (micro_batch * launch.processes)))
    body = summarize_model(config, training, launch)
    longest = max(len(row.reasoning) for row in rationales) // 4  # four characters a token, as English is
    tokens = sum(body.prompt) + longest
    work = StepWork(micro_batch * tokens, tokens, 0, False, training.gradient_checkpointing, training.bf16)
    batch = micro_batch * training.gradient_accumulation_steps * launch.processes
    lines = [f"rationales: {len(rationales):,}, {batch} a step; micro-batch: {micro_batch}"]
    return format_plan(body, work, launch, training, planned=planned, lines=lines)


def main(arguments: Sequence[str]) -> Path | str:
    """`aesr1 sft --config recipe.yaml [--any_setting value]`; the checkpoint's folder, or the plan of a dry run."""
    kinds = [ColdStartConfig, SFTConfig, DryRun]
    config, training, dry = parse_recipe(kinds, arguments, stage="sft", derive=adapt_settings, **PAPER)
    return describe_run(config, training, dry) if dry.dry_run else cold_start(config, training)
