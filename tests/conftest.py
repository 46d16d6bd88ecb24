from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import started
from filelock import FileLock

from aesr1.records import Rating, Rationale, read_rows, write_rows
from aesr1.tiny.scenes import draw_scene, sample_scene

CPU = [
    *("--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false"),
    *("--max_pixels", "4096", "--report_to", "none"),
]
"""Settings of every training run here."""


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rated scenes: 24 train, 8 val, 8 test; ratings spread evenly over 0–1."""
    folder = tmp_path_factory.mktemp("scenes")
    rows = []
    for number in range(40):
        rng = np.random.default_rng(number)
        name = f"{number:02d}.png"
        draw_scene(sample_scene(rng)).save(folder / name)
        split = "train" if number < 24 else "val" if number < 32 else "test"
        votes = rng.multinomial(50, np.full(10, 0.1))
        rows.append(Rating(name, (number % 8 + 0.5) / 8, "scenes", split, 0.1, 50, tuple(int(v) for v in votes)))
    write_rows(folder / "ratings.jsonl", rows)
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of several test processes fills, for all of them."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(folder.with_suffix(".part"))
            folder.with_suffix(".part").rename(folder)
    return folder


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, smaller than the embedded one: 2 layers of width 96."""

    def make(folder: Path) -> None:
        from aesr1.model.checkpoint import stamp_checkpoint
        from pretrain_backbone import DESCRIBE_PROMPT, FACTS_PROMPT, corpus
        from tiny_model import build_model, build_processor

        processor = build_processor(corpus(np.random.default_rng(0), size=200), prompts=(FACTS_PROMPT, DESCRIBE_PROMPT))
        build_model(processor, seed=0, width=96, layers=2).save_pretrained(folder)
        processor.save_pretrained(folder)
        stamp_checkpoint(folder, stage="test")

    return made_once(tmp_path_factory, "random-model", make)


@pytest.fixture(scope="session")
def rationales(scene_folder: Path) -> Path:
    """Eight rationales of one text."""
    rows = [
        Rationale(rating.image, rating.score, rating.domain, "Light and shadow are soft.", "test")
        for rating in read_rows(scene_folder / "ratings.jsonl", Rating)[:8]
    ]
    path = scene_folder / "rationales.jsonl"
    write_rows(path, rows)
    return path


@pytest.fixture(scope="session")
def fluent_model(random_model: Path, rationales: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cold start that has learnt the form of the reply by heart."""

    def make(folder: Path) -> None:
        from aesr1 import cold_start

        pace = ["--per_device_train_batch_size", "8", "--num_train_epochs", "80", "--learning_rate", "5e-3"]
        data = ["--rationales", str(rationales), "--model", str(random_model), "--output_dir", str(folder)]
        cold_start.main([*data, *pace, "--save_steps", "1000", *CPU])

    return made_once(tmp_path_factory, "fluent-model", make)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all pages."""
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
