from types import SimpleNamespace

import numpy as np
import pytest

from aesr1.contract import Judgement, render_reply
from aesr1.errors import AesError
from aesr1.rapo.reward_functions import REWARDS, RewardSettings, reward_functions
from aesr1.rapo.rewards import absolute_reward, relative_reward


def functions(*rewards, **settings):
    return reward_functions(RewardSettings(list(rewards), **settings))


def batch(scores, ratings, domains=None):
    """TRL's flat form of a grid: K replies a row, one after another; None is an unreadable reply."""
    n, k = np.shape(scores)
    texts = ["broken" if s is None else render_reply(Judgement(s, "x")) for row in scores for s in row]
    return {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "sample": np.repeat(range(n), k).tolist(),
        "rating": np.repeat(ratings, k).tolist(),
        "domain": np.repeat(domains or ["d"] * n, k).tolist(),
    }


def test_the_flat_batch_earns_what_the_grid_earns():
    scores, ratings = [[0.4, 0.6, 0.5], [0.1, 0.3, 0.2]], [0.8, 0.3]
    rows = batch(scores, ratings)
    relative, absolute, form = functions("relative", "absolute", "format")
    np.testing.assert_allclose(relative(**rows), relative_reward(scores, ratings).reshape(-1))
    np.testing.assert_allclose(absolute(**rows), absolute_reward(scores, ratings).reshape(-1))
    assert form(**rows) == [1.0] * 6


def test_an_unreadable_reply_earns_zero_of_every_reward():
    rows = batch([[0.4, None], [0.1, 0.3]], [0.8, 0.3])
    for reward in functions(*REWARDS):
        assert reward(**rows)[1] == 0


def test_images_of_different_data_sets_are_not_compared():
    rows = batch([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], ["a", "b"])
    (relative,) = functions("relative")
    assert relative(**rows) == [0.0] * 4


def test_data_sets_are_compared_and_rater_stds_used_only_where_set():
    rows = {**batch([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], ["a", "b"]), "rater_std": [0.3, 0.3, None, None]}
    (across,) = functions("relative", compare_across_datasets=True)
    np.testing.assert_allclose(across(**rows), relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3]).reshape(-1))
    rows = {**rows, "rater_std": [0.3, 0.3, 0.4, 0.4]}
    (soft,) = functions("relative", compare_across_datasets=True, soft_preferences=True)
    expected = relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], rater_stds=[0.3, 0.4])
    np.testing.assert_allclose(soft(**rows), expected.reshape(-1))


@pytest.mark.parametrize(("step", "sigma"), [(0, 0.2), (50, 0.125), (100, 0.05)])
def test_sigma_moves_over_the_run(step, sigma):
    rows = batch([[0.4, 0.6]], [0.8])
    (absolute,) = functions("absolute", sigma=0.2, sigma_end=0.05)
    state = SimpleNamespace(global_step=step, max_steps=100)
    expected = absolute_reward([[0.4, 0.6]], [0.8], sigma=sigma).reshape(-1)
    np.testing.assert_allclose(absolute(**rows, trainer_state=state), expected)


def test_figures_are_logged():
    logged, columns = {}, {}
    rows = batch([[0.4, None], [0.1, 0.3]], [0.8, 0.3])
    (form,) = functions("format")
    form(**rows, log_metric=logged.__setitem__, log_extra=columns.__setitem__)
    assert logged["readable"] == 0.75
    assert logged["score/mean"] == pytest.approx(0.8 / 3)
    assert columns["score"] == [0.4, None, 0.1, 0.3]
    assert columns["rating"] == [0.8, 0.8, 0.3, 0.3]


def test_broken_groups_and_unknown_rewards_are_refused():
    rows = batch([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3])
    (relative,) = functions("relative")
    with pytest.raises(AesError, match="groups"):
        relative(**{name: values[:3] for name, values in rows.items()})
    for rewards in (["beauty"], []):
        with pytest.raises(AesError, match="unknown reward"):
            functions(*rewards)
