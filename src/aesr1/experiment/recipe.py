"""The recipe of an experiment: stages, tests, cells and seeds, read from YAML and checked."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aesr1.errors import AesError

Setting = str | int | float | bool | Sequence[str | int | float]
Settings = Mapping[str, Setting | None]
"""The flags of a command by name; None takes a flag away. `command` has the words before the flags, `launch` those
before aesr1."""

COMMAND, LAUNCH = "command", "launch"
OWN_PLACES = ("cell", "here", "model", "seed")
"""What `{…}` can name besides a variable and a stage."""
FIELDS = ("extends", "title", "variables", "seeds", "stages", "tests", "model", "cells", "grid", "compare_with")
ADDED = ("variables", "stages", "tests")
"""Fields whose entries, and their flags, are added to those of the recipe that is extended; others replace them."""
FIX = "docs/experiments.md describes the recipe of an experiment"


@dataclass(frozen=True)
class Cell:
    """One column of an experiment: what differs from the stages and tests as they are written."""

    name: str
    model: str  # what the tests judge, with places: "{rapo}"
    changes: Mapping[str, Settings]  # by stage or test

    @property
    def folder(self) -> str:
        """The name as a folder, and as the name of its predictions."""
        return folder_name(self.name)


def folder_name(name: str) -> str:
    """The letters and digits of a name, with - between."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Experiment:
    """A recipe as it is read."""

    title: str
    seeds: tuple[int, ...]
    variables: Mapping[str, str]
    stages: Mapping[str, Settings]
    tests: Mapping[str, Settings]  # each is a call of `aesr1 eval`
    cells: tuple[Cell, ...]
    compare_with: str  # the name of the cell that the others are compared with


def read_experiment(path: Path, *, given: Mapping[str, str] | None = None) -> Experiment:
    """Read and check a recipe. `given`: values of its variables. AesError says which line of it cannot be used."""
    recipe = _fields(path)
    stages, tests = (_commands(path, recipe, name) for name in ("stages", "tests"))
    named = [*stages, *tests, *(recipe.get("variables") or {}), *OWN_PLACES]
    taken = [name for name in named if named.count(name) > 1]
    if taken:
        raise AesError(f"{path} uses the name {taken[0]} for two things", fix="rename one of them")
    cells = _cells(path, recipe, {*stages, *tests})
    compare_with = recipe.get("compare_with", cells[0].name)
    if compare_with not in [cell.name for cell in cells]:
        raise AesError(
            f"{path} compares with {compare_with!r}, which is no cell",
            fix=f"name one of {', '.join(cell.name for cell in cells)}",
        )
    return Experiment(
        title=str(recipe.get("title", path.stem)),
        seeds=_seeds(path, recipe.get("seeds", [0])),
        variables=_variables(path, recipe.get("variables") or {}, given or {}),
        stages=stages,
        tests=tests,
        cells=cells,
        compare_with=compare_with,
    )


