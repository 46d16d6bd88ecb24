"""Loads a vision-language model and its processor from a folder, a hub id or an embedded name.

Nothing of the training libraries is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from aesr1.contract import MAX_PIXELS, MIN_PIXELS
from aesr1.errors import AesError
from aesr1.model.checkpoint import check_stamp, weights_hash
from aesr1.model.lora_checkpoint import base_model_of, explain_missing_base, is_lora_checkpoint, merge_lora
from aesr1.model.out_of_memory import is_out_of_memory
from aesr1.model.processor import load_processor
from aesr1.model.scoring_tower import prepare_tower
from aesr1.terminal import say

TINY = "tiny"
BACKBONE = "tiny-backbone"
PHOTO = "tiny-photo"
PHOTO_BACKBONE = "tiny-photo-backbone"
EMBEDDED = {TINY: "demo", BACKBONE: "backbone", PHOTO: "photo", PHOTO_BACKBONE: "photo_backbone"}
"""The embedded models and their folders in `aesr1.tiny`: two for drawn scenes, two for photographs."""
DEFAULT = PHOTO
"""What scores where no model is named."""
ATTENTION = {"sdpa": None}
"""What transformers is told: its own default is sdpa where a part can have it, and a convolutional tower cannot."""
PUBLISHED = "aes-r1"
PUBLISHED_MODELS = ("ssssmark/Aes-R1", "Qwen/Qwen2.5-VL-7B-Instruct")
"""What `aes-r1` means: the authors' checkpoint or, if it cannot be loaded, its backbone with the same prompt."""


@dataclass(frozen=True)
class Vlm:
    """A loaded model and its processor; `name` and `revision` go into every prediction."""

    model: Any
    processor: Any
    name: str
    revision: str
    max_pixels: int


def load(
    name: str = DEFAULT,
    *,
    max_pixels: int = MAX_PIXELS,
    device: str | None = None,
    dtype: str = "auto",
    attention: str = "sdpa",
    read: ConfigAndProcessor | None = None,
    for_scoring: bool = False,
) -> Vlm:
    """Load a model from a folder, a hub id, `aes-r1`, or an embedded name (`EMBEDDED`).

    dtype "auto" is float32 on a CPU and the checkpoint's own elsewhere. A LoRA checkpoint is merged into its base.
    `read`: the result of `load_config`. `for_scoring`: the model is not trained or saved, so its layers may change
    (`prepare_tower`). AesError where it cannot be loaded, or has another contract version.
    """
    if name == PUBLISHED:
        first, second = (
            partial(load, published, max_pixels=max_pixels, device=device, dtype=dtype, attention=attention)
            for published in PUBLISHED_MODELS
        )
        try:
            return first()
        except AesError as error:
            say(f"{error.problem}; using {PUBLISHED_MODELS[1]} instead")
            return second()
    transformers_logging.disable_progress_bar()
    path = _checkpoint_path(name)
    config, processor = read or load_config(name, max_pixels=max_pixels)
    device = _usable_device(device) if device else "cuda" if torch.cuda.is_available() else "cpu"
    precision = torch.float32 if dtype == "auto" and device == "cpu" else dtype
    if base := base_model_of(path):
        base_model = load(base, max_pixels=max_pixels, device="cpu", dtype="float32", attention=attention)
        model = merge_lora(base_model.model, path, dtype=config.dtype if precision == "auto" else precision)
        revision = weights_hash(Path(path), base=base_model.revision)
        return Vlm(_ready(model, device, for_scoring), processor, name, revision, max_pixels)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            path,
            config=config,
            dtype=precision,
            attn_implementation=ATTENTION.get(attention, attention),
            trust_remote_code=False,
        )
    except Exception as error:  # a broken file raises almost anything
        if is_out_of_memory(error):
            raise
        if attention != "sdpa" and "attention" in str(error).lower():
            raise AesError(
                f"attention: {attention} is not available here: {str(error).splitlines()[0]}",
                fix="leave attention out (sdpa needs no package), or install what is named",
            ) from error
        raise _loading_error(name, error) from error
    if renamings := getattr(model, "_weight_conversions", None):
        # all are undone when saving; under ZeRO-3 transformers keeps unused ones: model.model.layers…
        model._weight_conversions = [renaming for renaming in renamings if renaming.was_used()]
    revision = getattr(config, "_commit_hash", None) or weights_hash(Path(path))
    return Vlm(_ready(model, device, for_scoring), processor, name, revision, max_pixels)


