"""AADB: 9,958 photographs, five raters each, eleven attributes. From the authors' lists or the MATLAB file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import RESEARCH, DataSet, find_file, image_path, require_file
from aesr1.records import Rating
from aesr1.text_tables import parse_score, read_lines, require_unique

DATA_SET = DataSet(
    name="aadb",
    title="AADB",
    licence=RESEARCH,
    source="Kong, Shen, Lin, Mech, Fowlkes: AADB, ECCV 2016",
    images=(".", "datasetImages_warp256", "images"),
    published=({"train": 8_458, "val": 500, "test": 1_000}, {"train": 8_458, "test": 1_000}),  # lists, MATLAB file
)
FOLDERS = {"train": "datasetImages_originalSize", "val": "datasetImages_originalSize"}
TEST_FOLDER = "AADB_newtest_originalSize"
LISTS = {"train": "imgListTrainRegression", "val": "imgListValidationRegression", "test": "imgListTestNewRegression"}
FOLDER = "imgListFiles_label"
MATLAB = "AADBinfo.mat"
ATTRIBUTES = {
    "BalacingElements": "balance",  # sic
    "ColorHarmony": "colour harmony",
    "Content": "content",
    "DoF": "depth of field",
    "Light": "light",
    "MotionBlur": "motion blur",
    "Object": "object emphasis",
    "Repetition": "repetition",
    "RuleOfThirds": "rule of thirds",
    "Symmetry": "symmetry",
    "VividColor": "vivid colour",
}
ONE_SIDED = ("Repetition", "Symmetry")  # from 0 to 1; the others from −1 to 1


def load(root: Path) -> Iterator[Rating]:
    """Reads `imgListFiles_label/*_score.txt` and the attribute lists of that folder, else `AADBinfo.mat`."""
    if find_file(root, f"{FOLDER}/{LISTS['train']}_score.txt", f"{LISTS['train']}_score.txt") is None:
        yield from _matlab(require_file(root, MATLAB, f"{FOLDER}/{LISTS['train']}_score.txt"))
        return
    for split, name in LISTS.items():
        table = require_file(root, f"{FOLDER}/{name}_score.txt", f"{name}_score.txt")
        attributes = {
            label: _marks(table.with_name(f"{name}_{key}.txt"), key)
            for key, label in ATTRIBUTES.items()
            if table.with_name(f"{name}_{key}.txt").is_file()
        }
        for image, score in _marks(table, "score").items():
            marked = {label: marks[image] for label, marks in attributes.items() if image in marks}
            yield _rating(image, score, split, marked)


def _marks(file: Path, key: str) -> dict[str, float]:
    """Lines `<file.jpg> <mark>` → the mark of each image, mapped to 0–1."""
    low = 0 if key == "score" or key in ONE_SIDED else -1
    marks: dict[str, float] = {}
    seen: set[str] = set()
    for where, words in read_lines(file):
        if len(words) != 2:
            raise AesError(f"{where} has {len(words)} words, not a file name and a mark", fix="get the file again")
        image = image_path(words[0], where)
        require_unique(seen, image, where)
        marks[image] = parse_score(words[1], key, where, low=low, high=1)
    return marks


def _matlab(file: Path) -> Iterator[Rating]:
    """In the MATLAB file, each name is an array of one element inside another; scores are a plain row."""
    from scipy.io import loadmat

    try:
        content = loadmat(file)
        parts = {split: (content[f"{split}NameList"], content[f"{split}Score"]) for split in ("train", "test")}
    except Exception as error:  # scipy raises errors of many types on a broken file
        raise AesError(f"{file} is not AADB's MATLAB file: {error}", fix=f"get {MATLAB} again") from error
    for split, (names, scores) in parts.items():
        if names.shape != scores.shape:
            raise AesError(f"{file} has {names.size} {split} names and {scores.size} scores", fix="get it again")
        seen: set[str] = set()
        for position, (name, score) in enumerate(zip(names[0], scores[0], strict=True), start=1):
            where = f"{file}, {split} row {position}"
            image = image_path(str(name.item()), where)
            require_unique(seen, image, where)
            yield _rating(image, parse_score(str(score), "score", where, low=0, high=1), split, {})


def _rating(image: str, score: float, split: str, attributes: Mapping[str, float]) -> Rating:
    return DATA_SET.rating(
        image=f"{FOLDERS.get(split, TEST_FOLDER)}/{image}",
        score=score,
        split=split,
        raters=5,
        attributes=dict(attributes) or None,
    )
