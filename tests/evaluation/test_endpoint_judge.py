"""Judges behind a server, over real HTTP: what is asked, how scores are read, death midway, bad servers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from judge_server import JudgeServer, refused, said
from serving import running

from aesr1.contract import ANSWER_OPEN, PROMPT
from aesr1.endpoint import rate_limit
from aesr1.endpoint.client import Token
from aesr1.endpoint.read_logprobs import expect_words, expect_written_score
from aesr1.endpoint.settings import EndpointConfig
from aesr1.errors import AesError
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.json_lines import read_rows, write_rows
from aesr1.model.predict import PredictSettings
from aesr1.records import Prediction, Rating
from aesr1.server.settings import ServeConfig

WORDS, VALUES = [" excellent", " good", " fair", " poor", " bad"], [1.0, 0.75, 0.5, 0.25, 0.0]
LEVELS = {" excellent": 0.4, " good": 0.2, " fair": 0.1, " poor": 0.1, " bad": 0.05}
REPLY = "<think>Soft light.</think><answer>0.73</answer>"
WRITTEN = [("<think>", {}), ("Soft light.", {}), ("</think>", {}), ("<answer>", {})]
DIGITS = [
    *[("0", {"0": 0.9, "1": 0.1}), (".", {".": 1.0})],
    *[("7", {"7": 0.5, "6": 0.3, "8": 0.2}), ("3", {"3": 0.6, "5": 0.4}), ("</answer>", {"</answer>": 1.0})],
]
OF_DIGITS = 0.1 + 0.9 * (0.3 * 0.645 + 0.2 * 0.845 + 0.5 * (0.6 * 0.73 + 0.4 * 0.75))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of hundredths of a second."""
    monkeypatch.setattr(rate_limit, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(rate_limit, "LONGEST_WAIT", 0.02)


@pytest.fixture
def evaluated(scene_folder: Path, tmp_path: Path):
    def run(address: str, profile: str = "aesr1", *, folder: str = "out", batch_size: int = 4) -> list[Prediction]:
        config = EvalConfig(
            (scene_folder / "ratings.jsonl",),
            (("q", address),),
            tmp_path / folder,
            profiles=(("q", profile),),
            predict_settings=PredictSettings(batch_size=batch_size),
        )
        evaluate_models(config)
        return read_rows(tmp_path / folder / "predictions-q.jsonl", Prediction)

    return run


@pytest.mark.parametrize(
    ("listed", "score"),
    [
        (LEVELS, (0.4 + 0.15 + 0.05 + 0.025) / 0.85),
        ({word.strip(): p for word, p in LEVELS.items()}, 0.625 / 0.85),  # a server without the space
        ({" excellent": 0.6, " good": 0.38, " the": 1e-6}, (0.6 + 0.285) / 0.98),  # three can be 3e-6 at most
        ({**LEVELS, "good": 0.15}, 0.625 / 0.85),  # another token than " good"
        ({" good": 1.0}, 0.75),
    ],
)
def test_words_give_the_expectation_over_those_that_are_listed(listed: dict[str, float], score: float) -> None:
    expected = expect_words(listed, WORDS, VALUES)
    assert not isinstance(expected, str) and expected.score == pytest.approx(score)


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ({" good": 0.3, " the": 0.2}, "1 of 5 words; the others could move the score by 0.62"),  # .5 of .8
        (
            {" excellent": 0.5, " good": 0.3, " bad": 0.05},
            "lists 3 of 5 words; the others could move the score by 0.11",
        ),
        ({" The": 0.9}, "lists none of the words; it lists ' The'"),
        ({}, "it lists nothing"),
    ],
)
def test_words_that_are_not_listed_and_may_matter_give_no_score(listed: dict[str, float], reason: str) -> None:
    expected = expect_words(listed, WORDS, VALUES)
    assert isinstance(expected, str) and reason in expected


def tokens(*written: tuple[str, dict[str, float]]) -> list[Token]:
    return [Token(text, listed.get(text, 1.0), listed) for text, listed in written]


