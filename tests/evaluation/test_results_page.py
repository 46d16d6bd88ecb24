"""The page of an evaluation: what is drawn is counted by hand, hostile text stays text, a real browser shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import HOSTILE, HOSTILE_NAME, Page, check_self_contained, opened, resize
from PIL import Image
from typer.testing import CliRunner

from aesr1.cli.main import app
from aesr1.evaluation.calibration import calibration_bins, mean_of, residuals
from aesr1.evaluation.datasets import compare_datasets
from aesr1.evaluation.describe import describe
from aesr1.evaluation.page import MOST_POINTS, SHAPES, chosen_pairs, marks, scored_pairs, write_page
from aesr1.evaluation.provenance import Provenance, provenance
from aesr1.evaluation.tables import to_results
from aesr1.json_lines import write_rows
from aesr1.records import Prediction, Rating

MADE_WITH = Provenance(f"aesr1 eval '{HOSTILE}'", {"aesr1": "1.2.3"}, {f"/ratings/{HOSTILE}.jsonl": "0123abcd"})
SETS = ("drawn", f"set {HOSTILE}")
MODELS = ("plain", f"model {HOSTILE}", "mute")


def prediction(image: str, score: float | None, reasoning: str | None = "Clear light.", model: str = "m") -> Prediction:
    return Prediction(
        image=image,
        score=score,
        score_std=0.12,
        readable=True,
        reasoning=reasoning,
        reply=reasoning or "",
        model=model,
        revision="abc123",
        decoding="expectation",
    )


def write_study(output: Path, ratings: list[Rating], predictions: dict[str, list[Prediction]]) -> dict[str, Any]:
    """The page of these rows; returns what results.json would hold."""
    study = compare_datasets(ratings, predictions, draws=20)
    reasons = {name: describe(ratings, rows, {}, draws=20) for name, rows in predictions.items()}
    write_page(output, study, ratings, predictions, reasons, MADE_WITH)
    return to_results(study)


def rated(folder: Path, sizes: tuple[int, ...]) -> list[Rating]:
    rng = np.random.default_rng(0)
    return [
        Rating(str(folder / f"{domain}-{i}.png"), float(rng.random()), SETS[domain], "test")
        for domain, n in enumerate(sizes)
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets and three models; one picture is missing, one has a hostile name, one no score."""
    folder = tmp_path_factory.mktemp("page")
    ratings = [*rated(folder, (30, 12)), Rating(str(folder / HOSTILE_NAME), 0.99, SETS[0], "test")]
    for rating in ratings[1:]:
        Image.new("RGB", (40, 30), "teal").save(rating.image)
    rng = np.random.default_rng(1)
    scores = [float(np.clip(0.5 * row.score + 0.2 + rng.normal(0, 0.05), 0, 1)) for row in ratings]
    scores[0], scores[-1] = 0.0, 1.0  # the missing picture is rated worst, the hostile name best
    texts = {"plain": "Warm light. " * 90, MODELS[1]: HOSTILE, "mute": None}
    predictions = {
        name: [prediction(row.image, score, text, name) for row, score in zip(ratings, scores, strict=True)]
        for name, text in texts.items()
    }
    predictions["plain"][5] = prediction(ratings[5].image, None, None, "plain")
    write_study(folder / "results.html", ratings, predictions)
    return folder / "results.html"


def test_a_mean_has_students_interval() -> None:
    # 1, 2, 3: standard error 1 / √3, and t with two degrees of freedom is 4.3027
    found = mean_of(np.array([1.0, 2.0, 3.0]))
    assert found.n == 3 and found.interval is not None
    assert [found.value, found.interval.low, found.interval.high] == pytest.approx(
        [2, 2 - 2.4841, 2 + 2.4841], abs=1e-4
    )
    assert mean_of(np.array([0.4])).interval is None


def test_bins_are_of_equal_count_and_lowest_first() -> None:
    predicted = np.array([0.9, 0.1, 0.3, 0.5, 0.7, 0.8])
    found = calibration_bins(predicted, np.array([1.0, 0.2, 0.4, 0.5, 0.7, 0.6]), bins=3)
    assert [(each.predicted, each.human.value, each.human.n) for each in found] == [
        (pytest.approx(0.2), pytest.approx(0.3), 2),
        (pytest.approx(0.6), pytest.approx(0.6), 2),
        (pytest.approx(0.85), pytest.approx(0.8), 2),
    ]
    assert calibration_bins(np.array([]), np.array([])) == []


