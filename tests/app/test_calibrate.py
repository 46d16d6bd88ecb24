"""One person's taste: which kind is chosen, what is learnt by hand, what is honest about few ratings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aesr1.app.calibrate import CalibrateConfig, calibrate, learn
from aesr1.app.calibration import Calibration, load_calibration
from aesr1.app.score import Scorer
from aesr1.errors import AesError
from aesr1.json_lines import write_rows
from aesr1.model.predict import Origin, PredictSettings
from aesr1.records import Rating

ORIGIN = Origin("m", "rev", "expectation")


def sample(n: int = 120, channels: int = 30) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    return rng.uniform(0.2, 0.8, n), rng.normal(size=(n, channels)), rng


def calibration(**more: object) -> Calibration:
    values = {"kind": "linear", "knots": ((0.0, 0.1), (1.0, 0.9)), "n": 50, "error": 0.1}
    return Calibration(model="m", revision="rev", decoding="expectation", **{**values, **more})


def test_a_line_is_found_again():
    scores, features, rng = sample()
    found = learn(scores, features, 0.1 + 0.7 * scores + rng.normal(0, 0.02, len(scores)), ORIGIN)
    assert found.calibration.kind == "linear"
    (low, at_0), (high, at_1) = found.calibration.knots
    assert (low, high) == (0, 1)
    assert (at_0, at_1) == pytest.approx((0.1, 0.8), abs=0.02)
    assert found.helps and found.srcc.low > 0.9
    assert found.calibration.error == pytest.approx(0.02, abs=0.006)


def test_a_step_needs_a_rising_curve():
    scores, features, rng = sample()
    found = learn(scores, features, np.where(scores > 0.5, 0.8, 0.2) + rng.normal(0, 0.02, len(scores)), ORIGIN)
    assert found.calibration.kind == "isotonic"
    assert found.calibration.apply(np.array([0.3, 0.7])) == pytest.approx([0.2, 0.8], abs=0.05)
    assert found.calibration.apply(np.array([0.0, 1.0])) == pytest.approx([0.2, 0.8], abs=0.06)


def test_a_taste_that_the_score_does_not_see_needs_the_features():
    scores, features, rng = sample()
    human = np.clip(0.5 + 0.15 * features[:, 3] + rng.normal(0, 0.02, len(scores)), 0, 1)
    found = learn(scores, features, human, ORIGIN)
    assert found.calibration.kind == "features"
    assert found.calibration.apply(scores, features) == pytest.approx(human, abs=0.15)
    assert found.trials["features"].error < found.trials["linear"].error / 2


def test_ratings_at_random_are_said_to_help_nothing():
    scores, features, rng = sample(40)
    found = learn(scores, features, rng.random(40), ORIGIN)
    assert not found.helps
    assert "not clearly better than one score for all" in found.text()


def test_a_taste_against_the_model_gives_a_flat_line_not_a_falling_one():
    scores, features, _ = sample()
    found = learn(scores, np.zeros_like(features), 1 - scores, ORIGIN)
    assert found.trials["linear"].error == pytest.approx(found.trials["one score for all"].error, rel=0.01)
    assert len(set(np.round(found.calibration.apply(np.array([0.2, 0.8])), 6))) == 1


def test_a_calibration_is_read_back_and_maps_by_hand(tmp_path):
    weighed = calibration(kind="features", weights=(0.5, -0.25), intercept=0.01)
    weighed.write(tmp_path / "c.json")
    read = load_calibration(tmp_path / "c.json")
    assert read == weighed
    assert read.apply(np.array([0.5, 1.0]), np.array([[0.2, 0.0], [1.0, 0.0]])) == pytest.approx([0.61, 1.0])
    assert read.origin(ORIGIN).decoding.startswith("expectation; calibrated (features, ")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"kind": "linear", "knots": [[0, 1]], "weights": []}', "null"],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(AesError, match="is no calibration"):
        load_calibration(tmp_path / "c.json")


def test_a_falling_curve_and_another_kind_are_refused(tmp_path):
    falling = ((1.0, 0.9), (0.0, 0.1)), ((0.0, 0.9), (1.0, 0.1)), ()
    for wrong in (*(calibration(knots=knots) for knots in falling), calibration(kind="spline")):
        wrong.write(tmp_path / "c.json")
        with pytest.raises(AesError, match="is no calibration"):
            load_calibration(tmp_path / "c.json")


def test_a_calibration_of_another_model_is_refused():
    with pytest.raises(AesError, match="was learnt from m, rev, expectation; now it is other"):
        calibration().require(Origin("other", "rev", "expectation"))


def test_scores_become_those_of_a_person_and_say_so(random_model, scene_folder, tmp_path):
    fast = PredictSettings(fast=True)
    config = CalibrateConfig(scene_folder / "ratings.jsonl", tmp_path / "c.json", str(random_model), settings=fast)
    found = calibrate(config)
    assert found.calibration.n == 40
    pictures = [str(scene_folder / f"{number:02}.png") for number in range(3)]
    plain = Scorer(str(random_model), settings=fast).score(pictures)
    mine = Scorer(str(random_model), settings=fast, calibration=tmp_path / "c.json").score(pictures)
    assert "; calibrated (" in mine[0].decoding and "calibrated" not in plain[0].decoding
    assert all(row.score_std == found.calibration.error and row.percentile is None for row in mine)
    with pytest.raises(AesError, match="was learnt from"):
        Scorer(str(random_model), calibration=tmp_path / "c.json")


def test_too_few_and_equal_ratings_are_refused(random_model, tmp_path, scene_folder):
    images = [str(scene_folder / f"{number:02}.png") for number in range(24)]
    for scores, problem in ((np.linspace(0, 1, 5), "has 5 ratings"), (np.full(24, 0.5), "all ratings are the same")):
        rows = [Rating(image, float(score), "d", "train") for image, score in zip(images, scores, strict=False)]
        path = tmp_path / f"{len(rows)}.jsonl"
        write_rows(path, rows)
        with pytest.raises(AesError, match=problem):
            calibrate(CalibrateConfig(path, Path("c.json"), str(random_model), settings=PredictSettings(fast=True)))
