import math
import time

import numpy as np
import pytest
from scipy.stats import norm

from aesr1.errors import AesError
from aesr1.rapo.rewards import absolute_reward, binary_reward, format_reward, relative_reward

NAN = np.nan


def relative_by_loops(scores, ratings):
    """The paper's equations 3–5, word for word, for readable replies."""
    n, k = scores.shape
    mean, variance = scores.mean(axis=1), scores.var(axis=1, ddof=1)
    reward = np.zeros((n, k))
    for i in range(n):
        for r in range(k):
            parts = []
            for j in range(n):
                if j == i:
                    continue
                p = norm.cdf((scores[i, r] - mean[j]) / math.sqrt(variance[i] + variance[j] + 1e-6))
                t = 1.0 if ratings[i] >= ratings[j] else 0.0
                parts.append(math.sqrt(p * t + 1e-6) + math.sqrt((1 - p) * (1 - t) + 1e-6))
            reward[i, r] = sum(parts) / len(parts)
    return reward


def test_relative_by_hand():
    # μ = (.5, .2), v = (.02, .02): width √(.04 + 1e-6); image 0 is the better one.
    reward = relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3])
    width = math.sqrt(0.04 + 1e-6)
    first = [norm.cdf((0.4 - 0.2) / width), norm.cdf((0.6 - 0.2) / width)]
    second = [1 - norm.cdf((0.1 - 0.5) / width), 1 - norm.cdf((0.3 - 0.5) / width)]
    expected = [[math.sqrt(p + 1e-6) + 1e-3 for p in first], [math.sqrt(p + 1e-6) + 1e-3 for p in second]]
    np.testing.assert_allclose(reward, expected, atol=1e-12)
    assert reward[0, 1] == pytest.approx(0.98956, abs=1e-4)


def test_relative_equals_the_loop_form():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, ratings = rng.random((7, 4)), np.round(rng.random(7), 1)
        np.testing.assert_allclose(relative_reward(scores, ratings), relative_by_loops(scores, ratings), atol=1e-6)


def test_ratings_may_be_a_column():
    scores, ratings = [[0.4, 0.6], [0.1, 0.3]], np.array([0.8, 0.3])
    for reward in (relative_reward, absolute_reward, binary_reward):
        np.testing.assert_array_equal(reward(scores, ratings), reward(scores, ratings[:, None]))


def test_an_unreadable_reply_earns_zero_and_changes_no_other_reward():
    broken = relative_reward([[0.4, 0.6, NAN], [0.1, 0.3, NAN]], [0.8, 0.3])
    np.testing.assert_array_equal(broken[:, 2], 0)
    np.testing.assert_allclose(broken[:, :2], relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3]))


def test_an_image_without_readable_replies_is_not_compared():
    reward = relative_reward([[NAN, NAN], [0.4, 0.6], [0.1, 0.3]], [0.5, 0.8, 0.3])
    np.testing.assert_array_equal(reward[0], 0)
    np.testing.assert_allclose(reward[1:], relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3]))


def test_images_of_different_domains_are_not_compared():
    scores, ratings = np.random.default_rng(1).random((4, 3)), [0.1, 0.9, 0.4, 0.6]
    mixed = relative_reward(scores, ratings, domains=["a", "b", "a", "b"])
    np.testing.assert_allclose(mixed[[0, 2]], relative_reward(scores[[0, 2]], [0.1, 0.4]))
    np.testing.assert_allclose(mixed[[1, 3]], relative_reward(scores[[1, 3]], [0.9, 0.6]))


def test_an_image_alone_in_its_domain_earns_nothing():
    reward = relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], domains=["a", "b"])
    np.testing.assert_array_equal(reward, 0)


def test_tied_images_use_the_tie_target_in_both_directions():
    scores = [[0.5, 0.7], [0.5, 0.3]]
    parity, half = relative_reward(scores, [0.5, 0.5]), relative_reward(scores, [0.5, 0.5], tie_target=0.5)
    assert parity[0, 1] > parity[0, 0] and parity[1, 0] > parity[1, 1]  # the paper: higher is better on both sides
    assert half[0, 0] > half[0, 1] and half[1, 0] > half[1, 1]  # ½: equal is best


