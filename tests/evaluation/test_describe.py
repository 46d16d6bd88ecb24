"""Measures of a model's reasons: counted by hand, and each moves when the texts are spoilt on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aesr1.evaluation.datasets import compare_datasets
from aesr1.evaluation.describe import TITLES, Reasons, describe, measure_pictures
from aesr1.evaluation.tables import to_markdown
from aesr1.images.measure import Measurements, measure
from aesr1.records import Prediction, Rating

PRAISE = ("The {light} light is beautiful", "Colours harmonise", "The {frame} frame is elegant", "The mood is charming")
BLAME = ("The {light} light is dull", "Colours clash", "The {frame} frame is cluttered", "The mood is bland")
N = 240
PLAIN = measure(Image.new("RGB", (64, 64), (128, 128, 128)))


def critics(seed: int = 0) -> tuple[list[Rating], list[Prediction], dict[str, Measurements]]:
    """People like light pictures; the critic says what light there is, and praises or blames."""
    rng = np.random.default_rng(seed)
    ratings, rows, pictures = [], [], {}
    for i in range(N):
        light, frame = rng.integers(3), rng.integers(3)
        human = float(np.clip(0.2 + 0.3 * light + rng.normal(0, 0.1), 0, 1))
        words = {"light": ("dark", "grey", "bright")[light], "frame": ("tight", "calm", "wide")[frame]}
        said = [(PRAISE if rng.random() < human else BLAME)[int(k)] for k in rng.permutation(4)[:3]]
        text = ". ".join(sentence.format(**words) for sentence in said)
        text += f". It is {words['light']} and {words['frame']}, with the number {'abcdefgh'[i % 8]}{'xyzuvw'[i % 6]}."
        image = f"/photos/{i}.jpg"
        ratings.append(Rating(image, human, "ava" if i % 2 else "para", "test"))
        rows.append(prediction(image, text, float(np.clip(human + rng.normal(0, 0.05), 0, 1))))
        pictures[image] = replace(
            PLAIN, exposure=0.6 * (light + rng.normal(0, 0.2) - 1), clutter=0.25 * (1 + frame + rng.normal(0, 0.2))
        )
    return ratings, rows, pictures


def prediction(image: str, reasoning: str | None, score: float | None = 0.5) -> Prediction:
    return Prediction(
        image=image,
        score=score,
        score_std=None,
        readable=True,
        reasoning=reasoning,
        reply=reasoning or "",
        model="m",
        revision="1",
        decoding="expectation",
    )


def measured(spoil: Callable[[list[str]], list[str]] = lambda texts: texts) -> Reasons:
    ratings, rows, pictures = critics()
    texts = spoil([str(row.reasoning) for row in rows])
    spoilt = [prediction(row.image, text, row.score) for row, text in zip(rows, texts, strict=True)]
    found = describe(ratings, spoilt, pictures, draws=300)
    assert found is not None
    return found


def test_shares_are_counted_by_hand() -> None:
    texts = ["Lovely light. Dull mood. A dog.", "Lovely light. A cat. It earns a high rating.", None]
    ratings = [Rating(f"/{i}.jpg", 0.5, "ava", "test") for i in range(3)]
    rows = [prediction(f"/{i}.jpg", text) for i, text in enumerate(texts)]
    found = describe(ratings, rows, {}, draws=50)
    assert found is not None and found.n == 2
    values = {name: value and value.value for name, value in found.measures.items()}
    assert values["critique_share"] == pytest.approx(1 / 3)  # two of praise, one of critique
    assert values["template_rate"] == pytest.approx(2 / 6)  # "lovely light" in both texts
    assert values["dimensions_covered"] == pytest.approx((2 / 5 + 1 / 5) / 2)  # light and mood; light
    assert values["leak_rate"] == 0.5
    for name in ("tone_follows_people", "text_follows_people", "text_follows_score", "text_follows_picture"):
        assert values[name] is None  # two texts say nothing about that
    assert describe(ratings, rows[2:], {}) is None


def test_a_good_critic_is_measured_as_one() -> None:
    found = measured()
    assert found.n == N and set(found.measures) == set(TITLES)
    for name in ("tone_follows_people", "text_follows_people", "text_follows_score", "text_follows_picture"):
        value = found.measures[name]
        assert value is not None and value.low > 0.3, name
    json.dumps(found.to_results(), allow_nan=False)


def shuffled(texts: list[str]) -> list[str]:
    return list(np.random.default_rng(1).permutation(texts))


@pytest.mark.parametrize(
    ("measure", "spoil", "direction"),
    [
        ("text_follows_picture", shuffled, -1),  # another picture's text
        ("text_follows_people", shuffled, -1),
        ("text_follows_score", shuffled, -1),
        ("tone_follows_people", shuffled, -1),
        ("critique_share", lambda texts: [f"{text} Ugly. Dull. Boring." for text in texts], 1),
        ("critique_share", lambda texts: [f"{text} Lovely. Beautiful. Charming." for text in texts], -1),
        ("template_rate", lambda texts: [f"{text} Once more. Always so. As ever." for text in texts], 1),
        ("template_rate", lambda texts: [f"{i} {text.replace('.', f' {i}.')}" for i, text in enumerate(texts)], -1),
        ("dimensions_covered", lambda texts: ["It is so." for _ in texts], -1),
        ("leak_rate", lambda texts: [f"{text} It is worth 0.72." for text in texts], 1),
    ],
)
def test_each_measure_moves_when_the_texts_are_spoilt(
    measure: str, spoil: Callable[[list[str]], list[str]], direction: int
) -> None:
    before, after = measured().measures[measure], measured(spoil).measures[measure]
    assert before is not None and after is not None
    if direction > 0:
        assert after.low > before.high
    else:
        assert after.high < before.low


def test_one_text_for_all_is_seen_in_the_variety() -> None:
    before, after = measured(), measured(lambda texts: [texts[0]] * len(texts))
    assert after.distinct_texts == 1 / N < before.distinct_texts
    assert after.distinct_bigrams < 0.05 < before.distinct_bigrams * 5


def test_the_tone_is_compared_with_people_within_each_data_set() -> None:
    """Where one set is rated lower as a whole, tone that only tells the sets apart follows nobody."""
    ratings, rows = [], []
    for i in range(80):
        poor = i % 2 == 0
        human = 0.1 + 0.005 * (i // 2) if poor else 0.7 + 0.005 * (i // 2)
        ratings.append(Rating(f"/{i}.jpg", human, "poor" if poor else "rich", "test"))
        rows.append(prediction(f"/{i}.jpg", "Dull. Ugly." if poor else "Lovely. Charming."))
    found = describe(ratings, rows, {}, draws=100)
    assert found is not None and found.measures["tone_follows_people"].value == 0.0
    assert abs(found.measures["text_follows_people"].value) < 0.3  # in one pool it would be .87


def test_pictures_are_measured_and_broken_ones_left_out(tmp_path: Path) -> None:
    images = []
    for name, grey in (("dark", 20), ("light", 220)):
        images.append(str(tmp_path / f"{name}.png"))
        Image.new("RGB", (64, 64), (grey,) * 3).save(images[-1])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = measure_pictures([*images, str(tmp_path / "broken.png"), images[0]], None)
    assert list(found) == images
    assert found[images[0]].exposure < 0 < found[images[1]].exposure


def test_the_table_of_reasons_names_every_measure() -> None:
    ratings, rows, pictures = critics()
    reasons = {"a|b": describe(ratings, rows, pictures, draws=50), "fast": None}
    text = to_markdown(compare_datasets(ratings, {"a|b": rows}, draws=20), reasons)
    assert all(title in text for title in TITLES.values()) and "| a\\|b | 240 |" in text
    assert "| contrast |" not in text and "| all claims |" in text and "| clash |" in text
    assert "What the reasons are like" not in to_markdown(compare_datasets(ratings, {"a": rows}, draws=20), {"a": None})
