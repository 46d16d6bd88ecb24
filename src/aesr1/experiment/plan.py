"""The steps of an experiment: each a command with a folder, after the steps that it needs."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aesr1.errors import AesError
from aesr1.experiment.recipe import COMMAND, FIX, LAUNCH, Cell, Experiment, Setting, folder_name

PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Step:
    """One command. Cells whose command and needs are the same share it."""

    name: str  # of its stage or test
    folder: Path
    words: tuple[str, ...]  # of aesr1, without the program
    launch: tuple[str, ...]  # before `aesr1`, such as accelerate's; empty: this Python
    needs: tuple[Step, ...]
    depth: int  # 0: needs nothing
    users: list[str] = field(default_factory=list, compare=False)  # "cell, seed N"

    @property
    def used_by(self) -> str:
        """The cells and seeds that use it, at most two by name."""
        more = f"; {len(self.users) - 2} more" if len(self.users) > 2 else ""
        return "; ".join(self.users[:2]) + more

    @property
    def output(self) -> Path:
        """What `{here}` was in the command."""
        return self.folder / "output"


@dataclass(frozen=True)
class Plan:
    """All steps, those that need nothing first, and the folders of the evaluations."""

    steps: tuple[Step, ...]
    evaluations: Mapping[tuple[str, str, int], Path]  # by cell, test and seed


def make_plan(experiment: Experiment, output: Path) -> Plan:
    """The steps of all cells and seeds. AesError on a place that names nothing, and on stages that need each other."""
    steps: dict[Path, Step] = {}
    evaluations = {}
    for seed in experiment.seeds:
        for cell in experiment.cells:
            branch = _Branch(experiment, cell, seed, output, steps)
            for test in experiment.tests:
                evaluations[cell.name, test, seed] = branch.step(test).output
    return Plan(tuple(sorted(steps.values(), key=lambda step: step.depth)), evaluations)


class _Branch:
    """The steps of one cell with one seed; those that another branch has are taken from it."""

    def __init__(self, experiment: Experiment, cell: Cell, seed: int, output: Path, steps: dict[Path, Step]) -> None:
        self.experiment, self.cell, self.output, self.steps = experiment, cell, output, steps
        self.user = f"{cell.name}, seed {seed}"
        self.places = {**experiment.variables, "seed": str(seed), "cell": cell.folder}
        self.open: list[str] = []

    def step(self, name: str) -> Step:
        """The step of a stage or a test."""
        if name in self.open:
            raise AesError(f"the stages need each other: {' → '.join([*self.open, name])}", fix="remove one place")
        self.open.append(name)
        is_test = name in self.experiment.tests
        written = (self.experiment.tests if is_test else self.experiment.stages)[name]
        settings = {**written, **self.cell.changes.get(name, {})}
        text = {flag: _words(flag, value) for flag, value in settings.items() if value is not None}
        needs: dict[str, Step] = {}
        filled = {flag: [self._filled(word, needs, where=name) for word in words] for flag, words in text.items()}
        self.open.pop()
        place = f"cells/{self.cell.folder}/seed-{self.places['seed']}" if is_test else "stages"
        folder = self.output / place / f"{folder_name(name)}-{_digest(filled, needs)}"
        if folder not in self.steps:
            real = {"here": str(folder / "output"), **{place: str(step.output) for place, step in needs.items()}}
            words = {flag: [_put(word, real) for word in words] for flag, words in filled.items()}
            command, launch = tuple(words.pop(COMMAND)), tuple(shlex.split(" ".join(words.pop(LAUNCH, []))))
            flags = [part for flag, values in words.items() for part in _flag(flag, values, command)]
            depth = 1 + max((step.depth for step in needs.values()), default=-1)
            self.steps[folder] = Step(name, folder, (*command, *flags), launch, tuple(needs.values()), depth)
        if self.user not in self.steps[folder].users:
            self.steps[folder].users.append(self.user)
        return self.steps[folder]

    def _filled(self, text: str, needs: dict[str, Step], *, where: str) -> str:
        """The text with values for variables, seed and cell; places of folders stay, and their steps go to `needs`."""

        def fill(match: re.Match[str]) -> str:
            place = match[1]
            if place == "model" and where in self.experiment.tests:
                return self._filled(self.cell.model, needs, where="the judged model")
            if place in self.places:
                return self.places[place]
            if place in self.experiment.stages:
                needs[place] = self.step(place)
            elif place != "here":
                known = ", ".join(sorted({*self.places, *self.experiment.stages, "here"}))
                raise AesError(f"{where} names {{{place}}}, which is nothing", fix=f"it can name {known}; {FIX}")
            return match[0]

        return PLACE.sub(fill, text)


def _words(flag: str, value: Setting) -> list[str]:
    """The words of a setting, with places. A command is split before its places are filled: paths may hold spaces."""
    if flag == COMMAND:
        return shlex.split(str(value))
    values = value if isinstance(value, list | tuple) else [value]
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]


def _flag(name: str, values: Sequence[str], command: Sequence[str]) -> list[str]:
    """A flag with its values. Flags of training take several values at once, those of other commands are repeated."""
    if command[:1] in (("sft",), ("rapo",)) or not values:
        return [f"--{name}", *values]
    return [part for value in values for part in (f"--{name}", value)]


def _put(text: str, values: Mapping[str, str]) -> str:
    return PLACE.sub(lambda match: values.get(match[1], match[0]), text)


def _digest(filled: Mapping[str, list[str]], needs: Mapping[str, Step]) -> str:
    """Eight letters that change with the command, with the file of its recipe, and with the steps that it needs."""
    content = ""
    if "config" in filled:
        path = Path(filled["config"][0])
        try:
            content = path.read_text(encoding="utf-8")
        except OSError as error:
            raise AesError(f"{path} cannot be read: {error.strerror}", fix="name a recipe after config") from error
    known = [filled, content, {place: step.folder.name for place, step in needs.items()}]
    return hashlib.blake2b(json.dumps(known).encode(), digest_size=4).hexdigest()
