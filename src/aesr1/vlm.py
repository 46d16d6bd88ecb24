"""A local vision-language model: load it, let it reply.

The only module that imports transformers' models; nothing of the training stack is imported here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText, GenerationConfig
from transformers.utils import logging as transformers_logging

from aesr1.adapters import base_of, holds_adapter, merge, naming_base
from aesr1.contract import MAX_PIXELS, PROMPT, VERSION, check_version
from aesr1.errors import AesError
from aesr1.folders import write_json
from aesr1.processor import load_processor
from aesr1.room import is_full
from aesr1.sampling import Prefill, can_share, draw, drawing_of, ends_of, prefill

TINY = "tiny"
BACKBONE = "tiny-backbone"
REAL = "aes-r1"
REAL_MODELS = ("ssssmark/Aes-R1", "Qwen/Qwen2.5-VL-7B-Instruct")
"""What `aes-r1` stands for: the authors' checkpoint or, failing that, its backbone under the same prompt."""
STAMP = "aesr1.json"
LOADING = (OSError, ValueError, ImportError, SafetensorError)
"""What transformers raises for files that are missing, broken or of another kind."""


@dataclass(frozen=True)
class Vlm:
    """A loaded model and its processor; `name` and `revision` go into every prediction."""

    model: Any
    processor: Any
    name: str
    revision: str
    max_pixels: int


def load(
    name: str = TINY,
    *,
    max_pixels: int = MAX_PIXELS,
    device: str | None = None,
    dtype: str = "auto",
    attention: str = "sdpa",
    read: Configured | None = None,
) -> Vlm:
    """Load a model from a folder, a hub id, `aes-r1`, or one of the embedded names `tiny` and `tiny-backbone`.

    dtype "auto" is float32 on a CPU and the checkpoint's own elsewhere. A LoRA checkpoint is merged into its base.
    `read`: what `configured` gave of it. AesError where it is not to be had, or was made under another contract.
    """
    if name == REAL:
        first, second = (
            partial(load, real, max_pixels=max_pixels, device=device, dtype=dtype, attention=attention)
            for real in REAL_MODELS
        )
        try:
            return first()
        except AesError as error:
            print(f"{error.problem}; going on with {REAL_MODELS[1]}", file=sys.stderr)
            return second()
    transformers_logging.disable_progress_bar()
    where = _locate(name)
    config, processor = read or configured(name, max_pixels=max_pixels)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = torch.float32 if dtype == "auto" and device == "cpu" else dtype
    if base := base_of(where):
        below = load(base, max_pixels=max_pixels, device="cpu", dtype="float32", attention=attention)
        model = merge(below.model, where, dtype=config.dtype if precision == "auto" else precision)
        return Vlm(model.to(device).eval(), processor, name, _fingerprint(Path(where)), max_pixels)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            where, config=config, dtype=precision, attn_implementation=attention
        )
    except LOADING as error:
        if is_full(error):
            raise
        if attention != "sdpa" and "attention" in str(error).lower():
            raise AesError(
                f"attention: {attention} cannot be had here: {str(error).splitlines()[0]}",
                fix="leave attention out (sdpa needs nothing), or install what it names",
            ) from error
        raise _not_loaded(name, error) from error
    if renamings := getattr(model, "_weight_conversions", None):
        # all are undone on saving, and under ZeRO-3 transformers keeps those that it did not use: model.model.layers…
        model._weight_conversions = [renaming for renaming in renamings if renaming.was_used()]
    revision = getattr(config, "_commit_hash", None) or _fingerprint(Path(where))
    return Vlm(model.to(device).eval(), processor, name, revision, max_pixels)


class Configured(NamedTuple):
    """All of a checkpoint but its weights."""

    config: Any
    processor: Any


def configured(name: str, *, max_pixels: int) -> Configured:
    """A model's config and its processor, fitted to each other; no weights are read. AesError as `load`."""
    where = _locate(name)
    if base := base_of(where):
        with naming_base(where, base):
            return configured(base, max_pixels=max_pixels)
    try:
        config = AutoConfig.from_pretrained(where)
        _check_sees(config, name)
        processor = load_processor(where, config, max_pixels=max_pixels)
    except LOADING as error:
        raise _not_loaded(name, error) from error
    if grid := getattr(processor.image_processor, "image_grid_pinpoints", None):
        config.image_grid_pinpoints = grid  # LLaVA's model works the tiles out again from its own list
    return Configured(config, processor)


def _not_loaded(name: str, error: Exception) -> AesError:
    return AesError(
        f"no vision-language model could be loaded from {name}: {str(error).splitlines()[0]}",
        fix="pass --model a folder with config.json and weights, a hub id such as "
        f"{REAL_MODELS[0]}, or leave it out for the embedded toy",
    )


