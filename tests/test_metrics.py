"""Metrics: values calculated by hand, ties as in scipy, errors on bad input, coverage of the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aesr1 import metrics
from aesr1.errors import AesError
from aesr1.intervals import (
    Interval,
    bootstrap,
    bootstrap_all,
    mean_bootstrap,
    paired_bootstrap,
    rater_ceiling,
    seeds_bootstrap,
    wilson,
)
from aesr1.metrics import (
    METRICS,
    PAIRS_BY_DIFFICULTY,
    Metric,
    calibration_error,
    krcc,
    logistic_fit,
    mae,
    pair_accuracy,
    plcc,
    plcc_logistic,
    rmse,
    srcc,
)

ALL: tuple[Metric, ...] = METRICS
ORDERED: tuple[Metric, ...] = (plcc, srcc, krcc, pair_accuracy)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # Centred: (−1.5, −.5, .5, 1.5) and (−1.5, .5, −.5, 1.5); product 2.25 − .25 − .25 + 2.25 = 4 of 5.
        (plcc, 0.8),
        (srcc, 0.8),
        # Of six pairs one, the middle two, is the wrong way round.
        (krcc, 4 / 6),
        (pair_accuracy, 5 / 6),
        (mae, 0.5),
        (rmse, math.sqrt(0.5)),
    ],
)
def test_metrics_of_four_images_with_the_middle_two_swapped(metric: Metric, expected: float) -> None:
    assert metric([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # Ranks 1.5, 1.5, 3 against 1, 2, 3: 1.5 / sqrt(1.5 · 2).
        (srcc, math.sqrt(3) / 2),
        # Two pairs right, one tied in the prediction: 2 / sqrt(2 · 3), and (2 + ½) / 3.
        (krcc, 2 / math.sqrt(6)),
        (pair_accuracy, 2.5 / 3),
    ],
)
def test_metrics_with_a_predicted_tie(metric: Metric, expected: float) -> None:
    assert metric([0.5, 0.5, 0.9], [0.1, 0.2, 0.3]) == pytest.approx(expected)


def test_pairs_within_the_margin_are_left_out() -> None:
    human = [0.0, 0.1, 1.0]
    assert pair_accuracy([0.6, 0.5, 0.9], human) == pytest.approx(2 / 3)
    assert pair_accuracy([0.6, 0.5, 0.9], human, margin=0.2) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_those_of_scipy_with_random_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    human = rng.integers(0, 8, 60) / 10
    predicted = np.round(human + rng.normal(0, 0.3, 60), 1)
    assert plcc(predicted, human) == pytest.approx(stats.pearsonr(predicted, human).statistic)
    assert srcc(predicted, human) == pytest.approx(stats.spearmanr(predicted, human).statistic)
    assert krcc(predicted, human) == pytest.approx(stats.kendalltau(predicted, human).statistic)


def test_pair_metrics_are_right_with_more_images_than_one_block() -> None:
    rng = np.random.default_rng(0)
    human = rng.random(1100)
    predicted = human + rng.normal(0, 0.3, 1100)
    tau = stats.kendalltau(predicted, human).statistic
    assert krcc(predicted, human) == pytest.approx(tau)
    assert pair_accuracy(predicted, human) == pytest.approx((1 + tau) / 2)


def test_pairs_are_counted_by_how_far_apart_people_rate_them() -> None:
    human, predicted = [0.0, 0.05, 0.2, 0.6], [0.5, 0.4, 0.6, 0.55]
    values = {name: metric(predicted, human) for name, metric in PAIRS_BY_DIFFICULTY.items()}
    assert values == pytest.approx({"up to 0.1": 0.0, "0.1 to 0.25": 1.0, "above 0.25": 2 / 3})


def test_calibration_compares_means_within_bins_of_equal_count() -> None:
    assert calibration_error([0.2, 0.4, 0.6, 0.8], [0.1, 0.2, 0.5, 0.6]) == pytest.approx(0.15)  # one bin
    low, high = np.linspace(0.1, 0.4, 10), np.linspace(0.6, 0.9, 10)
    human = [*(low + 0.1), *(high - 0.05)]  # two bins: 0.1 and 0.05
    assert calibration_error([*low, *high], human) == pytest.approx(0.075)
    assert calibration_error([0.5] * 20, [0.3] * 10 + [0.7] * 10) == pytest.approx(0.0)  # equal scores share a bin


def test_a_constant_predictor_has_correlation_zero_and_pair_accuracy_one_half() -> None:
    human = [0.1, 0.5, 0.7]
    assert [plcc([0.3] * 3, human), srcc([0.3] * 3, human), krcc([0.3] * 3, human)] == [0, 0, 0]
    assert pair_accuracy([0.3] * 3, human) == 0.5


def test_equal_human_scores_have_an_mae_but_no_order() -> None:
    assert mae([0.1, 0.3], [0.2, 0.2]) == pytest.approx(0.1)
    for metric in ORDERED:
        with pytest.raises(AesError, match=r"all human scores are 0\.2"):
            metric([0.1, 0.3], [0.2, 0.2])


@pytest.mark.parametrize(
    ("predicted", "human", "reason"),
    [
        ([0.1, 0.2], [0.1, 0.2, 0.3], "not two columns of the same length"),
        ([[0.1, 0.2]], [[0.1, 0.2]], "not two columns of the same length"),
        ([], [], "at least 2 images, got 0"),
        ([0.1], [0.1], "at least 2 images, got 1"),
        ([0.1, math.nan, 0.3], [0.1, 0.2, 0.3], "1 of 3 predicted scores are not finite numbers, first: row 1"),
        ([0.1, 0.2, 0.3], [0.1, 0.2, math.inf], "1 of 3 human scores are not finite numbers, first: row 2"),
    ],
)
def test_bad_input_raises_an_error_with_the_reason(predicted: list[float], human: list[float], reason: str) -> None:
    for metric in ALL:
        with pytest.raises(AesError, match=reason):
            metric(predicted, human)
        with pytest.raises(AesError, match=reason):
            bootstrap(metric, predicted, human, draws=10)


def test_a_margin_that_leaves_no_pair_is_an_error() -> None:
    with pytest.raises(AesError, match=r"no two human scores differ by more than 0\.5"):
        pair_accuracy([0.1, 0.2], [0.1, 0.2], margin=0.5)


@pytest.mark.parametrize("metric", [metric for metric in ALL if not metric.mapped])
def test_each_draw_is_the_metric_of_the_drawn_images(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    human = np.round(rng.random(30), 1)
    predicted = np.round(human + rng.normal(0, 0.3, 30), 1)
    drawn = np.random.default_rng(7).integers(30, size=(20, 30), dtype=np.int32)
    values = [metric(predicted[index], human[index]) for index in drawn]
    interval = bootstrap(metric, predicted, human, draws=20, seed=7, level=1.0)
    assert interval.value == metric(predicted, human)
    assert (interval.low, interval.high) == pytest.approx((min(values), max(values)))


def test_95_percent_of_the_intervals_contain_the_true_value() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for repeat in range(200):
        human = rng.normal(size=80)
        predicted = 0.6 * human + 0.8 * rng.normal(size=80)  # correlation .6
        interval = bootstrap(plcc, predicted, human, draws=300, seed=repeat)
        inside += interval.low <= 0.6 <= interval.high
    assert 0.89 <= inside / 200 <= 0.98


def test_draws_with_equal_human_scores_are_left_out() -> None:
    # Of the draws of two images, half hold one of them twice.
    interval = bootstrap(plcc, [0.1, 0.2], [0.3, 0.9], draws=50)
    assert (interval.value, interval.low, interval.high) == pytest.approx((1.0, 1.0, 1.0))
    assert bootstrap(pair_accuracy, [0.2, 0.1], [0.3, 0.9], draws=50) == Interval(0.0, 0.0, 0.0)


def test_draws_with_equal_predicted_scores_have_correlation_zero() -> None:
    interval = bootstrap(srcc, [0.1, 0.1, 0.2], [0.3, 0.6, 0.9], draws=200)
    assert interval.low == 0.0
    assert interval.high == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    human, predicted = np.arange(20) / 20, np.random.default_rng(0).random(20)
    assert bootstrap(srcc, predicted, human, seed=3) == bootstrap(srcc, predicted, human, seed=3)
    assert bootstrap(srcc, predicted, human, seed=3) != bootstrap(srcc, predicted, human, seed=4)


def test_an_interval_needs_at_least_one_draw() -> None:
    with pytest.raises(AesError, match="no interval from 0 draws"):
        bootstrap(plcc, [0.1, 0.2], [0.3, 0.9], draws=0)


@pytest.mark.parametrize("metric", [plcc, srcc, mae])
def test_intervals_are_those_of_scipy(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    human, predicted = rng.random(50), rng.random(50)
    result = stats.bootstrap(
        (predicted, human),
        metric,
        n_resamples=100,
        paired=True,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(3),
        batch=100,
    ).confidence_interval
    interval = bootstrap(metric, predicted, human, draws=100, seed=3)
    assert (interval.low, interval.high) == pytest.approx((result.low, result.high))


@pytest.mark.parametrize("metric", ALL)
def test_the_interval_of_a_large_gain_excludes_zero_and_that_of_no_gain_does_not(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    human = rng.random(200)
    poor, poor_too, good = (human + rng.normal(0, noise, 200) for noise in (0.8, 0.8, 0.1))
    gain = paired_bootstrap(metric, poor, good, human, draws=400)
    assert gain.excludes_zero
    assert (gain.value > 0) == metric.higher_is_better
    assert gain.value == pytest.approx(metric(good, human) - metric(poor, human))
    assert not paired_bootstrap(metric, poor, poor_too, human, draws=400).excludes_zero


def test_both_models_use_the_same_resampled_images() -> None:
    rng = np.random.default_rng(0)
    human, predicted = rng.random(50), rng.random(50)
    assert paired_bootstrap(plcc, predicted, predicted, human) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", [srcc, krcc, pair_accuracy, calibration_error])
def test_metrics_of_many_images_keep_value_and_interval(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond MOST_PAIRED images the interval is approximated; here both ways on the same images, with ties."""
    rng = np.random.default_rng(0)
    human = np.round(rng.random(3_000), 2)
    poor, good = (np.round(human + rng.normal(0, noise, 3_000), 2) for noise in (0.5, 0.3))
    exact = bootstrap(metric, good, human, draws=300), paired_bootstrap(metric, poor, good, human, draws=300)
    monkeypatch.setattr(metrics, "MOST_PAIRED", 1_000)
    near = bootstrap(metric, good, human, draws=300), paired_bootstrap(metric, poor, good, human, draws=300)
    for one, other in zip(exact, near, strict=True):
        assert other.value == pytest.approx(one.value, abs=1e-12)
        width = one.high - one.low
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.04 * width)
    if metric.ordered:
        constant = bootstrap(metric, np.full(3_000, 0.5), human, draws=20)
        assert constant.value == constant.low == constant.high == (0.5 if metric is pair_accuracy else 0.0)


