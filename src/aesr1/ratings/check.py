"""Checks ratings: reads every row, decodes every picture, finds look-alikes across splits."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aesr1.errors import AesError
from aesr1.images.load import image_size, open_image, too_small
from aesr1.images.look_alikes import MIN_CORRELATION, SIDE, grey_fingerprint, look_alikes
from aesr1.json_lines import ratings_file, with_current_names
from aesr1.progress import progress_bar
from aesr1.records import SPLITS, Rating
from aesr1.terminal import printable
from aesr1.worker_processes import worker_pool

KINDS = {
    "row": "rows that cannot be read",
    "score": "scores outside 0–1",
    "missing": "missing pictures",
    "corrupt": "pictures that cannot be decoded",
    "small": "pictures too small or too thin to judge",
    "twice": "pictures with two rows",
    "copy": "copies of a picture under another name",
    "split": "pictures that look alike in two splits",
}


@dataclass(frozen=True)
class CheckConfig:
    """Which files to check, and which problems to allow."""

    ratings: tuple[Path, ...]
    allow_missing: bool = False
    alike: float = MIN_CORRELATION  # correlation of edges from which two pictures count as the same
    workers: int | None = None  # default: one for each core


class Problem(NamedTuple):
    """One problem in the data."""

    kind: str  # of KINDS
    image: str
    message: str


class Report(NamedTuple):
    """How much was checked, and the problems."""

    rows: int
    pictures: int
    problems: list[Problem]
    allowed: tuple[str, ...]  # kinds that do not fail the check

    @property
    def failed(self) -> bool:
        """Whether there is a problem that is not allowed."""
        return any(problem.kind not in self.allowed for problem in self.problems)


class Fingerprint(NamedTuple):
    """What the check keeps of a picture, to find copies."""

    digest: bytes  # of the file
    grey: bytes  # `grey_fingerprint`


@dataclass(frozen=True)
class _CheckedRow:
    image: str
    split: str
    where: str  # file and line


def check(config: CheckConfig) -> Report:
    """Check all rows and pictures of these files together; changes nothing. AesError if a file does not exist."""
    if not 0 < config.alike <= 1:
        raise AesError(
            f"alike is {config.alike}",
            fix=f"give a correlation; {MIN_CORRELATION} finds resized and recompressed copies",
        )
    problems: list[Problem] = []
    rows = [row for path in config.ratings for row in _rows(path, problems)]
    first: dict[str, _CheckedRow] = {}
    for row in rows:
        if row.image in first:
            problems.append(Problem("twice", row.image, f"{row.where} and {first[row.image].where}"))
            if row.split != first[row.image].split:
                message = f"the same file is in {first[row.image].split} and {row.split}"
                problems.append(Problem("split", row.image, message))
        first.setdefault(row.image, row)
    paths = list(first)
    fingerprints: dict[str, Fingerprint] = {}
    with worker_pool(config.workers) as workers, progress_bar("check", total=len(paths)) as progress:
        for path, result in zip(paths, workers.map(inspect, paths, chunksize=16), strict=True):
            progress.advance(1)
            if isinstance(result, Problem):
                problems.append(result)
            else:
                fingerprints[path] = result
    problems += _copies(fingerprints, first, config.alike)
    return Report(len(rows), len(paths), problems, ("missing",) if config.allow_missing else ())


def inspect(path: str) -> Fingerprint | Problem:
    """Decode a picture, at a small size; its fingerprint, or the problem."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return Problem("missing", path, "the file does not exist")
    except (OSError, ValueError) as error:  # a folder, no permission, a name too long or not valid text
        return Problem("missing", path, f"it cannot be opened: {type(error).__name__}")
    try:
        size = image_size(path)
        if too_small(size):
            return Problem("small", path, f"{size[0]} × {size[1]} pixels")
        digest = hashlib.blake2b(content, digest_size=16).digest()
        return Fingerprint(digest, grey_fingerprint(open_image(path, max_pixels=128 * 128)))
    except AesError as error:
        return Problem("corrupt", path, error.problem)
    except Exception as error:  # decoders of broken files raise errors of many types
        return Problem("corrupt", path, f"{type(error).__name__}: {error}")