@pytest.mark.parametrize(
    ("written", "at", "score"),
    [
        (0.73, DIGITS, OF_DIGITS),
        (0.73, [("0", {"0": 1.0}), (".", {}), ("73", {"73": 0.7, "75": 0.3}), ("</", {})], 0.736),
        (0.7, [("0", {}), (".", {}), ("7", {"7": 1.0}), ("</answer>", {"</answer>": 0.8, "5": 0.2})], 0.71),
        (1.0, [("1", {"1": 0.6, "0": 0.4}), (".", {}), ("00", {}), ("</", {})], 0.6 + 0.4 * 0.495),
        (0.735, [("0", {}), (".", {}), ("73", {"73": 1.0}), ("5", {"5": 0.5, "6": 0.5})], 0.735),
        (0.73, [("\n", {}), ("0", {}), (".", {}), ("73", {"73": 0.5, "75": 0.5})], 0.74),
    ],
)
def test_the_score_is_the_expectation_over_the_tokens_beside_the_written_ones(
    written: float, at: list[tuple[str, dict[str, float]]], score: float
) -> None:
    expected = expect_written_score(tokens(*WRITTEN, *at), written)
    assert expected is not None and expected.score == pytest.approx(score)


def test_the_deviation_is_that_of_the_same_mixture() -> None:
    at = [("0", {"0": 1.0}), (".", {}), ("73", {"73": 0.7, "75": 0.3}), ("</", {})]
    expected = expect_written_score(tokens(*WRITTEN, *at), 0.73)
    assert expected is not None and expected.score_std == pytest.approx(math.sqrt(0.7 * 0.3) * 0.02)


@pytest.mark.parametrize("at", [[("<answer>0", {}), (".", {}), ("73", {})], [("Fine.", {})], []])
def test_tokens_that_do_not_begin_with_the_score_give_no_expectation(at: list[tuple[str, dict[str, float]]]) -> None:
    assert expect_written_score(tokens(*at), 0.73) is None


def test_a_written_token_of_unknown_probability_leaves_the_written_score() -> None:
    unknown = [Token(ANSWER_OPEN, 1.0, {}), *(Token(text, 0.0, {}) for text in ("0", ".", "73"))]
    assert expect_written_score(unknown, 0.73) is None


