"""Opens and shrinks pictures in worker processes before the model needs them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from aesr1.errors import AesError
from aesr1.images.load import ImageSource, image_size, open_image
from aesr1.images.srgb import LARGE_PIXELS
from aesr1.worker_processes import worker_pool

MIN_PREFETCHED, MAX_WORKERS = 32, 8
"""For fewer pictures processes are not worth their start; more processes are faster than any model."""
OPEN_APART = (
    "import pickle, sys; from aesr1.images.prefetch import _open\n"
    "sys.stdout.buffer.write(pickle.dumps(_open(sys.argv[1], int(sys.argv[2]))))"
)


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
    images: Iterable[ImageSource], *, max_pixels: int, pool: Executor | None, depth: int
) -> Iterator[Image.Image | AesError]:
    """Each picture in order, or its error.

    `pool` opens at most `depth` pictures early; None opens each when it is needed.
    """
    if pool is None:
        yield from (_open(image, max_pixels) for image in images)
        return
    jobs: deque[tuple[ImageSource, Future[Image.Image | AesError]]] = deque()
    try:
        for image in images:
            jobs.append((image, _submit(pool, image, max_pixels)))
            if len(jobs) > depth:
                yield _result(*jobs.popleft(), max_pixels)
        while jobs:
            yield _result(*jobs.popleft(), max_pixels)
    finally:
        for _, job in jobs:
            job.cancel()


def _result(image: ImageSource, job: Future[Image.Image | AesError], max_pixels: int) -> Image.Image | AesError:
    """The opened picture. One that a killed process had in hand is opened again, apart from the others."""
    try:
        return job.result()
    except BrokenProcessPool:
        return _open_apart(str(image), max_pixels)


def _open_apart(path: str, max_pixels: int) -> Image.Image | AesError:
    """A large picture is opened in a process of its own, because it may be what memory ran out for."""
    try:
        width, height = image_size(path)
        if width * height <= LARGE_PIXELS:
            return open_image(path, max_pixels=max_pixels)
    except AesError as error:
        return error
    done = subprocess.run([sys.executable, "-c", OPEN_APART, path, str(max_pixels)], capture_output=True, check=False)
    if done.returncode:
        return AesError(
            f"the process that opened {path} was killed, as happens where memory runs out",
            fix="free some memory, or make a smaller copy of the picture",
        )
    opened: Image.Image | AesError = pickle.loads(done.stdout)  # our own process wrote it
    return opened


def _submit(pool: Executor, image: ImageSource, max_pixels: int) -> Future[Image.Image | AesError]:
    """A picture in memory is shrunk here: sending it to a process would take longer."""
    done: Future[Image.Image | AesError] = Future()
    if isinstance(image, str | Path):
        try:
            return pool.submit(_open, str(image), max_pixels)
        except BrokenProcessPool as error:
            done.set_exception(error)
            return done
    done.set_result(_open(image, max_pixels))
    return done


def _open(image: ImageSource, max_pixels: int) -> Image.Image | AesError:
    try:
        return open_image(image, max_pixels=max_pixels)
    except AesError as error:
        return error
