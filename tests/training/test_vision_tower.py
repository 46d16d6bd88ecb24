"""Features of a frozen tower that are kept, and dropout on them."""

from __future__ import annotations

import copy

import pytest
import torch
from families import BUILDERS
from transformers import TrainingArguments

from aesr1.errors import AesError
from aesr1.model.load import load
from aesr1.training import vision_tower
from aesr1.training.launch import Launch
from aesr1.training.run import begin_run
from aesr1.training.settings import ModelSettings
from aesr1.training.vision_tower import drop_features, keep_batch_norm, keep_features, share_features
from conftest import make_once


@pytest.fixture(scope="module")
def fastvlm(tmp_path_factory):
    return load(str(make_once(tmp_path_factory, "fastvlm", BUILDERS["fastvlm"])), device="cpu", max_pixels=4096).model


def pictures(*seeds):
    return torch.stack([torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def test_kept_features_are_the_towers_and_each_picture_is_seen_once(fastvlm):
    model = copy.deepcopy(fastvlm)
    wanted = model.get_image_features(pictures(1, 2, 1, 3)).pooler_output
    seen = []
    forward = model.model.vision_tower.forward
    model.model.vision_tower.forward = lambda pixels, **kwargs: seen.append(len(pixels)) or forward(pixels, **kwargs)
    keep_features(model)
    assert torch.allclose(model.get_image_features(pictures(1, 2, 1, 3)).pooler_output, wanted, atol=1e-6)
    assert torch.allclose(model.get_image_features(pictures(3, 1)).pooler_output, wanted[[3, 0]], atol=1e-6)
    assert seen == [3]
    model.get_image_features(pictures(4, 1))
    assert seen == [3, 1]


def test_the_reference_uses_the_same_features(fastvlm):
    model, reference = copy.deepcopy(fastvlm), copy.deepcopy(fastvlm)
    share_features(model, reference)  # nothing is kept: the tower is trained
    assert model.model.vision_tower.forward != reference.model.vision_tower.forward
    keep_features(model)
    share_features(model, reference)
    model.get_image_features(pictures(1))
    assert reference.model.vision_tower.forward.features.keys() == model.model.vision_tower.forward.features.keys()


def test_the_least_recent_features_are_forgotten(fastvlm, monkeypatch):
    model = copy.deepcopy(fastvlm)
    keep_features(model)
    kept = model.model.vision_tower.forward
    model.get_image_features(pictures(1))
    monkeypatch.setattr(vision_tower, "KEPT_BYTES", 2 * kept.bytes)
    for seed in (2, 1, 3):
        model.get_image_features(pictures(seed))
    assert len(kept.features) == 2
    (last,) = (key for key in kept.features if torch.equal(kept.features[key], features_of(fastvlm, 1)))
    assert last == next(iter(kept.features))  # the older of the two that stayed


def features_of(model, seed):
    with torch.no_grad():
        return model.model.vision_tower(pictures(seed)).last_hidden_state[0]


def test_batch_norm_stays_in_eval_mode(fastvlm):
    model = copy.deepcopy(fastvlm).train()
    keep_batch_norm(model)
    model.train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms) and model.model.language_model.training


def test_features_are_dropped_in_training_alone(fastvlm):
    model = copy.deepcopy(fastvlm)
    keep_batch_norm(model)
    drop_features(model, 0.5)
    whole = fastvlm.get_image_features(pictures(1)).pooler_output
    assert torch.equal(model.eval().get_image_features(pictures(1)).pooler_output, whole)
    model.train().model.vision_tower.eval()  # it has a dropout of its own
    first, second = (model.get_image_features(pictures(1)).pooler_output for _ in range(2))
    assert not torch.equal(first, second)
    with torch.no_grad():  # a rollout
        assert torch.equal(model.get_image_features(pictures(1)).pooler_output, whole)


def test_a_dropped_channel_is_missing_in_the_whole_picture(fastvlm):
    model = copy.deepcopy(fastvlm).train()
    drop_features(model, 0.5)
    seen = []
    model.model.multi_modal_projector.linear_1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.model.multi_modal_projector(torch.ones(2, 9, fastvlm.config.vision_config.hidden_size))
    (features,) = seen
    assert set(features.unique().tolist()) == {0.0, 2.0}
    assert (features == features[:, :1]).all() and not torch.equal(features[0], features[1])


def test_both_stages_drop_what_the_settings_say(tmp_path):
    settings = ModelSettings("tiny-photo-backbone", max_pixels=4096, freeze_vision=True, picture_dropout=0.5)
    training = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    model = begin_run(settings, training, Launch(), settings={}).model
    projector = model.model.multi_modal_projector
    features = torch.ones(1, 4, projector.linear_1.in_features)
    assert not torch.equal(projector(features), projector(features))
    with torch.no_grad():
        assert torch.equal(projector(features), projector(features))


def test_dropout_needs_a_projector():
    with pytest.raises(AesError, match="none was found"):
        drop_features(torch.nn.Linear(2, 2), 0.5)
