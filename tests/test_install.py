"""The wheel, installed without the sources, holds all that `aesr1 score photo.jpg` needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from packaging.requirements import Requirement

from aesr1.tiny.scenes import draw_scene, sample_scene

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by this environment's hatchling: no index is asked for one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (path,) = folder.glob("aesr1-*.whl")
    return path


def required(name: str) -> set[str]:
    """The distributions that this one requires without extras, and those that they require."""
    found, left = set(), [(name, "")]
    while left:
        name, extra = left.pop()
        for requirement in map(Requirement, distribution(name).requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                new = {(requirement.name, each) for each in ("", *requirement.extras)} - found
                found |= new
                left += new
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment of the wheel and what it requires without extras, linked from here: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    for name in required("aesr1"):
        for top in {
            file.parts[0] for file in distribution(name).files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            if not (packages / top).exists():
                (packages / top).symlink_to(distribution(name).locate_file(top))
    return folder


def run(*command: str | Path, folder: Path) -> str:
    """Run a command with neither our PYTHONPATH nor our folder; return what it prints."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_the_wheel_holds_every_file_of_the_package(wheel):
    in_sources = {
        path.relative_to(SOURCES).as_posix()
        for path in (SOURCES / "aesr1").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {Path(name).suffix for name in in_sources} >= {".j2", ".txt", ".safetensors", ".yaml", ".typed"}
    assert in_sources <= set(ZipFile(wheel).namelist())


def test_the_installed_command_scores_a_photo(environment, tmp_path):
    draw_scene(sample_scene(np.random.default_rng(0))).convert("RGB").save(tmp_path / "photo.jpg")
    where = run(environment / "bin" / "python", "-c", "import aesr1; print(aesr1.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    row = json.loads(run(environment / "bin" / "aesr1", "score", "photo.jpg", "--json", folder=tmp_path))
    assert 0 <= row["score"] <= 1 and row["error"] is None
