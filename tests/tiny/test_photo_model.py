"""How the photo model begins."""

from __future__ import annotations

import torch

from photo_model import begin_with_components, build_model, build_processor
from photo_tower import build_tower, package_weights


def test_the_projector_begins_with_the_components_in_which_pictures_differ():
    model = build_model(build_processor(["A photo."], prompts=()), build_tower(package_weights()), seed=0)
    rng = torch.Generator().manual_seed(0)
    features = 5 + 2 * torch.randn(200, 1408, 9, 9, generator=rng)
    told = torch.randn(200, generator=rng)  # moves every tenth channel of a whole picture
    features[:, ::10] += told[:, None, None, None]
    features[:, 1280:] = 0
    begin_with_components(model, features)
    first = model.model.multi_modal_projector.linear_1
    seen = first(features.flatten(2).transpose(1, 2)).detach()
    assert seen.mean((0, 1)).abs().max() < 0.01 and (seen.std((0, 1)) - 1).abs().max() < 0.01
    assert not first.weight[:, 1280:].any()
    largest = seen.mean(1)[:, -1]  # the last component has the most variance
    assert abs(torch.corrcoef(torch.stack([largest, told]))[0, 1]) > 0.99
