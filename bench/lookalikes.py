"""How many altered copies `ratings check` finds, and how many different pictures it confuses, in a folder or on scenes.

    python bench/lookalikes.py [FOLDER]

Compared with the usual 64-bit difference hash (copies within 6 bits).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from aesr1.images.find import find_images
from aesr1.images.load import open_image
from aesr1.images.look_alikes import grey_fingerprint, look_alikes, look_alikes_of_all
from aesr1.tiny.scenes import draw_scene, sample_scene

BITS = 6


def compressed(picture: Image.Image, quality: int, scale: float) -> Image.Image:
    """Resized and saved as JPEG."""
    buffer = io.BytesIO()
    size = (round(picture.width * scale), round(picture.height * scale))
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(picture: Image.Image, share: float) -> Image.Image:
    """Crop this share of the width and of the height."""
    x, y = picture.width * share / 2, picture.height * share / 2
    return picture.crop((round(x), round(y), round(picture.width - x), round(picture.height - y)))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half size, JPEG 50": lambda picture: compressed(picture, 50, 0.5),
    ".37 size, JPEG 20": lambda picture: compressed(picture, 20, 0.37),
    "a fifth brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "cropped by 3 %": lambda picture: cropped(picture, 0.03),
    "cropped by 10 %": lambda picture: cropped(picture, 0.10),
}


def thumbnails_of(pictures: list[Image.Image]) -> np.ndarray:
    """Thumbnails as `ratings check` makes them (n, values)."""
    return np.frombuffer(b"".join(map(grey_fingerprint, pictures)), dtype=np.uint8).reshape(len(pictures), -1)


def hashes(pictures: list[Image.Image]) -> np.ndarray:
    """Difference hashes (n, 64)."""
    cells = [np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=int) for picture in pictures]
    return np.stack([(cell[:, :-1] < cell[:, 1:]).ravel() for cell in cells])


def main() -> None:
    """Print the share of copies that are found, and the number of different pictures that count as the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    rng = np.random.default_rng(0)
    if folder:
        pictures = [open_image(path) for path in find_images([folder]).paths]
    else:
        pictures = [draw_scene(sample_scene(rng)) for _ in range(600)]
    n = len(pictures)
    thumbnails, bits = thumbnails_of(pictures), hashes(pictures)
    different = n * (n - 1) // 2
    distance = (bits[:, None, :] != bits[None, :, :]).sum(axis=2)
    ours = len(look_alikes_of_all(thumbnails))
    hashed = int((np.triu(distance <= BITS, 1)).sum())
    print(f"{n} pictures; of {different:,} different pairs counted as the same: ours {ours}, difference hash {hashed}")
    for name, alter in ALTERED.items():
        copies = [alter(picture) for picture in pictures]
        splits = np.repeat([0, 1], n)
        found = {(a, b - n) for a, b in look_alikes(np.concatenate([thumbnails, thumbnails_of(copies)]), splits)}
        share = sum((i, i) in found for i in range(n)) / n
        share_hashed = float(((bits != hashes(copies)).sum(axis=1) <= BITS).mean())
        print(f"{name:20} found: ours {share:.3f}, difference hash {share_hashed:.3f}")


if __name__ == "__main__":
    main()
