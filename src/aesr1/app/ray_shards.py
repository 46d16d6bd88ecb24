"""Shards of a source for many machines, and their pictures: lists of files, slices of Parquet, WebDataset tars."""

from __future__ import annotations

import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from aesr1.errors import AesError
from aesr1.images.find import iterate_images
from aesr1.images.formats import suffixes
from aesr1.images.load import ImageSource, open_image
from aesr1.images.picture_list import PictureList
from aesr1.model.predict import identity_of
from aesr1.terminal import say

SHARD_PICTURES = 1_000
"""Pictures of a shard at most, but a tar is one shard."""
CONTAINERS = frozenset({".parquet", ".tar"})
COLUMNS = ("image", "bytes", "path")
"""The columns of a Parquet file that may hold pictures; the first that is there does."""
OPENED_EARLY = 64

Item = TypeVar("Item")
Made = TypeVar("Made")


class Opened(NamedTuple):
    """A picture of a shard, or what is wrong with it."""

    name: str  # its path or address; of a picture in a file, the file and its name or row there
    picture: Image.Image | None
    error: str | None = None
    identity: Mapping[str, Any] = MappingProxyType({})  # size, time and hash, of a file on disk


def shards_of(inputs: Iterable[str], *, leave_out: Path, pictures: int = SHARD_PICTURES) -> Iterator[dict[str, Any]]:
    """The shards of folders, files, globs and fsspec addresses, in order, as JSON objects that `pictures_of` reads.

    `leave_out`: a folder that is no source. AesError where nothing is found, and for a Parquet file without pictures.
    """
    waiting: list[str] = []
    for path in PictureList(_files(inputs)):
        if Path(path).is_relative_to(leave_out):
            continue
        kind = PurePosixPath(path).suffix.lower()
        if kind == ".parquet":
            yield from _slices(path, pictures)
        elif kind == ".tar":
            yield {"tar": path}
        else:
            waiting.append(path)
            if len(waiting) == pictures:
                yield {"paths": waiting}
                waiting = []
    if waiting:
        yield {"paths": waiting}


def _files(inputs: Iterable[str]) -> Iterator[str]:
    """Absolute paths and addresses of pictures and containers."""
    warnings: list[str] = []
    for entry in inputs:
        if "://" in entry:
            yield from _files_at(entry)
        else:
            yield from map(str, iterate_images([entry], warnings, also=CONTAINERS))
    for warning in warnings:
        say(warning)


def _files_at(address: str) -> list[str]:
    import fsspec

    try:
        files, place = fsspec.core.url_to_fs(address)
        names = files.glob(place) if any(mark in place for mark in "*?[") else files.find(place)
        kinds = suffixes() | CONTAINERS
        found = [files.unstrip_protocol(name) for name in sorted(names) if PurePosixPath(name).suffix.lower() in kinds]
    except (ImportError, ValueError) as error:  # a protocol whose package is missing, or that is unknown
        raise AesError(f"{address} cannot be read: {error}", fix="install the package that fsspec names") from error
    except Exception as error:  # each service has its own errors
        raise AesError(f"{address} cannot be read: {error}", fix="check the address and the credentials") from error
    if not found:
        raise AesError(f"{address} holds no pictures", fix=f"looked for {', '.join(sorted(kinds))}")
    return found


def _slices(path: str, pictures: int) -> Iterator[dict[str, Any]]:
    """Slices of the row groups of a Parquet file."""
    with _parquet(path) as file:
        _picture_column(path, file.schema_arrow)
        for group in range(file.metadata.num_row_groups):
            for start in range(0, file.metadata.row_group(group).num_rows, pictures):
                yield {"parquet": path, "group": group, "start": start, "rows": pictures}


def _parquet(path: str) -> Any:
    """An open Parquet file. AesError where it is none."""
    import fsspec
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(fsspec.open(path, "rb").open())
    except (ArrowInvalid, OSError) as error:
        raise AesError(f"{path} cannot be read: {error}", fix="make the file again, or leave it out") from error


