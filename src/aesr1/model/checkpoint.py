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


def weights_hash(folder: Path, *, base: str = "") -> str:
    """The revision of a local checkpoint: a hash of its weights, because size and time change when it is copied.

    `base`: the revision of the model that an adapter is merged into. As when loading, .bin files count only where
    there are no .safetensors. AesError where there are no weights.
    """
    digest = hashlib.sha256(base.encode())
    files = sorted(folder.glob("*.safetensors")) or [
        path for pattern in ("pytorch_model*.bin", "adapter_model.bin") for path in sorted(folder.glob(pattern))
    ]
    if not files:
        raise AesError(f"{folder} holds no weights", fix="copy its .safetensors files, or pass another folder")
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:12]


def stamp_checkpoint(folder: str | os.PathLike[str], *, stage: str) -> None:
    """Mark a checkpoint as complete and of this contract. Written last, so a folder without it is unfinished."""
    write_json(Path(folder) / STAMP, {"contract": VERSION, "stage": stage})


def check_stamp(folder: Path) -> None:
    """AesError where a checkpoint has another contract version.

    One without a stamp is from another source and may pass.
    """
    stamp = folder / STAMP
    if not stamp.is_file():
        return
    try:
        version = str(json.loads(stamp.read_text(encoding="utf-8"))["contract"])
    except (ValueError, KeyError, TypeError) as error:
        raise AesError(f"{stamp} is broken: {error}", fix="train the checkpoint again, or copy it again") from error
    check_version(version, where=str(folder))
