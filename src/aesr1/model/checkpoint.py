"""The stamp (aesr1.json) and the hash of a checkpoint folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from aesr1.contract import VERSION, check_version
from aesr1.errors import AesError
from aesr1.outputs import write_json

STAMP = "aesr1.json"


def weights_hash(folder: Path) -> str:
    """A local checkpoint's revision: size and time of its weights would lie after a copy, so their bytes' hash."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:12]


def stamp_checkpoint(folder: str | os.PathLike[str], *, stage: str) -> None:
    """Mark a checkpoint as whole and of this contract. Written last, so an unstamped folder is unfinished."""
    write_json(Path(folder) / STAMP, {"contract": VERSION, "stage": stage})


def check_stamp(folder: Path) -> None:
    """AesError where a checkpoint was made under another contract; an unmarked one is from elsewhere and may pass."""
    stamp = folder / STAMP
    if not stamp.is_file():
        return
    try:
        version = str(json.loads(stamp.read_text(encoding="utf-8"))["contract"])
    except (ValueError, KeyError, TypeError) as error:
        raise AesError(f"{stamp} is broken: {error}", fix="train the checkpoint again, or copy it again") from error
    check_version(version, where=str(folder))