def _picture_column(path: str, schema: Any) -> str:
    """The column with the pictures: paths, bytes, or Hugging Face's struct of both. AesError where there is none."""
    from pyarrow import types

    for name in (name for name in COLUMNS if name in schema.names):
        kind = schema.field(name).type
        of_text_or_bytes = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        if any(check(kind) for check in of_text_or_bytes):
            return name
        if types.is_struct(kind) and {field.name for field in kind} & {"bytes", "path"}:
            return name
    raise AesError(
        f"{path} has no column of pictures; it has {', '.join(schema.names) or 'none at all'}",
        fix="name the column image, bytes or path: paths as text, the bytes of files, or a struct of bytes and path",
    )


def pictures_of(shard: dict[str, Any], pool: Executor, *, max_pixels: int) -> Iterator[Opened]:
    """The pictures of a shard in order; `pool`'s threads fetch and open a few early. A broken file ends in an error."""
    sources = _in_tar(shard["tar"]) if "tar" in shard else _in_parquet(shard) if "parquet" in shard else _paths(shard)
    return _early(pool, partial(_open, max_pixels=max_pixels), sources, depth=OPENED_EARLY)


def _paths(shard: dict[str, Any]) -> Iterator[tuple[str, ImageSource | AesError]]:
    return ((path, path) for path in shard["paths"])


def _in_parquet(shard: dict[str, Any]) -> Iterator[tuple[str, ImageSource | AesError]]:
    path, group, start = shard["parquet"], shard["group"], shard["start"]
    with _parquet(path) as file:
        column = _picture_column(path, file.schema_arrow)
        names = sorted({column, "path"} & set(file.schema_arrow.names))
        batches = file.iter_batches(row_groups=[group], columns=names, batch_size=OPENED_EARLY)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in islice(enumerate(rows), start, start + shard["rows"]):
            cell = row[column]
            inside = cell if isinstance(cell, dict) else {"path" if isinstance(cell, str) else "bytes": cell}
            content, given = inside.get("bytes"), row.get("path") if isinstance(row.get("path"), str) else None
            named = inside.get("path") or given
            if content is None and named:
                place = named if "://" in named else os.path.join(os.path.dirname(path), named)  # noqa: PTH118, PTH120
                yield place, place
            else:
                yield f"{path}#{group}.{number}" + (f" {named}" if named else ""), content or b""


def _in_tar(path: str) -> Iterator[tuple[str, ImageSource | AesError]]:
    import fsspec

    try:
        with fsspec.open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as file:
            for member in file:
                place = PurePosixPath(member.name)
                if member.isfile() and place.suffix.lower() in suffixes() and not place.name.startswith("._"):
                    content = file.extractfile(member)
                    yield f"{path}/{member.name}", content.read() if content else b""
    except (OSError, tarfile.TarError) as error:
        yield path, AesError(f"the tar cannot be read to its end: {error}", fix="make it again")


def _open(source: tuple[str, ImageSource | AesError], *, max_pixels: int) -> Opened:
    name, content = source
    try:
        if isinstance(content, AesError):
            raise content
        if isinstance(content, str) and "://" in content:
            return Opened(name, open_image(_fetched(content), max_pixels=max_pixels))
        return Opened(
            name,
            open_image(content, max_pixels=max_pixels),
            identity=identity_of(content) if isinstance(content, str) else {},
        )
    except AesError as error:
        return Opened(name, None, error.problem.removeprefix(f"{name} "))


def _fetched(address: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # each service has its own errors
        raise AesError(f"{address} cannot be read: {error}", fix="check the address and the credentials") from error


def _early(pool: Executor, make: Callable[[Item], Made], items: Iterable[Item], *, depth: int) -> Iterator[Made]:
    """As `map`, with so many made early by the pool."""
    jobs: deque[Future[Made]] = deque()
    for item in items:
        jobs.append(pool.submit(make, item))
        if len(jobs) > depth:
            yield jobs.popleft().result()
    while jobs:
        yield jobs.popleft().result()
