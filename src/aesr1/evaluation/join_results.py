"""Joins the results.json of earlier evaluations into one table: a row for each model, a column for each data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aesr1.errors import AesError
from aesr1.evaluation.tables import cell, table

COLUMNS = ("plcc", "srcc")


def join_results(runs: Sequence[Path]) -> str:
    """A Markdown table of PLCC/SRCC from results.json files, or folders that have one, in the order given.

    The mean counts each data set once, and stands only where the run has all data sets of the table: means over
    different sets cannot be compared. AesError on a file that is missing or that `aesr1 eval` has not written.
    """
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for run in runs:
        file = run / "results.json" if run.is_dir() else run
        for model, entry in _read(file).items():
            rows.append((cell(str(file.parent)), cell(model), entry["datasets"]))
    domains = sorted({domain for _, _, datasets in rows for domain in datasets})
    lines = []
    for run_name, model, datasets in rows:
        values = [_pair(datasets[domain]) if domain in datasets else "—" for domain in domains]
        lines.append([run_name, model, *values, _mean([datasets.get(domain) for domain in domains])])
    return table(["run", "model", *map(cell, domains), "mean"], lines) + "\n\nPLCC/SRCC.\n"


def _read(file: Path) -> dict[str, Any]:
    try:
        results = json.loads(file.read_text())
    except OSError as error:
        raise AesError(
            f"{file} cannot be read: {error.strerror}", fix="name the output folders of aesr1 eval"
        ) from error
    except ValueError as error:
        raise AesError(f"{file} is not JSON", fix="name the output folders of aesr1 eval") from error
    if not isinstance(results, dict) or not all("datasets" in entry for entry in results.values()):
        raise AesError(
            f"{file} has no results by data set", fix="evaluate again: aesr1 eval now writes them, and resumes"
        )
    return results


def _pair(entry: dict[str, Any]) -> str:
    return "/".join("—" if entry[name] is None else f"{entry[name]['value']:.3f}" for name in COLUMNS)


def _mean(entries: Sequence[dict[str, Any] | None]) -> str:
    means = []
    for name in COLUMNS:
        values = [entry[name]["value"] for entry in entries if entry is not None and entry[name] is not None]
        means.append(f"{sum(values) / len(values):.3f}" if len(values) == len(entries) else "—")
    return "/".join(means) if "—" not in means else "—"
