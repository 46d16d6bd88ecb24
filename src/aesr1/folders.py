"""Output folders: whole files or none, bound to their settings, with `run.json` beside them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aesr1 import __version__
from aesr1.contract import VERSION
from aesr1.errors import AesError


@contextmanager
def staged(folder: Path, *names: str) -> Iterator[Path]:
    """A folder to write these files or folders into: at the block's end they all appear in `folder`, or none does.

    AesError where one is there already. What a killed run left half-written is swept away by the next.
    """
    if folder.exists() and not folder.is_dir():
        raise AesError(f"{folder} is a file", fix="choose a folder for the results")
    for name in names:
        if (folder / name).exists():
            raise AesError(f"{folder / name} exists", fix="choose another output folder; nothing is overwritten")
    made = not folder.exists()
    part = folder / f".{names[0]}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for name in names:
            (part / name).replace(folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a file whole: aside, then renamed. Several processes may write the same at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f"{path.suffix}.{os.getpid()}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, readable."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def claim(folder: Path, config: Any) -> None:
    """Bind an output folder to the settings it was begun with: a resumed run must not mix two. AesError says which."""
    path = folder / "settings.json"
    settings = json.loads(json.dumps(asdict(config), default=str))
    if not path.exists():
        write_json(path, settings)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        name = changed[0]
        raise AesError(
            f"{folder} was begun with {name} = {before.get(name)!r}, now it is {settings[name]!r}",
            fix="call it with the same settings to go on, or choose another output folder",
        )


def write_run(folder: Path, stage: str, config: Any, *, started: float, **results: Any) -> None:
    """`run.json` beside an output: what made it, with which settings, when, how long it took."""
    settings = asdict(config) if hasattr(config, "__dataclass_fields__") else config
    write_json(
        folder / "run.json",
        {
            "stage": stage,
            "aesr1": __version__,
            "contract": VERSION,
            "config": json.loads(json.dumps(settings, default=str)),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 1),
            **results,
        },
    )
