"""Cold start: supervised tuning on AesCoT's rationales with TRL's SFTTrainer, vision frozen, loss on the reply only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from aesr1.contract import Judgement, check_version, render_reply
from aesr1.errors import AesError
from aesr1.records import Rationale, read_rows, write_run
from aesr1.training import (
    Progressing,
    Resuming,
    as_dataset,
    check_images,
    finish,
    freeze_vision,
    parse_recipe,
    resume_point,
)
from aesr1.vlm import BACKBONE, MAX_PIXELS, load

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
    freeze_vision: bool = True


def cold_start(config: ColdStartConfig, training: SFTConfig) -> Path:
    """Tune the language model on rationales; the folder of the checkpoint. Resumes an unfinished run."""
    started = time.time()
    output = Path(training.output_dir)
    rationales = read_rows(Path(config.rationales), Rationale)
    if not rationales:
        raise AesError(f"{config.rationales} holds no rationales", fix="build them with `aesr1 cot build`")
    for rationale in rationales:
        check_version(rationale.contract, where=config.rationales)
    check_images([rationale.image for rationale in rationales])
    resume = resume_point(output)
    vlm = load(config.model, max_pixels=config.max_pixels)
    vlm.model.train()
    frozen = freeze_vision(vlm.model) if config.freeze_vision else 0
    trainer = ColdStartTrainer(
        model=vlm.model,
        args=training,
        train_dataset=as_dataset(_rows(rationales), max_pixels=config.max_pixels),
        processing_class=vlm.processor,
        callbacks=[Progressing("cold start")],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train(resume_from_checkpoint=resume)
    finish(trainer, vlm.processor, output, stage="cold start")
    write_run(
        output, "cold start", config, started=started, training=training.to_sanitized_dict(), frozen_parameters=frozen
    )
    return output


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


def main(arguments: Sequence[str]) -> Path:
    """`aesr1 sft --config recipe.yaml [--any_setting value]`."""
    config, training = parse_recipe([ColdStartConfig, SFTConfig], arguments, **PAPER)
    return cold_start(config, training)
