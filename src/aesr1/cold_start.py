"""Cold start: supervised tuning on rationales with TRL's SFTTrainer. Vision is frozen; only the reply has a loss."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from trl import SFTConfig, SFTTrainer

from aesr1.contract import ANSWER_OPEN, Judgement, render_reply
from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.model.bundled_shapes import load_shape
from aesr1.model.load import ReadConfig, load_config
from aesr1.model.out_of_memory import explain_out_of_memory
from aesr1.records import Rating, Rationale
from aesr1.training.callbacks import ProgressBar
from aesr1.training.checks import check_loggers, check_trainer
from aesr1.training.compute_estimate import RunWork
from aesr1.training.dry_run import DryRun, adapt_settings, format_plan, planned_launch
from aesr1.training.launch import Launch, launch_from_environment
from aesr1.training.memory_advice import advice_for_loading
from aesr1.training.memory_estimate import StepWork
from aesr1.training.model_summary import count_prompt_tokens, summarize_model
from aesr1.training.parameters import lora_config
from aesr1.training.picture_dataset import check_images, picture_dataset
from aesr1.training.recipe import parse_recipe
from aesr1.training.resume import ResumableTrainer, resume_point
from aesr1.training.run import begin_run, finish_run, train
from aesr1.training.schedule import schedule
from aesr1.training.settings import ModelSettings
from aesr1.training.validation import SayReadable, Validation, ValidationSettings, validation_ratings

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
    "freeze_vision": True,
    "router_aux_loss_coef": 0.0,  # TRL would add this loss to that of a mixture of experts
}
"""The paper's values where the defaults differ. A recipe or a flag may change each."""


@dataclass(frozen=True)
class ColdStartConfig(ValidationSettings):
    """Settings of the cold start itself. TRL's SFTConfig has the others, such as `output_dir`."""

    _argument_group_name = "settings of the cold start"

    rationales: str = field(metadata={"help": "rationales.jsonl, as `aesr1 cot build` writes it."})
    ratings: str = field(
        default="",
        metadata={"help": "ratings.jsonl with held-out images, to validate on and to count readable replies about."},
    )
    score_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of a token of the answer in the loss; a token of the reasoning has 1. The score is a few "
            "tokens among many: a small model, or a short cold start, learns to write before it learns to judge."
        },
    )


REPLY_TOKENS = 512
"""Longest reply in validation."""
SETTINGS = (ColdStartConfig, ModelSettings, SFTConfig)
"""The settings of a run, as a recipe and flags give them; the last are TRL's."""


def cold_start(config: ColdStartConfig, model: ModelSettings, training: SFTConfig) -> Path:
    """Train the language model on rationales; returns the checkpoint's folder. Resumes an unfinished run."""
    started = time.time()
    launch = launch_from_environment(training)
    data = _checked_data(config, model, training, launch)
    settings = {**asdict(config), **asdict(model)}
    vlm = begin_run(model, training, launch, settings=settings)
    progress = ProgressBar("cold start")
    with explain_out_of_memory("setting up the training", advice_for_loading(model, training)):
        trainer = ColdStartTrainer(
            model=vlm.model,
            args=training,
            train_dataset=picture_dataset(_rows(data.rationales), max_pixels=model.max_pixels),
            processing_class=vlm.processor,
            callbacks=[progress],
            peft_config=lora_config(vlm.model, rank=model.lora_rank, alpha=model.lora_alpha),
        )
    if config.score_weight != 1:
        weigh_scores(trainer.model, vlm.processor.tokenizer, config.score_weight)
    if data.validation and config.validate_every:
        trainer.add_callback(Validation(trainer, vlm, data.validation, config, max_new_tokens=REPLY_TOKENS))
    images = [row.image for row in data.validation or data.rationales]
    trainer.add_callback(SayReadable(vlm, images, config, max_new_tokens=REPLY_TOKENS))
    train(trainer, progress, resume=data.resume)
    return finish_run(trainer, vlm.processor, settings, stage="cold start", started=started)


class _Data(NamedTuple):
    """What a run reads before its model loads."""

    rationales: list[Rationale]
    validation: list[Rating]
    resume: str | None  # checkpoint


