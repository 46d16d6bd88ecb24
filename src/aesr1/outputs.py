"""Output folders: files appear whole, a folder is bound to its settings, run.json records the run."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from aesr1 import __version__
from aesr1.contract import VERSION
from aesr1.errors import AesError


@contextmanager
def staged_output(folder: Path, *names: str) -> Iterator[Path]:
    """A folder to write these files or folders into. At the end of the block all appear in `folder`, or none.

    AesError where one exists. Half-written files of a killed run are removed by the next.
    """
    if folder.exists() and not folder.is_dir():
        raise AesError(f"{folder} is a file", fix="choose a folder for the results")
    for name in names:
        if (folder / name).exists():
            raise AesError(f"{folder / name} exists", fix="choose another output folder; nothing is overwritten")
    is_new = not folder.exists()
    part = folder / f".{names[0]}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for name in names:
            (part / name).replace(folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary path to write a file at. At the end of the block the file becomes `path`; an error leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it. Several processes may write the same file at once."""
    _temporary_copy(path, text).replace(path)


def _temporary_copy(path: Path, text: str) -> Path:
    """The text in a new file next to `path`. The name is random: process ids of two machines may be equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f"{path.suffix}.{uuid4().hex}.part")
    temporary.write_text(text, encoding="utf-8")
    return temporary


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, readable."""
    write_text(path, _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


PATH_SETTINGS = ("model", "ratings", "rationales")
"""Settings whose text is a file, a folder or a hub id."""


def require_same_settings(
    folder: Path,
    settings: Any,
    *,
    training: Mapping[str, Any] | None = None,
    free: Container[str] = (),
    fixes: Mapping[str, str] | None = None,
) -> None:
    """Record the settings of an output folder, or check that they are the same as before.

    AesError names the setting that differs.

    `training`: settings of the trainer. `free`: settings that may change. `fixes`: fixes for some settings. Settings
    that an older version did not record are not compared. Of several processes the first records, the others are
    checked.
    """
    path = folder / "settings.json"
    values = dict(settings) if isinstance(settings, Mapping) else asdict(settings)
    current = json.loads(json.dumps(values, default=str))
    path_texts = {
        name: current[name] for name, value in values.items() if isinstance(value, Path) or name in PATH_SETTINGS
    }
    paths = {name: path_now for name, value in path_texts.items() if (path_now := _resolved_path(value))}
    if not path.exists():
        _write_first(path, _json({**current, "training": training, "places": paths} if training else current))
    recorded = json.loads(path.read_text(encoding="utf-8"))
    recorded_training = recorded.get("training") or {}
    for name, value in {**current, **(training or {})}.items():
        section = recorded if name in current else recorded_training
        if name in free or name not in section:
            continue
        old_path, new_path = recorded.get("places", {}).get(name) or _resolved_path(section[name]), paths.get(name)
        if old_path == new_path if old_path and new_path else section[name] == value:
            continue
        raise AesError(
            f"{folder} was started with {name} = {section[name]!r}, now it is {value!r}",
            fix=(fixes or {}).get(name) or "use the same settings to resume, or choose another output folder",
        )


def _resolved_path(value: Any) -> str | None:
    """The absolute path of a file or folder, however it is written; None where it does not exist."""
    try:
        return str(Path(value).resolve()) if isinstance(value, str) and value and Path(value).exists() else None
    except OSError:  # too long to be a name
        return None


def _write_first(path: Path, text: str) -> None:
    """Write a file, unless another process has written it before."""
    temporary = _temporary_copy(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_run(folder: Path, stage: str, config: Any, *, started: float, **results: Any) -> None:
    """Write `run.json`: the stage, its settings, when it ran and how long it took."""
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
