"""Baselines: what they learn from train, on pictures whose score is their brightness."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from aesr1.errors import AesError
from aesr1.evaluation.baselines import BASELINES, baseline_predictions
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.json_lines import write_rows
from aesr1.metrics import srcc
from aesr1.records import Rating


@pytest.fixture(scope="module")
def brightness(tmp_path_factory):
    """Thirty pictures of train and ten of test in each of two sets; in the second, dark is beautiful."""
    folder = tmp_path_factory.mktemp("brightness")
    rng = np.random.default_rng(0)
    rows = []
    for domain in ("light", "dark"):
        for number in range(40):
            score = 0.2 + 0.6 * (number * 7 % 40) / 40
            level = 255 * (score if domain == "light" else 1 - score)
            pixels = np.clip(level + rng.normal(0, 12, (48, 48, 3)), 0, 255).astype(np.uint8)
            path = folder / f"{domain}-{number}.png"
            Image.fromarray(pixels).save(path)
            rows.append(Rating(str(path), score, domain, "train" if number < 30 else "test"))
    return folder, rows


def split(rows, name):
    return [row for row in rows if row.split == name]


def test_each_data_set_is_learnt_from_its_own_train(brightness):
    _, rows = brightness
    train, test = split(rows, "train"), split(rows, "test")
    found = baseline_predictions(train, test, None)
    assert tuple(found) == BASELINES
    for domain in ("light", "dark"):
        here = [number for number, row in enumerate(test) if row.domain == domain]
        human = [test[number].score for number in here]
        mean = np.mean([row.score for row in train if row.domain == domain])
        assert [found["mean of train"][number].score for number in here] == pytest.approx([mean] * 10)
        for name in ("ridge on measures", "ridge on photo features"):
            assert srcc([found[name][number].score for number in here], human) > 0.8, (domain, name)
    for name in BASELINES:
        assert [row.image for row in found[name]] == [row.image for row in test]
        assert all(row.readable is None and row.reasoning is None for row in found[name])


def test_a_picture_that_cannot_be_opened_has_no_score(brightness, tmp_path):
    _, rows = brightness
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    light = [row for row in rows if row.domain == "light"][::4]
    also = [Rating(str(broken), 0.5, "light", split) for split in ("train", "test")]
    found = baseline_predictions([*split(light, "train"), also[0]], [*split(light, "test"), also[1]], None)
    for predictions in found.values():
        assert predictions[-1].score is None and predictions[-1].error == "the picture cannot be opened"
        assert all(row.score is not None for row in predictions[:-1])


@pytest.mark.parametrize("kept", [0, 1])
def test_without_pictures_to_learn_from_there_are_no_baselines(brightness, kept):
    _, rows = brightness
    light = [row for row in rows if row.domain == "light"]
    with pytest.raises(AesError, match="light has fewer than two pictures there"):
        baseline_predictions(split(light, "train")[:kept], split(light, "test"), None)


def test_a_train_of_broken_pictures_is_said(brightness, tmp_path):
    _, rows = brightness
    gone = [Rating(str(tmp_path / f"{number}.png"), 0.5, "light", "train") for number in range(3)]
    test = [row for row in split(rows, "test") if row.domain == "light"][:2]
    with pytest.raises(AesError, match="light has fewer than two pictures there that can be opened"):
        baseline_predictions(gone, test, None)


def test_a_missing_package_is_said_before_a_picture_is_opened(brightness, monkeypatch):
    _, rows = brightness
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("aesr1.evaluation.baselines.prefetch_images", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(AesError, match="need scikit-learn") as error:
        baseline_predictions(split(rows, "train"), split(rows, "test"), None)
    assert "baselines" in error.value.fix


def test_baselines_stand_before_other_scores_in_the_table(brightness, tmp_path):
    folder, rows = brightness
    write_rows(folder / "ratings.jsonl", rows)
    lines = ["image,score", *(f"{row.image},{row.score}" for row in split(rows, "test"))]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    evaluate_models(
        EvalConfig(
            (folder / "ratings.jsonl",),
            (),
            out,
            prediction_files=(("people", tmp_path / "people.csv"),),
            baselines=True,
        )
    )
    results = json.loads((out / "results.json").read_text())
    assert list(results) == [*BASELINES, "people"]
    assert results["people"]["srcc"]["value"] == pytest.approx(1)
    assert results["mean of train"]["srcc"]["value"] == 0
    assert "ridge on photo features → people" in (out / "results.md").read_text()
