"""The settings of the model that cold start and RAPO share."""

from __future__ import annotations

from dataclasses import dataclass, field

from aesr1.contract import MAX_PIXELS
from aesr1.model.load import BACKBONE
from aesr1.training.checks import check_settings


@dataclass(frozen=True)
class ModelSettings:
    """Which model is trained, and how it is loaded."""

    _argument_group_name = "settings of the model"

    model: str = field(
        default=BACKBONE, metadata={"help": "The model to start from: a folder, a hub id, or an embedded name."}
    )
    max_pixels: int = field(default=MAX_PIXELS, metadata={"help": "Larger pictures are shrunk to this many pixels."})
    dtype: str = field(
        default="float32",
        metadata={
            "help": "Type of the weights: float32, bfloat16 or float16. For fast arithmetic alone, set bf16: true."
        },
    )
    freeze_vision: bool = field(
        default=False,
        metadata={"help": "Do not train the vision tower. The paper freezes it in the cold start, not in RAPO."},
    )
    train_projector: bool = field(
        default=False,
        metadata={"help": "With freeze_vision: train the layers between vision tower and language model all the same."},
    )
    picture_dropout: float = field(
        default=0.0,
        metadata={
            "help": "Share of the picture's channels set to 0 where the loss is computed: against learning pictures "
            "by heart."
        },
    )
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA. 0 trains all weights of the language model."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of LoRA, often twice its rank."})
    attention: str = field(
        default="sdpa", metadata={"help": "sdpa, eager, or flash_attention_2 (needs the package flash-attn)."}
    )

    def __post_init__(self) -> None:
        check_settings(self)
