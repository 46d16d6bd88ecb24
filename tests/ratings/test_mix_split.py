"""Mixing data sets by weight, and dividing ratings into splits."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from aesr1.errors import AesError
from aesr1.json_lines import read_rows, write_rows
from aesr1.ratings.mix import MixConfig, apportion, mix, parse_sources
from aesr1.ratings.split import SplitConfig, draw_splits, split
from aesr1.records import Rating


@pytest.fixture
def album(tmp_path):
    """Write ratings of a domain: scores evenly over 0–1, nine tenths train."""

    def write(domain: str, n: int, **fields: object) -> Path:
        rows = [
            Rating(f"{domain}-{i}.jpg", (i + 0.5) / n, domain, "val" if i % 10 == 9 else "train", **fields)
            for i in range(n)
        ]
        path = tmp_path / domain / "ratings.jsonl"
        write_rows(path, rows)
        return path

    return write


def test_weights_become_whole_numbers_with_the_right_sum():
    assert apportion(15_000, [2, 2, 1]) == [6_000, 6_000, 3_000]
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert apportion(0, [1, 2]) == [0, 0]


def test_a_mix_has_the_right_number_of_each_set_and_is_the_same_for_a_seed(album, tmp_path):
    sources = tuple((album(name, 100), weight) for name, weight in (("a", 2), ("b", 2), ("c", 1)))
    first = mix(MixConfig(sources, tmp_path / "one", 50, val=10, seed=3))
    assert first.rows == {
        "a": {"train": 20, "val": 4},
        "b": {"train": 20, "val": 4},
        "c": {"train": 10, "val": 2},
    }
    again = mix(MixConfig(sources, tmp_path / "two", 50, val=10, seed=3))
    other = mix(MixConfig(sources, tmp_path / "three", 50, val=10, seed=4))
    assert read_rows(first.ratings, Rating) == read_rows(again.ratings, Rating)
    assert read_rows(first.ratings, Rating) != read_rows(other.ratings, Rating)
    domains = [row.domain for row in read_rows(first.ratings, Rating)]
    assert len({row.image for row in read_rows(first.ratings, Rating)}) == 60
    assert domains != sorted(domains)  # sets are mixed, not stacked


def test_a_mix_keeps_every_field(album, tmp_path):
    source = album("a", 10, rater_std=0.1, raters=9, attributes={"light": 0.5}, licence="CC0", source="us", group="g")
    rows = read_rows(mix(MixConfig(((source, 1.0),), tmp_path / "out", 9)).ratings, Rating)
    assert {row.image: row for row in rows} == {
        row.image: row for row in read_rows(source, Rating) if row.split == "train"
    }


def test_levels_are_balanced_within_each_set(album, tmp_path):
    sources = ((album("a", 200), 1.0), (album("b", 200), 2.0))
    found = mix(MixConfig(sources, tmp_path / "out", 90, balance=("bad", "fair", "good")))
    rows = read_rows(found.ratings, Rating)
    levels = Counter((row.domain, "bad" if row.score < 0.4 else "fair" if row.score < 0.7 else "good") for row in rows)
    assert levels == {(domain, level): n for domain, n in (("a", 10), ("b", 20)) for level in ("bad", "fair", "good")}


def test_sources_are_parsed_from_the_command_line(album):
    path = album("ava", 10)
    assert parse_sources([f"{path.parent}:2", str(path), f"{path}:0.5"]) == ((path, 2.0), (path, 1.0), (path, 0.5))
    for bad in ("ava:0", "ava:-1", "ava:inf", "ava:nan"):
        with pytest.raises(AesError, match="weight"):
            parse_sources([bad])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 91}, r"91 are needed"),
        ({"n": 30, "balance": ("ugly",)}, "not levels"),
        ({"n": 30, "balance": ("bad", "bad")}, "not levels"),
        ({"n": 30, "split": "foo"}, "'foo' is not a split"),
        ({"n": 10**23}, "are needed"),
        ({"n": 60, "balance": ("bad", "good")}, r"level good has 27 rows, 30 are needed"),
        ({"n": 9, "split": "val", "val": 1}, "drawn twice"),
        ({"n": 1, "split": "test"}, "has 0 rows, 1 are needed"),
    ],
)
def test_an_impossible_mix_raises_an_error(album, tmp_path, settings, message):
    with pytest.raises(AesError, match=message):
        mix(MixConfig(((album("a", 100), 1.0),), tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_a_split_other_than_train_may_be_mixed(album, tmp_path):
    found = mix(MixConfig(((album("a", 100), 1.0),), tmp_path / "out", 7, split="val"))
    assert found.rows == {"a": {"val": 7}}


def test_a_set_named_twice_is_refused(album, tmp_path):
    source = album("a", 100)
    with pytest.raises(AesError, match="twice"):
        mix(MixConfig(((source, 1.0), (source, 1.0)), tmp_path / "out", 10))


def test_a_picture_in_two_sets_or_a_set_without_rows_raises_an_error(album, tmp_path):
    source = album("a", 100)
    other = tmp_path / "copy"
    other.mkdir()
    write_rows(other / "ratings.jsonl", [replace(row, split="val") for row in read_rows(source, Rating)])
    with pytest.raises(AesError, match="was drawn from two sets"):
        mix(MixConfig(((source, 1.0), (other / "ratings.jsonl", 9.0)), tmp_path / "out", 100, split="val"))
    with pytest.raises(AesError, match="would give none of the train rows"):
        mix(MixConfig(((source, 1.0), (album("b", 100), 1e-9)), tmp_path / "out", 90))


def test_splits_have_their_shares_and_keep_groups_together():
    groups = [f"g{i // 3}" for i in range(300)]
    drawn = draw_splits(groups, {"train": 0.8, "val": 0.1, "test": 0.1}, seed=1)
    assert Counter(drawn) == pytest.approx({"train": 240, "val": 30, "test": 30}, abs=3)
    assert all(len({drawn[i] for i in range(300) if groups[i] == group}) == 1 for group in set(groups))
    assert draw_splits(groups[::-1], {"train": 0.8, "val": 0.1, "test": 0.1}, seed=1)[::-1] == drawn
    assert draw_splits(groups, {"train": 0.8, "val": 0.1, "test": 0.1}, seed=2) != drawn


def test_one_large_group_goes_to_the_largest_share():
    drawn = draw_splits(["big"] * 50 + [f"s{i}" for i in range(50)], {"train": 0.8, "test": 0.2})
    assert set(drawn[:50]) == {"train"}
    assert Counter(drawn) == {"train": 80, "test": 20}


@pytest.mark.parametrize(
    "shares", [{}, {"train": 0}, {"train": -1, "test": 2}, {"dev": 1}, {"train": float("nan")}, {"train": float("inf")}]
)
def test_impossible_shares_raise_an_error(shares):
    with pytest.raises(AesError):
        draw_splits(["a"], shares)


SHARES = (("train", 0.5), ("val", 0.5), ("test", 0.0))


def test_groups_from_file_names_stay_together_and_a_kept_split_does_not_change(tmp_path):
    rows = [Rating(f"theme{i // 4}-{i % 4}.jpg", 0.5, "d", "test" if i < 8 else "train") for i in range(48)]
    write_rows(tmp_path / "r.jsonl", rows)
    counts = split(SplitConfig(tmp_path / "r.jsonl", tmp_path / "out", SHARES, ("test",), r"(theme\d+)-"))
    assert counts == {"train": 20, "val": 20, "test": 8}
    written = read_rows(tmp_path / "out" / "ratings.jsonl", Rating)
    by_theme = {(Path(row.image).name.split("-")[0], row.split) for row in written}
    assert len(by_theme) == 12
    assert all(row.split == "test" for row in written[:8])


def test_the_rows_own_groups_are_used(tmp_path):
    rows = [Rating(f"{i}.jpg", 0.5, "d", "train", group=f"prompt {i % 5}") for i in range(50)]
    write_rows(tmp_path / "r.jsonl", rows)
    split(SplitConfig(tmp_path / "r.jsonl", tmp_path / "out", SHARES))
    written = read_rows(tmp_path / "out" / "ratings.jsonl", Rating)
    assert len({(row.group, row.split) for row in written}) == 5


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([("a.jpg", "train"), ("a.jpg", "test")], {}, "two rows"),
        ([("t1-a.jpg", "train"), ("t1-b.jpg", "test")], {"keep": ("test",), "group_by": r"t\d"}, "kept in test"),
        ([("a.jpg", "train")], {"group_by": "("}, "not a regular expression"),
        ([("a.jpg", "train")], {"group_by": "zzz"}, "matches nothing in a.jpg"),
        ([("a.jpg", "train")], {"group_by": "(x*)"}, "gives an empty group in a.jpg"),
        ([("a.jpg", "train")], {"group_by": "(x)?a"}, "gives an empty group in a.jpg"),
        (
            [("t1-a.jpg", "train"), ("t1-b.jpg", "val")],
            {"keep": ("train", "val"), "group_by": r"t\d"},
            "in train and in",
        ),
        ([("a.jpg", "train")], {"keep": ("dev",)}, "not a split"),
        ([("a.jpg", "train")], {"keep": ("train",)}, "no rows to divide"),
    ],
)
def test_a_split_that_would_divide_a_group_or_has_bad_settings_raises_an_error(tmp_path, rows, settings, message):
    write_rows(tmp_path / "r.jsonl", [Rating(image, 0.5, "d", name) for image, name in rows])
    with pytest.raises(AesError, match=message):
        split(SplitConfig(tmp_path / "r.jsonl", tmp_path / "out", SHARES, **settings))
    assert not (tmp_path / "out").exists()


def test_the_settings_of_a_mix_are_recorded_in_run_json(album, tmp_path):
    mix(MixConfig(((album("a", 100), 1.0),), tmp_path / "out", 5))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["stage"] == "ratings mix"
    assert run["rows"] == {"a": {"train": 5}}
