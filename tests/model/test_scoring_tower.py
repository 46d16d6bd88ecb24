"""Scoring's tower computes what the saved one does."""

from __future__ import annotations

import torch

from aesr1.model.load import PHOTO, TINY, load


def features(model, pixels):
    with torch.inference_mode():
        return model.model.vision_tower(pixels).last_hidden_state


def test_the_prepared_tower_computes_the_same():
    saved, prepared = (load(PHOTO, device="cpu", for_scoring=scoring).model for scoring in (False, True))
    pixels = torch.randn(3, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    wanted, found = features(saved, pixels), features(prepared, pixels)
    assert wanted.shape == found.shape and (found - wanted).abs().max() < 1e-4 < wanted.abs().max()
    norms = [module for module in prepared.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    gates = [module for name, module in prepared.named_modules() if name.endswith("squeeze_excite")]
    assert not norms and len(gates) == 21 and all(isinstance(gate, torch.nn.Identity) for gate in gates)


def test_features_of_a_picture_do_not_depend_on_its_batch():
    model = load(PHOTO, device="cpu", for_scoring=True).model
    pixels = torch.randn(3, 3, 260, 260, generator=torch.Generator().manual_seed(1))
    assert torch.equal(features(model, pixels)[1:2], features(model, pixels[1:2]))


def test_another_tower_stays_as_it_is():
    saved, prepared = (load(TINY, device="cpu", for_scoring=scoring).model.state_dict() for scoring in (False, True))
    assert saved.keys() == prepared.keys() and all(torch.equal(saved[name], prepared[name]) for name in saved)
