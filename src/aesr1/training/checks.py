"""Checks settings before TRL uses them and before a model loads."""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from aesr1.errors import AesError
from aesr1.training.launch import Launch
from aesr1.training.parameters import check_dtype, check_lora

MINIMUM: dict[str, float] = {
    "beta": 0,
    "dataloader_num_workers": 0,
    "generation_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "images_per_comparison": 0,
    "learning_rate": 0,
    "lora_alpha": 1,
    "lora_rank": 0,
    "max_completion_length": 1,
    "max_grad_norm": 0,
    "min_readable": 0,
    "max_pixels": 1_024,
    "num_generations": 2,
    "num_iterations": 1,
    "per_device_train_batch_size": 1,
    "picture_dropout": 0,
    "dynamic_sampling_rounds": 0,
    "save_steps": 0,
    "score_weight": 0,
    "steps_per_generation": 1,
    "validate_batch": 1,
    "validate_every": 0,
    "validate_images": 1,
}
"""The smallest value of a setting. TRL divides by some of them."""
WHY = {
    "lora_rank": ", 0 to train all weights",
    "max_pixels": " (32 × 32)",
    "num_generations": ": a reply is compared with others to the same picture",
    "validate_images": "; validate_every: 0 turns validation off",
}
CHOICES = {
    "attention": ("sdpa", "eager", "flash_attention_2"),
    "dtype": ("float32", "bfloat16", "float16"),
}
NOT_SUPPORTED = {
    "packing": "TRL cannot pack rows that hold pictures",
    "padding_free": "TRL cannot leave out the padding of rows that hold pictures",
    "remove_unused_columns": "TRL would drop the columns of pictures, prompts and rewards",
    "use_transformers_continuous_batching": "it takes no pictures",
}
"""Settings that must not be set, and why."""


def _check_projector(given: Mapping[str, Any]) -> None:
    if given.get("train_projector") and (given["lora_rank"] or not given["freeze_vision"]):
        raise AesError(
            "train_projector needs freeze_vision and no LoRA",
            fix="leave it out: without freeze_vision the projector is trained anyway, with LoRA it never is",
        )


def check_settings(settings: Any) -> None:
    """AesError for a value that is not possible, in our settings or TRL's."""
    given = vars(settings)
    for name, least in MINIMUM.items():
        value = given.get(name)
        if value is not None and not value >= least:
            raise AesError(f"{name} is {value:g}", fix=f"give {least:,} or more{WHY.get(name, '')}")
    for name in ("min_readable", "picture_dropout"):
        if not given.get(name, 0) <= 1:
            raise AesError(f"{name} is {given[name]:g}", fix="give a share, from 0 to 1")
    if not given.get("temperature", 1.0) > 0:
        raise AesError(
            f"temperature is {given['temperature']:g}", fix="give one above 0: equal replies have no advantage"
        )
    _check_projector(given)
    for name, choices in CHOICES.items():
        if given.get(name, choices[0]) not in choices:
            raise AesError(f"{name} is {given[name]!r}", fix=f"choose from {', '.join(choices)}")
    for name, reason in NOT_SUPPORTED.items():
        if given.get(name):
            raise AesError(f"{name} is set, and {reason}", fix=f"leave {name} out")
    steps, epochs = given.get("max_steps", -1), given.get("num_train_epochs", 1)
    if steps == 0 or (steps < 0 and not epochs > 0):
        raise AesError(
            f"max_steps is {steps} and num_train_epochs {epochs:g}, so there is nothing to train",
            fix="give num_train_epochs above 0, or max_steps",
        )
    if str(getattr(given.get("eval_strategy"), "value", given.get("eval_strategy") or "no")) != "no":
        raise AesError(
            "eval_strategy is set, but TRL has no data set to evaluate on",
            fix="leave it out; RAPO validates every validate_every steps, and `aesr1 eval` evaluates any checkpoint",
        )
    if str(getattr(given.get("save_strategy"), "value", given.get("save_strategy"))) == "best":
        raise AesError(
            "save_strategy is best, which needs TRL's own evaluation",
            fix="set save_strategy: steps; `aesr1 eval` compares the checkpoints",
        )


def check_parsed(settings: Namespace) -> None:
    """As `check_settings`, for all settings of a recipe and flags before TRL's objects are made."""
    check_settings(settings)
    if getattr(settings, "deepspeed", None):
        _check_package("deepspeed", "--deepspeed", fix="pip install deepspeed, or leave --deepspeed out")
        file = str(settings.deepspeed)
        if not file.lstrip().startswith("{") and not Path(file).is_file():
            raise AesError(f"--deepspeed {file}: there is no such file", fix="give DeepSpeed's JSON file")
    no_gpu = settings.use_cpu or not (getattr(settings, "dry_run", False) or torch.cuda.is_available())
    if settings.attention == "flash_attention_2":
        if no_gpu:
            raise AesError("attention is flash_attention_2, which needs a GPU", fix="leave attention out (sdpa)")
        _check_package(
            "flash_attn",
            "attention: flash_attention_2",
            fix="pip install flash-attn --no-build-isolation, or leave attention out: sdpa needs nothing",
        )


def check_trainer(training: TrainingArguments, launch: Launch, *, dtype: str, lora_rank: int) -> None:
    """Refuse settings of the trainer, or a launch, that cannot train such a model. AesError."""
    check_settings(training)
    check_lora(lora_rank, launch)
    check_dtype(dtype, lora_rank, launch)


def check_vllm(training: Any) -> None:
    """AesError where rollouts use vLLM and it is not installed.

    A vLLM server needs it here as well: the trainer sends its weights with vLLM's code.
    """
    if training.use_vllm:
        _check_package(
            "vllm",
            "use_vllm (colocated or with a server: the trainer sends its weights by vLLM's code)",
            fix="pip install 'vllm>=0.22,<=0.31' where the trainer runs, or leave use_vllm out: rollouts then come "
            "from transformers",
        )


def _check_package(module: str, what: str, *, fix: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise AesError(f"{what} needs {module}, which is not installed", fix=fix)


LOGGER_MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}
"""Loggers whose module has another name; kubeflow has none."""


def check_loggers(report_to: str | Sequence[str] | None) -> None:
    """AesError where a logger of `report_to` is unknown or not installed; the fix names the package."""
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name in ("none", "all", "kubeflow"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise AesError(
                f"report_to names {name!r}, which is not a logger",
                fix=f"choose from none, {', '.join(sorted(INTEGRATION_TO_CALLBACK))}",
            )
        module = LOGGER_MODULES.get(name, name)
        if importlib.util.find_spec(module) is None:
            raise AesError(
                f"report_to: {name} needs a package that is not installed",
                fix=f"pip install {module.replace('_', '-')}, or set report_to: tensorboard (or none); "
                "`aesr1 curves` draws every run without any of them",
            )