def test_words_are_asked_for_as_the_next_token_after_the_stem(evaluated) -> None:
    with JudgeServer(lambda *_: said(" the", [(" the", LEVELS)])) as server:
        rows = evaluated(f"{server.url}#judge", "q-realign")
    assert [row.score for row in rows] == pytest.approx([0.625 / 0.85] * 8)
    assert {(row.model, row.revision) for row in rows} == {("judge", f"served at {server.url}")}
    assert all(row.readable is None and row.error is None and "expectation over words" in row.decoding for row in rows)
    body = server.requests[0]
    question, stem = body["messages"]
    assert stem == {"role": "assistant", "content": "The aesthetics of the image is"}
    assert [part["type"] for part in question["content"]] == ["image_url", "text"]
    assert question["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (1, 1, True, 20)
    assert (body["top_p"], body["top_k"], body["repetition_penalty"]) == (1, -1, 1)
    assert "structured_outputs" not in body and "seed" not in body


def test_a_published_prompt_comes_with_its_system_message_its_sampling_and_its_order(evaluated) -> None:
    with JudgeServer(lambda *_: said('<think>Soft.</think><answer>{"rating": 4}</answer>')) as server:
        rows = evaluated(server.url, "q-insight")
    assert {(row.score, row.readable, row.reasoning) for row in rows} == {(0.75, True, "Soft.")}
    body = server.requests[0]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert (body["temperature"], body["top_p"], body["top_k"], body["repetition_penalty"]) == (1.0, 0.95, 50, 1.0)
    assert (body["seed"], body["max_tokens"], body["model"]) == (0, 1024, "judge") and "logprobs" not in body


def test_under_the_contract_the_score_is_the_expectation_where_the_server_lists_tokens(evaluated, tmp_path) -> None:
    with JudgeServer(lambda number, _: said(REPLY, [*WRITTEN, *DIGITS] if number % 2 else None)) as server:
        rows = evaluated(server.url)
    ways = {row.decoding.partition("), ")[2].partition(";")[0]: (row.score, row.score_std is None) for row in rows}
    assert ways == {
        "expectation over the written score": (pytest.approx(OF_DIGITS), False),
        "the written score": (0.73, True),
    }
    assert {(row.readable, row.reasoning) for row in rows} == {(True, "Soft light.")}
    assert "), expectation over the written score; " in (table := (tmp_path / "out" / "results.md").read_text())
    assert " or profile aesr1 " in table and "), the written score; " in table
    body = server.requests[0]
    assert body["messages"][0]["content"][1]["text"] == PROMPT
    assert (body["temperature"], body["max_tokens"], body["top_logprobs"]) == (0, 512, 20)


def test_unreadable_replies_and_numbers_off_the_scale_are_rows_and_are_not_asked_again(evaluated, capsys) -> None:
    replies = [REPLY.replace("0.73", "6"), "I like it.", REPLY.replace("0.73", "3")]
    with JudgeServer(lambda number, _: said(replies[number % 3])) as server:
        rows = evaluated(server.url, "visualquality-r1", batch_size=1)
        assert evaluated(server.url, "visualquality-r1", batch_size=1) == rows
    assert len(server.requests) == len(rows) == 8
    assert [row.score for row in rows] == [None, None, 0.5, None, None, 0.5, None, None]
    assert [row.readable for row in rows[:3]] == [False, False, True]
    assert [row.error for row in rows[:3]] == ["6 is outside the scale 1 to 5", None, None]
    assert "pictures have a score" not in capsys.readouterr().err


def test_a_profile_that_never_parses_ends_with_its_first_reply_and_a_table(evaluated, tmp_path, capsys) -> None:
    with JudgeServer(lambda *_: said("A fine\npicture.")) as server:
        evaluated(server.url, "plain-0-100")
    message = "q: 0 of 8 pictures have a score by profile plain-0-100; the first reply: 'A fine\\npicture.'"
    assert message in capsys.readouterr().err
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["q"]
    assert (entry["n_scored"], entry["n_readable"], entry["parse_rate"]["value"]) == (0, 0, 0)
    assert "| q | 0 of 8 | 0.000" in (tmp_path / "out" / "results.md").read_text()


def test_a_server_that_dies_midway_leaves_its_rows_and_the_same_command_asks_for_the_rest(evaluated, tmp_path) -> None:
    def dying(number: int, _body: object):
        return said("73") if number < 3 else refused("out of memory", 500)

    with (
        JudgeServer(dying) as server,
        pytest.raises(AesError, match=r"has not answered for 3 pictures \(unreachable: HTTP 500, 9 tries\)") as raised,
    ):
        evaluated(server.url + "#judge", "plain-0-100", batch_size=1)
    assert "the same command resumes" in raised.value.fix
    kept = [row for row in read_rows(tmp_path / "out" / "predictions-q.jsonl", Prediction) if row.error is None]
    assert len(kept) == 3
    with pytest.raises(AesError, match="nothing listens"):
        evaluated(server.url + "#judge", "plain-0-100", batch_size=1)
    with JudgeServer(lambda *_: said("20"), port=server.port) as again:
        rows = evaluated(again.url + "#judge", "plain-0-100", batch_size=1)
    assert len(again.requests) == 5
    assert sorted(row.score for row in rows) == [0.2] * 5 + [0.73] * 3
    assert {row.image: row for row in rows}.items() >= {row.image: row for row in kept}.items()
    assert evaluated(again.url + "#judge", "plain-0-100", batch_size=1) == rows  # nothing is left to ask: no server


def test_a_request_that_fails_now_and_then_is_a_row_and_is_asked_again_by_the_next_run(evaluated) -> None:
    with JudgeServer(lambda number, _: refused("bad picture") if number == 2 else said("73")) as server:
        rows = evaluated(server.url, "plain-0-100", batch_size=1)
        (error,) = [row.error for row in rows if row.error]
        assert error.startswith("rejected: HTTP 400") and "bad picture" in error
        assert all(row.score == 0.73 for row in evaluated(server.url, "plain-0-100", batch_size=1))
    assert len(server.requests) == 9


def test_a_picture_that_cannot_be_opened_is_a_row_and_is_not_sent(evaluated, scene_folder, tmp_path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    ratings = [Rating(str(scene_folder / "00.png"), 0.5, "x", "val"), Rating("broken.png", 0.5, "x", "val")]
    write_rows(tmp_path / "ratings.jsonl", ratings)
    with JudgeServer(lambda *_: said("73")) as server:
        config = EvalConfig(
            (tmp_path / "ratings.jsonl",), (("q", server.url),), tmp_path / "b", profiles=(("", "plain-0-100"),)
        )
        evaluate_models(config)
    rows = {Path(row.image).name: row for row in read_rows(tmp_path / "b" / "predictions-q.jsonl", Prediction)}
    assert rows["00.png"].score == 0.73 and rows["broken.png"].score is None and rows["broken.png"].error
    assert len(server.requests) == 1


def test_fields_that_a_server_does_not_know_are_left_out_and_named(evaluated, capsys) -> None:
    def strict(_number: int, body: dict[str, object]):
        unknown = {"top_k", "repetition_penalty", "logprobs", "top_logprobs"} & body.keys()
        return refused(f"Unrecognized request argument: {min(unknown)}") if unknown else said(REPLY)

    with JudgeServer(strict) as server:
        rows = evaluated(server.url)
    assert {row.score for row in rows} == {0.73} and all("), the written score;" in row.decoding for row in rows)
    assert capsys.readouterr().err.count("does not take top_k") == 1
    assert server.answered == 8


@pytest.mark.parametrize("tokens_of_reply", [None, [(" good", {})]])
def test_words_need_a_server_that_gives_log_probabilities(evaluated, tokens_of_reply) -> None:
    with (
        JudgeServer(lambda *_: said(" good", tokens_of_reply)) as server,
        pytest.raises(AesError, match="gives no log-probabilities, which profile q-realign needs"),
    ):
        evaluated(server.url, "q-realign")


def test_a_stem_that_the_server_ignores_gives_no_scores_and_says_what_stood_there(evaluated, capsys) -> None:
    with JudgeServer(lambda *_: said("The", [("The", {"The": 0.9, "This": 0.05})])) as server:
        rows = evaluated(server.url, "q-realign")
    assert {row.error for row in rows} == {"the server lists none of the words; it lists 'The', 'This'"}
    assert (
        "q: 0 of 8 pictures have a score by profile q-realign; the first error: the server" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("models", "name", "reason"),
    [
        (("judge",), "#other", "has no model other"),
        (("judge", "second"), "", "has 2 models: judge, second"),
        ((), "", "has 0 models"),
    ],
)
def test_a_model_that_the_server_has_not_or_that_is_not_named_is_told(evaluated, models, name, reason) -> None:
    with JudgeServer(lambda *_: said(REPLY), models=models) as server, pytest.raises(AesError, match=reason):
        evaluated(server.url + name)


def test_an_address_where_nothing_listens_is_told(evaluated) -> None:
    with JudgeServer(lambda *_: said(REPLY)) as server:
        pass
    with pytest.raises(AesError, match="does not list its models"):
        evaluated(server.url)
    with pytest.raises(AesError, match="holds a name, a key or a query"):
        EndpointConfig("http://me:key@host/v1", "m")


def test_our_own_server_is_a_judge(evaluated, scene_folder, tmp_path) -> None:
    with running(ServeConfig("tiny", device="cpu", max_batch=4)) as address:
        rows = {row.image: row for row in evaluated(f"{address}/v1")}
    config = EvalConfig((scene_folder / "ratings.jsonl",), (("tiny", "tiny"),), tmp_path / "local")
    evaluate_models(config)
    local = read_rows(tmp_path / "local" / "predictions-tiny.jsonl", Prediction)
    assert len(local) == len(rows) == 8
    near = [abs(row.score - rows[row.image].score) for row in local if rows[row.image].score is not None]
    assert len(near) > 4 and max(near) < 0.15  # a written score and an expectation; the picture went as JPEG
