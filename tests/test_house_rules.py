"""The house rules that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "aesr1"
MODULES = sorted(SOURCE.rglob("*.py"))
STAGES = ("ratings", "aescot", "cold_start", "rapo", "evaluation", "app")


def imports(path: Path) -> set[str]:
    """Every aesr1 module that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in names if name.startswith("aesr1.")}


def stage_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", [p for p in MODULES if stage_of(p) in STAGES], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_no_stage_imports_another(path):
    others = {name.split(".")[1] for name in imports(path)} & set(STAGES) - {stage_of(path)}
    assert not others


def test_the_reply_grammar_stands_in_the_contract_alone():
    tags = ("<answer>", "</answer>", "<think>", "</think>")
    assert [p.name for p in MODULES if any(tag in p.read_text() for tag in tags)] == ["contract.py"]


def test_the_pixel_cap_is_written_in_the_contract_alone():
    files = (path for path in sorted(SOURCE.rglob("*")) if path.suffix in (".py", ".yaml", ".j2"))
    lines = [
        f"{path.name}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if re.search("262_?144", line)
    ]
    assert lines == ["contract.py: MAX_PIXELS = 262_144"]


def test_importing_the_package_is_instant_and_brings_no_model_library():
    heavy = "print([m for m in ('torch', 'transformers', 'numpy', 'trl', 'PIL') if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys, aesr1; {heavy}"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_scoring_needs_no_training_library():
    scoring = "import sys, aesr1.model.predict, aesr1.app.score, aesr1.evaluation.run"
    code = f"{scoring}; print([m for m in ('trl', 'peft', 'datasets') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
