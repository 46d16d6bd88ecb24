"""A local vision-language model: load it, let it reply, read the expectation over its score tokens.

The only module that imports transformers' models; nothing of the training stack is imported here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from aesr1.contract import ANSWER_OPEN, MAX_PIXELS, PROMPT, SCORE_TEXTS, VERSION, check_version
from aesr1.errors import AesError
from aesr1.folders import write_json
from aesr1.processor import ImageOnlyProcessor

TINY = "tiny"
BACKBONE = "tiny-backbone"
REAL = "aes-r1"
REAL_MODELS = ("ssssmark/Aes-R1", "Qwen/Qwen2.5-VL-7B-Instruct")
"""What `aes-r1` stands for: the authors' checkpoint or, failing that, its backbone under the same prompt."""
STAMP = "aesr1.json"
_QWEN_VL = frozenset({"qwen2_vl", "qwen2_5_vl"})


@dataclass(frozen=True)
class Vlm:
    """A loaded model and its processor; `name` and `revision` go into every prediction."""

    model: Any
    processor: Any
    name: str
    revision: str
    max_pixels: int


class Expectation(NamedTuple):
    """Mean and standard deviation of the score under the model, both 0–1."""

    score: float
    spread: float


def load(name: str = TINY, *, max_pixels: int = MAX_PIXELS, device: str | None = None, dtype: str = "auto") -> Vlm:
    """Load a model from a folder, a hub id, `aes-r1`, or one of the embedded names `tiny` and `tiny-backbone`.

    dtype "auto" is float32 on a CPU and the checkpoint's own elsewhere. AesError where the model is not to be
    had, or was made under another contract.
    """
    if name == REAL:
        try:
            return load(REAL_MODELS[0], max_pixels=max_pixels, device=device, dtype=dtype)
        except AesError as error:
            print(f"{error.problem}; going on with {REAL_MODELS[1]}", file=sys.stderr)
            return load(REAL_MODELS[1], max_pixels=max_pixels, device=device, dtype=dtype)
    transformers_logging.disable_progress_bar()
    where = _locate(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = torch.float32 if dtype == "auto" and device == "cpu" else dtype
    try:
        config = AutoConfig.from_pretrained(where)
        processor = load_processor(where, config.model_type, max_pixels=max_pixels)
        model = AutoModelForImageTextToText.from_pretrained(where, dtype=precision)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise AesError(
            f"no vision-language model could be loaded from {name}: {str(error).splitlines()[0]}",
            fix="pass --model a folder with config.json and weights, a hub id such as "
            f"{REAL_MODELS[0]}, or leave it out for the embedded toy",
        ) from error
    revision = getattr(config, "_commit_hash", None) or _fingerprint(Path(where))
    return Vlm(model.to(device).eval(), processor, name, revision, max_pixels)


def load_processor(where: str, model_type: str, *, max_pixels: int) -> Any:
    """A processor that pads left and shrinks pictures to `max_pixels` at most."""
    loader = ImageOnlyProcessor if model_type in _QWEN_VL else AutoProcessor
    processor = loader.from_pretrained(where, padding_side="left")
    processor.tokenizer.padding_side = "left"
    size = getattr(processor.image_processor, "size", None)
    if size is not None and size.get("longest_edge", 0) and size.get("shortest_edge", 0):
        processor.image_processor.size = {
            "shortest_edge": min(size["shortest_edge"], max_pixels),
            "longest_edge": min(size["longest_edge"], max_pixels),
        }
    return processor


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
    if not (folder / "config.json").is_file():
        raise AesError(
            f"{folder} holds no config.json, so it is no checkpoint", fix="pass the folder that a training stage wrote"
        )
    check_stamp(folder)
    return str(folder)


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


def _inputs(vlm: Vlm, images: Sequence[Image.Image], answers: Sequence[str], prompt: str) -> Any:
    """Left-padded model inputs of the prompt about each image, each followed by the beginning of an answer."""
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    question = vlm.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    inputs = vlm.processor(
        text=[question + answer for answer in answers],
        images=[[image] for image in images],
        return_tensors="pt",
        padding=True,
    )
    return inputs.to(vlm.model.device, dtype=vlm.model.dtype)


@torch.inference_mode()
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
    """`samples` raw replies to the prompt about each of n images: n lists of K texts.

    Temperature 0 is greedy and so the same every time (then K must be 1); above it the draw is seeded.
    """
    if samples > 1 and not temperature > 0:
        raise AesError(
            f"{samples} samples at temperature 0 would all be the same", fix="give a temperature, the paper's is 0.6"
        )
    inputs = _inputs(vlm, images, [""] * len(images), prompt)
    drawing: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        torch.manual_seed(seed)
        drawing = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    tokens = vlm.model.generate(
        **inputs,
        **drawing,
        repetition_penalty=1.0,
        num_return_sequences=samples,
        max_new_tokens=max_new_tokens,
        suppress_tokens=picture_tokens(vlm.model.config),
        pad_token_id=vlm.processor.tokenizer.pad_token_id,
    )
    texts = vlm.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def picture_tokens(config: Any) -> list[int] | None:
    """Tokens that stand for pictures: a reply that held one would ask for a picture that is not there."""
    names = ("image_token_id", "image_token_index", "video_token_id")
    return [token for name in names if isinstance(token := getattr(config, name, None), int)] or None


@torch.inference_mode()
def expect_scores(
    vlm: Vlm, images: Sequence[Image.Image], prefixes: Sequence[str], *, prompt: str = PROMPT
) -> list[Expectation]:
    """The score's expectation after each prefix (a reply up to where its score is due); NaN from a broken model.

    Every answer of two decimals, 0.00–1.00, is weighed by the product of its tokens' probabilities. One
    prefill, then one short forward pass of the tree of digits from its cache.
    """
    tree = _score_tree(vlm.processor.tokenizer)
    inputs = _inputs(vlm, images, prefixes, prompt)
    mask = inputs["attention_mask"]
    first = vlm.model(**inputs, use_cache=True, logits_to_keep=1)
    batch, (paths, depth) = len(images), tree.paths.shape
    cache = first.past_key_values
    cache.batch_repeat_interleave(paths)
    tokens = torch.as_tensor(tree.paths, device=mask.device).repeat(batch, 1)
    mask = torch.cat([mask.repeat_interleave(paths, dim=0), torch.ones_like(tokens)], dim=1)
    rest = vlm.model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=_positions(vlm.model, mask, depth),
        past_key_values=cache,
        use_cache=True,
    ).logits
    root = torch.log_softmax(first.logits[:, -1].float(), dim=-1)
    inner = torch.log_softmax(rest.float(), dim=-1).reshape(batch, paths, depth, -1)
    log_p = root[:, tree.tokens[:, 0]]
    for level in range(1, tree.tokens.shape[1]):
        step = inner[:, tree.path_of[:, level], level - 1, tree.tokens[:, level]]
        log_p = log_p + torch.where(torch.as_tensor(tree.lengths > level, device=step.device), step, 0.0)
    weights = torch.softmax(log_p, dim=-1).double().cpu().numpy()
    values = np.arange(len(SCORE_TEXTS)) / (len(SCORE_TEXTS) - 1)
    means = weights @ values
    spreads = np.sqrt(np.maximum(0.0, weights @ values**2 - means**2))
    return [Expectation(float(mean), float(spread)) for mean, spread in zip(means, spreads, strict=True)]


