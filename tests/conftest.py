from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aesr1.records import Rating, write_rows
from aesr1.tiny.scenes import draw_scene, sample_scene
from browser import started


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


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, smaller than the embedded one: 2 layers of width 96."""
    from aesr1.tiny.model import build_model, build_processor
    from aesr1.tiny.pretrain import DESCRIBE_PROMPT, FACTS_PROMPT, corpus
    from aesr1.vlm import stamp_checkpoint

    folder = tmp_path_factory.mktemp("random-model")
    processor = build_processor(corpus(np.random.default_rng(0), size=200), prompts=(FACTS_PROMPT, DESCRIBE_PROMPT))
    build_model(processor, seed=0, width=96, layers=2).save_pretrained(folder)
    processor.save_pretrained(folder)
    stamp_checkpoint(folder, stage="test")
    return folder


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all pages."""
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