def test_equal_scores_share_a_bin() -> None:
    found = calibration_bins(np.array([0.5, 0.5, 0.5, 0.9]), np.array([0.1, 0.2, 0.3, 1.0]), bins=2)
    assert [(each.predicted, each.human.n) for each in found] == [(0.5, 3), (0.9, 1)]
    assert [each.human.n for each in calibration_bins(np.full(30, 0.5), np.linspace(0, 1, 30))] == [30]
    assert [each.human.n for each in calibration_bins(np.linspace(0, 1, 30), np.linspace(0, 1, 30))] == [3] * 10


def test_residuals_are_means_of_predicted_less_human_by_level_of_the_human_score() -> None:
    found = residuals(np.array([0.5, 0.3, 0.6, 0.8]), np.array([0.1, 0.3, 0.7, 0.9]))
    assert {name: (mean.value, mean.n) for name, mean in found.items()} == {
        "all": (pytest.approx(0.05), 4),
        "bad": (pytest.approx(0.2), 2),
        "good": (pytest.approx(-0.1), 2),  # none is fair
    }


def test_the_best_the_worst_and_the_most_wrong_are_chosen_among_what_has_a_score() -> None:
    human = [0.1 * i for i in range(10)]
    scores = [0.0, None, 0.25, 0.31, 0.4, 0.52, 0.6, 0.7, 0.8, 0.1]
    ratings = [Rating(f"/{i}.png", score, "ava", "test") for i, score in enumerate(human)]
    rows = [prediction(f"/{i}.png", score) for i, score in enumerate(scores)]
    chosen = {
        title: [Path(pair.rating.image).stem for pair in pairs]
        for title, pairs in chosen_pairs(scored_pairs(ratings, rows)).items()
    }
    assert chosen["Rated best"] == ["8", "7", "6", "5", "4", "3"]
    assert chosen["Rated worst"] == ["0", "9", "2", "3", "4", "5"]
    assert chosen["Most wrong"][:3] == ["9", "2", "5"]  # .8, .05, .02


def test_a_point_stands_at_its_scores() -> None:
    assert marks([(0, 0), (0.5, 1)], 1) == f"M42 308{SHAPES[1]}M192 8{SHAPES[1]}"
    assert marks([(1, 0.25)], len(SHAPES)) == f"M342 233{SHAPES[0]}"  # the shapes begin again


def test_hostile_text_stays_text(results: Path) -> None:
    page = Page(results)
    assert len(page.named("script")) == 1
    assert HOSTILE_NAME in page.text
    for hostile in (*SETS[1:], *MODELS[1:2], MADE_WITH.command, *MADE_WITH.hashes):
        assert hostile in page.text
    assert all((image.get("src") or "").startswith("data:") for image in page.named("img"))


def test_nothing_outside_the_file_is_asked_for(results: Path) -> None:
    check_self_contained(results)


def test_the_page_says_what_was_measured_and_how(results: Path) -> None:
    words = Page(results).words
    for part in (
        "43 pictures that people rated, and the scores of 3 models",
        "42 of 43 pictures have a score.",
        "human score 0.99 difference +0.01",
        "No picture 0-0.png does not exist",
        "Scored without reasons.",
        "This model gave no reasons.",
        "20 draws, seed 0",
        "aesr1 1.2.3",
        "0123abcd",
        "revision abc123; expectation",
        "With each missing score filled in",
        "plain → model",
    ):
        assert part in words, part
    assert str(results.parent) not in results.read_text(encoding="utf-8")


def test_every_number_of_the_tables_is_that_of_results_json(tmp_path: Path) -> None:
    ratings = rated(tmp_path, (20, 15))
    rows = [prediction(row.image, 0.2 + 0.5 * row.score**2) for row in ratings]
    found = write_study(tmp_path / "results.html", ratings, {"a": rows, "b": rows[::-1]})
    words = Page(tmp_path / "results.html").words
    for entry in (found["a"], *found["a"]["datasets"].values(), found["b"]):
        for name in ("plcc", "srcc", "krcc", "mae"):
            value = entry[name]
            assert f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in words


