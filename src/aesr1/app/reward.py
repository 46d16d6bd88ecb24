"""Scores as a reward for training image generators: pictures or tensors in, an array of floats out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aesr1.errors import AesError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aesr1.images.load import ImageSource


def reward_function(
    model: str | None = None, *, device: str | None = None, fast: bool = True
) -> Callable[..., NDArray[np.float32]]:
    """A reward: `reward(images)` gives (n,) float32, each 0–1. Further arguments, such as prompts, are ignored.

    `model`: a folder, a hub id, None for the embedded photo model. `fast`: no reasons are written, several times
    faster. Images: a list of what `Scorer` takes; a tensor or array (n, 3, height, width) or (n, height, width, 3); or
    a list of those without n. Numbers are uint8, or floats from 0 to 1. No gradient goes through it. Several threads
    may call it. AesError names the first picture that cannot be scored: a reward that is made up
    would be learnt from.
    """
    import numpy as np

    from aesr1.app.score import Scorer
    from aesr1.model.predict import PredictSettings

    scorer = Scorer(model, device=device, settings=PredictSettings(fast=fast))

    def reward(images: Any, *_: object, **__: object) -> NDArray[np.float32]:
        rows = scorer.score(to_pictures(images))
        for number, row in enumerate(rows):
            if row.score is None:
                raise AesError(f"image {number} has no score: {row.error}", fix="leave it out of the batch")
        return np.array([row.score for row in rows], dtype=np.float32)

    return reward


def to_pictures(images: Any) -> list[ImageSource]:
    """A batch in any of the forms of `reward_function` as a list. AesError says what it is instead."""
    if _is_numbers(images):
        images = _numbers(images)
        if images.ndim != 4:
            raise AesError(
                f"an array of the shape {images.shape} is no batch of pictures",
                fix="give (n, 3, height, width) or (n, height, width, 3)",
            )
    if isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise AesError(
            f"{type(images).__name__} is no batch of pictures", fix="give a list, or a tensor (n, 3, height, width)"
        )
    return [_to_uint8(_numbers(image)) if _is_numbers(image) else image for image in images]


def _is_numbers(image: object) -> bool:
    """Whether it is an array or a tensor, without importing torch."""
    return hasattr(image, "detach") or type(image).__module__ == "numpy"


def _numbers(image: Any) -> NDArray[Any]:
    import numpy as np

    if hasattr(image, "detach"):
        image = image.detach().float().cpu() if image.is_floating_point() else image.detach().cpu()
    return np.asarray(image)


def _to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(3, height, width) or (height, width, 3) of uint8 or 0–1 → uint8 (height, width, 3)."""
    import numpy as np

    channels: Sequence[int] = [axis for axis in (0, -1) if image.ndim == 3 and image.shape[axis] == 3]
    if not channels:
        raise AesError(
            f"an image of the shape {image.shape} has no three channels", fix="give (3, height, width) in RGB"
        )
    if channels[0] == 0:
        image = np.moveaxis(image, 0, -1)
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    low, high = float(image.min()), float(image.max())
    if not np.issubdtype(image.dtype, np.floating) or not -1e-3 <= low <= high <= 1 + 1e-3:
        raise AesError(
            f"an image of {image.dtype} has values from {low:g} to {high:g}",
            fix="give uint8, or floats from 0 to 1: from −1 to 1, pass (images + 1) / 2",
        )
    whole: NDArray[np.uint8] = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    return whole
