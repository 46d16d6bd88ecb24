"""Rationale measures: small texts counted by hand, and the wrong-photo control with matching and random texts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from aesr1.errors import AesError
from aesr1.evaluation.reasons import (
    distinct_ngrams,
    distinct_texts,
    text_follows_picture,
    text_predicts_score,
)


def describing_texts(n: int, seed: int = 0) -> tuple[list[str], NDArray[np.float64]]:
    """Texts that state the light and the horizon of a picture, with filler; measurements with noise."""
    rng = np.random.default_rng(seed)
    facts = rng.integers(0, 3, size=(n, 2))
    fillers = np.array(["quiet street", "old harbour", "red door", "green field", "tall tower"])
    light, horizon = ("dark", "grey", "bright"), ("level", "leaning", "crooked")
    texts = [f"A {rng.choice(fillers)}. It is {light[dark]} and {horizon[tilt]}." for dark, tilt in facts]
    return texts, facts + rng.normal(0, 0.3, size=(n, 2))


def test_texts_that_differ_only_in_case_or_space_count_once() -> None:
    assert distinct_texts(["A fine picture.", "a  fine picture. ", "A poor one."]) == pytest.approx(2 / 3)


def test_distinct_ngrams_are_counted_within_texts() -> None:
    texts = ["a b a b", "a b c"]
    assert distinct_ngrams(texts, size=1) == pytest.approx(3 / 7)
    assert distinct_ngrams(texts, size=2) == pytest.approx(3 / 5)  # ab ba ab, ab bc
    assert distinct_ngrams(["a"], size=2) == 0.0


def test_texts_that_describe_their_photo_fit_it_better_than_another() -> None:
    texts, measurements = describing_texts(120)
    fit = text_follows_picture(texts, measurements, seed=0, draws=300)
    # Variance 2/3 of three steps against .09 of noise: at best R² = .88.
    assert 0.75 < fit.own.value < 0.92
    assert abs(fit.shuffled.value) < 0.1
    assert fit.difference.excludes_zero and fit.difference.low > 0.6
    assert fit.difference.value == pytest.approx(fit.own.value - fit.shuffled.value)


def test_texts_of_another_photo_fit_no_better_than_the_control() -> None:
    texts, measurements = describing_texts(120)
    fit = text_follows_picture(texts, np.roll(measurements, 7, axis=0), seed=0, draws=300)
    assert abs(fit.difference.value) < 0.1
    assert not fit.difference.excludes_zero


def test_units_and_constant_columns_do_not_change_the_fit() -> None:
    texts, measurements = describing_texts(60)
    plain = text_follows_picture(texts, measurements, seed=0, draws=50)
    scaled = np.column_stack([measurements * 1000 + 5, np.ones(60)])
    assert text_follows_picture(texts, scaled, seed=0, draws=50).own.value == pytest.approx(plain.own.value)


def test_the_same_seed_gives_the_same_fit() -> None:
    texts, measurements = describing_texts(40)
    fits = [text_follows_picture(texts, measurements, seed=seed, draws=50) for seed in (1, 1, 2)]
    assert fits[0] == fits[1] != fits[2]


def test_texts_without_a_shared_word_explain_nothing() -> None:
    texts = ["".join(chr(97 + int(digit)) for digit in f"{i:04d}") for i in range(40)]
    assert text_follows_picture(texts, np.arange(40.0)[:, None], seed=0, draws=20).own.value == 0.0
    assert text_predicts_score(texts, np.arange(40.0), seed=0, draws=20).value == 0.0


def test_text_predicts_a_score_that_depends_on_its_words() -> None:
    texts, measurements = describing_texts(120)
    scores = measurements.sum(axis=1)
    assert text_predicts_score(texts, scores, seed=0, draws=200).low > 0.8
    noise = text_predicts_score(texts, np.random.default_rng(1).random(120), seed=0, draws=200)
    assert noise.low < 0 < noise.high or abs(noise.value) < 0.2


MEASURES: list[Callable[[list[str]], object]] = [
    distinct_texts,
    lambda texts: distinct_ngrams(texts, size=1),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_no_texts_raise_an_error(measure: Callable[[list[str]], object]) -> None:
    with pytest.raises(AesError, match="no rationales"):
        measure([])


@pytest.mark.parametrize(
    ("texts", "measurements", "reason"),
    [
        (["a"] * 20, np.arange(19.0)[:, None], "shape"),
        (["a"] * 20, np.arange(20.0), "shape"),
        (["a"] * 20, np.full((20, 1), np.nan), "not finite"),
        (["a"] * 20, np.ones((20, 2)), "no measurement differs"),
        (["a"] * 9, np.arange(9.0)[:, None], "too few for 5 folds"),
        ([], np.zeros((0, 3)), "no rationales"),
    ],
)
def test_unsuitable_measurements_raise_an_error(
    texts: list[str], measurements: NDArray[np.float64], reason: str
) -> None:
    with pytest.raises(AesError, match=reason):
        text_follows_picture(texts, measurements, seed=0)
