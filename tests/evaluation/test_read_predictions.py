"""Scores of another program: found by path or name, mapped from their scale, bad files refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aesr1.cli.main import app
from aesr1.errors import AesError
from aesr1.evaluation.read_predictions import read_predictions
from aesr1.json_lines import write_rows
from aesr1.records import Prediction, Rating


def rated(folder: Path, n: int = 4) -> list[Rating]:
    return [Rating(str(folder / "photos" / f"{i}.jpg"), i / 10, "ava", "test") for i in range(n)]


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "image,score\nphotos/0.jpg,1\nphotos/1.jpg,5.5\nphotos/3.jpg,10\nphotos/2.jpg,\n"),
        ("a.csv", "filename;MOS\n0.jpg;1\n1.jpg;5,5\n3.jpg;10,0\n"),  # by name; decimal commas; one is missing
        ("a.tsv", "img_path\tpred\n/elsewhere/0.jpg\t1\n/elsewhere/1.jpg\t5.5\n/elsewhere/3.jpg\t10\n"),
        (
            "a.jsonl",
            '{"path": "0.jpg", "score": 1}\n\n{"path": "1.jpg", "score": 5.5}\n{"path": "3.jpg", "score": 10}\n',
        ),
        (
            "a.jsonl",
            '{"path": "0.jpg", "score": 1}\n{"path": "1.jpg", "score": 5.5}\n{"path": "2.jpg", "score": null}\n'
            '{"path": "3.jpg", "score": 10}\n',
        ),
    ],
)
def test_scores_are_found_and_mapped_from_their_scale(tmp_path: Path, name: str, text: str) -> None:
    ratings = rated(tmp_path)
    rows = read_predictions(written(tmp_path, name, text), ratings, name="nima", scale=(1, 10))
    assert [row.image for row in rows] == [rating.image for rating in ratings]
    assert [row.score for row in rows] == pytest.approx([0.0, 0.5, None, 1.0])
    assert {row.readable for row in rows} == {None} and "scale 1 to 10" in rows[0].decoding


def test_reasons_come_along(tmp_path: Path) -> None:
    text = "image,score,critique\n0.jpg,.2,Dull light.\n1.jpg,.4,\n"
    rows = read_predictions(written(tmp_path, "a.csv", text), rated(tmp_path, 2), name="a")
    assert [(row.reasoning, row.readable) for row in rows] == [("Dull light.", True), (None, None)]


def test_rows_of_aesr1_score_are_taken_as_they_are(tmp_path: Path) -> None:
    ratings = rated(tmp_path, 2)
    row = Prediction(ratings[0].image, 0.7, 0.1, True, "Fine.", "a reply", "org/model", "abc", "expectation")
    write_rows(tmp_path / "scores.jsonl", [row])
    first, second = read_predictions(tmp_path / "scores.jsonl", ratings, name="a")
    assert first == row
    assert (second.image, second.score, second.reply, second.model) == (ratings[1].image, None, "", "org/model")


def test_pictures_that_are_not_rated_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "image,score\n0.jpg,.1\nother.jpg,.2\nmore.jpg,.3\n"
    rows = read_predictions(written(tmp_path, "a.csv", text), rated(tmp_path, 1), name="nima")
    assert [row.score for row in rows] == [0.1]
    assert "nima: 2 of 3 scored pictures are not rated here and are left out" in capsys.readouterr().err


def test_a_name_that_two_rated_pictures_share_is_not_guessed(tmp_path: Path) -> None:
    ratings = [Rating(str(tmp_path / folder / "0.jpg"), 0.5, "ava", "test") for folder in ("a", "b")]
    with pytest.raises(AesError, match=r"none of the 1 pictures of .* is rated, first: 0\.jpg"):
        read_predictions(written(tmp_path, "a.csv", "image,score\n0.jpg,.1\n"), ratings, name="nima")
    rows = read_predictions(written(tmp_path, "a.csv", "image,score\nb/0.jpg,.1\n"), ratings, name="nima")
    assert [row.score for row in rows] == [None, 0.1]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "image,score\n0.jpg,.1\n./0.jpg,.2\n", "scores ./0.jpg twice"),
        ("a.csv", "image,score\n0.jpg,7.2\n", "line 2: score is 7.2, outside the scale 0–1"),
        ("a.csv", "image,score\n0.jpg,good\n", "line 2: score is 'good', not a number"),
        ("a.csv", "image,score\n0.jpg,nan\n", "line 2: score is 'nan', not a number"),
        ("a.csv", "image,points\n0.jpg,.1\n", "no column of scores; there are image, points"),
        ("a.csv", "url,score\n0.jpg,.1\n", "no column of pictures; there are url, score"),
        ("a.csv", "image,score\nx.jpg,.1\n", "none of the 1 pictures"),
        ("a.csv", "image,score\n", "none of the 0 pictures"),
        ("a.jsonl", '{"image": "0.jpg", "score": .1}\n', "line 1 is not JSON"),
        ("a.jsonl", "[1, 2]\n", "line 1 is no JSON object"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(AesError, match=reason):
        read_predictions(written(tmp_path, name, text), rated(tmp_path), name="nima")


def test_a_missing_file_and_a_turned_scale_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AesError, match="there is no file"):
        read_predictions(tmp_path / "none.csv", rated(tmp_path), name="nima")
    with pytest.raises(AesError, match=r"the scale runs from 10.* to 1"):
        read_predictions(
            written(tmp_path, "a.csv", "image,score\n0.jpg,2\n"), rated(tmp_path), name="nima", scale=(10, 1)
        )


def test_the_command_judges_two_files_without_a_model(tmp_path: Path) -> None:
    ratings = rated(tmp_path, 10)
    write_rows(tmp_path / "ratings.jsonl", ratings)
    written(tmp_path, "good.csv", "image,score\n" + "".join(f"{i}.jpg,{i + 1}\n" for i in range(10)))
    written(tmp_path, "poor.csv", "image,score\n" + "".join(f"{i}.jpg,{(i * 7) % 10 + 1}\n" for i in range(10)))
    given = ["--predictions", f"nima={tmp_path / 'poor.csv'}", "--predictions", str(tmp_path / "good.csv")]
    command = ["eval", str(tmp_path / "ratings.jsonl"), *given, "--scale", "1", "10", "-o", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, command, catch_exceptions=False)
    assert ran.exit_code == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == ["nima", "good"]
    assert results["good"]["srcc"]["value"] == 1.0 and results["good"]["rationales"] is None
    assert results["good"]["against"]["nima"]["srcc"]["low"] > 0
    with pytest.raises(AesError, match="there is nothing to evaluate"):
        CliRunner().invoke(app, [*command[:2], "-o", str(tmp_path / "none")], catch_exceptions=False)
