"""Fixtures of all tests. What takes long to make is made once for all of xdist's processes, under a file lock."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: xdist's processes share the cores. Children inherit it.

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import started
from filelock import FileLock

from aesr1.json_lines import write_rows
from aesr1.records import Rating, Rationale
from aesr1.tiny.scenes import draw_scene, sample_scene

CPU = [
    *("--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false"),
    *("--max_pixels", "4096", "--report_to", "none", "--min_readable", "0"),
]
"""Settings of every training run here. Models of random weights write nothing that can be read."""

DEFAULT_FAMILIES = ("qwen2.5-vl", "fastvlm")
"""Tested by default: the families of the embedded models. The others are slow tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the other model families as slow."""
    from families import BUILDERS

    slow = BUILDERS.keys() - set(DEFAULT_FAMILIES)
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if any(isinstance(value, str) and value in slow for value in parameters.values()):
            item.add_marker(pytest.mark.slow)


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name`, filled by `make` in the first process that needs it; the other processes wait."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # shared by the processes
    folder, finished = base / name, base / f"{name}.finished"
    with FileLock(base / f"{name}.lock"):
        if not finished.exists():
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rated scenes: 24 train, 8 val, 8 test; ratings spread evenly over 0–1. Shared: nothing is written to it."""

    def make(folder: Path) -> None:
        rows = []
        for number in range(40):
            rng = np.random.default_rng(number)
            name = f"{number:02d}.png"
            draw_scene(sample_scene(rng)).save(folder / name)
            split = "train" if number < 24 else "val" if number < 32 else "test"
            votes = rng.multinomial(50, np.full(10, 0.1))
            rows.append(Rating(name, (number % 8 + 0.5) / 8, "scenes", split, 0.1, 50, tuple(int(v) for v in votes)))
        write_rows(folder / "ratings.jsonl", rows)
        for name, text in (("rationales", "Light and shadow are soft."), ("short", "Soft.")):
            few = [Rationale(row.image, row.score, row.domain, text, "test") for row in rows[:24]]
            write_rows(folder / f"{name}-24.jsonl", few)
            write_rows(folder / f"{name}.jsonl", few[:8])

    return make_once(tmp_path_factory, "scenes", make)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, smaller than the embedded one: 2 layers of width 96."""
    from aesr1.model.checkpoint import stamp_checkpoint
    from pretrain_backbone import DESCRIBE_PROMPT, FACTS_PROMPT, corpus
    from tiny_model import build_model, build_processor

    def make(folder: Path) -> None:
        processor = build_processor(corpus(np.random.default_rng(0), size=200), prompts=(FACTS_PROMPT, DESCRIBE_PROMPT))
        build_model(processor, seed=0, width=96, layers=2).save_pretrained(folder)
        processor.save_pretrained(folder)
        stamp_checkpoint(folder, stage="test")

    return make_once(tmp_path_factory, "random-model", make)


@pytest.fixture(scope="session")
def rationales(scene_folder: Path) -> Path:
    """Eight rationales of one text."""
    return scene_folder / "rationales.jsonl"


@pytest.fixture(scope="session")
def fluent_model(random_model: Path, rationales: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cold start that has learnt the form by heart."""
    from aesr1 import cold_start

    def make(folder: Path) -> None:
        pace = ["--per_device_train_batch_size", "8", "--num_train_epochs", "80", "--learning_rate", "5e-3"]
        data = ["--rationales", str(rationales), "--model", str(random_model), "--output_dir", str(folder)]
        cold_start.main([*data, *pace, "--save_steps", "1000", *CPU])

    return make_once(tmp_path_factory, "fluent", make)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all pages."""
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