def _positions(model: Any, mask: torch.Tensor, length: int) -> torch.Tensor:
    """Position ids of the last `length` columns; Qwen-VL's three-axis positions go on from the picture's offset."""
    positions = (mask.cumsum(-1) - 1)[:, -length:]
    deltas: torch.Tensor | None = getattr(getattr(model, "model", None), "rope_deltas", None)
    if deltas is None:
        return positions
    return (positions + deltas.repeat_interleave(len(mask) // len(deltas), dim=0)).expand(3, -1, -1)


class _ScoreTree(NamedTuple):
    """The 101 answers as token sequences, and the fewest sequences whose forward pass shows all their steps."""

    tokens: Any  # (101, L) ids, padded with 0
    lengths: Any  # (101,)
    paths: Any  # (P, L − 1) ids
    path_of: Any  # (101, L) the path that passes through an answer's first l tokens


def _score_tree(tokenizer: Any) -> _ScoreTree:
    head = tokenizer(ANSWER_OPEN, add_special_tokens=False)["input_ids"]
    answers = []
    for text in SCORE_TEXTS:
        whole = tokenizer(ANSWER_OPEN + text, add_special_tokens=False)["input_ids"]
        if whole[: len(head)] != head:
            raise AesError(
                f"this model's tokenizer joins the answer tag and the score {text}, so its score tokens cannot be read",
                fix="score with --samples 1 or more at a temperature instead of the expectation",
            )
        answers.append(tuple(whole[len(head) :]))
    longest = max(map(len, answers))
    inner = {answer[:-1] for answer in answers}
    paths = sorted(path for path in inner if not any(other[: len(path)] == path for other in inner - {path}))
    return _ScoreTree(
        tokens=np.array([answer + (0,) * (longest - len(answer)) for answer in answers]),
        lengths=np.array([len(answer) for answer in answers]),
        paths=np.array([path + (path[-1],) * (longest - 1 - len(path)) for path in paths]),
        path_of=np.array(
            [
                [
                    next(
                        i
                        for i, path in enumerate(paths)
                        if path[: min(level, len(answer) - 1)] == answer[: min(level, len(answer) - 1)]
                    )
                    for level in range(longest)
                ]
                for answer in answers
            ]
        ),
    )