def test_soft_targets_are_the_preference_of_one_rater_of_each_image():
    # d = .3 and .4: √(d² + d²) = .5, so t = Φ(.5 / .5) = .8413 for the better image and .1587 for the other.
    scores = [[0.4, 0.6], [0.1, 0.3]]
    soft = relative_reward(scores, [0.8, 0.3], rater_stds=[0.3, 0.4])
    width = math.sqrt(0.04 + 1e-6)
    t = norm.cdf(1.0)
    p = norm.cdf((0.4 - 0.2) / width)
    assert soft[0, 0] == pytest.approx(math.sqrt(p * t + 1e-6) + math.sqrt((1 - p) * (1 - t) + 1e-6))
    p = norm.cdf((0.3 - 0.5) / width)
    assert soft[1, 1] == pytest.approx(math.sqrt(p * (1 - t) + 1e-6) + math.sqrt((1 - p) * t + 1e-6))


def test_targets_are_hard_where_a_rater_std_is_unknown_or_zero():
    scores, ratings = [[0.4, 0.6], [0.1, 0.3], [0.5, 0.5]], [0.8, 0.3, 0.3]
    hard = relative_reward(scores, ratings)
    for stds in ([NAN] * 3, [0.0] * 3):
        np.testing.assert_allclose(relative_reward(scores, ratings, rater_stds=stds), hard)
    certain = relative_reward(scores, ratings, rater_stds=[1e-9] * 3, tie_target=0.5)
    np.testing.assert_allclose(certain, relative_reward(scores, ratings, tie_target=0.5))  # equal ratings are even


@pytest.mark.parametrize("stds", [[0.1], [0.1, -0.1], [[0.1, 0.1]]])
def test_invalid_rater_stds_are_refused(stds):
    with pytest.raises(AesError, match="rater_stds"):
        relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], rater_stds=stds)


def test_equal_replies_make_the_comparison_a_step():
    reward = relative_reward([[0.6, 0.6], [0.2, 0.2]], [0.8, 0.3])
    np.testing.assert_allclose(reward, math.sqrt(1 + 1e-6) + 1e-3, atol=1e-9)


def test_absolute_by_hand():
    reward = absolute_reward([[0.5, 0.6, NAN]], [0.5])
    np.testing.assert_allclose(reward, [[1.00001, math.exp(-0.5) + 1e-5, 0.0]], atol=1e-12)
    np.testing.assert_allclose(absolute_reward([[0.7]], [0.5], sigma=0.2), [[math.exp(-0.5) + 1e-5]])


def test_binary_by_hand():
    np.testing.assert_array_equal(binary_reward([[0.5, 0.59, 0.61, NAN]], [0.5]), [[1, 1, 0, 0]])


def test_a_readable_reply_earns_the_format_reward_and_an_unreadable_one_nothing():
    np.testing.assert_array_equal(format_reward([[0.5, NAN], [NAN, 0.0]]), [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("scores", "ratings", "reason"),
    [
        ([], [], "nothing"),
        ([0.5], [0.5], "one dimension"),
        ([[0.5]], [0.5, 0.6], "too many ratings"),
        ([[0.5]], [[0.5, 0.6]], "a row of ratings"),
        ([[0.5]], [1.5], "outside the scale"),
        ([[0.5]], [NAN], "no rating"),
    ],
)
@pytest.mark.parametrize("reward", [relative_reward, absolute_reward, binary_reward])
def test_bad_shapes_are_refused(reward, scores, ratings, reason):
    with pytest.raises(AesError):
        reward(scores, ratings)


def test_other_bad_input_is_refused():
    with pytest.raises(AesError):
        absolute_reward([[0.5]], [0.5], sigma=0)
    with pytest.raises(AesError):
        relative_reward([[0.5], [0.4]], [0.5, 0.4], domains=["a"])
    with pytest.raises(AesError):
        format_reward([])


def test_a_big_batch_is_quick():
    rng = np.random.default_rng(0)
    scores, ratings = rng.random((512, 8)), rng.random(512)
    begun = time.perf_counter()
    relative_reward(scores, ratings)
    absolute_reward(scores, ratings)
    assert time.perf_counter() - begun < 2  # bench/rewards.py has the real figure; this machine may be busy
