"""Measures of an English critique: words, sentences, leaks of the score, praise or critique."""

from __future__ import annotations

import pytest

from aesr1.critique_text import find_leak, sentences, stance_of, words


def test_words_and_sentences_are_split() -> None:
    assert words("It’s 3 o'clock: Señor!") == ["it's", "o'clock", "señor"]
    assert sentences("Fine light.  Poor\ncolour! Yes?\n\n") == ["fine light", "poor", "colour", "yes"]


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("The light is worth 0.72.", True),
        ("It earns a high rating.", True),
        ("As given, the picture is fair.", True),
        ("A score of about a half.", True),
        ("Seven out of ten.", True),
        ("We were told that it is poor.", True),
        ("The celebrated tower stands on the left third.", False),
        ("A hidden path, as the eye is given rest.", False),
        ("Frustrating, underrated light.", False),
    ],
)
def test_leaks_of_the_score_are_found(text: str, leaks: bool) -> None:
    assert (find_leak(text) is not None) == leaks


@pytest.mark.parametrize(
    ("sentence", "stance"),
    [
        ("The focus is sharp", 1),
        ("The focus is not quite sharp", -1),
        ("Nothing distracts", 1),
        ("It lacks depth", -1),
        ("A dog on a chair", 0),
        ("Lovely but cluttered", 0),
        ("", 0),
    ],
)
def test_a_sentence_praises_criticises_or_does_neither(sentence: str, stance: int) -> None:
    assert stance_of(sentence) == stance
