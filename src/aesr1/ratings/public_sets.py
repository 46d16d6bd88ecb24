"""Imports a public data set: finds its pictures, checks its counts, writes ratings.jsonl."""

from __future__ import annotations

import os
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from aesr1.errors import AesError
from aesr1.json_lines import write_rows
from aesr1.outputs import staged_output, write_run
from aesr1.ratings.label_files import DataSet
from aesr1.ratings.sets import SETS
from aesr1.records import Rating
from aesr1.terminal import say


@dataclass(frozen=True)
class ImportConfig:
    """Which data set to import, where it is, and which gaps are allowed."""

    name: str
    root: Path  # the data set's top folder, or its label file
    output: Path
    images: Path | None = None  # folder of the pictures; default: the folders that its authors use
    labels_only: bool = False  # do not look for the pictures
    allow_missing: bool = False  # leave out rows whose picture is missing
    subset: bool = False  # the label files are only a part of the set


class Imported(NamedTuple):
    """What was written."""

    ratings: Path
    rows: dict[str, int]  # by split
    missing: int
    note: str | None  # says that the counts differ from the published ones


def import_set(config: ImportConfig) -> Imported:
    """Write `ratings.jsonl` into the output folder. After an AesError the folder holds nothing new."""
    started = time.time()
    if config.name not in SETS:
        raise AesError(f"{config.name!r} is not a known data set", fix=f"choose one of {', '.join(SETS)}")
    module = import_module(f"aesr1.ratings.sets.{SETS[config.name][0]}")
    data_set: DataSet = module.DATA_SET
    pictures = Pictures(_folders(config, data_set), check=not config.labels_only)
    counted: Counter[str] = Counter()
    split_of: dict[str, str] = {}

    def rows_with_pictures() -> Iterator[Rating]:
        for rating in module.load(config.root):
            counted[rating.split] += 1
            path = pictures.find(rating.image)
            if path is None:
                continue
            if path in split_of:
                raise AesError(
                    f"{path} has two rows, in {split_of[path]} and in {rating.split}", fix="keep one row for each image"
                )
            split_of[path] = rating.split
            object.__setattr__(rating, "image", path)  # only this function has the row: a copy takes a second on AVA
            yield rating
        _check_missing(config, data_set, pictures, sum(counted.values()))
        _check_counts(config, data_set, counted)

    with staged_output(config.output, "ratings.jsonl", "run.json") as part:
        write_rows(part / "ratings.jsonl", rows_with_pictures())
        note = _note(data_set, counted)
        results = {"rows": dict(counted), "missing": len(pictures.missing), "note": note}
        write_run(part, f"ratings import {data_set.name}", config, started=started, **results)
    if note:
        say(note)
    return Imported(config.output / "ratings.jsonl", dict(counted), len(pictures.missing), note)


class Pictures:
    """Finds pictures by name, ignoring upper and lower case. Each folder is listed once."""

    def __init__(self, folders: Sequence[Path], *, check: bool) -> None:
        self._folders = [str(folder.absolute()) for folder in folders]
        self._check = check
        self._listings: dict[str, dict[str, str]] = {}
        self.missing: list[str] = []

    def find(self, name: str) -> str | None:
        """The absolute path of a picture, or None. Names that are not found are collected in `missing`."""
        if not self._check:
            return f"{self._folders[0]}/{name}"
        below, _, base = name.rpartition("/")
        for top in self._folders:
            for folder in (f"{top}/{below}", top) if below else (top,):  # as named, else directly below
                listing = self._listings.get(folder)
                if listing is None:
                    listing = self._listings[folder] = _listing(folder)
                file = listing.get(base) or listing.get(_plain(base))
                if file:
                    return f"{folder}/{file}"
        self.missing.append(name)
        return None

    def example(self) -> str | None:
        """One existing file of the folders, so that the user can compare names."""
        files = (f"{folder}/{name}" for folder, names in self._listings.items() for name in names.values())
        return next((file for file in files if Path(file).is_file()), None)


def _plain(name: str) -> str:
    """A name without case, each accent in one character with its letter: disks and tables differ in both."""
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).casefold()


def _listing(folder: str) -> dict[str, str]:
    """The file names of a folder, by name and by plain name; empty if the folder does not exist."""
    try:
        with os.scandir(folder) as entries:  # strings are faster than Path objects: AVA has 255,000 files
            names = [entry.name for entry in entries if not entry.is_symlink() or Path(entry.path).exists()]
    except OSError:  # missing, not a folder, or a loop of links
        return {}
    found = {_plain(name): name for name in names}
    found.update((name, name) for name in names)
    return found


def _folders(config: ImportConfig, data_set: DataSet) -> list[Path]:
    """The folders that are searched for pictures."""
    root = config.root.parent if config.root.is_file() else config.root
    if config.images is not None:
        if not config.images.is_dir() and not config.labels_only:
            raise AesError(f"there is no folder {config.images}", fix="pass --images DIR, the folder of the pictures")
        return [config.images]
    existing = [
        root / name for name in data_set.images if (root / name).is_dir() and not (config.labels_only and name == ".")
    ]
    return existing or [root / data_set.images[0]]


def _check_missing(config: ImportConfig, data_set: DataSet, pictures: Pictures, total: int) -> None:
    missing = pictures.missing
    if not total:
        raise AesError(f"the label files of {data_set.title} in {config.root} have no rows", fix="get them again")
    if len(missing) == total:
        example = pictures.example()
        hint = f"; a file there is {example}" if example else ""
        raise AesError(
            f"none of {total:,} images of {data_set.title} was found, first: {missing[0]}{hint}",
            fix="pass --images DIR with the pictures under their original names, or --labels-only",
        )
    if missing and not config.allow_missing:
        raise AesError(
            f"{len(missing):,} of {total:,} images of {data_set.title} are missing, first: {missing[0]}",
            fix="pass --images DIR, or --allow-missing to leave out their rows",
        )


def _check_counts(config: ImportConfig, data_set: DataSet, counted: Counter[str]) -> None:
    """AesError if rows are missing. If only papers give the count, up to one row in a hundred may be missing."""
    if config.subset or config.root.is_file() or _as_published(data_set, counted):
        return
    total = sum(counted.values())
    if data_set.counted or total < 0.99 * min(sum(form.values()) for form in data_set.published):
        raise AesError(
            f"{data_set.title} has {_listed(data_set.published[0])} rows, the files here {_listed(counted)}",
            fix="get the label files again, one may be incomplete; or pass --subset to import a part",
        )


def _as_published(data_set: DataSet, counted: Counter[str]) -> bool:
    return any(dict(form) in (dict(counted), {"all": sum(counted.values())}) for form in data_set.published)


def _note(data_set: DataSet, counted: Counter[str]) -> str | None:
    if _as_published(data_set, counted):
        return None
    return f"note: {_listed(data_set.published[0])} rows of {data_set.title} are published, here are {_listed(counted)}"


def _listed(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in rows.items())
