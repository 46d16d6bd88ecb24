"""Rows on disk: what is written comes back, broken and old files are handled."""

import json
import pickle

import pytest

from aesr1.errors import AesError
from aesr1.json_lines import Appender, read_rows, row_at, rows_with_offsets, write_rows
from aesr1.records import Prediction, Rating, Rationale, ratings_of_split

RATING = Rating("a.jpg", 0.5, "mine", "train", 0.1, 3, (1, 1, 1))


def test_rows_come_back_with_absolute_paths(tmp_path):
    write_rows(tmp_path / "r.jsonl", [RATING])
    (row,) = read_rows(tmp_path / "r.jsonl", Rating)
    assert row.image == str(tmp_path / "a.jpg")
    assert row.votes == (1, 1, 1)


def test_a_complete_last_line_without_line_break_is_read_and_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING, RATING])
    path.write_text(path.read_text().rstrip("\n"))
    assert len(read_rows(path, Rating)) == 2
    with Appender(path) as rows:
        rows.append(RATING)
    assert len(read_rows(path, Rating)) == 3


def test_a_file_that_holds_no_rows_is_not_changed(tmp_path):
    (tmp_path / "notes.txt").write_text("remember the milk")
    with pytest.raises(AesError, match="not a file of rows"):
        Appender(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "remember the milk"


def test_a_file_name_that_is_not_unicode_is_kept(tmp_path):
    name = b"caf\xe9.jpg".decode(errors="surrogateescape")
    write_rows(tmp_path / "r.jsonl", [Rating(name, 0.5, "mine", "train")])
    assert read_rows(tmp_path / "r.jsonl", Rating)[0].image.endswith(name)


def test_an_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(AesError("a", fix="b")))
    assert (error.problem, error.fix) == ("a", "b")


def test_a_torn_last_line_is_not_read_and_is_removed_before_appending(tmp_path):
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING])
    with path.open("a") as file:
        file.write('{"image": "b.jp')
    assert len(read_rows(path, Rating)) == 1
    with Appender(path) as rows:
        rows.append(RATING)
    assert len(read_rows(path, Rating)) == 2


def test_a_ratings_file_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "ratings.jsonl"
    path.write_text(
        '{"image": "a.jpg", "score": 0.5, "domain": "ava", "split": "train", "spread": 0.14, "raters": 3, '
        '"votes": [1, 1, 1]}\n'
        '{"image": "b.jpg", "score": 0.25, "domain": "ava", "split": "val", "spread": null}\n'
    )
    first, second = read_rows(path, Rating)
    assert (first.rater_std, first.raters, first.votes) == (0.14, 3, (1, 1, 1))
    assert second.rater_std is None


OLD_PREDICTION = (
    '{"image": "/photos/a.jpg", "score": 0.61, "spread": 0.08, "readable": true, "reasoning": "Soft light.", '
    '"reply": "raw text", "model": "m", "revision": "r", "decoding": "expectation", "error": null, '
    '"contract": "1", "aesr1": "0.0.9"}\n'
)


def test_a_predictions_file_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(OLD_PREDICTION)
    (row,) = read_rows(path, Prediction)
    assert (row.image, row.score, row.score_std, row.aesr1) == ("/photos/a.jpg", 0.61, 0.08, "0.0.9")


def test_new_rows_can_follow_those_of_an_earlier_version(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(OLD_PREDICTION)
    new = Prediction("/photos/b.jpg", 0.4, 0.05, True, None, "", "m", "r", "expectation")
    with Appender(path) as rows:
        rows.append(new)
    assert json.loads(path.read_text().splitlines()[1])["score_std"] == 0.05
    assert [row.score_std for row in read_rows(path, Prediction)] == [0.08, 0.05]


def test_an_old_name_is_read_only_for_the_kind_of_row_that_had_it(tmp_path):
    path = tmp_path / "rationales.jsonl"
    path.write_text(
        '{"image": "a.jpg", "score": 0.5, "domain": "d", "reasoning": "x", "critic": "embedded", "spread": 0.1}\n'
    )
    with pytest.raises(AesError, match="spread"):
        read_rows(path, Rationale)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "no JSON"),
        ("[]", "no object"),
        ("{}", "keys are missing"),
        (json.dumps({**RATING.__dict__, "extra": 1}), "an unknown key"),
        (json.dumps({**RATING.__dict__, "score": 7}), "a score outside 0–1"),
        (json.dumps({**RATING.__dict__, "score": float("nan")}), "no score"),
        (json.dumps({**RATING.__dict__, "split": "training"}), "an unknown split"),
        (json.dumps({**RATING.__dict__, "image": None}), "no image"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, reason):
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(AesError, match="line 2"):
        read_rows(path, Rating)


def test_a_missing_file_and_an_empty_split_are_clear_errors(tmp_path):
    with pytest.raises(AesError, match="does not exist"):
        read_rows(tmp_path / "r.jsonl", Prediction)
    with pytest.raises(AesError, match="it has train"):
        ratings_of_split([RATING], "test", where=tmp_path)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING])

    def rows():
        yield RATING
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_rows(path, rows())
    assert len(read_rows(path, Rating)) == 1


@pytest.mark.parametrize(
    ("text", "kind", "problem", "fix"),
    [
        (
            '{"image": "a", "score": 1, "domain": "d", "reasoning": "r", "critic": "c"}',
            Rating,
            "holds rationales, not ratings",
            "aesr1 sft",
        ),
        (
            '{"image": "a", "score": 1, "domain": "d", "split": "test"}',
            Prediction,
            "holds ratings, not predictions",
            "aesr1 score -o",
        ),
        ("image,mean,split", Rating, "is a table, not ratings", "aesr1 ratings import csv"),
        ("image;mean", Prediction, "is a table, not predictions", "aesr1 ratings import csv"),
    ],
)
def test_a_file_of_another_kind_names_its_kind_and_the_command(tmp_path, text, kind, problem, fix):
    (tmp_path / "x.jsonl").write_text(text + "\n")
    with pytest.raises(AesError, match=problem) as error:
        read_rows(tmp_path / "x.jsonl", kind)
    assert fix in error.value.fix


def test_rows_are_found_again_by_where_they_begin(tmp_path):
    path = tmp_path / "r.jsonl"
    with Appender(path) as rows:
        offsets = [rows.append(Rating(f"/{number}/é.jpg", number / 9, "d", "train")) for number in range(4)]
    assert [offset for offset, _ in rows_with_offsets(path, Rating)] == offsets
    assert [row_at(path, offset, Rating).score for offset in offsets] == [number / 9 for number in range(4)]


def test_a_torn_line_longer_than_a_block_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr("aesr1.json_lines.TAIL_BLOCK", 8)
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING, RATING])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    Appender(path).__exit__(None, None, None)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:50])
    Appender(path).__exit__(None, None, None)
    assert path.read_bytes() == b""


def test_all_rows_may_be_replaced_while_the_file_is_locked(tmp_path):
    path = tmp_path / "r.jsonl"
    with Appender(path) as rows:
        rows.append(RATING, RATING)
        rows.rewrite([RATING])
        rows.append(RATING)
        with pytest.raises(AesError, match="another run is writing"):
            Appender(path)
    assert len(read_rows(path, Rating)) == 2
    Appender(path).__exit__(None, None, None)
