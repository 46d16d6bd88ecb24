"""Comparisons as tables, in Markdown, and as the content of results.json. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from aesr1.evaluation.compare import COMPARED, Agreement, Comparison
from aesr1.evaluation.datasets import Study
from aesr1.evaluation.describe import TITLES as REASON_TITLES
from aesr1.evaluation.describe import Reasons
from aesr1.intervals import Interval
from aesr1.metrics import METRICS, PAIR_GAPS, Metric

NAMES = tuple(metric.name for metric in METRICS)
TITLES = {metric.name: metric.title for metric in METRICS}


class Value(NamedTuple):
    """A number and its interval in a cell, as text."""

    text: str
    interval: str = ""
    bold: bool = False


Row = Sequence[str | Value]


class Table(NamedTuple):
    """What a table shows, for Markdown and for a page; the texts of its cells are not escaped."""

    title: str  # the sentence above; the first table has none
    head: Sequence[str]
    rows: Sequence[Row]
    labels: int  # so many first cells of a row say what it is about


def to_results(study: Study) -> dict[str, dict[str, Any]]:
    """The content of results.json: {model: metrics, counts, model}; numbers are finite or None.

    The metrics are means over the data sets, each counted once; `datasets` has those of each, and where it was said
    which sets are in domain, `in_domain` and `out_of_domain` have the means of the two kinds. `imputed`: the metrics
    with missing scores filled in. `against`: the gains over earlier models, by name.
    """
    results = _entries(study.means["all"])
    for name, entry in results.items():
        entry["datasets"] = {domain: _entries(comparison)[name] for domain, comparison in study.datasets.items()}
        for part, comparison in study.means.items():
            if part != "all":
                entry[part.replace(" ", "_")] = _entries(comparison)[name]
    return results


def _entries(comparison: Comparison) -> dict[str, dict[str, Any]]:
    ceiling = comparison.ceiling and {name: asdict(value) for name, value in comparison.ceiling._asdict().items()}
    results = {}
    for each in comparison.evaluations:
        against = {
            difference.first: {"n": difference.gain.n, **_by_metric(difference.gain, COMPARED)}
            for difference in comparison.differences
            if difference.second == each.name
        }
        counts = {"n": each.n, "n_scored": each.n_scored, "n_readable": each.n_readable}
        results[each.name] = {
            **_by_metric(each.scored, NAMES),
            "parse_rate": each.parse_rate and asdict(each.parse_rate),
            **counts,
            "model": each.model,
            "revision": each.revision,
            "decoding": each.decoding,
            "note": each.scored.note,
            "imputed": _by_metric(each.imputed, NAMES),
            "pair_accuracy_by_difficulty": {"n": each.pairs.n, **_by_metric(each.pairs, PAIR_GAPS)},
            "against": against,
            "rater_ceiling": ceiling,
            "bootstrap": {"draws": comparison.draws, "seed": comparison.seed},
        }
    return results


def to_markdown(study: Study, reasons: Mapping[str, Reasons | None] | None = None) -> str:
    """Tables of the metrics, the gains and what the reasons are like, and a note on the intervals."""
    parts = [markdown(each) for each in tables(study)]
    parts += [cell(note) for note in notes(study)]
    parts += [markdown(each) for make in (reasons_table, claims_table, judged_table) if (each := make(reasons or {}))]
    return "\n\n".join([*parts, small_print(study)]) + "\n"


def tables(study: Study) -> list[Table]:
    """The tables of the metrics; where scores are missing, with those filled in; and of the gains."""
    sections = _sections(study)
    found = [_metrics_table(sections)]
    if any(each.n_scored < each.n for _, comparison in sections for each in comparison.evaluations):
        found.append(_imputed_table(sections))
    if study.means["all"].differences:
        found.append(_differences_table(sections))
    return [*found, _pairs_table(sections)]


def notes(study: Study) -> list[str]:
    """What is odd about the scores of a model."""
    return [f"{each.name}: {each.scored.note}." for each in study.means["all"].evaluations if each.scored.note]


Sections = Sequence[tuple[Sequence[str], Comparison]]
"""The first cells of a row, and what it shows: of several data sets their names, of one none."""


def _sections(study: Study) -> Sections:
    if len(study.datasets) == 1:
        return [([], comparison) for comparison in study.datasets.values()]
    means = [
        (["mean" if part == "all" else f"mean {part} ({', '.join(comparison.domains)})"], comparison)
        for part, comparison in study.means.items()
    ]
    return [*(([name], comparison) for name, comparison in study.datasets.items()), *means]


def _metrics_table(sections: Sections) -> Table:
    rows: list[Row] = []
    for label, comparison in sections:
        consecutive = comparison.differences[: len(comparison.evaluations) - 1]
        better = {(each.second, m.name) for each in consecutive for m in METRICS if _is_better(each.gain, m)}
        for each in comparison.evaluations:
            values = [shown_value(each.scored.values.get(name), bold=(each.name, name) in better) for name in NAMES]
            scored = f"{each.n_scored:,} of {each.n:,}"
            rows.append([*label, each.name, scored, shown_value(each.parse_rate), *values])
    return _table(sections, "", ["scored", "readable", *TITLES.values()], rows)


def _imputed_table(sections: Sections) -> Table:
    title = "With each missing score filled in with the mean of the model's other scores:"
    rows: list[Row] = [
        [*label, each.name, *(shown_value(each.imputed.values.get(name)) for name in NAMES)]
        for label, comparison in sections
        for each in comparison.evaluations
    ]
    return _table(sections, title, list(TITLES.values()), rows)


def _differences_table(sections: Sections) -> Table:
    title = "Differences over the images that both scored; bold where the interval excludes 0:"
    rows: list[Row] = []
    for label, comparison in sections:
        for pair in comparison.differences:
            gains = [pair.gain.values.get(name) for name in COMPARED]
            values = [shown_value(gain, bold=gain is not None and gain.excludes_zero, sign="+") for gain in gains]
            rows.append([*label, f"{pair.first} → {pair.second}", f"{pair.gain.n:,}", *values])
    return _table(sections, title, ["images", *(TITLES[name] for name in COMPARED)], rows)


def _pairs_table(sections: Sections) -> Table:
    title = "Pairs that are ordered as people order them, by how far apart people rate the two (0–1):"
    rows: list[Row] = [
        [*label, each.name, f"{each.pairs.n:,}", *(shown_value(each.pairs.values.get(name)) for name in PAIR_GAPS)]
        for label, comparison in sections
        for each in comparison.evaluations
    ]
    return _table(sections, title, ["images", *PAIR_GAPS], rows)


def _table(sections: Sections, title: str, head: Sequence[str], rows: Sequence[Row]) -> Table:
    """A table whose rows begin with the data set, where there are several, and the name."""
    labels = ["data set"] * len(sections[0][0]) + [""]
    return Table(title, [*labels, *head], rows, len(labels))


def reasons_table(reasons: Mapping[str, Reasons | None]) -> Table | None:
    """What the reasons of each model are like; None where no model gave any."""
    rows: list[Row] = [
        [name, f"{found.n:,}", f"{found.distinct_texts:.3f}", f"{found.distinct_bigrams:.3f}"]
        + [shown_value(found.measures[measure]) for measure in REASON_TITLES]
        for name, found in reasons.items()
        if found is not None
    ]
    head = ["", "texts", "different texts", "different word pairs", *REASON_TITLES.values()]
    title = "What the reasons are like (docs/evaluation.md says how each is measured):"
    return Table(title, head, rows, 1) if rows else None


def claims_table(reasons: Mapping[str, Reasons | None]) -> Table | None:
    """How many claims of each model's reasons are right, by what they are about; None where there are none."""
    rows: list[Row] = [
        [name, kind, f"{each.n:,}", shown_value(each.right), f"{each.chance:.3f}", shown_value(each.contradicted)]
        for name, found in reasons.items()
        for kind, each in (found.claims.items() if found else ())
    ]
    head = ["", "about", "claims", "right", "right about another picture", "contradicted"]
    return Table("Claims of the reasons that measuring can check:", head, rows, 2) if rows else None


