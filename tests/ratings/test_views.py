"""Views: mirrored and cropped copies with the rating of their picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aesr1.errors import AesError
from aesr1.json_lines import read_rows, write_rows
from aesr1.ratings.views import ViewsConfig, write_views
from aesr1.records import Rating

RAMP = Image.fromarray(np.tile(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], (80, 1, 3)))  # dark left, 100 wide


@pytest.fixture
def ratings(tmp_path):
    rows = [Rating(f"{n}.png", n / 4, "mine", "train" if n < 2 else "test", group=f"g{n}") for n in range(3)]
    for row in rows:
        RAMP.save(tmp_path / row.image)
    write_rows(tmp_path / "ratings.jsonl", rows)
    return tmp_path / "ratings.jsonl"


def test_views_keep_the_rating_and_lose_little(ratings, tmp_path):
    rows = read_rows(write_views(ViewsConfig(ratings, tmp_path / "out", views=4, crop=0.2)), Rating)
    assert [(row.score, row.split, row.group) for row in rows] == [
        *[(0.0, "train", "g0")] * 4,
        *[(0.25, "train", "g1")] * 4,
        (0.5, "test", "g2"),
    ]
    assert rows[0].image == str(tmp_path / "0.png")  # the first view is the picture itself
    for number, row in enumerate(rows[1:4], start=1):
        view = Image.open(row.image)
        assert 80 <= view.width <= 100 and 64 <= view.height <= 80
        falls = view.getpixel((2, 5))[0] > view.getpixel((view.width - 3, 5))[0]
        assert falls == (number % 2 == 1)  # every second one is mirrored
    assert len({row.image for row in rows}) == 9


def test_the_same_seed_gives_the_same_views(ratings, tmp_path):
    once, again, other = (
        read_rows(write_views(ViewsConfig(ratings, tmp_path / name, seed=seed)), Rating)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert contents(once) == contents(again) != contents(other)


def contents(rows):
    return [Path(row.image).read_bytes() for row in rows]


@pytest.mark.parametrize("wrong", [{"views": 0}, {"crop": 0.6}, {"crop": -0.1}])
def test_impossible_settings_are_refused(ratings, tmp_path, wrong):
    with pytest.raises(AesError, match="give 1 view or more, a crop from 0"):
        ViewsConfig(ratings, tmp_path / "out", **wrong)
