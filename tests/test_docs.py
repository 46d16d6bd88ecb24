"""README and docs: every command parses, every named file exists, and the file tree is the real one."""

from __future__ import annotations

import ast
import re
import shlex
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import typer
from families import BUILDERS

from aesr1 import cold_start
from aesr1.cli.main import app
from aesr1.rapo import train
from aesr1.training.dry_run import DryRun

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "aesr1"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
STAGES = {"sft": cold_start.SETTINGS, "rapo": train.SETTINGS}


def commands() -> list[tuple[str, str]]:
    """Page and command of every line in a code block, or of inline code, that calls aesr1."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"```(?:bash)?\n(.*?)```", text, re.DOTALL)
        lines = [line for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
        inline = [
            " ".join(code.split()) for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        ]
        for line in (*lines, *inline):
            match = re.match(r"\s*(?:accelerate launch .*-m )?aesr1 (?!--version)(\w.*)", line)
            if match and "…" not in line:
                found.append((page.name, match[1].split(" # ")[0].strip()))
    return found


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The subcommand that the words name, and the rest of them."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_of_the_docs_parses(page, line):
    command, rest = leaf(shlex.split(line))
    flags = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    if command.name in STAGES:
        known = {name for kind in (*STAGES[command.name], DryRun) for name in kind.__dataclass_fields__}
        known |= {"config", "help", "help-all"}
        assert {flag.lstrip("-") for flag in flags} <= known
    else:
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert set(flags) <= known | {"--help", "-h"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_make_target_that_the_docs_name_exists(page):
    text = page.read_text()
    for path in re.findall(r"\b((?:bench|recipes|scripts|docs|tests|src)/[\w./-]+\.(?:py|yaml|md|j2|txt))\b", text):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(
        re.findall(
            r"`?make ([a-z][a-z-]+)`?(?= |`|\n|$|\)|;|,)", "\n".join(re.findall(r"`[^`]*`|^make.*$", text, re.M))
        )
    ) <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_function_that_the_docs_name_exists(page):
    for dotted in re.findall(r"`((?:[a-z_]+\.)+(?!(?:py|jsonl?|yaml|txt|csv|md|html)`)[A-Za-z_]+)`", page.read_text()):
        *modules, name = dotted.removeprefix("aesr1.").split(".")
        file = SOURCE.joinpath(*modules).with_suffix(".py")
        if file.exists():
            assert re.search(rf"\b{name}\b", file.read_text()), dotted


def test_every_tested_family_is_in_the_table_of_families():
    table = (ROOT / "docs" / "deploy.md").read_text().partition("## Families")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    names = {re.sub(r"\(.*| ", "", name).lower() for row in rows for name in row.split(", ")}
    assert BUILDERS.keys() <= names


def test_the_file_tree_of_the_architecture_is_the_real_one():
    block = (ROOT / "docs" / "architecture.md").read_text().partition("## Every file of src/aesr1")[2].split("```")[1]
    named, folder = set(), ""
    for line in block.splitlines():
        word = line.split(" ")[0] if line and not line.startswith(" ") else line.split()[0] if line.strip() else ""
        if line.startswith("  "):
            named.add(folder + word)
        elif word:
            folder = "" if word == "src/aesr1/" else word
    for entry in list(named):
        assert list(SOURCE.glob(entry)), f"{entry} does not exist"
    real = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*")
        if path.suffix in (".py", ".j2", ".txt", ".yaml") and path.name not in ("__init__.py", "__main__.py")
    }
    covered = {str(path.relative_to(SOURCE)) for entry in named for path in SOURCE.glob(entry)}
    assert real <= covered, real - covered


def test_the_import_graph_of_the_architecture_is_the_real_one_and_has_no_circle():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn: dict[str, set[str]] = {}
    for line in re.findall(r"^  (.+ --> .+)$", text, re.MULTILINE):
        sources, targets = (side.split(" & ") for side in line.split(" --> "))
        for source in sources:
            drawn.setdefault(source, set()).update(targets)
    shared = set(re.findall(r"`(\w+)`", text.partition("Not drawn: ")[2].partition("\n")[0]))
    real: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            modules = names if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            if modules == ["aesr1"]:
                modules = [f"aesr1.{name}" for name in names]
            for module in modules:
                if module.startswith("aesr1.") and module.split(".")[1] != room:
                    real.setdefault(room, set()).add(module.split(".")[1])
    TopologicalSorter(real).prepare()  # CycleError names a circle
    without_shared = {room: targets - shared - {"__version__"} for room, targets in real.items()}
    for package_file in ("__init__", "__main__"):
        without_shared.pop(package_file)
    assert {room: targets for room, targets in without_shared.items() if targets} == drawn
