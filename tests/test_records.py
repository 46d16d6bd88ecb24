import json
import pickle

import pytest

from aesr1.errors import AesError
from aesr1.records import Appender, Prediction, Rating, ratings_of_split, read_rows, write_rows

RATING = Rating("a.jpg", 0.5, "mine", "train", 0.1, 3, (1, 1, 1))


def test_rows_come_back_with_absolute_paths(tmp_path):
    write_rows(tmp_path / "r.jsonl", [RATING])
    (row,) = read_rows(tmp_path / "r.jsonl", Rating)
    assert row.image == str(tmp_path / "a.jpg")
    assert row.votes == (1, 1, 1)


def test_a_whole_last_line_without_its_break_counts_and_stays(tmp_path):
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING, RATING])
    path.write_text(path.read_text().rstrip("\n"))
    assert len(read_rows(path, Rating)) == 2
    with Appender(path) as rows:
        rows.append(RATING)
    assert len(read_rows(path, Rating)) == 3


def test_a_file_that_is_not_ours_is_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("remember the milk")
    with pytest.raises(AesError, match="not a file of rows"):
        Appender(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "remember the milk"


def test_a_name_that_is_no_unicode_comes_back(tmp_path):
    name = b"caf\xe9.jpg".decode(errors="surrogateescape")
    write_rows(tmp_path / "r.jsonl", [Rating(name, 0.5, "mine", "train")])
    assert read_rows(tmp_path / "r.jsonl", Rating)[0].image.endswith(name)


def test_an_error_survives_the_way_back_from_a_worker():
    error = pickle.loads(pickle.dumps(AesError("a", fix="b")))
    assert (error.problem, error.fix) == ("a", "b")


def test_a_torn_last_line_is_left_out_and_cut_off_before_appending(tmp_path):
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING])
    with path.open("a") as file:
        file.write('{"image": "b.jp')
    assert len(read_rows(path, Rating)) == 1
    with Appender(path) as rows:
        rows.append(RATING)
    assert len(read_rows(path, Rating)) == 2


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
