"""`aesr1 score --endpoint` over real HTTP: several servers, some of which die."""

import sys
from pathlib import Path

import pytest
from judge_server import JudgeServer, refused, said

from aesr1.app.score import ScoreConfig, score_files
from aesr1.cli.main import main
from aesr1.contract import parse_reply
from aesr1.endpoint import rate_limit
from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.model.predict import PredictSettings
from aesr1.records import Prediction

REPLY = "<think>Soft light.</think><answer>0.70</answer>"
TOKENS = [
    *[("<think>", {}), ("Soft light.", {}), ("</think>", {}), ("<answer>", {}), ("0.", {"0.": 1.0})],
    *[("70", {"70": 0.5, "80": 0.5}), ("</answer>", {"</answer>": 1.0})],
]
NOWHERE = "http://127.0.0.1:9/v1#judge"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Waits of hundredths of a second."""
    monkeypatch.setattr(rate_limit, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(rate_limit, "LONGEST_WAIT", 0.02)


def answer(number, body):
    return said(REPLY, TOKENS)


def config(scene_folder, output, *servers, batch_size=4):
    addresses = tuple(server if isinstance(server, str) else f"{server.url}#judge" for server in servers)
    settings = PredictSettings(batch_size=batch_size)
    return ScoreConfig(
        (str(scene_folder / "*.png"),), output=output, settings=settings, endpoints=addresses, quiet=True
    )


def test_pictures_are_spread_over_servers_and_each_has_one_row_that_names_its_server(scene_folder, tmp_path):
    with JudgeServer(answer) as first, JudgeServer(lambda *_: said(REPLY)) as second:
        asked = config(scene_folder, tmp_path / "p.jsonl", first, second)
        rows = list(score_files(asked))
        counts = len(first.requests), len(second.requests)
        again = list(score_files(asked))
        assert (len(first.requests), len(second.requests)) == counts and again == rows
    assert [Path(row.image).name for row in rows] == [f"{number:02d}.png" for number in range(40)]
    assert min(counts) >= 4 and sum(counts) == 40
    by_server = {url: [row for row in rows if row.revision == f"served at {url}"] for url in (first.url, second.url)}
    assert tuple(map(len, by_server.values())) == counts
    ways = {url: {row.decoding.partition(", ")[2].partition(";")[0] for row in rows} for url, rows in by_server.items()}
    assert ways == {first.url: {"expectation over the written score"}, second.url: {"the written score"}}
    assert [row.score for row in by_server[first.url]] == pytest.approx([0.75] * counts[0])
    assert {row.score for row in by_server[second.url]} == {parse_reply(REPLY).score}
    assert all(row.stars and row.content and row.reasoning == "Soft light." for row in rows)


@pytest.mark.parametrize("death", ["it stops to answer", "it refuses everybody", "it is gone"])
def test_a_server_that_dies_midway_loses_and_doubles_nothing(scene_folder, tmp_path, capsys, death):
    def dying(number, body):
        if number < 5:
            return said(REPLY, TOKENS)
        return refused("no", 500) if death == "it stops to answer" else refused("no key", 401)

    with JudgeServer(dying) as first, JudgeServer(answer) as second:
        third = NOWHERE if death == "it is gone" else second
        servers = (first, second) if third is second else (third, second)
        rows = list(score_files(config(scene_folder, tmp_path / "p.jsonl", *servers)))
    assert [Path(row.image).name for row in rows] == [f"{number:02d}.png" for number in range(40)]
    assert not [row.error for row in rows if row.error]
    assert len(read_rows(tmp_path / "p.jsonl", Prediction)) == 40
    assert first.answered == (0 if third is NOWHERE else 5)
    assert first.answered + second.answered == 40
    assert "is left out, 1 of 2 servers go on" in capsys.readouterr().err


def test_where_all_servers_die_the_rows_stay_and_the_same_command_resumes(scene_folder, tmp_path):
    output = tmp_path / "p.jsonl"
    alive = 7

    def dying(number, body):
        return said(REPLY, TOKENS) if number < alive else refused("no", 500)

    with JudgeServer(dying) as first, JudgeServer(dying) as second:
        asked = config(scene_folder, output, first, second)
        with pytest.raises(AesError, match="has not answered for"):
            list(score_files(asked))
        before = [row for row in read_rows(output, Prediction) if row.score is not None]
        assert len(before) == 2 * alive
        alive = 10_000
        rows = list(score_files(asked))
    assert len(rows) == 40 == len({row.image for row in rows}) and all(row.score is not None for row in rows)
    assert first.answered + second.answered == 40
    assert len(read_rows(output, Prediction)) == 40


def test_a_picture_that_no_server_answers_about_is_a_row_with_its_error(scene_folder, tmp_path):
    def picky(number, body):
        return refused("too large") if number == 3 else said(REPLY, TOKENS)

    with JudgeServer(picky) as server, JudgeServer(picky) as second:
        (tmp_path / "bad.png").write_text("no picture")
        asked = config(scene_folder, None, server, second)
        rows = list(
            score_files(
                ScoreConfig(
                    (*asked.inputs, str(tmp_path / "bad.png")),
                    **{name: getattr(asked, name) for name in ("settings", "endpoints", "quiet")},
                )
            )
        )
    assert len(rows) == 41
    assert rows[-1].error == "is of no picture format that is read here"
    assert [row.error for row in rows[:-1] if row.error] == []


@pytest.mark.parametrize("option", [["--model", "tiny"], ["--fast"], ["--samples", "2"], ["--reference", "x.jsonl"]])
def test_options_of_a_model_that_is_loaded_do_not_go_with_servers(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["aesr1", "score", "x.jpg", "--endpoint", NOWHERE, *option])
    with pytest.raises(SystemExit):
        main()
    assert f"--endpoint does not go with {option[0]}" in capsys.readouterr().err
