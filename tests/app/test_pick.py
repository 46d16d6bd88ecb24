"""Picks: groups of similar pictures and bursts, buckets by hand, lists, and the page in a real browser."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from browser import HOSTILE, check_self_contained, opened, resize
from PIL import Image

from aesr1.app.pick import Pick, PickConfig, Picked, choose, pick_files
from aesr1.app.pick_page import write_page
from aesr1.app.similar_pictures import Sight, see_pictures, similar_groups
from aesr1.errors import AesError
from aesr1.records import Prediction
from aesr1.tiny.scenes import draw_scene, sample_scene


def row(name: str, score: float | None, stars: int | None = 3) -> Prediction:
    reasoning, error = (None, "it is cut off") if score is None else (f"{name}: clear light.", None)
    found = Prediction(f"/p/{name}.jpg", score, 0.1, True, reasoning, "r", "m", "rev", "expectation", error)
    return found if score is None else Prediction(**{**found.__dict__, "stars": stars})


def buckets(picks: list[Pick]) -> dict[str, str]:
    return {Path(pick.row.image).stem: pick.bucket for pick in picks}


def config(**more: object) -> PickConfig:
    return PickConfig(("x",), Path("out"), **more)


def test_alone_a_picture_goes_by_its_stars():
    rows = [row("a", 0.9, 5), row("b", 0.7, 4), row("c", 0.5, 3), row("d", 0.3, 2), row("e", 0.1, 1)]
    groups = [[index] for index in range(5)]
    found = buckets(choose(rows, groups, config(), people={}))
    assert found == {"a": "keep", "b": "keep", "c": "maybe", "d": "drop", "e": "drop"}
    strict = buckets(choose(rows, groups, config(keep_stars=5, drop_stars=3), people={}))
    assert strict == {"a": "keep", "b": "maybe", "c": "drop", "d": "drop", "e": "drop"}


def test_of_a_group_the_best_is_kept_and_those_behind_are_dropped():
    rows = [row("near", 0.78, 5), row("best", 0.8, 5), row("far", 0.7, 4), row("alone", 0.7, 4)]
    picks = choose(rows, [[0, 1, 2], [3]], config(), people={})
    assert buckets(picks) == {"best": "keep", "near": "maybe", "far": "drop", "alone": "keep"}
    assert [pick.is_best for pick in picks] == [True, False, False, True]
    assert picks[0].reason == "the best of 3: 0.80, the next 0.78"
    assert picks[2].reason == "behind: 0.70, the best of 3 has 0.80"


def test_of_a_group_without_a_good_one_none_is_kept():
    picks = choose([row("a", 0.3, 2), row("b", 0.29, 2)], [[0, 1]], config(), people={})
    assert buckets(picks) == {"a": "drop", "b": "drop"}


def test_a_persons_stars_decide_and_a_picture_without_a_score_is_asked_about():
    rows = [row("liked", 0.2, 1), row("rejected", 0.9, 5), row("broken", None)]
    picks = choose(rows, [[0], [1], [2]], config(), people={"/p/liked.jpg": 5, "/p/rejected.jpg": -1})
    assert buckets(picks) == {"liked": "keep", "rejected": "drop", "broken": "maybe"}
    assert [pick.reason for pick in picks] == ["you gave it 5 stars", "you rejected it", "no score: it is cut off"]


@pytest.mark.parametrize("more", [{"keep_stars": 2, "drop_stars": 2}, {"keep_stars": 7}, {"seconds": -1}])
def test_limits_that_cannot_be_are_refused(more):
    with pytest.raises(AesError, match="keep from"):
        config(**more)


def shot(seed: int, path: Path, *, taken: float | None = None, camera: str = "C1", shift: int = 0) -> str:
    """A drawn scene as a JPEG that a camera took at this second; shift: pixels by which the camera moved."""
    picture = draw_scene(sample_scene(np.random.default_rng(seed))).resize((300, 300))
    exif = Image.Exif()
    exif[0x0110] = camera
    if taken is not None:
        moment = datetime(2026, 5, 1) + timedelta(seconds=taken)
        details = {0x9003: moment.strftime("%Y:%m:%d %H:%M:%S"), 0x9291: f"{moment.microsecond // 10_000:02d}"}
        exif[0x8769] = details
    picture.crop((shift, 0, 270 + shift, 270)).save(path, exif=exif)
    return str(path)


def test_copies_and_bursts_are_groups(tmp_path):
    paths = [
        shot(1, tmp_path / "burst-1.jpg", taken=10.0),
        shot(2, tmp_path / "other.jpg", taken=10.5, camera="C2"),
        shot(1, tmp_path / "burst-2.jpg", taken=11.25, shift=14),
        shot(1, tmp_path / "later.jpg", taken=90.0, shift=28),
        shot(3, tmp_path / "same.jpg"),
        shot(3, tmp_path / "copy.jpg"),
        shot(4, tmp_path / "soon.jpg", taken=12.0),
    ]
    sights = see_pictures(paths, None)
    assert sights[2] is not None and sights[0] is not None
    assert sights[2].taken is not None and sights[0].taken is not None
    assert sights[2].taken - sights[0].taken == pytest.approx(1.25)
    assert similar_groups(sights, seconds=2) == [[0, 2], [1], [3], [4, 5], [6]]


def test_pictures_that_cannot_be_opened_or_have_broken_exif_are_alone(tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    good = shot(5, tmp_path / "good.jpg")
    found = see_pictures([str(tmp_path / "bad.jpg"), good], None)
    assert found[0] is None and found[1] is not None and found[1].taken is None
    assert similar_groups(found, seconds=2) == [[0], [1]]
    assert similar_groups([], seconds=2) == []
    flat = Sight(bytes([9] * 256), 1.0, "C")
    assert similar_groups([flat, flat], seconds=2) == [[0], [1]]


def test_the_whole_command_writes_lists_and_touches_no_picture(tmp_path, random_model):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        shot(number % 3, photos / f"{number}.jpg", taken=100.0 * number)
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    from aesr1.model.predict import PredictSettings

    given = PickConfig((str(photos),), tmp_path / "out", str(random_model), settings=PredictSettings(fast=True))
    picked = pick_files(given)
    assert sum(picked.counts.values()) == 4
    assert [len(group) for group in picked.groups] == [2]  # 0 and 3 are the same scene
    listed = [(tmp_path / "out" / f"{name}.txt").read_text().split("\n")[:-1] for name in picked.counts]
    assert sorted(Path(line).name for lines in listed for line in lines) == sorted(before)
    table = list(csv.DictReader(io.StringIO((tmp_path / "out" / "picks.csv").read_text(encoding="utf-8-sig"))))
    assert [entry["of"] for entry in table].count("2") == 2
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before


def test_the_page_holds_hostile_text_and_fits_a_phone_and_a_desk(tmp_path, driver):
    shot(1, tmp_path / "a.jpg")
    rows = [row("a", 0.8, 5), row("b", 0.7, 4), row("c", 0.1, 1)]
    rows = [Prediction(**{**each.__dict__, "reasoning": HOSTILE}) for each in rows]
    rows[0] = Prediction(**{**rows[0].__dict__, "image": str(tmp_path / "a.jpg")})
    picked = Picked(choose(rows, [[0, 1], [2]], config(), people={}))
    page = tmp_path / "picks.html"
    write_page(page, picked, pool=None)
    check_self_contained(page)
    with opened(driver, page, title="Picks") as shown:
        for width in (1400, 390):
            resize(shown, width, 844)
            assert shown.execute_script("return document.documentElement.scrollWidth") <= width
        assert len(shown.find_elements("css selector", ".group .card")) == 2
        assert len(shown.find_elements("css selector", ".card.best")) == 1
        picture = shown.find_element("css selector", ".frame img").rect
        frame = shown.find_element("css selector", ".frame").rect
        assert picture["y"] + picture["height"] <= frame["y"] + frame["height"]
        assert "3 pictures: 1 keep, 0 maybe, 2 drop." in shown.find_element("css selector", ".sum").text
