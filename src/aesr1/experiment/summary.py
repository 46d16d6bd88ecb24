"""One table over all cells and seeds of an experiment: means over seeds, their intervals, and differences of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aesr1.errors import AesError
from aesr1.evaluation.compare import by_domain, filled_scores
from aesr1.evaluation.run import read_evaluation
from aesr1.evaluation.tables import Row, Table, Value, markdown, shown_value
from aesr1.experiment.plan import Plan
from aesr1.experiment.recipe import Experiment
from aesr1.intervals import Interval, seeds_bootstrap
from aesr1.metrics import METRICS, Column

COMPARED = tuple(metric for metric in METRICS if metric.compared)


@dataclass(frozen=True)
class Entry:
    """What a cell reaches on one data set of one test."""

    cell: str
    mean: Mapping[str, Interval]  # by metric: over seeds, resampled over images
    seeds: Mapping[str, list[float]]  # by metric: the value of each seed
    readable: float  # share of readable replies, over all seeds
    gain: Mapping[str, Interval] | None  # over the cell of comparison, by metric; None for that cell itself


@dataclass(frozen=True)
class Section:
    """One data set of one test."""

    test: str
    domain: str
    images: int
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Summary:
    """All results of an experiment."""

    title: str
    seeds: tuple[int, ...]
    compare_with: str
    sections: Sequence[Section]

    def name(self, section: Section) -> str:
        """How a section is called; the data set where a test has several."""
        alone = sum(each.test == section.test for each in self.sections) == 1
        return section.test if alone else f"{section.test}, {section.domain}"


class _Scores(NamedTuple):
    """Of a cell on a data set."""

    images: tuple[str, ...]
    human: Column  # (n,)
    predicted: list[Column]  # of each seed (n,); a missing score is the mean of the others
    readable: float


def summarize(experiment: Experiment, plan: Plan) -> Summary:
    """Read all evaluations and compare them. AesError where two cells or seeds were judged on different images."""
    sections = []
    for test in experiment.tests:
        read = {cell.name: _read(experiment, plan, cell.name, test) for cell in experiment.cells}
        base = read[experiment.compare_with]
        for domain, first in base.items():
            entries = []
            for name, sets in read.items():
                own = sets.get(domain)
                if own is None or own.images != first.images:
                    raise AesError(
                        f"the test {test} has other images for {name} than for {experiment.compare_with}",
                        fix="let all cells and seeds be judged on the same ratings",
                    )
                runs = own.predicted
                entries.append(
                    Entry(
                        cell=name,
                        mean=seeds_bootstrap(COMPARED, runs, own.human),
                        seeds={each.name: [each(run, own.human) for run in runs] for each in COMPARED},
                        readable=own.readable,
                        gain=None
                        if name == experiment.compare_with
                        else seeds_bootstrap(COMPARED, runs, own.human, before=first.predicted),
                    )
                )
            sections.append(Section(test, domain, len(first.images), entries))
    return Summary(experiment.title, experiment.seeds, experiment.compare_with, sections)


def _read(experiment: Experiment, plan: Plan, cell: str, test: str) -> dict[str, _Scores]:
    """The scores of a cell on each data set of a test."""
    found: dict[str, _Scores] = {}
    for seed in experiment.seeds:
        ratings, predictions = read_evaluation(plan.evaluations[cell, test, seed])
        if len(predictions) != 1:
            raise AesError(
                f"the test {test} judges {len(predictions)} models",
                fix='let it judge one: `model: "{cell}={model}"`',
            )
        (rows,) = predictions.values()
        of_image = {row.image: row for row in rows}
        for domain, rated in by_domain(ratings).items():
            images = tuple(rating.image for rating in rated)
            own = [of_image[image] for image in images]
            scores = np.array([np.nan if row.score is None else row.score for row in own])
            human = np.array([rating.score for rating in rated])
            readable = float(np.mean([bool(row.readable) for row in own]))
            known = found.setdefault(domain, _Scores(images, human, [], 0.0))
            if known.images != images:
                raise AesError(
                    f"the test {test} has other images for seed {seed} of {cell}",
                    fix="draw the test images with one seed for all runs",
                )
            filled = filled_scores(scores)
            if not filled.size:
                raise AesError(f"{cell}, seed {seed}, gave no score in the test {test}", fix="look at its replies")
            share = known.readable + readable / len(experiment.seeds)
            found[domain] = known._replace(predicted=[*known.predicted, filled], readable=share)
    return found


def tables(summary: Summary) -> list[Table]:
    """Of each section a table of the metrics and one of the differences."""
    shown = []
    several = len(summary.seeds) > 1
    for section in summary.sections:
        head = ["", *(metric.title for metric in COMPARED), "readable"]
        rows: list[Row] = [
            [
                each.cell,
                *(_mean(each, metric.name, several=several) for metric in COMPARED),
                f"{each.readable:.3f}",
            ]
            for each in section.entries
        ]
        what = "mean over seeds (standard deviation over seeds) [95 % over images]" if several else "[95 % over images]"
        shown.append(Table(f"{summary.name(section)}, {section.images:,} images; {what}:", head, rows, 1))
        gains: list[Row] = [
            [
                each.cell,
                *(
                    shown_value(each.gain[metric.name], bold=each.gain[metric.name].excludes_zero, sign="+")
                    for metric in COMPARED
                ),
            ]
            for each in section.entries
            if each.gain is not None
        ]
        if gains:
            title = f"Differences to {summary.compare_with}, on the same images; bold where the interval excludes 0:"
            shown.append(Table(title, head[:-1], gains, 1))
    return shown


def _mean(entry: Entry, metric: str, *, several: bool) -> Value:
    shown = shown_value(entry.mean[metric])
    spread = f" ({np.std(entry.seeds[metric], ddof=1):.3f})" if several else ""
    return shown._replace(text=shown.text + spread)


def small_print(summary: Summary) -> str:
    """Where the intervals come from, and what they leave out."""
    return (
        f"Seeds {', '.join(map(str, summary.seeds))}. The intervals resample the images, the same for all seeds and "
        "cells; they say nothing of other seeds, whose spread the standard deviation shows. A missing score counts as "
        "the mean of the run's other scores."
    )


def to_markdown(summary: Summary) -> str:
    """The tables as Markdown."""
    parts = [f"# {summary.title}", *map(markdown, tables(summary)), small_print(summary)]
    return "\n\n".join(parts) + "\n"
