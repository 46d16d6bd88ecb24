"""Imports a public data set: finds its pictures, checks its counts, writes ratings.jsonl."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from aesr1.errors import AesError
from aesr1.outputs import staged_output, write_run
from aesr1.ratings.label_files import DataSet
from aesr1.ratings.sets import SETS
from aesr1.records import Rating, write_rows


@dataclass(frozen=True)
class ImportConfig:
    """Which data set, its place, and how strict to be."""

    name: str
    root: Path  # the data set's top folder, or its label file
    output: Path
    images: Path | None = None  # folder of the pictures; default: where its authors packed them
    labels_only: bool = False  # do not look for the pictures
    allow_missing: bool = False  # leave rows out whose picture is missing
    subset: bool = False  # the label files are a part of the set


class Imported(NamedTuple):
    """What was written."""

    ratings: Path
    rows: dict[str, int]  # by split
    missing: int
    note: str | None  # where the counts are not the published ones


def import_set(config: ImportConfig) -> Imported:
    """Write `ratings.jsonl` into the output folder. Nothing is left there where an AesError is raised."""
    started = time.time()
    if config.name not in SETS:
        raise AesError(f"{config.name!r} is not a known data set", fix=f"choose one of {', '.join(SETS)}")
    module = import_module(f"aesr1.ratings.sets.{SETS[config.name][0]}")
    about: DataSet = module.DATA_SET
    pictures = Pictures(_folders(config, about), check=not config.labels_only)
    counted: Counter[str] = Counter()
    split_of: dict[str, str] = {}

    def kept() -> Iterator[Rating]:
        for rating in module.load(config.root):
            counted[rating.split] += 1
            place = pictures.find(rating.image)
            if place is None:
                continue
            if place in split_of:
                raise AesError(
                    f"{place} has two rows, in {split_of[place]} and in {rating.split}", fix="keep one row an image"
                )
            split_of[place] = rating.split
            yield _placed(rating, place)
        _check_missing(config, about, pictures, sum(counted.values()))
        _check_counts(config, about, counted)

    with staged_output(config.output, "ratings.jsonl", "run.json") as part:
        write_rows(part / "ratings.jsonl", kept())
        note = _unlike_published(about, counted)
        results = {"rows": dict(counted), "missing": len(pictures.missing), "note": note}
        write_run(part, f"ratings import {about.name}", config, started=started, **results)
    if note:
        print(note, file=sys.stderr)
    return Imported(config.output / "ratings.jsonl", dict(counted), len(pictures.missing), note)


def _placed(rating: Rating, place: str) -> Rating:
    """The rating with the picture's path. Changed in place, because copying all of AVA's rows takes a second."""
    object.__setattr__(rating, "image", place)
    return rating


class Pictures:
    """The paths of pictures, from listings of their folders; letter case is ignored."""

    def __init__(self, folders: Sequence[Path], *, check: bool) -> None:
        self._folders = [str(folder.absolute()) for folder in folders]
        self._check = check
        self._listings: dict[str, dict[str, str]] = {}
        self.missing: list[str] = []

    def find(self, name: str) -> str | None:
        """The picture's absolute path; None where it is missing, which is recorded."""
        if not self._check:
            return f"{self._folders[0]}/{name}"
        below, _, base = name.rpartition("/")
        for top in self._folders:
            for folder in (f"{top}/{below}", top) if below else (top,):  # as it was packed, else all in one folder
                listing = self._listings.get(folder)
                if listing is None:
                    listing = self._listings[folder] = _listing(folder)
                there = listing.get(base) or listing.get(base.casefold())
                if there:
                    return f"{folder}/{there}"
        self.missing.append(name)
        return None

    def example(self) -> str | None:
        """A file of one of the folders, for an error message."""
        files = (f"{folder}/{name}" for folder, names in self._listings.items() for name in names.values())
        return next((file for file in files if Path(file).is_file()), None)


def _listing(folder: str) -> dict[str, str]:
    """A folder's names, by name and by lower case; empty where the folder does not exist."""
    try:
        with os.scandir(folder) as entries:  # no Path objects: AVA has 255,000
            names = [entry.name for entry in entries if not entry.is_symlink() or Path(entry.path).exists()]
    except OSError:  # not there, not a folder, or a loop of links
        return {}
    found = {name.casefold(): name for name in names}
    found.update((name, name) for name in names)
    return found


def _folders(config: ImportConfig, about: DataSet) -> list[Path]:
    """The folders in which pictures are looked for."""
    root = config.root.parent if config.root.is_file() else config.root
    if config.images is not None:
        if not config.images.is_dir() and not config.labels_only:
            raise AesError(f"there is no folder {config.images}", fix="pass --images DIR, the pictures' folder")
        return [config.images]
    there = [
        root / name for name in about.images if (root / name).is_dir() and not (config.labels_only and name == ".")
    ]
    return there or [root / about.images[0]]


def _check_missing(config: ImportConfig, about: DataSet, pictures: Pictures, total: int) -> None:
    missing = pictures.missing
    if not total:
        raise AesError(f"the label files of {about.title} in {config.root} have no rows", fix="get them again")
    if len(missing) == total:
        example = pictures.example()
        beside = f"; a file there is {example}" if example else ""
        raise AesError(
            f"none of {total:,} images of {about.title} was found, first: {missing[0]}{beside}",
            fix="pass --images DIR with the pictures under their own names, or --labels-only",
        )
    if missing and not config.allow_missing:
        raise AesError(
            f"{len(missing):,} of {total:,} images of {about.title} are missing, first: {missing[0]}",
            fix="pass --images DIR, or --allow-missing to leave them out",
        )


def _check_counts(config: ImportConfig, about: DataSet, counted: Counter[str]) -> None:
    """AesError where rows are missing: any of a set counted in its files, more than 1 % of others."""
    if config.subset or config.root.is_file() or _as_published(about, counted):
        return
    total = sum(counted.values())
    if about.counted or total < 0.99 * min(sum(form.values()) for form in about.published):
        raise AesError(
            f"{about.title} has {_listed(about.published[0])} rows, the files here {_listed(counted)}",
            fix="get the label files again, one may be cut off; or pass --subset if a part is meant",
        )


def _as_published(about: DataSet, counted: Counter[str]) -> bool:
    return any(dict(form) in (dict(counted), {"all": sum(counted.values())}) for form in about.published)


def _unlike_published(about: DataSet, counted: Counter[str]) -> str | None:
    if _as_published(about, counted):
        return None
    return f"note: {_listed(about.published[0])} rows of {about.title} are published, here are {_listed(counted)}"


def _listed(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in rows.items())