def _checked_data(
    config: ColdStartConfig,
    model: ModelSettings,
    training: SFTConfig,
    launch: Launch,
    *,
    read: ReadConfig = load_config,
) -> _Data:
    """Read the rationales and check all that can be checked before a model loads. AesError."""
    check_loggers(training.report_to)
    check_trainer(training, launch, dtype=model.dtype, lora_rank=model.lora_rank)
    if config.score_weight != 1 and training.loss_type == "dft":
        raise AesError("score_weight has no meaning in the loss dft", fix="leave out score_weight, or loss_type")
    rationales = read_rows(Path(config.rationales), Rationale)
    if not rationales:
        raise AesError(f"{config.rationales} holds no rationales", fix="build them with `aesr1 cot build`")
    validation = validation_ratings(read_rows(Path(config.ratings), Rating), config) if config.ratings else []
    check_images([*(row.image for row in rationales), *(row.image for row in validation)])
    if training.max_length is not None:
        _check_length(model, training.max_length, rationales, read=read)
    return _Data(rationales, validation, resume_point(Path(training.output_dir), launch))


def _check_length(model: ModelSettings, max_length: int, rationales: Sequence[Rationale], *, read: ReadConfig) -> None:
    """AesError where TRL would cut rows: the picture's tokens and the score at the end of a reply are needed."""
    config, processor = read(model.model, max_pixels=model.max_pixels)
    shapes = (1, 4 / 3, 3 / 2, 16 / 9)  # the same area in another shape may take a few tokens more
    prompt = max(count_prompt_tokens(config, processor, max_pixels=model.max_pixels, shape=shape) for shape in shapes)
    longest = max((_reply(row) for row in rationales), key=len)
    needed = sum(prompt) + len(processor.tokenizer(longest)["input_ids"]) + 1  # the end token
    if max_length < needed:
        raise AesError(
            f"max_length {max_length} would cut rows short: a picture takes {prompt.picture} tokens, the prompt "
            f"{prompt.text}, and with the longest rationale they are {needed}",
            fix=f"leave max_length out (then nothing is cut), or give {needed:,} or more",
        )


class ColdStartTrainer(ResumableTrainer, SFTTrainer):  # type: ignore[misc]  # TRL is untyped
    """SFTTrainer that resumes from the weights of its checkpoint."""


def weigh_scores(model: Any, tokenizer: Any, weight: float) -> None:
    """Let the log-probabilities of the answers' tokens count `weight` times in TRL's loss while the model trains."""

    def weighed(module: Any, _: tuple[Any, ...], given: dict[str, Any], outputs: Any) -> Any:
        if module.training and given.get("labels") is not None and "log_probs" in outputs:
            answers = answer_tokens(given["labels"], tokenizer)[:, 1:]
            outputs.log_probs = outputs.log_probs * torch.where(answers, weight, 1.0)
        return outputs

    model.register_forward_hook(weighed, with_kwargs=True)


def answer_tokens(labels: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """(B, L) labels, -100 where there is no loss → (B, L) bool: the tokens after each reply's opening answer tag."""
    found = torch.zeros_like(labels, dtype=torch.bool)
    for row, marks in zip(labels, found, strict=True):
        places = (row != -100).nonzero()[:, 0]
        reply = row[places].tolist()
        start = len(reply)
        while start and ANSWER_OPEN in tokenizer.decode(reply[:start]):
            start -= 1
        marks[places[start + 1 :]] = True
    return found


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


def describe_run(config: ColdStartConfig, settings: ModelSettings, training: SFTConfig, dry: DryRun) -> str:
    """The text of `aesr1 sft --dry_run`. AesError where the run is not possible."""
    launch = planned_launch(dry, training)
    rationales = _checked_data(config, settings, training, launch, read=load_shape).rationales
    micro_batch = training.per_device_train_batch_size
    planned = schedule(training, math.ceil(len(rationales) / (micro_batch * launch.processes)))
    model = summarize_model(settings, training, launch)
    longest = max(len(row.reasoning) for row in rationales) // 4  # English has about four characters a token
    tokens = sum(model.prompt) + longest
    work = StepWork(micro_batch * tokens, tokens, 0, False, training.gradient_checkpointing, training.bf16)
    batch = micro_batch * training.gradient_accumulation_steps * launch.processes
    whole = RunWork(
        groups=planned.steps * batch,
        replies=1,
        prompt=sum(model.prompt),
        reply=longest,
        read_once=False,
        checkpointing=training.gradient_checkpointing,
    )
    lines = [f"rationales: {len(rationales):,}, {batch} a step; micro-batch: {micro_batch}"]
    return format_plan(model, work, whole, launch, training, planned=planned, lines=lines)


def main(arguments: Sequence[str]) -> Path | str:
    """`aesr1 sft --config recipe.yaml [--any_setting value]`; returns the checkpoint's folder, or a dry run's text."""
    config, model, training, dry = parse_recipe(
        [*SETTINGS, DryRun], arguments, stage="sft", derive=adapt_settings, **PAPER
    )
    return describe_run(config, model, training, dry) if dry.dry_run else cold_start(config, model, training)
