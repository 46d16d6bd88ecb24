"""Claims against measurements: counted by hand, and lower about another picture and where they are spoilt."""

from __future__ import annotations

import numpy as np
import pytest

from aesr1.evaluation.claim_precision import ALL, claim_precision
from aesr1.facts.measured_facts import PictureFacts

FACTS = {
    "place": "middle",
    "tilt": 0,
    "clutter": 0,
    "exposure": 0,
    "contrast": 1,
    "saturation": 1,
    "clash": 0,
    "focus": 0,
    "grain": 0,
    "warmth": "neutral",
}


def picture(**changed: int) -> PictureFacts:
    return PictureFacts(**FACTS | changed)


def test_claims_are_counted_by_hand() -> None:
    texts = [
        "The focus is sharp, and the exposure is right.",  # both right
        "The focus is sharp, but it is underexposed.",  # a step off: neither right nor contradicted; the wrong side
        "A dog.",
    ]
    facts = [picture(), picture(focus=1, exposure=2), picture()]
    found = claim_precision(texts, facts, draws=50)
    assert list(found) == [ALL, "exposure", "focus"]
    assert [found[kind].n for kind in found] == [4, 2, 2]
    assert [found[kind].right.value for kind in found] == [0.5, 0.5, 0.5]
    assert [found[kind].contradicted.value for kind in found] == [0.25, 0.5, 0.0]


def test_without_claims_there_is_nothing_to_count() -> None:
    assert claim_precision(["A dog.", "A cat."], [picture(), picture()]) == {}
    assert claim_precision(["The focus is sharp."], [picture()]) == {}


def critic() -> tuple[list[str], list[PictureFacts]]:
    """Two hundred texts that say how sharp a picture is and what light it has, nine times in ten rightly."""
    rng = np.random.default_rng(0)
    texts, facts = [], []
    for _ in range(200):
        focus, exposure = int(rng.integers(2)) * 2, int(rng.integers(-1, 2))
        says = 2 - focus if rng.random() < 0.1 else focus
        light = {-1: "It is underexposed", 0: "The exposure is right", 1: "It is overexposed"}[exposure]
        texts.append(f"{'The focus is sharp' if says == 0 else 'It is blurred'}. {light}.")
        facts.append(picture(focus=focus, exposure=exposure))
    return texts, facts


def test_chance_is_how_often_a_claim_is_right_about_another_picture() -> None:
    found = claim_precision(*critic(), draws=200)
    assert found["focus"].right.value == pytest.approx(0.9, abs=0.05) and found["exposure"].right.value == 1.0
    assert found["focus"].chance == pytest.approx(1 / 2, abs=0.05)
    assert found["exposure"].chance == pytest.approx(1 / 3, abs=0.05)
    assert found[ALL].right.low > found[ALL].chance + 0.3


def test_precision_falls_when_the_texts_are_about_other_pictures() -> None:
    texts, facts = critic()
    before = claim_precision(texts, facts, draws=200)[ALL]
    after = claim_precision([*texts[1:], texts[0]], facts, draws=200)[ALL]
    assert after.right.high < before.right.low and after.contradicted.low > before.contradicted.high
    assert after.right.value == pytest.approx(after.chance, abs=0.06)
