from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from aesr1.contract import Judgement, render_reply
from aesr1.errors import AesError
from aesr1.rapo.reward_functions import RewardSettings, reward_functions
from aesr1.rapo.rewards import absolute_reward, relative_reward

SETTINGS = RewardSettings(comparison_scope="local", sigma=0.1, threshold=0.1, tie_target=1.0)


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
    relative, absolute, form = reward_functions(["relative", "absolute", "format"], SETTINGS)
    np.testing.assert_allclose(relative(**rows), relative_reward(scores, ratings).reshape(-1))
    np.testing.assert_allclose(absolute(**rows), absolute_reward(scores, ratings).reshape(-1))
    assert form(**rows) == [1.0] * 6


def test_an_unreadable_reply_earns_nothing_in_every_part():
    rows = batch([[0.4, None], [0.1, 0.3]], [0.8, 0.3])
    for reward in reward_functions(["relative", "absolute", "binary", "format"], SETTINGS):
        assert reward(**rows)[1] == 0


def test_two_rows_of_one_picture_stay_two_groups_and_domains_apart():
    rows = batch([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], ["a", "b"])
    (relative,) = reward_functions(["relative"], SETTINGS)
    assert relative(**rows) == [0.0] * 4


def test_domains_meet_and_rater_stds_count_where_asked():
    rows = {**batch([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], ["a", "b"]), "rater_std": [0.3, 0.3, None, None]}
    (across,) = reward_functions(["relative"], replace(SETTINGS, compare_across_datasets=True))
    np.testing.assert_allclose(across(**rows), relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3]).reshape(-1))
    rows = {**rows, "rater_std": [0.3, 0.3, 0.4, 0.4]}
    (soft,) = reward_functions(["relative"], replace(SETTINGS, compare_across_datasets=True, soft_preferences=True))
    expected = relative_reward([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3], rater_stds=[0.3, 0.4])
    np.testing.assert_allclose(soft(**rows), expected.reshape(-1))


@pytest.mark.parametrize(("step", "sigma"), [(0, 0.2), (50, 0.125), (100, 0.05)])
def test_sigma_moves_over_the_run(step, sigma):
    rows = batch([[0.4, 0.6]], [0.8])
    (absolute,) = reward_functions(["absolute"], replace(SETTINGS, sigma=0.2, sigma_end=0.05))
    state = SimpleNamespace(global_step=step, max_steps=100)
    expected = absolute_reward([[0.4, 0.6]], [0.8], sigma=sigma).reshape(-1)
    np.testing.assert_allclose(absolute(**rows, trainer_state=state), expected)


def test_figures_are_logged():
    logged, columns = {}, {}
    rows = batch([[0.4, None], [0.1, 0.3]], [0.8, 0.3])
    (form,) = reward_functions(["format"], SETTINGS)
    form(**rows, log_metric=logged.__setitem__, log_extra=columns.__setitem__)
    assert logged["readable"] == 0.75
    assert logged["score/mean"] == pytest.approx(0.8 / 3)
    assert columns["score"] == [0.4, None, 0.1, 0.3]
    assert columns["rating"] == [0.8, 0.8, 0.3, 0.3]


def test_broken_groups_and_unknown_parts_are_refused():
    rows = batch([[0.4, 0.6], [0.1, 0.3]], [0.8, 0.3])
    (relative,) = reward_functions(["relative"], SETTINGS)
    with pytest.raises(AesError, match="groups"):
        relative(**{name: values[:3] for name, values in rows.items()})
    for parts in (["beauty"], []):
        with pytest.raises(AesError, match="unknown reward"):
            reward_functions(parts, SETTINGS)