def test_metrics_over_the_same_draws_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    sets = [(rng.random(30), rng.random(30), rng.random(30)), (rng.random(20), rng.random(20), rng.random(20))]
    together = bootstrap_all(METRICS, sets, draws=50)
    assert together == {metric.name: mean_bootstrap(metric, sets, draws=50) for metric in METRICS}


def test_wilson_interval_equals_values_calculated_by_hand() -> None:
    # z = 1.96, n = 10, share .5: middle .5, half z / (1 + z²/10) · sqrt(.025 + z²/400) = .2634.
    assert wilson(5, 10).low == pytest.approx(0.2366, abs=1e-4)
    assert wilson(5, 10).high == pytest.approx(0.7634, abs=1e-4)
    # All of n: the lower bound is n / (n + z²).
    assert wilson(10, 10).low == pytest.approx(10 / (10 + 1.959964**2))
    assert wilson(10, 10).high == 1.0
    assert wilson(0, 10).low == 0.0
    with pytest.raises(AesError, match="0 of 0"):
        wilson(0, 0)


def test_raters_in_full_agreement_have_a_ceiling_of_one() -> None:
    ceiling = rater_ceiling([[10, 0, 0], [0, 10, 0], [0, 0, 10], [10, 0, 0]], [1, 2, 3], draws=50)
    assert ceiling.plcc.value == pytest.approx(1.0)
    assert ceiling.srcc.value == pytest.approx(1.0)


