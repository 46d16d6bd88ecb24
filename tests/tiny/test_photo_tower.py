"""The eyes of the photo model compute what their source does."""

from __future__ import annotations

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from aesr1.model.load import PHOTO, PHOTO_BACKBONE, load
from photo_tower import SIDE, build_tower, package_weights


def test_the_tower_is_efficientnet_lite2_to_the_last_bit():
    source = EfficientNet.from_name("efficientnet-lite2")
    weights = package_weights()
    source.load_state_dict(weights)
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = source.eval().extract_features(pixels)
        found = build_tower(weights)(pixels).last_hidden_state
    assert wanted.shape == (2, 1280, 9, 9) and found.shape == (2, 1408, 9, 9)
    assert (found[:, :1280] - wanted).abs().max() == 0 and not found[:, 1280:].any()


@pytest.mark.parametrize("name", [PHOTO, PHOTO_BACKBONE])
def test_the_embedded_models_have_these_eyes(name):
    """In half precision: batch norm in training mode had moved the statistics of the first one."""
    wanted = build_tower(package_weights()).state_dict()
    found = load(name, device="cpu").model.model.vision_tower.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key].float(), wanted[key].half().float()) for key in wanted)
