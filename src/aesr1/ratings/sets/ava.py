"""AVA: 255,530 photographs of dpchallenge.com, 78–549 votes on 1–10 each. Reads its three published forms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import RESEARCH, DataSet, find_file, mean_and_std, require_file
from aesr1.records import Rating
from aesr1.text_tables import check_encoding, header_of, parse_count, read_lines, read_table, require_unique

DATA_SET = DataSet(
    name="ava",
    title="AVA",
    licence=RESEARCH,
    source="Murray, Marchesotti, Perronnin: AVA, CVPR 2012",
    images=("images", "image", "."),
    published=({"all": 255_530},),
    counted=False,  # papers differ by a few; TANet's and idealo's tables leave out some rows
)
MARKS = tuple(range(1, 11))
TEST_LISTS = ("aesthetics_image_lists/generic_test.jpgl", "generic_test.jpgl")
TANET = tuple(f"score{mark + 1}" for mark in MARKS)  # the numbers are columns of AVA.txt


def load(root: Path) -> Iterator[Rating]:
    """Reads AVA.txt with the official test list, else TANet's csv tables, else idealo's json files."""
    table = find_file(root, "AVA.txt", "AVA_dataset/AVA.txt")
    if table is not None:
        yield from _official(table)
        return
    files = [root] if root.is_file() else sorted(root.glob("*.csv")) + sorted(root.glob("*.json"))
    tables = [file for file in files if _is_tanet(file)]
    labels = [file for file in files if file.suffix == ".json" and (root.is_file() or "label" in file.name)]
    if tables:
        for file in tables:
            yield from _tanet(file)
    elif labels:
        for file in labels:
            yield from _idealo(file)
    else:
        require_file(root, "AVA.txt")


def _official(table: Path) -> Iterator[Rating]:
    """Lines `index id votes×10 tag tag challenge`. Images that are not on the official test list are train."""
    listed = require_file(table.parent, *TEST_LISTS)
    test = {words[0].removesuffix(".jpg") for _, words in read_lines(listed)}
    tested = 0
    seen: set[str] = set()
    for where, words in read_lines(table):
        if len(words) != 15 or not words[1].isdecimal():
            raise AesError(f"{where} has {len(words)} numbers, AVA.txt has 15 a line", fix="get the file again")
        name = words[1]
        require_unique(seen, name, where)
        tested += name in test
        yield _rating(name, words[2:12], "test" if name in test else "train", where)
    if seen and not tested:
        raise AesError(f"none of the {len(test):,} ids of {listed} is in {table}", fix="get the official lists again")


def _is_tanet(file: Path) -> bool:
    return file.suffix == ".csv" and {"image_id", TANET[0], TANET[-1]} <= set(header_of(file))


def _tanet(file: Path) -> Iterator[Rating]:
    """TANet's tables: score2 … score11 are the votes for 1 … 10. Their split differs from the official one."""
    split = _split_of(file)
    for where, cells in read_table(file, columns=("image_id", *TANET), unique="image_id"):
        yield _rating(cells["image_id"], [cells[name] for name in TANET], split, where)


def _idealo(file: Path) -> Iterator[Rating]:
    """`[{"image_id": "231893", "label": [votes for 1 … 10]}]`, with idealo's own split."""
    check_encoding(file, "utf-8-sig")
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise AesError(
            f"{file}, line {error.lineno} is not JSON: {error.msg}", fix="get the file again; it may be incomplete"
        ) from error
    except RecursionError as error:
        raise AesError(f"{file} is nested too deeply", fix="pass idealo's AVA labels") from error
    if not isinstance(rows, list):
        raise AesError(f"{file} is not a list of rows", fix="pass idealo's AVA labels")
    split = _split_of(file)
    seen: set[str] = set()
    for position, row in enumerate(rows, start=1):
        where = f"{file}, row {position}"
        votes = row.get("label") if isinstance(row, dict) else None
        if not isinstance(votes, list) or len(votes) != len(MARKS) or "image_id" not in row:
            raise AesError(f"{where} is not an image_id with ten votes", fix="pass idealo's AVA labels")
        name = str(row["image_id"])
        require_unique(seen, name, where)
        yield _rating(name, [str(vote) for vote in votes], split, where)


def _split_of(file: Path) -> str:
    """train, val or test, from the file name."""
    words = {"train": "train", "val": "val", "valid": "val", "test": "test"}
    found = [split for word, split in words.items() if word in file.stem.lower()]
    if not found:
        raise AesError(f"the name {file.name} contains no split", fix="put train, val or test into the file name")
    return found[0]


def _rating(name: str, cells: Sequence[str], split: str, where: str) -> Rating:
    if not name.isdecimal():
        raise AesError(f"{where}: image id {name!r} is not a number", fix="correct or remove the row")
    try:
        votes = tuple(map(int, cells))
    except ValueError:
        votes = tuple(parse_count(cell, f"votes for {mark}", where) for cell, mark in zip(cells, MARKS, strict=True))
    raters = sum(votes)
    if raters <= 0 or min(votes) < 0:
        raise AesError(f"{where}: the votes are {' '.join(cells)}", fix="correct or remove the row")
    mean, std = mean_and_std(votes, MARKS)
    return DATA_SET.rating(
        image=f"{name}.jpg",
        score=(mean - 1) / 9,
        split=split,
        rater_std=std / 9,
        raters=raters,
        votes=votes,
    )
