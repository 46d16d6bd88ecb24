"""Joins the results.json of earlier evaluations into one table: a row for each model, a column for each data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aesr1.errors import AesError
from aesr1.evaluation.published import PROTOCOL, published_table
from aesr1.evaluation.tables import cell, table

COLUMNS = ("plcc", "srcc")

Pair = tuple[float | None, float | None]


class _Row(NamedTuple):
    run: str
    model: str
    datasets: Mapping[str, Pair]  # PLCC and SRCC


def join_results(runs: Sequence[Path], *, published: str | None = None) -> str:
    """A Markdown table of PLCC/SRCC from results.json files, or folders that have one, in the order given.

    The mean counts each data set once, and stands only where the run has all data sets of the table: means over
    different sets cannot be compared. `published`: the number of a table of the paper; its rows follow, of the data
    sets that a run has, and each model's difference to the row that the paper proposes. AesError on a file that is
    missing or that `aesr1 eval` has not written, and where no data set is in the paper.
    """
    ours = [
        _Row(str(file.parent), model, {domain: _pair(scores) for domain, scores in entry["datasets"].items()})
        for file in (run / "results.json" if run.is_dir() else run for run in runs)
        for model, entry in _read(file).items()
    ]
    domains = sorted({domain for row in ours for domain in row.datasets})
    if published is None:
        return _table(ours, domains) + "\n\nPLCC/SRCC.\n"
    paper = published_table(published)
    known = [domain for domain in domains if domain in paper.rows[paper.best]]
    if not known:
        raise AesError(
            f"the paper has no scores on {', '.join(domains)}", fix=f"evaluate on {', '.join(paper.rows[paper.best])}"
        )
    rows = [_Row(f"paper, table {published}", model, datasets) for model, datasets in paper.rows.items()]
    gains = [_Row(row.run, f"{row.model} − {paper.best}", _less(row.datasets, paper.rows[paper.best])) for row in ours]
    return "\n\n".join(
        [
            _table([*ours, *rows], domains),
            f"Differences to {paper.best} of table {published} ({paper.title}):",
            _table(gains, known, sign="+"),
            f"PLCC/SRCC. {PROTOCOL}\n",
        ]
    )


def _table(rows: Sequence[_Row], domains: Sequence[str], *, sign: str = "") -> str:
    lines = []
    for row in rows:
        pairs = [row.datasets.get(domain, (None, None)) for domain in domains]
        lines.append(
            [cell(row.run), cell(row.model), *(_text(pair, sign) for pair in pairs), _text(_mean(pairs), sign)]
        )
    return table(["run", "model", *map(cell, domains), "mean"], lines)


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


def _pair(entry: Mapping[str, Any]) -> Pair:
    plcc, srcc = (entry[name] and entry[name]["value"] for name in COLUMNS)
    return plcc, srcc


def _text(pair: Pair, sign: str) -> str:
    if pair == (None, None):
        return "—"
    return "/".join("—" if value is None else f"{value:{sign}.3f}" for value in pair)


def _less(first: Mapping[str, Pair], second: Mapping[str, Pair]) -> dict[str, Pair]:
    """The differences of the data sets that both have."""

    def gap(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    return {
        name: (gap(pair[0], second[name][0]), gap(pair[1], second[name][1]))
        for name, pair in first.items()
        if name in second
    }


def _mean(pairs: Sequence[Pair]) -> Pair:
    """The mean over data sets; None where one has no value, because means of different sets cannot be compared."""
    columns = [[pair[i] for pair in pairs] for i in (0, 1)]
    plcc, srcc = (
        None if None in column else sum(value for value in column if value is not None) / len(column)
        for column in columns
    )
    return (plcc, srcc) if plcc is not None and srcc is not None else (None, None)
