import json

import pytest

from aesr1.errors import AesError
from aesr1.records import Appender, Prediction, Rating, of_split, read_rows, write_rows

RATING = Rating("a.jpg", 0.5, "mine", "train", 0.1, 3, (1, 1, 1))


def test_rows_come_back_with_absolute_paths(tmp_path):
    write_rows(tmp_path / "r.jsonl", [RATING])
    (row,) = read_rows(tmp_path / "r.jsonl", Rating)
    assert row.image == str(tmp_path / "a.jpg")
    assert row.votes == (1, 1, 1)


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
        of_split([RATING], "test", where=tmp_path)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "r.jsonl"
    write_rows(path, [RATING])

    def rows():
        yield RATING
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_rows(path, rows())
    assert len(read_rows(path, Rating)) == 1
