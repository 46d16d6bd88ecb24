"""Opens and shrinks pictures in worker processes before the model needs them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from aesr1.errors import AesError
from aesr1.images.load import open_image, to_rgb
from aesr1.worker_processes import worker_pool

MIN_PREFETCHED, MAX_WORKERS = 32, 8
"""For fewer pictures processes are not worth their start; more processes are faster than any model."""


@contextmanager
def prefetch_pool(pictures: int) -> Iterator[Executor | None]:
    """A pool that opens this many pictures; None for few. Enter it before a model loads, which starts threads."""
    if pictures < MIN_PREFETCHED:
        yield None
        return
    with worker_pool(min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def prefetch_images(
    images: Iterable[str | Path | Image.Image], *, max_pixels: int, pool: Executor | None, depth: int
) -> Iterator[Image.Image | AesError]:
    """Each picture in order, or its error.

    `pool` opens at most `depth` pictures early; None opens each when it is needed.
    """
    if pool is None:
        yield from (_open(image, max_pixels) for image in images)
        return
    jobs: deque[Future[Image.Image | AesError]] = deque()
    try:
        for image in images:
            jobs.append(_submit(pool, image, max_pixels))
            if len(jobs) > depth:
                yield jobs.popleft().result()
        while jobs:
            yield jobs.popleft().result()
    except BrokenProcessPool as error:
        raise AesError(
            "a process that opened pictures was killed, as happens where memory runs out",
            fix="free some memory, or leave the largest pictures out; the same command resumes from here",
        ) from error
    finally:
        for job in jobs:
            job.cancel()


def _submit(pool: Executor, image: str | Path | Image.Image, max_pixels: int) -> Future[Image.Image | AesError]:
    """A picture in memory is shrunk here: sending it to a process would take longer."""
    if not isinstance(image, Image.Image):
        return pool.submit(_open, str(image), max_pixels)
    done: Future[Image.Image | AesError] = Future()
    done.set_result(_open(image, max_pixels))
    return done


def _open(image: str | Path | Image.Image, max_pixels: int) -> Image.Image | AesError:
    try:
        if not isinstance(image, Image.Image):
            return open_image(image, max_pixels=max_pixels)
        return to_rgb(image, max_pixels=max_pixels)
    except AesError as error:
        return error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reads a file lazily
        return AesError(f"the picture cannot be read: {error}", fix="leave it out")