def judged_table(reasons: Mapping[str, Reasons | None]) -> Table | None:
    """How much of each model's reasons is true by another model; None where none was asked."""
    judged = {name: found.judged for name, found in reasons.items() if found and found.judged}
    rows: list[Row] = [
        [
            name,
            f"{each.n:,}",
            *(shown_value(value) for value in (each.own, each.other)),
            shown_value(each.difference, sign="+"),
        ]
        for name, each in judged.items()
    ]
    judge = ", ".join(sorted({each.judge for each in judged.values()}))
    head = ["", "texts", "true", "true of another picture", "difference"]
    return Table(f"How much of the reasons is true, 0–1, by {judge}:", head, rows, 1) if rows else None


def _by_metric(agreement: Agreement, names: Iterable[str]) -> dict[str, dict[str, float] | None]:
    values = {name: agreement.values.get(name) for name in names}
    return {name: None if value is None else asdict(value) for name, value in values.items()}


def _is_better(gain: Agreement, metric: Metric) -> bool:
    interval = gain.values.get(metric.name)
    return interval is not None and interval.excludes_zero and (interval.value > 0) == metric.higher_is_better


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def markdown(shown: Table) -> str:
    """A table under its title."""
    rows = [[cell(each) if isinstance(each, str) else _markdown_value(each) for each in row] for row in shown.rows]
    return "\n\n".join(part for part in (shown.title, table(shown.head, rows)) if part)


def _markdown_value(value: Value) -> str:
    return " ".join(part for part in (f"**{value.text}**" if value.bold else value.text, value.interval) if part)


def shown_value(interval: Interval | None, *, bold: bool = False, sign: str = "") -> Value:
    """A number with three decimals and its interval, as a cell."""
    if interval is None:
        return Value("—")
    return Value(f"{interval.value:{sign}.3f}", f"[{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]", bold)


def small_print(study: Study) -> str:
    """How scores were read, where the intervals come from, and how far a second panel of people would agree."""
    comparison = study.means["all"]
    counts = [each.evaluations[0].n for each in study.datasets.values()]
    draws, several = comparison.draws, len(counts) > 1
    readings = " or ".join(sorted({each.decoding for each in comparison.evaluations}))
    text = (
        f"Scores read by {readings}. {sum(counts):,} images; [95 % intervals] from {draws:,} bootstrap draws over "
        f"images, seed {comparison.seed}; of the readable share, Wilson's. The logistic curve is fitted to these "
        "images."
    )
    if several:
        text += " A mean counts each data set once; its interval takes the sets as given."
    if comparison.differences:
        text += " Bold: better than the row before, the interval of the paired difference excluding 0."
    for name, each in study.datasets.items():
        if each.ceiling:
            plcc, srcc = (_markdown_value(shown_value(found)) for found in (each.ceiling.plcc, each.ceiling.srcc))
            text += f" A second panel of as many raters{f' of {name}' if several else ''} would reach PLCC "
            text += f"{plcc}, SRCC {srcc} ({each.ceiling_n:,} images with votes)."
    return text