def _locate(name: str) -> str:
    """The folder of an embedded or local model (its stamp checked), or the name as a hub id."""
    embedded = {TINY: "demo", BACKBONE: "backbone"}.get(name)
    if embedded is not None:
        folder = Path(str(files("aesr1.tiny"))) / embedded
    else:
        folder = Path(name)
        if not folder.is_dir():
            if name.startswith((".", "/", "~")) or name.count("/") != 1:
                raise AesError(
                    f"there is no folder {name}", fix="pass --model a folder that a training stage wrote, or a hub id"
                )
            return name
    if not (folder / "config.json").is_file() and not holds_adapter(folder):
        raise AesError(
            f"{folder} holds no config.json, so it is no checkpoint", fix="pass the folder that a training stage wrote"
        )
    check_stamp(folder)
    return str(folder.absolute())  # an adapter that is trained on it keeps this name


def _check_sees(config: Any, name: str) -> None:
    """AesError for a model that is not asked about pictures in text, before its weights are read."""
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise AesError(
            f"{name} is no vision-language model: {config.model_type} does not take a picture and reply in text",
            fix=f"pass --model one that does, such as {REAL_MODELS[1]}",
        )


def _fingerprint(folder: Path) -> str:
    """A local checkpoint's revision: size and time of its weights would lie after a copy, so their bytes' hash."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:12]


def stamp_checkpoint(folder: str | os.PathLike[str], *, stage: str) -> None:
    """Mark a checkpoint as whole and of this contract. Written last, so an unstamped folder is unfinished."""
    write_json(Path(folder) / STAMP, {"contract": VERSION, "stage": stage})


def check_stamp(folder: Path) -> None:
    """AesError where a checkpoint was made under another contract; an unmarked one is from elsewhere and may pass."""
    stamp = folder / STAMP
    if not stamp.is_file():
        return
    try:
        version = str(json.loads(stamp.read_text(encoding="utf-8"))["contract"])
    except (ValueError, KeyError, TypeError) as error:
        raise AesError(f"{stamp} is broken: {error}", fix="train the checkpoint again, or copy it again") from error
    check_version(version, where=str(folder))


def question_of(vlm: Vlm, prompt: str) -> str:
    """The prompt about one image in the model's own form, to where its answer begins."""
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    return str(vlm.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def inputs_about(vlm: Vlm, images: Sequence[Image.Image], answers: Sequence[str], prompt: str) -> Any:
    """Left-padded model inputs of the prompt about each image, each followed by the beginning of an answer."""
    question = question_of(vlm, prompt)
    inputs = vlm.processor(
        text=[question + answer for answer in answers],
        images=[[image] for image in images],
        return_tensors="pt",
        padding=True,
    )
    return inputs.to(vlm.model.device, dtype=vlm.model.dtype)


@dataclass(frozen=True)
class Reading:
    """Pictures and the prompt as a model has read them: replies and scores start from here, as many as are wanted."""

    images: tuple[Image.Image, ...]
    prompt: str
    inputs: Any
    start: Prefill | None  # None: a family whose cache cannot be shared, which reads again for every reply


@torch.inference_mode()
def read_pictures(vlm: Vlm, images: Sequence[Image.Image], *, prompt: str = PROMPT) -> Reading:
    """Have the model read the prompt about each image, once."""
    inputs = inputs_about(vlm, images, [""] * len(images), prompt)
    start = prefill(vlm.model, inputs) if can_share(vlm.model) else None
    return Reading(tuple(images), prompt, inputs, start)


@torch.inference_mode()
def write_replies(
    vlm: Vlm,
    reading: Reading,
    *,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    seed: int = 0,
) -> list[list[str]]:
    """`samples` raw replies about each of n pictures that were read: n lists of K texts.

    Temperature 0 is greedy and so the same every time (then K must be 1); above it the draw is seeded.
    """
    if samples > 1 and not temperature > 0:
        raise AesError(
            f"{samples} samples at temperature 0 would all be the same", fix="give a temperature, the paper's is 0.6"
        )
    drawing: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        drawing = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    config = GenerationConfig(
        **drawing,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        suppress_tokens=picture_tokens(vlm.model.config),
        pad_token_id=vlm.processor.tokenizer.pad_token_id,
    )
    how = drawing_of(config, vlm.model)
    if reading.start is None or how is None:
        torch.manual_seed(seed)
        config.num_return_sequences = samples
        tokens = vlm.model.generate(**reading.inputs, generation_config=config)
        replies = tokens[:, reading.inputs["input_ids"].shape[1] :].tolist()
    else:
        replies = draw(
            vlm.model,
            reading.start,
            replies=samples,
            drawing=how,
            max_new_tokens=max_new_tokens,
            eos=ends_of(vlm.model.generation_config),
            source=torch.Generator(vlm.model.device).manual_seed(seed),
        )
    texts = vlm.processor.batch_decode(replies, skip_special_tokens=True)
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def generate(
    vlm: Vlm,
    images: Sequence[Image.Image],
    *,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    seed: int = 0,
    prompt: str = PROMPT,
) -> list[list[str]]:
    """As `write_replies`, about pictures that are read for this alone."""
    reading = read_pictures(vlm, images, prompt=prompt)
    return write_replies(
        vlm, reading, samples=samples, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed
    )


def picture_tokens(config: Any) -> list[int] | None:
    """Tokens that stand for pictures: a reply that held one would ask for a picture that is not there."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    return sorted({token for name in names if isinstance(token := getattr(config, name, None), int)}) or None
