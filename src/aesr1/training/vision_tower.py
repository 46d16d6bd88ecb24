"""A vision tower while the model trains: batch norm stays still, features of a frozen one are kept, dropout on them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from aesr1.errors import AesError
from aesr1.training.parameters import PROJECTORS

KEPT_BYTES = 1 << 30
"""Features of a frozen tower that are kept: those of about 2,300 pictures for the embedded photo model."""


def keep_batch_norm(model: Any) -> None:
    """Batch norm stays as in scoring for the whole of training, frozen or not.

    In training mode it would normalise by the few pictures of a micro-batch and move its statistics, so that the model
    in scoring would not be the trained one.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
            module.train = partial(_stay, module)  # type: ignore[method-assign]


def _stay(module: Any, mode: bool = True) -> Any:
    return module


def keep_features(model: Any) -> None:
    """Keep the features of a frozen tower, so that a picture is seen once in a run, not at every step.

    For towers that see each picture by itself in one square and give one map of features: FastVLM's. In a profile of
    the photo model's RAPO the tower was most of a step.
    """
    if model.config.model_type == "fast_vlm":
        tower = model.model.vision_tower
        tower.forward = _KeptFeatures(tower.forward)


def share_features(model: Any, reference: Any) -> None:
    """Let the reference of RAPO use the features that the trained model keeps: its tower is the same frozen one."""
    tower = model.model.vision_tower if model.config.model_type == "fast_vlm" else None
    if tower is not None and isinstance(tower.forward, _KeptFeatures):
        reference.model.vision_tower.forward = tower.forward


class _KeptFeatures:
    """A tower's forward that looks a picture up before it computes; the least recently used are forgotten."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward
        self.features: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.output: type | None = None
        self.bytes = 0

    def __call__(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        keys = [hashlib.blake2b(picture.cpu().numpy(), digest_size=16).digest() for picture in pixel_values]
        new = {key: index for index, key in enumerate(keys) if key not in self.features}
        found = {key: self.features[key] for key in keys if key in self.features}
        if new:
            with torch.no_grad():
                seen = self.forward(pixel_values[list(new.values())], **kwargs)
            self.output = type(seen)
            found |= dict(zip(new, seen.last_hidden_state.clone(), strict=True))
        for key in keys:
            self._keep(key, found[key])
        assert self.output is not None
        return self.output(last_hidden_state=torch.stack([found[key] for key in keys]))

    def _keep(self, key: bytes, features: torch.Tensor) -> None:
        if key not in self.features:
            self.bytes += features.nbytes
        self.features[key] = features
        self.features.move_to_end(key)
        while self.bytes > KEPT_BYTES:
            self.bytes -= self.features.popitem(last=False)[1].nbytes


def drop_features(model: Any, share: float) -> None:
    """Where gradients are computed, set this share of the channels to 0 before the projector.

    A channel is left out in all tokens of a picture: in a few of many tokens it would hardly be missed. Families that
    put all pictures of a micro-batch into one row lose the same channels in all. Replies, reference and validation
    see everything. AesError where no projector is found.
    """
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in PROJECTORS:
            module.register_forward_pre_hook(partial(_dropped, share))
            return
    raise AesError(
        "picture_dropout needs a layer after the vision tower, and none was found", fix="leave picture_dropout out"
    )


def _dropped(share: float, module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    features = inputs[0]
    channels = features.new_ones(*features.shape[:-2], 1, features.shape[-1])
    learning = module.training and torch.is_grad_enabled()
    return (features * torch.nn.functional.dropout(channels, share, training=learning), *inputs[1:])
