"""What the embedded critic says about photographs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from aesr1.aescot.build import drawn_score
from aesr1.aescot.embedded_critic import embedded
from aesr1.aescot.filters import Critique, refusal_of
from aesr1.aescot.photo_phrases import PLACE, criticise_photo, describe_photo, word_for
from aesr1.aescot.phrases import VERDICT
from aesr1.aescot.settings import CotConfig, Teacher
from aesr1.aescot.subjects import PERSON, SUBJECTS, name_subject
from aesr1.critique_text import DIMENSIONS, dimensions_of
from aesr1.endpoint.settings import EndpointConfig
from aesr1.errors import AesError
from aesr1.facts.claims import claims_of
from aesr1.facts.measured_facts import PictureFacts
from aesr1.records import Rating


def facts(rng):
    steps = ("tilt", "clutter", "contrast", "saturation", "clash", "focus", "grain")
    return PictureFacts(
        place=str(rng.choice(list(PLACE))),
        exposure=int(rng.integers(-2, 3)),
        warmth=str(rng.choice(["warm", "neutral", "cool"])),
        photograph=True,
        subject=str(rng.choice([*SUBJECTS, PERSON])) if rng.random() < 0.5 else None,
        **{name: int(rng.integers(3)) for name in steps},
    )


def test_critiques_pass_the_filters_and_speak_of_all_dimensions():
    """Random facts may speak against a random score: a last sentence of blame about a good picture is refused."""
    rng, lengths, kinds, reasons = np.random.default_rng(0), [], [], []
    for _ in range(2_000):
        found, score = facts(rng), float(rng.random())
        text = criticise_photo(found, score, rng)
        reasons.append(refusal_of(Critique(text, score, found)))
        assert reasons[-1] is None or reasons[-1].startswith("align: ends with"), text
        lengths.append(len(text.split()))
        kinds.append(len(dimensions_of(text)))
    assert 30 < np.mean(lengths) < 70 and np.mean(kinds) > 4.5 and len(DIMENSIONS) == 5
    assert np.mean([reason is None for reason in reasons]) > 0.85


def test_an_error_on_purpose_is_a_verdict_of_the_other_end():
    rng, picture, found = np.random.default_rng(0), Image.new("RGB", (64, 64)), facts(np.random.default_rng(2))
    verdicts = [word for _, words in VERDICT for word in words]
    slips = 0
    for score in (0.1, 0.5, 0.9) * 200:
        text = embedded(picture, score, found, rng)
        if any(verdict in text for verdict in verdicts):
            slips += 1
            assert refusal_of(Critique(text, score, found))
    assert 0.02 < slips / 600 < 0.07


def test_a_false_claim_is_seen():
    rng = np.random.default_rng(1)
    dark = replace(facts(rng), exposure=-2)
    text = " ".join(describe_photo(replace(dark, exposure=2), rng)) + " Faults and merits balance."
    assert str(refusal_of(Critique(text, 0.5, dark))).startswith("fact: ")


@pytest.mark.parametrize(
    ("classes", "person", "wanted"),
    [
        ({207: 0.3, 208: 0.3}, 0.0, "the dog"),  # two breeds
        ({207: 0.3, 281: 0.3}, 0.0, None),
        ({975: 0.9}, 0.9, "the lake"),
        ({207: 0.4, 281: 0.4}, 0.0, "the animal"),
        ({207: 0.3, 281: 0.3}, 0.7, PERSON),
        ({600: 0.9}, 0.7, PERSON),  # a class without a plain word
        ({600: 0.9}, 0.5, None),
    ],
)
def test_a_subject_is_named_where_it_is_likely(classes, person, wanted):
    probabilities = np.zeros(1000, dtype=np.float32)
    for index, value in classes.items():
        probabilities[index] = value
    assert name_subject(probabilities, person) == wanted


@pytest.mark.parametrize(
    ("subject", "shares"),
    [
        ("the dog", {"the dog": 0.45, "the animal": 0.35, "the subject": 0.2}),
        (PERSON, {PERSON: 0.8, "the subject": 0.2}),  # it has no kind
        (None, {"the subject": 1.0}),
    ],
)
def test_texts_say_the_name_the_kind_or_neither(subject, shares):
    rng = np.random.default_rng(0)
    words = Counter(word_for(subject, rng) for _ in range(4_000))
    assert {word: count / 4_000 for word, count in words.items()} == pytest.approx(shares, abs=0.03)


def test_votes_are_not_drawn_for_a_teacher(tmp_path):
    teacher = Teacher(EndpointConfig("http://localhost/v1", "m"))
    with pytest.raises(AesError, match="votes draws scores for the embedded critic"):
        CotConfig(tmp_path, tmp_path, votes=4, teacher=teacher)


def test_no_class_has_two_words():
    listed = [
        index
        for entries in SUBJECTS.values()
        for entry in entries
        for index in (range(entry[0], entry[1] + 1) if isinstance(entry, tuple) else [entry])
    ]
    assert len(listed) == len(set(listed)) and max(listed) < 1000


def test_drawn_scores_have_the_mean_and_the_spread_of_so_many_raters():
    rng = np.random.default_rng(0)
    voted = Rating("a.png", 0.5, "x", "train", rater_std=0.4, votes=(50, 0, 50))
    assert {drawn_score(voted, 1, rng) for _ in range(50)} == {0.0, 1.0}
    four = [drawn_score(voted, 4, rng) for _ in range(4_000)]
    assert np.mean(four) == pytest.approx(0.5, abs=0.02) and np.std(four) == pytest.approx(0.25, abs=0.02)
    plain = replace(voted, votes=None, rater_std=0.2)
    sixteen = [drawn_score(plain, 16, rng) for _ in range(4_000)]
    assert np.mean(sixteen) == pytest.approx(0.5, abs=0.01) and np.std(sixteen) == pytest.approx(0.05, abs=0.005)
    with pytest.raises(AesError, match="neither votes nor rater_std"):
        drawn_score(replace(plain, rater_std=None), 4, rng)


def test_claims_are_counted_and_compared_with_the_measurement():
    found = replace(facts(np.random.default_rng(0)), exposure=1, focus=1, contrast=0)
    text = "It is well exposed from dark to bright, details are blurred. Not a pale picture. Strong contrast shapes it."
    claims = claims_of(text)
    assert [(claim.name, claim.distance(found), claim.contradicts(found)) for claim in claims] == [
        ("exposure", 1, False),
        ("contrast", 2, True),
        ("focus", 1, False),
    ]
    dark = claims_of("It is slightly underexposed.")
    assert dark[0].contradicts(found)  # the wrong side
