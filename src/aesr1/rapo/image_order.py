"""The order of images in an epoch: by seed and epoch and, if wanted, so that compared images are of one data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from trl.trainer.utils import RepeatSampler


def blocks_of_one_dataset(order: Sequence[int], domains: Sequence[str], size: int) -> list[int]:
    """The images of `order` in blocks of `size` that are of one data set each.

    A block stands where its last image stood. Images that fill no block at the end are left out: others in each epoch.
    """
    blocks: list[int] = []
    waiting: dict[str, list[int]] = defaultdict(list)
    for image in order:
        block = waiting[domains[image]]
        block.append(image)
        if len(block) == size:
            blocks += block
            block.clear()
    return blocks


def images_in_blocks(domains: Sequence[str], size: int) -> int:
    """The number of images that `blocks_of_one_dataset` keeps."""
    return sum(count // size * size for count in Counter(domains).values())


class ImageOrder(RepeatSampler):  # type: ignore[misc]  # TRL is untyped
    """TRL's sampler with an order that depends on seed and epoch, so that a resumed run uses the same images.

    `domains`: the data set of each image. `block`: so many images in a row are of one data set; 0: of any.
    """

    def __init__(self, *args: Any, domains: Sequence[str] = (), block: int = 0) -> None:
        super().__init__(*args)
        self.domains, self.block = domains, block
        if block:
            self.num_samples = images_in_blocks(domains, block)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of every epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)

    def __iter__(self) -> Iterator[int]:
        if not self.block:
            yield from super().__iter__()
            return
        images = blocks_of_one_dataset(self._all_images(), self.domains, self.block)
        places = RepeatSampler(images, self.mini_repeat_count, self.batch_size, self.repeat_count, shuffle=False)
        yield from (images[place] for place in places)

    def _all_images(self) -> list[int]:
        count = len(self.domains)
        order: list[int] = torch.randperm(count, generator=self.generator).tolist() if self.shuffle else [*range(count)]
        return order