def test_many_pictures_are_drawn_as_a_sample_and_the_page_stays_small(tmp_path: Path) -> None:
    ratings = rated(tmp_path, (3000, 2000))
    rng = np.random.default_rng(2)
    rows = [prediction(row.image, float(score)) for row, score in zip(ratings, rng.random(5000), strict=True)]
    study = compare_datasets(ratings, {"a": rows}, draws=2)
    write_page(tmp_path / "results.html", study, ratings, {"a": rows}, {"a": None}, MADE_WITH)
    assert "Drawn: 2,000 of 5,000 pictures, chosen with seed 0" in Page(tmp_path / "results.html").words
    points = [path["d"] or "" for path in Page(tmp_path / "results.html").named("path") if "mark" in str(path["class"])]
    assert sum(text.count("M") for text in points) == MOST_POINTS
    assert (tmp_path / "results.html").stat().st_size < 1e6


def test_a_model_without_a_score_has_a_section_that_says_so(tmp_path: Path) -> None:
    ratings = rated(tmp_path, (5,))
    write_study(tmp_path / "results.html", ratings, {"a": [prediction(row.image, None, None) for row in ratings]})
    assert "0 of 5 pictures have a score." in Page(tmp_path / "results.html").words
    assert not Page(tmp_path / "results.html").named("figure")


def test_the_command_writes_the_page_and_what_it_was_made_with(tmp_path: Path) -> None:
    ratings = rated(tmp_path, (10,))
    write_rows(tmp_path / "ratings.jsonl", ratings)
    lines = "".join(f"{Path(row.image).name},{row.score}\n" for row in ratings)
    (tmp_path / "nima.csv").write_text("image,score\n" + lines)
    command = ["eval", str(tmp_path / "ratings.jsonl"), "--predictions", str(tmp_path / "nima.csv")]
    ran = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out")], catch_exceptions=False)
    assert ran.exit_code == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["versions"].keys() == {"aesr1", "torch", "transformers", "numpy", "python"} and run["command"]
    assert list(run["hashes"]) == [str(tmp_path / "ratings.jsonl"), str(tmp_path / "nima.csv")]
    words = Page(tmp_path / "out" / "results.html").words
    for part in (*run["hashes"], *run["hashes"].values(), run["versions"]["torch"], "Rated best"):
        assert part in words


def test_a_hash_is_that_of_the_files_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/aesr1", "eval", "my ratings", "-o", "out"])
    (tmp_path / "a").write_bytes(b"")
    found = provenance([tmp_path / "a"])
    assert found.command == "aesr1 eval 'my ratings' -o out"
    assert found.hashes == {str(tmp_path / "a"): "cae66941d9efbd404e4d88758ea67670"}  # b2sum -l 128 /dev/null
    monkeypatch.setattr("sys.argv", ["/lib/aesr1/__main__.py", "eval"])
    assert provenance([]).command == "python -m aesr1 eval"


@pytest.fixture
def page(driver: Any, results: Path) -> Iterator[Any]:
    with opened(driver, results, title=f"{', '.join(SETS)}: {', '.join(MODELS)}") as shown:
        yield shown


def test_the_page_fits_a_phone_and_a_desk(page: Any) -> None:
    for width in (1400, 390):
        resize(page, width, 844)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_links_lead_to_sections_and_all_plots_have_names(page: Any) -> None:
    from selenium.webdriver.common.by import By

    links = page.find_elements(By.CSS_SELECTOR, "nav a")
    assert len(links) == len(MODELS) + 2
    links[2].click()
    assert page.execute_script("return document.querySelector(':target').id") == "model-2"
    plots = page.find_elements(By.CSS_SELECTOR, "svg[role=img]")
    assert len(plots) == 2 * len(MODELS) and all("upwards" in plot.accessible_name for plot in plots)
    box = plots[0].rect
    assert box["width"] > 200 and box["height"] > 200
    for table in page.find_elements(By.CSS_SELECTOR, ".scroll"):
        assert table.get_attribute("tabindex") == "0" and table.get_attribute("aria-label")


def test_all_pictures_load_under_the_policy(page: Any) -> None:
    script = """document.querySelectorAll("img").forEach(each => each.loading = "eager");
    return Promise.all([...document.images].map(each => each.decode().then(() => each.naturalWidth)))"""
    assert set(page.execute_script(script)) == {40}
