"""What a result was made with: the command, versions, and hashes of the files that were read."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from aesr1 import __version__


@dataclass(frozen=True)
class Provenance:
    """For run.json and the page of an evaluation."""

    command: str  # as a shell takes it
    versions: dict[str, str]  # by the name of the package
    hashes: dict[str, str]  # blake2b of 16 bytes, by path


def provenance(files: Iterable[Path]) -> Provenance:
    """The command of this process, the versions of what decides scores, and the hashes of these files."""
    program = Path(sys.argv[0])
    name = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return Provenance(
        command=shlex.join([*name, *sys.argv[1:]]),
        versions={
            "aesr1": __version__,
            **{package: version(package) for package in ("torch", "transformers", "numpy")},
            "python": platform.python_version(),
        },
        hashes={str(path): _hash(path) for path in files},
    )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