def _usable_device(device: str) -> str:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise AesError(
            f"the device {device} cannot be used here: {reason}",
            fix="use cpu, or what torch has here: cuda, cuda:1, mps",
        ) from error
    return device


def _ready(model: Any, device: str, for_scoring: bool) -> Any:
    model = model.to(device).eval()
    if for_scoring and device == "cpu":
        prepare_tower(model)
    return model


class ConfigAndProcessor(NamedTuple):
    """A checkpoint without its weights."""

    config: Any
    processor: Any


class ReadConfig(Protocol):
    """`load_config`, or `bundled_shapes.load_shape` for a dry run."""

    def __call__(self, name: str, *, max_pixels: int) -> ConfigAndProcessor:
        """A model's config and its processor."""


def load_config(name: str, *, max_pixels: int) -> ConfigAndProcessor:
    """A model's config and its processor, made to fit each other. Reads no weights. AesError as `load`."""
    check_max_pixels(max_pixels)
    path = _checkpoint_path(name)
    if base := base_model_of(path):
        with explain_missing_base(path, base):
            return load_config(base, max_pixels=max_pixels)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        _require_vision_language(config, name)
        processor = load_processor(path, config, max_pixels=max_pixels)
    except AesError:
        raise
    except Exception as error:  # a broken file raises almost anything
        raise _loading_error(name, error) from error
    if grid := getattr(processor.image_processor, "image_grid_pinpoints", None):
        config.image_grid_pinpoints = grid  # LLaVA's model computes the tiles again from its own list
    return ConfigAndProcessor(config, processor)


def check_max_pixels(max_pixels: int) -> None:
    """AesError for a picture cap that leaves nothing to judge."""
    if max_pixels < MIN_PIXELS:
        raise AesError(f"max_pixels is {max_pixels}", fix=f"give {MIN_PIXELS:,} (56 × 56) or more")


def _loading_error(name: str, error: Exception) -> AesError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return AesError(
        f"no vision-language model could be loaded from {name}: {reason}",
        fix="pass --model a folder with config.json and weights, a hub id such as "
        f"{PUBLISHED_MODELS[0]}, or leave it out for the embedded photo model",
    )


def _checkpoint_path(name: str) -> str:
    """The folder of an embedded or local model (with its stamp checked), or the name if it is a hub id."""
    embedded = EMBEDDED.get(name)
    if embedded is not None:
        folder = Path(str(files("aesr1.tiny"))) / embedded
    else:
        folder = Path(name)
        if not folder.is_dir():
            if name.startswith((".", "/", "~")) or name.count("/") != 1 or folder.parent.is_dir():
                near = get_close_matches(folder.name, _folders_in(folder.parent), n=1)
                meant = f"did you mean {folder.parent / near[0]}? Else " if near else ""
                raise AesError(
                    f"there is no folder {name}",
                    fix=f"{meant}pass --model a folder that a training stage wrote, or a hub id",
                )
            return name
    if not (folder / "config.json").is_file() and not is_lora_checkpoint(folder):
        raise AesError(
            f"{folder} holds no config.json, so it is not a checkpoint",
            fix="pass the folder that a training stage wrote",
        )
    check_stamp(folder)
    return str(folder.absolute())  # a LoRA adapter stores this name


def checkpoint_folder(name: str) -> Path | None:
    """The folder of an embedded or local model; None for a hub id. AesError as `load`."""
    path = Path(_checkpoint_path(name))
    return path if path.is_dir() else None


def _folders_in(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _require_vision_language(config: Any, name: str) -> None:
    """AesError for a model that does not take pictures and text, before its weights are read."""
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise AesError(
            f"{name} is not a vision-language model: {config.model_type} does not take a picture and reply in text",
            fix=f"pass --model one that does, such as {PUBLISHED_MODELS[1]}",
        )
