"""FLICKR-AES: 40,000 photographs, about five raters each, marks 1–5; the score is the authors' aggregate, 0–1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import DataSet, find_file, image_path, mean_and_std, require_file
from aesr1.records import Rating
from aesr1.text_tables import parse_count, parse_score, read_lines, read_table, require_unique

DATA_SET = DataSet(
    name="flickr-aes",
    title="FLICKR-AES",
    licence="Creative Commons pictures, each with its photographer's terms",
    source="Ren, Shen, Lin, Mech, Foran: Personalized Image Aesthetics, ICCV 2017",
    images=("40K", "FLICKR-AES-001/40K", "images", "."),
    published=({"train": 35_263, "test": 4_737},),
    counted=False,
)
SCORES = "FLICKR-AES_image_score.txt"
WORKERS = "FLICKR-AES_image_labeled_by_each_worker.csv"
TEST_LISTS = ("test.txt", "test_list.txt", "FLICKR-AES_test.txt")
TEST_LABELS = range(105, 172)
"""Pictures rated by a test worker (Ren et al., section 3). The release does not say who is a test worker."""
MARKS = (1, 2, 3, 4, 5)


def load(root: Path) -> Iterator[Rating]:
    """Reads the score file; votes and split come from the workers' table.

    Test pictures: those named in `test.txt` (the first word of each line) if it exists, else those that a test worker
    rated. Names in the workers' table start with a blank; those in the score file may.
    """
    scores = require_file(root, SCORES)
    workers = require_file(root, WORKERS, f"../{WORKERS}")
    votes: dict[str, Counter[int]] = {}
    rated: dict[str, list[str]] = {}
    for where, cells in read_table(workers, columns=("worker", "imagePair", "score")):
        mark = parse_count(cells["score"], "score", where)
        if mark not in MARKS:
            raise AesError(f"{where}: score is {mark}, outside 1–5", fix="correct or remove the row")
        name = image_path(cells["imagePair"], where)
        votes.setdefault(name, Counter())[mark] += 1
        rated.setdefault(cells["worker"], []).append(name)
    listed = find_file(root, *TEST_LISTS)
    if listed is not None:
        test = {image_path(words[0], where) for where, words in read_lines(listed)}
    else:
        test = {name for names in rated.values() if len(names) in TEST_LABELS for name in names}
    if not test:
        raise AesError(
            f"no worker of {workers} rated {TEST_LABELS[0]} to {TEST_LABELS[-1]} pictures, as the test workers did",
            fix=f"put a list of the names of the test images into the same folder, as {TEST_LISTS[0]}",
        )
    tested = 0
    seen: set[str] = set()
    for where, words in read_lines(scores):
        if len(words) != 2:
            raise AesError(f"{where} has {len(words)} words, not a file name and a score", fix="get the file again")
        name = image_path(words[0], where)
        require_unique(seen, name, where)
        tested += name in test
        counts = tuple(votes[name][mark] for mark in MARKS) if name in votes else None
        yield DATA_SET.rating(
            image=name,
            score=parse_score(words[1], "score", where, low=0, high=1),
            split="test" if name in test else "train",
            rater_std=mean_and_std(counts, MARKS)[1] / 4 if counts else None,
            raters=sum(counts) if counts else None,
            votes=counts,
        )
    if seen and not tested:
        raise AesError(f"none of the {len(test):,} test images is in {scores}", fix=f"check {listed or workers}")
