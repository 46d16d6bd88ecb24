"""Cold start: supervised tuning on AesCoT's rationales with TRL's SFTTrainer, vision frozen, loss on the reply only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from aesr1.contract import MAX_PIXELS, Judgement, render_reply
from aesr1.errors import AesError
from aesr1.folders import claim
from aesr1.records import Rationale, read_rows
from aesr1.training import (
    Progressing,
    Resuming,
    as_dataset,
    check_images,
    finish,
    freeze_vision,
    parse_recipe,
    resume_point,
    run,
)
from aesr1.vlm import BACKBONE, load

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


def cold_start(config: ColdStartConfig, training: SFTConfig) -> Path:
    """Tune the language model on rationales; the folder of the checkpoint. Resumes an unfinished run."""
    started = time.time()
    output = Path(training.output_dir)
    rationales = read_rows(Path(config.rationales), Rationale)
    if not rationales:
        raise AesError(f"{config.rationales} holds no rationales", fix="build them with `aesr1 cot build`")
    check_images([rationale.image for rationale in rationales])
    resume = resume_point(output)
    claim(output, config)
    vlm = load(config.model, max_pixels=config.max_pixels, device=str(training.device), dtype=config.dtype)
    vlm.model.train()
    if config.freeze_vision:
        freeze_vision(vlm.model)
    progress = Progressing("cold start")
    trainer = ColdStartTrainer(
        model=vlm.model,
        args=training,
        train_dataset=as_dataset(_rows(rationales), max_pixels=config.max_pixels),
        processing_class=vlm.processor,
        callbacks=[progress],
    )
    run(trainer, progress, resume=resume)
    return finish(trainer, vlm.processor, config, stage="cold start", started=started)


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
