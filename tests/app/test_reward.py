"""Rewards for image generators: every form of a batch, what is refused, and the signatures of trainers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from aesr1 import Scorer, reward_function
from aesr1.app.reward import to_pictures
from aesr1.errors import AesError
from aesr1.model.predict import PredictSettings
from aesr1.tiny.scenes import draw_scene, sample_scene

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reward(random_model):
    return reward_function(str(random_model))


@pytest.mark.parametrize(
    "batch",
    [
        PIXELS,
        PIXELS.transpose(0, 3, 1, 2),
        PIXELS.transpose(0, 3, 1, 2) / 255,
        torch.tensor(PIXELS),
        torch.tensor(PIXELS).permute(0, 3, 1, 2),
        torch.tensor(PIXELS).permute(0, 3, 1, 2) / 255,
        (torch.tensor(PIXELS).permute(0, 3, 1, 2) / 255).requires_grad_(),
        list(torch.tensor(PIXELS).permute(0, 3, 1, 2) / 255),
        list(PIXELS),
        (pixels for pixels in PIXELS),
    ],
)
def test_every_form_of_a_batch_is_the_same_pictures(batch):
    assert all(np.array_equal(one, other) for one, other in zip(to_pictures(batch), PIXELS, strict=True))


def test_half_precision_is_as_near_as_it_can_be():
    half = (torch.tensor(PIXELS).permute(0, 3, 1, 2) / 255).to(torch.bfloat16)
    assert np.abs(np.array(to_pictures(half)).astype(int) - PIXELS).max() <= 1


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        (PIXELS[0], "no batch of pictures"),
        (torch.zeros(2, 1, 30, 30), "has no three channels"),
        (torch.zeros(2, 3, 30, 30) - 1, "values from -1 to -1"),
        (torch.full((1, 3, 30, 30), 255.0), "values from 255 to 255"),
        (torch.full((1, 3, 30, 30), float("nan")), "values from nan"),
        (np.zeros((1, 3, 30, 30), dtype=np.int64), "an image of int64"),
        ("a.jpg", "str is no batch"),
        (3, "int is no batch"),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(batch, problem):
    with pytest.raises(AesError, match=problem):
        to_pictures(batch)


def test_rewards_are_the_scores_of_the_scorer(reward, random_model):
    pictures = [draw_scene(sample_scene(np.random.default_rng(seed))) for seed in range(3)]
    scores = [row.score for row in Scorer(str(random_model), settings=PredictSettings(fast=True)).score(pictures)]
    found = reward(pictures)
    assert found.dtype == np.float32
    assert found == pytest.approx(scores, abs=1e-5)


def test_a_picture_that_cannot_be_scored_is_an_error_not_a_number(reward):
    with pytest.raises(AesError, match="image 1 has no score"):
        reward([Image.new("RGB", (60, 60)), b"no picture"])


def test_threads_get_their_own(reward):
    pictures = [draw_scene(sample_scene(np.random.default_rng(seed))) for seed in range(4)]
    alone = [reward([picture])[0] for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: reward([picture])[0], pictures))
    assert together == pytest.approx(alone, abs=1e-6)


def test_the_signatures_of_trainers(reward):
    """As docs/scoring.md has them: flow-GRPO and DDPO over diffusers, and a reward of TRL's GRPOTrainer."""
    images = torch.tensor(PIXELS).permute(0, 3, 1, 2) / 255

    def for_diffusion(images, prompts, metadata):
        return torch.as_tensor(reward(images)), {}

    rewards, _ = for_diffusion(images, ["a lake", "a dog"], [{}, {}])
    assert rewards.shape == (2,)

    def for_trl(prompts, completions, image, **columns):
        return reward(image).tolist()

    assert len(for_trl(["a", "b"], ["c", "d"], image=[Image.fromarray(pixels) for pixels in PIXELS], extra=1)) == 2
