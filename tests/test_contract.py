import numpy as np
import pytest

from aesr1 import contract
from aesr1.contract import Judgement, level_of, parse_reply, render_reply, reply_prefix, reply_until_score
from aesr1.errors import AesError

GOOD = [
    ("<think>warm light</think><answer>0.61</answer>", 0.61),
    ("<think>a\nb</think>\n<answer>0.6</answer>", 0.6),
    ("<think>x</think> <answer> 0.123456 </answer>", 0.123456),
    ("<think>x</think><answer>0</answer>", 0.0),
    ("<think>x</think><answer>1</answer>", 1.0),
    ("<think>x</think><answer>1.00</answer>", 1.0),
    ("<think>8/10 would be too much</think><answer>0.70</answer>", 0.7),
]

BAD = [
    ("", "empty"),
    ("0.61", "no tags"),
    ("<answer>0.61</answer>", "no reasoning"),
    ("<think>x</think>", "no answer"),
    ("<think></think><answer>0.61</answer>", "empty think"),
    ("<think> \n </think><answer>0.61</answer>", "think of white space"),
    ("<think>x</think><answer></answer>", "empty answer"),
    ("<think>x</think><answer>.85</answer>", "no digit before the point: the public code read 85"),
    ("<think>x</think><answer>85</answer>", "another scale"),
    ("<think>x</think><answer>8/10</answer>", "a fraction"),
    ("<think>x</think><answer>0.6 or 0.7</answer>", "two numbers"),
    ("<think>x</think><answer>0.6-0.7</answer>", "a range"),
    ("<think>x</think><answer>0,61</answer>", "comma for a point"),
    ("<think>x</think><answer>61%</answer>", "per cent"),
    ("<think>x</think><answer>about 0.61</answer>", "words beside the number"),
    ("<think>x</think><answer>0.61.</answer>", "a full stop"),
    ("<think>x</think><answer>nan</answer>", "nan"),
    ("<think>x</think><answer>inf</answer>", "inf"),
    ("<think>x</think><answer>1e-1</answer>", "an exponent"),
    ("<think>x</think><answer>-0.1</answer>", "below the scale"),
    ("<think>x</think><answer>+0.1</answer>", "a sign"),
    ("<think>x</think><answer>1.01</answer>", "above the scale"),
    ("<think>x</think><answer>2</answer>", "above the scale"),
    ("<think>x</think><answer>00.5</answer>", "a leading nought"),
    ("<think>x</think><answer>0.</answer>", "no digit after the point"),
    ("<think>x</think><answer>０.６１</answer>", "full-width digits"),
    ("<think>x</think><answer>٠.٦</answer>", "Arabic-Indic digits"),
    ("<think>x</think><answer>0.6\u200b1</answer>", "a zero-width space"),
    ("<think>x</think><answer>0.61</answer><answer>0.7</answer>", "two answers"),
    ("<think>x</think><think>y</think><answer>0.61</answer>", "two thoughts"),
    ("<think>x<think>y</think></think><answer>0.61</answer>", "nested think"),
    ("<think>x<answer>0.5</answer></think><answer>0.61</answer>", "an answer in the thought"),
    ("<think>x<answer>0.61</answer></think>", "an answer in the thought alone"),
    ("<answer>0.61</answer><think>x</think>", "the wrong order"),
    ("Sure! <think>x</think><answer>0.61</answer>", "text before"),
    ("<think>x</think><answer>0.61</answer> I hope this helps", "text after"),
    ("<think>x</think> so <answer>0.61</answer>", "text between"),
    ("<think>x</think><answer>0.61</answer>\n", "a line break outside: the public format reward refuses it too"),
    ("<think>x</think><answer>0.61", "cut off"),
    ("<think>x<answer>0.61</answer>", "unclosed think"),
    ("<THINK>x</THINK><ANSWER>0.61</ANSWER>", "upper case"),
    ("<think >x</think><answer>0.61</answer>", "a blank in the tag"),
    ("<think>x</think><answer>zero point six</answer>", "words for the number"),
    ("<think>x</think><answer>0.61</answer", "an unclosed tag"),
]


@pytest.mark.parametrize(("text", "score"), GOOD)
def test_a_complete_reply_is_parsed(text, score):
    assert parse_reply(text).score == score


@pytest.mark.parametrize(("text", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_reply_that_breaks_the_grammar_is_none(text, reason):
    assert parse_reply(text) is None


def test_every_score_text_is_parsed_to_its_score():
    for text in contract.SCORE_TEXTS:
        assert parse_reply(f"<think>x</think><answer>{text}</answer>").score == float(text)
    assert len(contract.SCORE_TEXTS) == 101


def test_render_and_parse_are_inverse():
    rng = np.random.default_rng(0)
    for score in rng.random(200):
        judgement = parse_reply(render_reply(Judgement(score, "light\nand <b>shadow</b>")))
        assert judgement.reasoning == "light\nand <b>shadow</b>"
        assert abs(judgement.score - score) <= 0.005


@pytest.mark.parametrize(
    "judgement",
    [
        Judgement(1.2, "x"),
        Judgement(-0.1, "x"),
        Judgement(float("nan"), "x"),
        Judgement(0.5, " "),
        Judgement(0.5, "</think>"),
    ],
)
def test_render_refuses_a_judgement_that_would_be_unreadable(judgement):
    with pytest.raises(AesError):
        render_reply(judgement)


def test_the_reply_up_to_its_score():
    reply = render_reply(Judgement(0.61, "x"))
    assert reply_prefix(reply) == reply_until_score("x") == "<think>x</think><answer>"
    assert reply_prefix("no answer") is None


@pytest.mark.parametrize(
    ("score", "level"), [(0, "bad"), (0.399, "bad"), (0.4, "fair"), (0.699, "fair"), (0.7, "good"), (1, "good")]
)
def test_levels_have_the_papers_bounds(score, level):
    assert level_of(score) == level


def test_another_contract_version_is_refused():
    with pytest.raises(AesError, match="version 0"):
        contract.check_version("0", where="x")
