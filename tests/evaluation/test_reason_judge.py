"""A judge of reasons behind a server: it sees picture and text, and finds out a text about another picture."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, refused, said
from PIL import Image

from aesr1.endpoint import rate_limit
from aesr1.errors import AesError
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.json_lines import read_rows, write_rows
from aesr1.model.predict import PredictSettings
from aesr1.records import Prediction, Rating

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(rate_limit, "LONGEST_WAIT", 0.02)


def look(_: int, body: dict[str, Any]) -> dict[str, Any]:
    """90 where the critique names the picture's colour, else 20."""
    parts = {part["type"]: part for part in body["messages"][0]["content"]}
    content = base64.b64decode(parts["image_url"]["image_url"]["url"].partition(",")[2])
    pixel = Image.open(io.BytesIO(content)).convert("RGB").getpixel((4, 4))
    assert isinstance(pixel, tuple)
    name = list(COLOURS)[pixel.index(max(pixel))]
    return said("90" if f"All is {name}." in parts["text"]["text"] else "20")


@pytest.fixture
def evaluated(tmp_path: Path):
    """Nine flat pictures in three colours, and a file of scores with reasons that name the colour."""
    ratings, scores = [], []
    for number in range(9):
        name = list(COLOURS)[number % 3]
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 40), COLOURS[name]).save(path)
        ratings.append(Rating(str(path), number / 10, "flat", "test"))
        scores.append({"image": str(path), "score": number / 10, "reasoning": f"All is {name}."})
    write_rows(tmp_path / "ratings.jsonl", ratings)
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))

    def run(address: str) -> dict[str, Any]:
        config = EvalConfig(
            (tmp_path / "ratings.jsonl",),
            (),
            tmp_path / "out",
            prediction_files=(("other", tmp_path / "scores.jsonl"),),
            reason_judge=address,
            predict_settings=PredictSettings(batch_size=2),
        )
        evaluate_models(config)
        found = json.loads((tmp_path / "out" / "results.json").read_text())
        return dict(found["other"]["rationales"]["judged"])

    return run


def test_a_text_is_true_of_its_own_picture_and_less_of_another(evaluated, tmp_path):
    with JudgeServer(look) as server:
        judged = evaluated(f"{server.url}#judge")
    assert (judged["n"], judged["judge"]) == (9, f"{server.url}#judge")
    assert judged["own"]["value"] == pytest.approx(0.9)
    others = read_rows(tmp_path / "out" / "reasons-other-other.jsonl", Prediction)
    wrong = sum(row.score == 0.2 for row in others)
    assert wrong > 3
    assert judged["other"]["value"] == pytest.approx(0.9 - 0.7 * wrong / 9)
    assert judged["difference"]["value"] == pytest.approx(0.7 * wrong / 9)
    assert "| other | 9 | 0.900 [0.900, 0.900] |" in (tmp_path / "out" / "results.md").read_text()
    assert "How much of the reasons is true" in (tmp_path / "out" / "results.html").read_text()


def test_answers_that_are_there_are_not_asked_for_again_after_the_server_died(evaluated):
    def dies(number: int, body: dict[str, Any]) -> Any:
        return look(number, body) if number < 5 else refused("down", 503)

    with JudgeServer(dies) as server, pytest.raises(AesError, match="has not answered"):
        evaluated(f"{server.url}#judge")
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    with JudgeServer(look, port=port) as again:
        assert evaluated(f"{again.url}#judge")["n"] == 9
        assert len(again.requests) == 18 - 5


def test_a_judge_that_never_gives_a_number_gives_no_value(evaluated, tmp_path):
    with JudgeServer(lambda *_: said("I like it.")) as server, pytest.raises(TypeError):
        evaluated(f"{server.url}#judge")
    assert "How much of the reasons is true" not in (tmp_path / "out" / "results.md").read_text()


def test_a_judge_that_is_no_server_is_refused(evaluated):
    with pytest.raises(AesError, match="tiny is no server"):
        evaluated("tiny")
