"""Finds pictures in folders and by patterns, and counts what was skipped."""

from __future__ import annotations

import codecs
import glob as globbing
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from aesr1.errors import AesError
from aesr1.images.formats import HEIF_SUFFIXES, PHOTOS, RAW_SUFFIXES, suffixes

HIDDEN_FOLDERS = frozenset({"@eadir", ".thumbnails", ".trash", "__macosx"})
"""Folders in which systems keep small copies of pictures."""
KINDS_NAMED = 5
LIST_BLOCK = 2**16
"""A list is read in blocks of so many bytes."""


class FoundImages(NamedTuple):
    """Absolute paths, each once, in order; and what is to be said about the search."""

    paths: list[Path]
    warnings: list[str]


def find_images(inputs: Iterable[str | Path]) -> FoundImages:
    """Pictures of files, folders (searched with all folders in them) and globs.

    A file given by name is kept whatever its suffix, so that its error is reported. Links to folders are followed,
    each folder once. An input that matches nothing is a warning; AesError where none matches.
    """
    warnings: list[str] = []
    return FoundImages(list(dict.fromkeys(iterate_images(inputs, warnings))), warnings)


def iterate_images(
    inputs: Iterable[str | Path], warnings: list[str], *, also: frozenset[str] = frozenset()
) -> Iterator[Path]:
    """As `find_images`, one path at a time; a path that two inputs name comes twice.

    What is held is the names in one folder, and the matches of one glob. `warnings` is complete at the end. `also`:
    suffixes of other files that are wanted.
    """
    skipped: Counter[str] = Counter()
    found_any = False
    for entry in inputs:
        found = False
        for path in _matches(entry, skipped, also):
            found = found_any = True
            yield path.absolute()
        if not found:
            warnings.append(f"{entry} holds no pictures")
    if skipped:
        warnings.append(_about(skipped))
    if not found_any:
        raise AesError("; ".join(warnings) or "no files were given", fix=f"looked for {', '.join(sorted(suffixes()))}")


def _matches(entry: str | Path, skipped: Counter[str], also: frozenset[str]) -> Iterable[Path]:
    if os.path.isdir(entry):  # noqa: PTH112  # False for a name that is too long
        return _pictures_below(Path(entry), skipped, suffixes() | also, set())
    if any(mark in str(entry) for mark in "*?[") and not os.path.exists(entry):  # noqa: PTH110
        names = globbing.glob(str(entry), recursive=True)  # noqa: PTH207  # the pattern may be absolute
        return sorted(Path(name) for name in names if Path(name).is_file())
    return [Path(stored_path(Path(entry)))]


def stored_path(path: Path) -> str:
    """A path as the disk has it: accents may be one character (NFC) or two (NFD), and tables mix them."""
    names = [str(path), *(unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD"))]
    # os.path.exists is False for a name that is too long, where Path.exists raises
    return next(filter(os.path.exists, names), names[0])


def read_list(file: Path, *, null: bool = False) -> Iterator[str]:
    """The names in a text file, one a line, or separated by null characters, as they are read. `-` is stdin.

    UTF-8 with or without a byte order mark, or UTF-16 with one; bytes that are neither stay as they are in the name.
    """
    try:
        with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as stream:
            blocks = iter(partial(stream.read, LIST_BLOCK), b"")
            first = next(blocks, b"")
            blocks = chain([first.removeprefix(codecs.BOM_UTF8)], blocks)
            if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                blocks = map(os.fsencode, codecs.iterdecode(blocks, "utf-16", errors="replace"))
            rest = b""
            for block in chain(blocks, [b"\0" if null else b"\n"]):
                *names, rest = (rest + block).split(b"\0" if null else b"\n")
                yield from (os.fsdecode(name if null else name.removesuffix(b"\r")) for name in names if name.strip())
    except OSError as error:
        raise AesError(f"the list {file} cannot be read: {error.strerror}", fix="pass a file of names") from error


def _pictures_below(
    folder: Path, skipped: Counter[str], kinds: frozenset[str], visited: set[tuple[int, int]]
) -> Iterator[Path]:
    """The files of these kinds in a folder, in the order of their paths.

    `visited`: folders that were searched, by device and inode. A folder that cannot be read is left out.
    """
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        names = sorted(os.listdir(folder))  # noqa: PTH208  # a third of the memory of paths
    except OSError:
        return
    for name in names:
        path = folder / name
        if path.is_dir():
            if name.lower() not in HIDDEN_FOLDERS:
                yield from _pictures_below(path, skipped, kinds, visited)
        elif name.startswith("._"):
            continue
        elif not path.is_file():
            skipped["pipes or devices" if path.exists() else "broken links"] += 1
        elif path.suffix.lower() in kinds:
            yield path
        elif not name.startswith("."):
            skipped[path.suffix.lower() or "no suffix"] += 1


def _about(skipped: Counter[str]) -> str:
    kinds = [f"{count:,} {suffix}" for suffix, count in skipped.most_common(KINDS_NAMED)]
    if len(skipped) > KINDS_NAMED:
        kinds.append(f"{skipped.total() - sum(n for _, n in skipped.most_common(KINDS_NAMED)):,} others")
    readable = sorted((HEIF_SUFFIXES | RAW_SUFFIXES) & skipped.keys())
    advice = f"; to read {', '.join(readable)}, {PHOTOS}" if readable else ""
    return f"skipped {skipped.total():,}: {', '.join(kinds)}{advice}"
