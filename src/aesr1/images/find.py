"""Finds pictures in folders and by patterns, and counts what was skipped."""

from __future__ import annotations

import codecs
import glob as globbing
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from aesr1.errors import AesError
from aesr1.images.formats import HEIF_SUFFIXES, PHOTOS, RAW_SUFFIXES, suffixes

HIDDEN_FOLDERS = frozenset({"@eadir", ".thumbnails", ".trash", "__macosx"})
"""Folders in which systems keep small copies of pictures."""
KINDS_NAMED = 5


class FoundImages(NamedTuple):
    """Absolute paths, each once, in order; and what is to be said about the search."""

    paths: list[Path]
    warnings: list[str]


def find_images(inputs: Iterable[str | Path]) -> FoundImages:
    """Pictures of files, folders (searched with all folders in them) and globs.

    A file given by name is kept whatever its suffix, so that its error is reported. Links to folders are followed,
    each folder once. An input that matches nothing is a warning; AesError where none matches.
    """
    paths: dict[Path, None] = {}
    warnings: list[str] = []
    skipped: Counter[str] = Counter()
    for entry in inputs:
        if os.path.isdir(entry):  # noqa: PTH112  # False for a name that is too long
            matches = sorted(_pictures_below(Path(entry), skipped))
        elif any(mark in str(entry) for mark in "*?[") and not os.path.exists(entry):  # noqa: PTH110
            names = globbing.glob(str(entry), recursive=True)  # noqa: PTH207  # the pattern may be absolute
            matches = sorted(Path(name) for name in names if Path(name).is_file())
        else:
            matches = [Path(stored_path(Path(entry)))]
        if not matches:
            warnings.append(f"{entry} holds no pictures")
        paths.update(dict.fromkeys(match.absolute() for match in matches))
    if skipped:
        warnings.append(_about(skipped))
    if not paths:
        raise AesError("; ".join(warnings) or "no files were given", fix=f"looked for {', '.join(sorted(suffixes()))}")
    return FoundImages(list(paths), warnings)


def stored_path(path: Path) -> str:
    """A path as the disk has it: accents may be one character (NFC) or two (NFD), and tables mix them."""
    names = [str(path), *(unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD"))]
    # os.path.exists is False for a name that is too long, where Path.exists raises
    return next(filter(os.path.exists, names), names[0])


def read_list(file: Path, *, null: bool = False) -> list[str]:
    """The names in a text file, one a line, or separated by null characters. `-` is stdin.

    UTF-8 with or without a byte order mark, or UTF-16 with one; bytes that are neither stay as they are in the name.
    """
    content = sys.stdin.buffer.read() if str(file) == "-" else _read(file)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = os.fsencode(content.decode("utf-16", errors="replace"))
    names = content.removeprefix(codecs.BOM_UTF8).split(b"\0" if null else b"\n")
    return [os.fsdecode(name if null else name.removesuffix(b"\r")) for name in names if name.strip()]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise AesError(f"the list {file} cannot be read: {error.strerror}", fix="pass a file of names") from error


def _pictures_below(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if name.lower() not in HIDDEN_FOLDERS)
        for name in files:
            path = Path(place, name)
            if name.startswith("._"):
                continue
            if not path.is_file():
                skipped["pipes or devices" if path.exists() else "broken links"] += 1
            elif path.suffix.lower() in suffixes():
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
