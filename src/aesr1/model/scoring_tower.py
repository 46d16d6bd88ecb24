"""An EfficientNet tower as scoring needs it: fewer layers that compute the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import EfficientNetModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetSqueezeExciteLayer

NORMS = {
    "convolution": "batchnorm",
    "expand_conv": "expand_bn",
    "depthwise_conv": "depthwise_norm",
    "project_conv": "project_bn",
    "top_conv": "top_bn",
}
"""A convolution's name and that of the batch norm after it."""


def prepare_tower(model: Any) -> None:
    """Join batch norm with convolutions, drop gates that are always open, and see pictures one by one: for a CPU.

    Features differ by the rounding of float32 alone. Maps of several pictures are so large that most of the time goes
    into getting their memory (bench/photo_speed.py). Not for training: a saved model must keep its layers. Does
    nothing where the tower is not an EfficientNet.
    """
    tower = getattr(getattr(model, "model", None), "vision_tower", None)
    if not isinstance(tower, EfficientNetModel):
        return
    for module in list(tower.modules()):
        for convolution, norm in NORMS.items():
            if isinstance(getattr(module, norm, None), torch.nn.BatchNorm2d):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
                setattr(module, norm, torch.nn.Identity())
        gate = getattr(module, "squeeze_excite", None)
        if isinstance(gate, EfficientNetSqueezeExciteLayer) and _always_open(gate):
            module.squeeze_excite = torch.nn.Identity()
        if isinstance(module, torch.nn.ReLU6):
            module.inplace = True  # nothing else reads its input: the maps between layers are the costly memory
    tower.to(memory_format=torch.channels_last)
    tower.forward = partial(_one_by_one, tower.forward)


def _one_by_one(forward: Any, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPoolingAndNoAttention:
    pictures = torch.split(pixel_values.contiguous(memory_format=torch.channels_last), 1)
    maps = [forward(picture, **kwargs).last_hidden_state for picture in pictures]
    return BaseModelOutputWithPoolingAndNoAttention(last_hidden_state=torch.cat(maps))


def _always_open(gate: EfficientNetSqueezeExciteLayer) -> bool:
    """Whether the gate multiplies all by 1: its weights are 0 and the sigmoid of its bias is 1."""
    return not gate.expand.weight.any() and bool((gate.expand.bias.sigmoid() == 1).all())