def _fields(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The fields of a recipe, over those of the recipe beside it that it extends."""
    if path in extended_by:
        raise AesError(f"{path} extends itself", fix="remove one `extends`")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AesError(f"{path} cannot be read: {error.strerror}", fix="name the recipe of an experiment") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AesError(f"{path} is not YAML: {' '.join(str(error).split())}", fix=FIX) from error
    if not isinstance(recipe, dict):
        raise AesError(f"{path} has no fields", fix=FIX)
    unknown = sorted(set(map(str, recipe)) - set(FIELDS))
    if unknown:
        raise AesError(f"{path} has an unknown field {unknown[0]}", fix=f"the fields are {', '.join(FIELDS)}")
    base = recipe.pop("extends", None)
    if base is None:
        return recipe
    below = _fields(path.parent / str(base), (*extended_by, path))
    return below | {name: _added(below.get(name), value) if name in ADDED else value for name, value in recipe.items()}


def _added(below: Any, own: Any) -> Any:
    """Own entries over those below; the flags of a stage that both have too."""
    if not isinstance(below, dict) or not isinstance(own, dict):
        return own
    return below | {name: _added(below.get(name), value) for name, value in own.items()}


def _commands(path: Path, recipe: Mapping[str, Any], section: str) -> dict[str, Settings]:
    found = recipe.get(section)
    if not isinstance(found, dict) or not found:
        raise AesError(f"{path} has no {section}", fix=FIX)
    for name, settings in found.items():
        if not isinstance(settings, dict) or not isinstance(settings.get(COMMAND), str):
            raise AesError(
                f"{path}: {section} {name} has no command", fix=f"give it one, such as `{COMMAND}: rapo`, and its flags"
            )
        _check_settings(path, f"{section} {name}", settings)
    wrong = [name for name, settings in found.items() if settings[COMMAND].split()[:1] != ["eval"]]
    if section == "tests" and wrong:
        raise AesError(f"{path}: test {wrong[0]} does not call eval", fix="move it to the stages")
    return found


def _check_settings(path: Path, where: str, settings: Any) -> None:
    if not isinstance(settings, dict):
        raise AesError(f"{path}: {where} is {settings!r}, not a list of `name: value`", fix=FIX)
    plain = (str, int, float, bool)
    for name, value in settings.items():
        if value is None or isinstance(value, plain):
            continue
        if not isinstance(value, list) or not all(isinstance(each, plain) for each in value):
            raise AesError(f"{path}: {where} has {name}: {value!r}", fix="give a text, a number, or a list of those")


def _cells(path: Path, recipe: Mapping[str, Any], known: set[str]) -> tuple[Cell, ...]:
    """The cells, each once for every combination of the grid."""
    judged = recipe.get("model")
    if not isinstance(judged, str):
        raise AesError(f"{path} does not say which model is judged", fix='give one, such as `model: "{rapo}"`')
    found = recipe.get("cells") or {"": {}}
    grid = recipe.get("grid") or {}
    for name, values in grid.items():
        if str(name).count(".") != 1 or not isinstance(values, list) or not values:
            raise AesError(f"{path}: grid has {name}: {values!r}", fix="write `stage.setting: [value, …]`")
    cells = []
    for name, changes in found.items():
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            own = dict(changes or {})
            model = own.pop("model", judged)
            for place, value in chosen.items():
                stage, _, setting = place.partition(".")
                own[stage] = {**(own.get(stage) or {}), setting: value}
            for stage, settings in own.items():
                if stage not in known:
                    raise AesError(
                        f"{path}: cell {name or 'of the grid'} changes {stage}, which is no stage and no test",
                        fix=f"the stages and tests are {', '.join(sorted(known))}",
                    )
                _check_settings(path, f"cell {name}, {stage}", settings)
            words = [f"{place.partition('.')[2]} {value}" for place, value in chosen.items()]
            cells.append(Cell(", ".join([*([str(name)] if name else []), *words]) or "all", str(model), own))
    folders = [cell.folder for cell in cells]
    doubled = [cell.name for cell in cells if not cell.folder or folders.count(cell.folder) > 1]
    if doubled:
        raise AesError(f"{path}: the cell {doubled[0]!r} has no name of its own", fix="name it in letters and digits")
    return tuple(cells)


def _seeds(path: Path, seeds: Any) -> tuple[int, ...]:
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise AesError(f"{path} has seeds: {seeds!r}", fix="give a list of different whole numbers, such as [0, 1, 2]")
    return tuple(seeds)


def _variables(path: Path, written: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(set(given) - set(written))
    if unknown:
        raise AesError(
            f"{path} has no variable {unknown[0]}", fix=f"its variables are {', '.join(written) or 'none at all'}"
        )
    values = {**written, **given}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise AesError(f"{path} needs {missing[0]}", fix=f"give it: --set {missing[0]}=VALUE")
    return {name: str(value) for name, value in values.items()}