def test_the_ceiling_is_the_reliability_of_the_mean_score() -> None:
    # True means of variance 1 and 40 votes of variance 4 each: reliability 1 / (1 + 4/40) = .909.
    rng = np.random.default_rng(0)
    marks = np.arange(-10, 11)
    raw = np.rint(rng.normal(size=(400, 1)) + rng.normal(0, 2, size=(400, 40)))
    votes = [np.bincount(row.astype(int) + 10, minlength=21) for row in raw]
    ceiling = rater_ceiling(votes, marks, draws=100)
    assert ceiling.plcc.value == pytest.approx(1 / 1.1, abs=0.03)
    assert ceiling.plcc.low < ceiling.plcc.value < ceiling.plcc.high
    assert ceiling.srcc.value == pytest.approx(ceiling.plcc.value, abs=0.03)


def test_raters_without_agreement_have_a_ceiling_near_zero() -> None:
    votes = np.random.default_rng(0).multinomial(20, [0.25] * 4, size=300)
    assert rater_ceiling(list(votes), range(4), draws=50).plcc.value < 0.2


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ([[3, 4]], "needs 2 images"),
        ([[3, 4], [1, 0]], "votes of row 1 are"),
        ([[3, 4], [1, 2, 3]], "votes of row 1 are"),
        ([[-3, 9], [1, 2]], "votes of row 0 are"),
    ],
)
def test_votes_that_cannot_be_halved_raise_an_error(votes: list[list[int]], reason: str) -> None:
    with pytest.raises(AesError, match=reason):
        rater_ceiling(votes, [1, 2])


