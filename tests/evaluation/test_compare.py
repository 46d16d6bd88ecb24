"""Evaluation and comparison: join by path, missing scores, significant gains, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from aesr1.errors import AesError
from aesr1.evaluation.compare import compare, evaluate
from aesr1.evaluation.datasets import compare_datasets
from aesr1.evaluation.tables import to_markdown, to_results
from aesr1.records import Prediction, Rating


def rated(scores: Sequence[float]) -> list[Rating]:
    return [Rating(f"/photos/{i}.jpg", float(score), "set", "test") for i, score in enumerate(scores)]


def predicted(scores: Sequence[float | None], model: str = "m") -> list[Prediction]:
    return [
        Prediction(
            image=f"/photos/{i}.jpg",
            score=None if score is None else float(score),
            score_std=None,
            readable=score is not None,
            reasoning=None,
            reply="a reply",
            model=model,
            revision="1",
            decoding="expectation",
        )
        for i, score in enumerate(scores)
    ]


def three_stages(n: int = 200) -> tuple[list[Rating], dict[str, list[Prediction]]]:
    rng = np.random.default_rng(0)
    human = rng.random(n)
    noises = {"backbone": 0.3, "cold start": 0.3, "RAPO": 0.05}
    scores = {name: np.clip(human + rng.normal(0, noise, n), 0, 1) for name, noise in noises.items()}
    return rated(human.tolist()), {name: predicted(values.tolist()) for name, values in scores.items()}


def test_predictions_are_joined_by_path_in_any_order() -> None:
    ratings = rated([0.1, 0.3, 0.2, 0.4])
    rows = predicted([0.1, 0.2, 0.3, 0.4])[::-1]
    elsewhere = replace(rows[0], image="/photos/other.jpg")
    spelled = replace(rows[0], image="/photos/out/../3.jpg")
    evaluation = evaluate(ratings, [spelled, *rows[1:], elsewhere], name="a", draws=50)
    assert evaluation.n == evaluation.n_scored == evaluation.n_readable == 4
    assert evaluation.scored.values["plcc"].value == pytest.approx(0.8)
    assert evaluation.scored.values["pair_accuracy"].value == pytest.approx(5 / 6)
    assert evaluation.scored.values["mae"].value == pytest.approx(0.05)
    assert evaluation.imputed == evaluation.scored
    assert (evaluation.model, evaluation.revision) == ("m", "1")


def test_missing_scores_are_counted_and_metrics_are_given_without_and_with_filling() -> None:
    evaluation = evaluate(rated([0.1, 0.3, 0.8, 0.6]), predicted([0.2, 0.4, None, 0.6]), name="a", draws=50)
    assert (evaluation.n, evaluation.n_scored, evaluation.n_readable) == (4, 3, 3)
    assert evaluation.parse_rate.value == 0.75
    assert evaluation.scored.values["mae"].value == pytest.approx(0.2 / 3)
    # Filled in with .4: errors .1, .1, .4, 0.
    assert evaluation.imputed.values["mae"].value == pytest.approx(0.15)
    assert (evaluation.scored.n, evaluation.imputed.n) == (3, 4)


def test_a_filled_in_score_is_tied_with_equal_scores() -> None:
    # The mean of three times .1 is not .1 in floating point.
    evaluation = evaluate(rated([0.1, 0.2, 0.3, 0.9]), predicted([0.1, 0.1, 0.1, None]), name="a", draws=50)
    assert evaluation.imputed.values["srcc"].value == 0.0


def test_a_score_with_an_unreadable_reply_counts_as_scored() -> None:
    rows = [replace(row, readable=False) for row in predicted([0.1, 0.5, 0.9])]
    evaluation = evaluate(rated([0.2, 0.5, 0.8]), rows, name="a", draws=50)
    assert (evaluation.n_scored, evaluation.n_readable, evaluation.parse_rate.value) == (3, 0, 0.0)


def test_scores_without_replies_have_no_share_of_readable_replies() -> None:
    rows = [replace(row, reply="", readable=False) for row in predicted([0.1, 0.5, 0.9])]
    study = compare_datasets(rated([0.2, 0.5, 0.8]), {"fast": rows}, draws=50)
    assert to_results(study)["fast"]["parse_rate"] is None
    assert "| fast | 3 of 3 | — |" in to_markdown(study)


GOOD = predicted([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("ratings", "predictions", "reason"),
    [
        ([], GOOD, "there are no ratings to compare with"),
        ([*rated([0.1, 0.2]), *rated([0.1])], GOOD, "the ratings name 1 images more than once, first: /photos/0.jpg"),
        (rated([0.1, 0.2, 0.3]), GOOD[:2], "1 of 3 rated images have no prediction of a, first: /photos/2.jpg"),
        (rated([0.1, 0.2, 0.3]), [], "3 of 3 rated images have no prediction"),
        (rated([0.1, 0.2, 0.3]), [*GOOD, GOOD[1]], "predictions of a name 1 images more than once"),
        (rated([0.1, 0.2, 0.3]), [*GOOD[:2], *predicted([0, 0, 0.3], "m2")[2:]], "come from 2 models"),
        (rated([0.1, 0.2, 0.3]), predicted([0.1, 5.0, 0.3]), "a scores /photos/1.jpg as 5.0"),
        (rated([0.1, 0.2, 0.3]), predicted([0.1, float("nan"), 0.3]), "a scores /photos/1.jpg as nan"),
    ],
)
def test_ratings_and_predictions_that_do_not_match_raise_an_error(
    ratings: list[Rating], predictions: list[Prediction], reason: str
) -> None:
    with pytest.raises(AesError, match=reason):
        evaluate(ratings, predictions, name="a", draws=10)


def test_comparing_no_models_raises_an_error() -> None:
    with pytest.raises(AesError, match="no predictions to compare"):
        compare(rated([0.1, 0.2]), {})


def test_only_the_interval_of_a_real_gain_excludes_zero() -> None:
    ratings, predictions = three_stages()
    comparison = compare(ratings, predictions, draws=300)
    named = {(each.first, each.second): each.gain for each in comparison.differences}
    assert list(named) == [("backbone", "cold start"), ("cold start", "RAPO"), ("backbone", "RAPO")]
    by_chance, real = named["backbone", "cold start"], named["cold start", "RAPO"]
    for metric in ("plcc", "srcc", "mae"):
        assert not by_chance.values[metric].excludes_zero
        assert real.values[metric].excludes_zero
    assert real.values["plcc"].value > 0
    assert real.values["mae"].value < 0
    assert "krcc" not in real.values


def test_only_real_gains_are_bold_in_markdown() -> None:
    ratings, predictions = three_stages()
    study = compare_datasets(ratings, predictions, draws=300)
    lines = to_markdown(study).splitlines()
    row = {line.split("|")[1].strip(): line for line in reversed(lines) if line.startswith("| ")}  # the first table
    assert row["RAPO"].count("**") == 6  # PLCC, SRCC, MAE
    assert "**" not in row["backbone"] and "**" not in row["cold start"]
    assert "**+" in row["cold start → RAPO"] and "**-" in row["cold start → RAPO"]
    assert "**" not in row["backbone → cold start"]
    widths = {line.count("|") for line in lines if line.startswith("| ")}
    assert widths == {12, 6}
    assert "200 images" in lines[-1] and "300 bootstrap draws" in lines[-1] and "seed 0" in lines[-1]


def test_a_model_that_gets_worse_is_not_bold() -> None:
    ratings, predictions = three_stages()
    text = to_markdown(
        compare_datasets(ratings, {"RAPO": predictions["RAPO"], "backbone": predictions["backbone"]}, draws=200)
    )
    table = text.split("\n\n")[0]
    assert "**" not in table


def test_results_are_json_of_finite_numbers() -> None:
    ratings, predictions = three_stages(40)
    predictions["cold start"][3] = replace(predictions["cold start"][3], score=None, readable=False)
    results = to_results(compare_datasets(ratings, predictions, draws=100, seed=5))
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert list(results) == ["backbone", "cold start", "RAPO"]
    entry = results["cold start"]
    for metric in ("plcc", "srcc", "krcc", "mae", "rmse", "plcc_logistic", "pair_accuracy", "parse_rate"):
        assert entry[metric]["low"] <= entry[metric]["value"] <= entry[metric]["high"]
    assert (entry["n"], entry["n_scored"], entry["n_readable"]) == (40, 39, 39)
    assert (entry["model"], entry["revision"], entry["bootstrap"]) == ("m", "1", {"draws": 100, "seed": 5})
    assert entry["decoding"] == "expectation"
    assert entry["against"]["backbone"]["n"] == 39
    assert set(results["RAPO"]["against"]) == {"backbone", "cold start"}
    assert entry["rater_ceiling"] is None


@pytest.mark.parametrize(
    ("human", "scores", "note"),
    [
        ([0.1, 0.2, 0.3], [None, 0.5, None], "fewer than three images have a score"),
        ([0.1, 0.2, 0.3], [None, None, None], "fewer than three images have a score"),
        ([0.4], [0.4], "fewer than three images have a score"),
        ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3], "people rated all of these images the same"),
        ([0.1, 0.4], [0.3, 0.4], "fewer than three images have a score"),
        ([0.5, 0.5, 0.5, 0.9], [0.1, 0.2, 0.3, None], "people rated all of these images the same"),
    ],
)
def test_metrics_without_a_value_are_null_and_the_note_gives_the_reason(
    human: list[float], scores: list[float | None], note: str
) -> None:
    study = compare_datasets(rated(human), {"a": predicted(scores), "b": predicted(scores)}, draws=20)
    entry = json.loads(json.dumps(to_results(study), allow_nan=False))["a"]
    assert entry["plcc"] is entry["srcc"] is entry["krcc"] is entry["pair_accuracy"] is None
    assert note in entry["note"]
    text = to_markdown(study)
    assert "—" in text and f"a: {note}" in text and "nan" not in text


def test_missing_scores_add_a_second_table() -> None:
    ratings, predictions = three_stages(30)
    assert "filled in" not in to_markdown(compare_datasets(ratings, predictions, draws=20))
    predictions["backbone"][0] = replace(predictions["backbone"][0], score=None)
    text = to_markdown(compare_datasets(ratings, predictions, draws=20))
    assert "filled in with the mean" in text and "29 of 30" in text


def test_the_rater_ceiling_is_computed_from_votes() -> None:
    votes = [(9, 1, 0), (1, 8, 1), (0, 1, 9), (5, 5, 0), (0, 5, 5), (1, 0, 0)]
    ratings = [
        replace(rating, votes=cast) for rating, cast in zip(rated(np.linspace(0, 1, 6).tolist()), votes, strict=True)
    ]
    study = compare_datasets(ratings, {"a|b": predicted([0.1, 0.3, 0.2, 0.5, 0.6, 0.7])}, draws=20)
    comparison = study.datasets["set"]
    assert comparison.ceiling is not None and 0.8 < comparison.ceiling.plcc.value <= 1
    assert comparison.ceiling_n == 5  # one vote can't be halved
    assert "A second panel of as many raters" in to_markdown(study)
    assert "| a\\|b |" in to_markdown(study)
    assert to_results(study)["a|b"]["rater_ceiling"]["plcc"]["value"] == comparison.ceiling.plcc.value
