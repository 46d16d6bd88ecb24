"""Label files of public data sets: what is known of a set, where its files lie, paths of pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from aesr1.errors import AesError
from aesr1.records import Rating

RESEARCH = "research use only; the pictures belong to their photographers"


@dataclass(frozen=True)
class DataSet:
    """The facts about a public data set that do not depend on the user's files."""

    name: str  # on the command line, and the domain of its rows
    title: str
    licence: str
    source: str  # who published it
    images: tuple[str, ...]  # folders below the root that may hold the pictures
    published: tuple[Mapping[str, int], ...]  # rows by split (or "all"), for each published form of the label files
    counted: bool = True  # True: counts of the authors' files; False: counts from papers

    def rating(self, image: str, score: float, split: str, **values: Any) -> Rating:
        """A row of this set, with its name, licence and source; `values` are other fields of `Rating`."""
        return Rating(image, score, self.name, split, licence=self.licence, source=self.source, **values)


def find_file(root: Path, *candidates: str) -> Path | None:
    """The first of these files (paths below the root) that exists, or None.

    If the root is itself a file of the data set, the folder of that file is searched.
    """
    if root.is_file():
        siblings = (root.with_name(Path(name).name) for name in candidates)
        return next((path for path in siblings if path.is_file()), None)
    return next((root / name for name in candidates if (root / name).is_file()), None)


def require_file(root: Path, *candidates: str) -> Path:
    """As `find_file`, but AesError if none exists. The error names a nearby folder that does hold the file."""
    found = find_file(root, *candidates)
    if found is not None:
        return found
    if not root.exists():
        raise AesError(f"there is no folder {root}", fix="check the path")
    wanted = {Path(name).name for name in candidates}
    for folder in _nearby_folders(root):
        if find_file(folder, *candidates) is not None:
            raise AesError(
                f"{root} does not hold {candidates[0]}, {folder} does: this is the wrong folder level",
                fix=f"pass {folder}",
            )
        misplaced = next((name for name in wanted if (folder / name).is_file()), None)
        if misplaced is not None:
            raise AesError(
                f"{root} does not hold {candidates[0]}, but there is {folder / misplaced}",
                fix="unpack the data set as its authors packed it, and pass its top folder",
            )
    raise AesError(
        f"{root} holds none of {', '.join(candidates)}",
        fix="pass the data set's top folder as its authors packed it, or the label file",
    )


def _nearby_folders(root: Path) -> Iterator[Path]:
    """Folders up to two levels above and three levels below. Links are not followed, because they may form a loop."""
    absolute = root.absolute()
    yield from absolute.parents[:2]
    for folder, below, _ in os.walk(root):
        if len(Path(folder).relative_to(root).parts) >= 3:
            below.clear()
        below.sort()
        yield Path(folder)


def image_path(text: str, where: str) -> str:
    """A relative picture path, with / between parts. AesError if it is empty or leaves the picture folder."""
    name = text.strip()
    if not name or "\0" in name:
        raise AesError(f"{where}: the image name is empty or invalid", fix="correct or remove the row")
    windows = PureWindowsPath(name)
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or windows.drive or ".." in path.parts:
        raise AesError(
            f"{where}: {name} leaves the picture folder",
            fix="use paths below the folder, and pass the folder as --images",
        )
    return str(path)


def mean_and_std(votes: Sequence[float], marks: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of single votes, from the number (or share) of votes for each mark."""
    total = sum(votes)
    mean = sum(map(mul, votes, marks)) / total
    square = sum(map(mul, map(mul, votes, marks), marks)) / total
    return mean, math.sqrt(max(0.0, square - mean * mean))
