"""A checkpoint that holds only a LoRA adapter: its base is loaded and the adapter merged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from aesr1.errors import AesError, install
from aesr1.model.out_of_memory import is_out_of_memory

ADAPTER_CONFIG = "adapter_config.json"


def is_lora_checkpoint(folder: str | Path) -> bool:
    """Whether a folder holds an adapter and no complete model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file() and not (Path(folder) / "config.json").is_file()


def base_model_of(folder: str | Path) -> str | None:
    """The base model that an adapter names; None for a complete model. AesError where it names none."""
    if not is_lora_checkpoint(folder):
        return None
    path = Path(folder) / ADAPTER_CONFIG
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise AesError(f"{path} is broken: {type(error).__name__} {error}", fix="copy the checkpoint again") from error
    if not isinstance(base, str) or not base:
        raise AesError(f"{path} names no base", fix="write its base's folder or hub id into base_model_name_or_path")
    return base


@contextmanager
def explain_missing_base(folder: str, base: str) -> Iterator[None]:
    """Add the adapter's name to an error about its missing base."""
    try:
        yield
    except AesError as error:
        raise AesError(
            f"{folder} is a LoRA adapter for {base}: {error.problem}",
            fix=f"put the base back, or write its place into {folder}/{ADAPTER_CONFIG} (base_model_name_or_path)",
        ) from error


def merge_lora(model: Any, folder: str, *, dtype: str | torch.dtype | None) -> Any:
    """Merge the folder's adapter into a float32 model, then convert to `dtype` (None: keep).

    AesError where it does not fit.

    The model gets the folder's name, so that an adapter trained on it can find this base. Its config keeps the name of
    the complete model, from which TRL loads the reference.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise AesError(f"{folder} is a LoRA adapter, which needs peft", fix=install("train")) from error
    try:
        merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise AesError(
            f"the adapter of {folder} does not fit its base: {str(error).splitlines()[0]}",
            fix="copy the checkpoint again, and its base as it was when the run began",
        ) from error
    merged.requires_grad_(True)  # peft froze it
    merged.name_or_path = folder
    return merged.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32)