def test_a_mean_counts_each_data_set_once_whatever_its_size() -> None:
    small, large = ([0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.4]), (np.arange(50) / 50, np.arange(50) / 50)
    interval = mean_bootstrap(plcc, [small, large], draws=200)
    assert interval.value == pytest.approx((0.8 + 1) / 2)
    assert interval.low < 0.9 < interval.high <= 1
    errors = mean_bootstrap(mae, [([0.3, 0.4], [0.2, 0.3]), ([0.5, 0.5, 0.5], [0.2, 0.2, 0.2])], draws=50)
    assert (errors.value, errors.low, errors.high) == pytest.approx((0.2, 0.2, 0.2))


def test_a_mean_of_differences_is_the_difference_of_the_means() -> None:
    rng = np.random.default_rng(0)
    sets = [
        (human + rng.normal(0, 0.5, n), human + rng.normal(0, 0.1, n), human)
        for n in (40, 90)
        for human in [rng.random(n)]
    ]
    gain = mean_bootstrap(srcc, sets, draws=300)
    values = [srcc(good, human) - srcc(poor, human) for poor, good, human in sets]
    assert gain.value == pytest.approx(np.mean(values)) and gain.low < gain.value < gain.high and gain.excludes_zero
    same = [(good, good, human) for _, good, human in sets]
    assert mean_bootstrap(srcc, same, draws=50) == Interval(0.0, 0.0, 0.0)


def test_sets_are_resampled_independently() -> None:
    """Two sets with the same rows: with the same draws in both, the mean would be no narrower than one set."""
    rng = np.random.default_rng(0)
    human = rng.random(60)
    one = (human + rng.normal(0, 0.3, 60), human)
    widths = [each.high - each.low for each in (mean_bootstrap(plcc, sets) for sets in ([one], [one] * 4))]
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.08)


def test_the_logistic_curve_mends_a_curved_scale_and_only_that() -> None:
    human = np.linspace(0.1, 0.9, 60)
    squeezed = 0.5 + np.log((human - 0.05) / (0.95 - human)) / 20  # human = .05 + .9 · logistic(20 (x − .5))
    assert plcc(squeezed, human) < 0.995
    assert plcc_logistic(squeezed, human) == pytest.approx(1.0, abs=1e-6)
    assert logistic_fit(squeezed, human) == pytest.approx(human, abs=1e-4)
    noise = np.random.default_rng(0).random(60)
    assert abs(plcc_logistic(noise, human)) < 0.4
    assert plcc_logistic(np.full(60, 0.5), human) == 0.0  # nothing to map


def test_the_mean_over_one_run_is_its_bootstrap_and_over_before_the_paired_one():
    rng = np.random.default_rng(0)
    human, one, two = rng.random((3, 60))
    for metric in (plcc, mae):
        assert seeds_bootstrap([metric], [one], human)[metric.name] == bootstrap(metric, one, human)
        paired = paired_bootstrap(metric, two, one, human)
        assert seeds_bootstrap([metric], [one], human, before=[two])[metric.name] == paired


def test_the_mean_over_runs_is_of_their_values_and_of_draws_with_the_same_images():
    rng = np.random.default_rng(0)
    human, one, two = rng.random((3, 60))
    found = seeds_bootstrap([mae], [one, two], human)["mae"]
    assert found.value == pytest.approx((mae(one, human) + mae(two, human)) / 2)
    errors = (np.abs(one - human) + np.abs(two - human)) / 2
    low, high = (bootstrap(mae, errors, np.zeros(60)).low, bootstrap(mae, errors, np.zeros(60)).high)
    assert (found.low, found.high) == pytest.approx((low, high))