def _rows(path: Path, problems: list[Problem]) -> Iterator[_CheckedRow]:
    """The rows that name a picture. A bad row is added to `problems`, and reading goes on."""
    file = ratings_file(path)
    if not file.is_file():
        raise AesError(f"{file} does not exist", fix="pass a ratings.jsonl, or its folder")
    folder = str(file.parent.absolute())
    number = 0
    with file.open(encoding="utf-8", errors="replace") as opened:
        for number, line in enumerate(opened, start=1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            values = _parsed(line)
            image, score = values.get("image"), values.get("score")
            has_image = isinstance(image, str) and image != ""
            if has_image and not _in_range(score):
                problems.append(Problem("score", str(image), f"{where}: score is {str(score)[:40]}"))
                values["score"] = 0.5  # so that other problems of the row are found too
            reason = _row_problem(values)
            if reason is not None:
                problems.append(Problem("row", str(image or ""), f"{where}: {reason}"))
            if has_image and values.get("split") in SPLITS:
                yield _CheckedRow(os.path.join(folder, str(image)), str(values["split"]), where)  # noqa: PTH118  # up to 255,000 times
    if not number:
        problems.append(Problem("row", "", f"{file} is empty"))


def _in_range(score: Any) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1


def _row_problem(values: dict[str, Any]) -> str | None:
    """Why these values are not a valid rating, or None."""
    if not values:
        return "not a JSON object"
    try:
        row = Rating(**with_current_names(values, Rating))
    except (TypeError, ValueError) as error:
        return str(error).removeprefix("Rating.__init__() ")
    if not isinstance(row.image, str) or not row.image or not isinstance(row.domain, str):
        return f"image is {row.image!r}, domain {row.domain!r}"
    numbers = [row.rater_std, row.raters, *(row.votes or ()), *(row.attributes or {}).values()]
    bad = next((value for value in numbers if value is not None and not isinstance(value, int | float)), None)
    return None if bad is None else f"{bad!r} is not a number"


def _parsed(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _copies(fingerprints: dict[str, Fingerprint], rows: dict[str, _CheckedRow], alike: float) -> Iterator[Problem]:
    """The same file under two names, and look-alikes in two splits."""
    paths = list(fingerprints)
    first: dict[bytes, str] = {}
    same: set[tuple[str, str]] = set()
    for path, fingerprint in fingerprints.items():
        other = first.setdefault(fingerprint.digest, path)
        if other != path:
            split, other_split = rows[path].split, rows[other].split
            same.add((other, path))
            if split == other_split:
                yield Problem("copy", path, f"the same file as {other}")
            else:
                yield Problem("split", path, f"is in {split}, and in {other_split} as {other}")
    grey = np.frombuffer(b"".join(each.grey for each in fingerprints.values()), dtype=np.uint8)
    splits = np.array([SPLITS.index(rows[path].split) for path in paths], dtype=int)
    for left, right in look_alikes(grey.reshape(-1, SIDE**2), splits, alike=alike):
        one, other = paths[left], paths[right]
        if (one, other) not in same:
            yield Problem("split", other, f"is in {rows[other].split} and looks like {one} in {rows[one].split}")


def to_text(report: Report, *, shown: int = 3) -> str:
    """For each kind of problem a line with the count, and its first `shown` problems."""
    counts = Counter(problem.kind for problem in report.problems)
    lines = [f"{report.rows:,} rows, {report.pictures:,} pictures"]
    for kind, title in KINDS.items():
        if counts[kind]:
            allowed = " (allowed)" if kind in report.allowed else ""
            lines.append(f"{counts[kind]:,} {title}{allowed}")
            lines += [f"    {p.image}: {p.message}" for p in _first(report.problems, kind, shown)]
    if len(lines) == 1:
        lines.append("nothing wrong was found")
    return printable("\n".join(lines))


def _first(problems: Iterable[Problem], kind: str, shown: int) -> Sequence[Problem]:
    return [problem for problem in problems if problem.kind == kind][:shown]
