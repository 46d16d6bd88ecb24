"""How the photo model begins."""

from __future__ import annotations

import torch

from photo_model import build_model, build_processor, standardise_projector
from photo_tower import build_tower, package_weights


def test_the_projector_begins_with_standardised_features_and_without_dead_channels():
    model = build_model(build_processor(["A photo."], prompts=()), build_tower(package_weights()), seed=0)
    features = 5 + 2 * torch.randn(8, 1408, 9, 9, generator=torch.Generator().manual_seed(0))
    features[:, 1280:] = 0
    standardise_projector(model, features)
    first = model.model.multi_modal_projector.linear_1
    seen = first(features.flatten(2).transpose(1, 2)).detach()
    assert seen.mean().abs() < 0.01 and abs(seen.std() - (1280 / 1408) ** 0.5) < 0.05
    assert not first.weight[:, 1280:].any()
