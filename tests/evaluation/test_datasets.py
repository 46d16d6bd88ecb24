"""Several data sets: one row each, means that count each once, never one pool."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aesr1.errors import AesError
from aesr1.evaluation.datasets import compare_datasets
from aesr1.evaluation.join_results import join_results
from aesr1.evaluation.run import EvalConfig, chosen_ratings
from aesr1.evaluation.tables import to_markdown, to_results
from aesr1.json_lines import write_rows
from aesr1.metrics import plcc, srcc
from aesr1.records import Prediction, Rating

SIZES = {"ava": 120, "para": 40, "aadb": 25}
NOISES = {"cold start": 0.4, "RAPO": 0.05}


def rated(domain: str, n: int, split: str = "test") -> list[Rating]:
    human = np.random.default_rng(n).random(n)
    return [Rating(f"/photos/{domain}-{i}.jpg", float(score), domain, split) for i, score in enumerate(human)]


RATINGS = [row for domain, n in SIZES.items() for row in rated(domain, n)]


def predicted(noise: float, model: str) -> list[Prediction]:
    """A model that gives all pictures of PARA .3 less: within a set that changes no order."""
    rng = np.random.default_rng(7)
    scores = [np.clip(row.score + rng.normal(0, noise) - 0.3 * (row.domain == "para"), 0, 1) for row in RATINGS]
    return [
        Prediction(
            image=row.image,
            score=float(score),
            score_std=None,
            readable=True,
            reasoning=None,
            reply="a reply",
            model=model,
            revision="1",
            decoding="expectation",
        )
        for row, score in zip(RATINGS, scores, strict=True)
    ]


PREDICTIONS = {name: predicted(noise, name) for name, noise in NOISES.items()}


def columns(name: str, domain: str) -> tuple[list[float], list[float]]:
    pairs = zip(PREDICTIONS[name], RATINGS, strict=True)
    scores, human = zip(*((row.score, rating.score) for row, rating in pairs if rating.domain == domain), strict=True)
    return list(scores), list(human)


def test_a_mean_is_that_of_the_sets_own_values_and_not_of_one_pool() -> None:
    study = compare_datasets(RATINGS, PREDICTIONS, draws=100)
    results = json.loads(json.dumps(to_results(study), allow_nan=False))
    for name in NOISES:
        for metric in (plcc, srcc):
            each = {domain: metric(*columns(name, domain)) for domain in SIZES}
            found = results[name]["datasets"]
            assert {domain: found[domain][metric.name]["value"] for domain in SIZES} == pytest.approx(each)
            assert results[name][metric.name]["value"] == pytest.approx(np.mean(list(each.values())))
            pool = metric([row.score for row in PREDICTIONS[name]], [row.score for row in RATINGS])
            assert abs(results[name][metric.name]["value"] - pool) > 0.02
    assert results["RAPO"]["n"] == sum(SIZES.values())
    gain = results["RAPO"]["against"]["cold start"]
    assert gain["plcc"]["value"] == pytest.approx(
        results["RAPO"]["plcc"]["value"] - results["cold start"]["plcc"]["value"]
    )
    assert gain["plcc"]["low"] > 0


def test_in_domain_and_out_of_domain_means_stand_apart() -> None:
    study = compare_datasets(RATINGS, PREDICTIONS, in_domain=["ava"], draws=50)
    results = to_results(study)["RAPO"]
    assert results["in_domain"]["srcc"] == results["datasets"]["ava"]["srcc"]  # one set is its own mean
    away = [results["datasets"][domain]["srcc"]["value"] for domain in ("para", "aadb")]
    assert results["out_of_domain"]["srcc"]["value"] == pytest.approx(np.mean(away))
    text = to_markdown(study)
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.split("\n\n")[0].splitlines()]
    assert [row[0] for row in rows[2::2]] == [
        "aadb",
        "ava",
        "para",
        "mean",
        "mean in domain (ava)",
        "mean out of domain (aadb, para)",
    ]
    assert [row[1] for row in rows[2:]] == ["cold start", "RAPO"] * 6
    with pytest.raises(AesError, match="in domain: there are no ratings of tad66k; there are aadb, ava, para"):
        compare_datasets(RATINGS, PREDICTIONS, in_domain=["tad66k"], draws=10)


def test_one_data_set_has_no_column_of_data_sets() -> None:
    study = compare_datasets(rated("ava", 120), PREDICTIONS, draws=50)
    assert "data set" not in to_markdown(study)
    results = to_results(study)["RAPO"]
    assert results["datasets"]["ava"]["plcc"] == results["plcc"] and "in_domain" not in results


@pytest.mark.parametrize(
    ("scores", "human", "note"),
    [
        ([0.5] * 25, None, "aadb: all scores are 0.5: they order nothing"),
        (None, [0.5] * 25, "aadb: people rated all of these images the same"),
        ([None] * 25, None, "aadb: fewer than three images have a score"),
    ],
)
def test_a_set_without_a_value_is_named(scores, human, note) -> None:
    """The mean says which set it lacks instead of leaving that set out."""
    ratings, rows = list(RATINGS), list(PREDICTIONS["RAPO"])
    for i in range(25):
        if scores is not None:
            rows[160 + i] = replace(rows[160 + i], score=scores[i])
        if human is not None:
            ratings[160 + i] = replace(ratings[160 + i], score=human[i])
    study = compare_datasets(ratings, {"RAPO": rows}, draws=20)
    assert note in to_results(study)["RAPO"]["note"] and note in to_markdown(study)
    assert to_results(study)["RAPO"]["datasets"]["ava"]["note"] is None


def test_a_picture_that_two_data_sets_rate_counts_in_both() -> None:
    twice = [*RATINGS, replace(RATINGS[0], domain="para", score=0.2)]
    results = to_results(compare_datasets(twice, PREDICTIONS, draws=20))["RAPO"]
    assert results["datasets"]["para"]["n"] == 41 and results["n"] == len(RATINGS) + 1


def test_several_files_each_with_its_own_split(tmp_path: Path) -> None:
    files = (tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    write_rows(files[0], [*rated("ava", 3, "train"), *rated("ava", 4, "test"), *rated("ava", 2, "val")])
    write_rows(files[1], [*rated("para", 5, "val"), *rated("aadb", 6, "train")])

    def chosen(**settings) -> list[tuple[str, str, int]]:
        rows = chosen_ratings(EvalConfig(files, (), tmp_path / "out", **settings))
        found = [(row.domain, row.split) for row in rows]
        return sorted((*each, found.count(each)) for each in set(found))

    assert chosen(domains=("ava", "para")) == [("ava", "test", 4), ("para", "val", 5)]
    assert chosen(domains=("aadb",), split="train") == [("aadb", "train", 6)]
    with pytest.raises(AesError, match=r"two.jsonl \(aadb\) holds no ratings of split 'val'; it has train"):
        chosen()
    with pytest.raises(AesError, match="holds no ratings of koniq; it has aadb, ava, para"):
        chosen(domains=("koniq",))


def test_earlier_results_become_one_table(tmp_path: Path) -> None:
    alone, all_three = tmp_path / "alone", tmp_path / "three"
    ava = [row for row in RATINGS if row.domain == "ava"]
    for folder, ratings in ((alone, ava), (all_three, RATINGS)):
        folder.mkdir()
        study = compare_datasets(ratings, {"RAPO": PREDICTIONS["RAPO"]}, draws=10)
        (folder / "results.json").write_text(json.dumps(to_results(study)))
    head, _, first, second = join_results([alone, all_three / "results.json"]).split("\n\n")[0].splitlines()
    each = {domain: [metric(*columns("RAPO", domain)) for metric in (plcc, srcc)] for domain in SIZES}
    pairs = ["/".join(f"{value:.3f}" for value in each[domain]) for domain in ("aadb", "ava", "para")]
    mean = "/".join(f"{value:.3f}" for value in np.mean(list(each.values()), axis=0))
    assert head == "| run | model | aadb | ava | para | mean |"
    assert first == f"| {alone} | RAPO | — | {pairs[1]} | — | — |"  # its mean would be over other sets
    assert second == f"| {all_three} | RAPO | {' | '.join(pairs)} | {mean} |"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "results.json cannot be read: No such file"),
        ("{", "is not JSON"),
        ('{"RAPO": {"plcc": null}}', "has no results by data set"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(AesError, match=reason):
        join_results([tmp_path])
