"""Percentile, stars and the scale 1–10 of a score."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aesr1.app.reference_scores import Reference, reference_of_model, reference_of_rows, with_meaning
from aesr1.errors import AesError
from aesr1.json_lines import write_rows
from aesr1.model.load import checkpoint_folder
from aesr1.model.predict import Origin
from aesr1.records import Prediction

ORIGIN = Origin("m", "rev", "expectation")


def row(score: float | None, image: str = "/a.jpg", origin: Origin = ORIGIN) -> Prediction:
    return Prediction(image, score, 0.1, True, "Clear light.", "r", *origin)


@pytest.mark.parametrize(
    ("score", "percentile", "stars"),
    [(0.2, 0, 1), (0.3, 0, 1), (0.35, 12.5, 1), (0.5, 50, 3), (0.66, 90, 5), (0.9, 100, 5)],
)
def test_percentile_and_stars_in_a_reference(score, percentile, stars):
    found = with_meaning(row(score), Reference("lakes", (0.3, 0.4, 0.5, 0.6, 0.7)))
    assert (found.percentile, found.stars, found.reference) == (percentile, stars, "lakes")


@pytest.mark.parametrize(
    ("score", "stars", "of_ten"), [(0, 1, 1), (0.19, 1, 2.71), (0.2, 2, 2.8), (0.99, 5, 9.91), (1, 5, 10)]
)
def test_without_a_reference_stars_are_fifths_of_the_scale(score, stars, of_ten):
    found = with_meaning(row(score), None)
    assert (found.stars, found.score_10, found.percentile, found.reference) == (stars, of_ten, None, None)


def test_a_row_without_a_score_means_nothing():
    assert with_meaning(row(None), None) == row(None)


def test_the_embedded_model_has_a_reference_for_both_readings():
    folder = checkpoint_folder("tiny-photo")
    for fast in (False, True):
        reference = reference_of_model(folder, fast=fast)
        assert reference.name == "OASIS, 553 photographs"
        assert len(reference.quantiles) == 101
        assert np.all(np.diff(reference.quantiles) >= 0)


def test_a_model_without_a_file_has_none_and_a_broken_file_is_named(tmp_path):
    assert reference_of_model(tmp_path, fast=False) is None
    for content in ("{", "{}", json.dumps({"set": "s", "expectation": ["a"]})):
        (tmp_path / "reference_scores.json").write_text(content)
        with pytest.raises(AesError, match="holds no reference scores"):
            reference_of_model(tmp_path, fast=False)


def test_earlier_rows_of_the_same_model_are_a_reference(tmp_path):
    path = tmp_path / "mine.jsonl"
    write_rows(path, [row(number / 100, f"/{number}.jpg") for number in range(101)] + [row(None, "/bad.jpg")])
    reference = reference_of_rows(path, ORIGIN)
    assert reference.name == "mine"
    assert reference.percentile(0.37) == pytest.approx(37)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([row(0.5)] * 3, "has 3 scores"),
        ([row(0.5, origin=Origin("other", "rev", "x"))] * 30, "come from other, rev, x"),
    ],
)
def test_rows_that_are_no_reference_are_refused(tmp_path, rows, problem):
    write_rows(tmp_path / "r.jsonl", rows)
    with pytest.raises(AesError, match=problem):
        reference_of_rows(tmp_path / "r.jsonl", ORIGIN)
