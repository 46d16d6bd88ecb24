"""The table and the page of an experiment: values by hand, intervals, and a real browser."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from browser import check_self_contained, opened, resize

from aesr1.errors import AesError
from aesr1.experiment.page import plots, span, write_page
from aesr1.experiment.plan import make_plan
from aesr1.experiment.recipe import Cell, Experiment
from aesr1.experiment.summary import summarize, to_markdown
from aesr1.intervals import Interval
from aesr1.json_lines import write_rows
from aesr1.outputs import write_json
from aesr1.records import Prediction, Rating

HUMAN = (0.1, 0.3, 0.5, 0.7, 0.9)
STAGES = {"rapo": {"command": "rapo", "seed": "{seed}", "output_dir": "{here}"}}
TESTS = {"val": {"command": "eval R", "model": "{cell}={model}", "output": "{here}"}}
CELLS = (Cell("error only", "{rapo}", {}), Cell("both <b>", "{rapo}", {"rapo": {"sigma": 0.2}}))


def experiment(seeds=(0, 1)) -> Experiment:
    return Experiment("Rewards <b>", seeds, {}, STAGES, TESTS, CELLS, CELLS[0].name)


def judge(folder: Path, name: str, scores, *, images=None, human=HUMAN, domain="photos", readable=True) -> None:
    """An evaluation as `aesr1 eval` leaves it."""
    images = images or [f"/p/{i}.jpg" for i in range(len(human))]
    ratings = folder / "ratings.jsonl"
    write_rows(ratings, [Rating(image, score, domain, "val") for image, score in zip(images, human, strict=True)])
    rows = [
        Prediction(image, score, 0.1, readable, "Clear light.", "r", name, "rev", "expectation")
        for image, score in zip(images, scores, strict=True)
    ]
    write_rows(folder / f"predictions-{name}.jsonl", rows)
    config = {"ratings": [str(ratings)], "models": [[name, "m"]], "split": "val", "domains": []}
    write_json(folder / "run.json", {"config": config})


@pytest.fixture
def judged(tmp_path):
    """An experiment of two cells and two seeds whose evaluations are written by hand."""
    plan = make_plan(experiment(), tmp_path)
    scores = {
        ("error only", 0): (0.1, 0.3, 0.5, 0.7, 0.9),
        ("error only", 1): (0.3, 0.1, 0.5, 0.7, 0.9),
        ("both <b>", 0): (0.9, 0.7, 0.5, 0.3, 0.1),
        ("both <b>", 1): (0.2, 0.4, None, 0.8, 1.0),
    }
    for (cell, _, seed), folder in plan.evaluations.items():
        name = next(each.folder for each in CELLS if each.name == cell)
        judge(folder, name, scores[cell, seed], readable=cell != "both <b>" or seed == 0)
    for step in plan.steps:
        seconds = None if step.name == "rapo" else 12.3  # None: it had ended when the experiment was killed
        write_json(step.folder / "step.json", {"command": "aesr1 <b>", "seconds": seconds})
    return plan


def test_means_over_seeds_and_differences_are_those_by_hand(judged):
    (section,) = summarize(experiment(), judged).sections
    error, both = section.entries
    assert (section.test, section.domain, section.images) == ("val", "photos", 5)
    assert error.seeds["srcc"] == pytest.approx([1.0, 0.9])
    assert error.mean["srcc"].value == pytest.approx(0.95)
    assert error.mean["mae"].value == pytest.approx(0.04)  # 0, and 0.4 / 5
    # seed 1 of "both": the missing score is the mean 0.6 of the others, so the order is people's
    assert both.seeds["srcc"] == pytest.approx([-1.0, 1.0])
    assert both.gain["srcc"].value == pytest.approx(0 - 0.95)
    assert (error.readable, both.readable) == (1.0, 0.5)
    assert error.gain is None


def test_the_table_has_mean_spread_and_interval(judged):
    text = to_markdown(summarize(experiment(), judged))
    assert "| error only |" in text
    assert "0.950 (0.071) [" in text
    assert "Differences to error only" in text


def test_results_are_plain_json(judged):
    found = json.loads(json.dumps(asdict(summarize(experiment(), judged))))
    assert found["sections"][0]["entries"][1]["seeds"]["srcc"] == pytest.approx([-1.0, 1.0])


def test_other_images_for_another_seed_are_refused(judged):
    folder = judged.evaluations["error only", "val", 1]
    judge(folder, "error-only", HUMAN, images=[f"/q/{i}.jpg" for i in range(5)])
    with pytest.raises(AesError, match="has other images for seed 1 of error only"):
        summarize(experiment(), judged)


def test_other_images_for_another_cell_are_refused(judged):
    for seed in (0, 1):
        folder = judged.evaluations["both <b>", "val", seed]
        judge(folder, "both-b", HUMAN, images=[f"/q/{i}.jpg" for i in range(5)])
    with pytest.raises(AesError, match="has other images for both <b> than for error only"):
        summarize(experiment(), judged)


def test_a_run_without_any_score_is_named(judged):
    judge(judged.evaluations["error only", "val", 0], "error-only", [None] * 5)
    with pytest.raises(AesError, match="error only, seed 0, gave no score in the test val"):
        summarize(experiment(), judged)


def test_an_unfinished_evaluation_is_named(judged):
    (judged.evaluations["error only", "val", 0] / "run.json").unlink()
    with pytest.raises(AesError, match="is no finished evaluation"):
        summarize(experiment(), judged)


def test_a_plot_spans_all_intervals_and_seeds_in_hundredths():
    assert span([Interval(0.5, 0.412, 0.583)], [[0.401, 0.6]]) == (0.40, 0.60)
    assert span([Interval(0.5, 0.5, 0.5)], [[0.5]]) == (0.50, 0.52)
    assert span([Interval(0.5, 0.401, 0.55)], [[-0.013]]) == (-0.02, 0.56)


def test_points_lie_where_their_values_are(judged):
    (section,) = summarize(experiment(), judged).sections
    srcc = next(plot for plot in plots(section) if plot.title.startswith("SRCC"))
    (left, low), _, (right, high) = srcc.ticks
    line = srcc.lines[1]
    at = np.interp([0.0, -1.0, 1.0], [float(low), float(high)], [left, right])
    assert [line.value, *line.seeds] == pytest.approx(at, abs=0.06)


def test_the_page_needs_no_other_file_and_fits_a_phone_and_a_desk(judged, driver, tmp_path):
    page = tmp_path / "results.html"
    write_page(page, summarize(experiment(), judged), judged)
    check_self_contained(page)
    with opened(driver, page, title="Rewards <b>") as shown:
        for width in (1400, 390):
            resize(shown, width, 844)
            assert shown.execute_script("return document.documentElement.scrollWidth") <= width
        names = [svg.get_attribute("aria-label") for svg in shown.find_elements("css selector", "svg")]
        assert names[1] == "SRCC ↑ of error only 0.950, both <b> 0.000"
        made = shown.find_element("css selector", "[aria-labelledby=made]").text
        assert {"error only, seed 0", "both <b>, seed 1"} <= set(made.splitlines())
