"""Ratings in the form of Hugging Face `datasets`, in and out: that is where many keep theirs."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aesr1.errors import AesError
from aesr1.ratings.labels import on_scale
from aesr1.records import SPLITS, Rating, new_files, write_rows, write_run

FIX = "pip install 'aesr1[data]'"
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
FIELDS = tuple(field.name for field in fields(Rating))
GROUP = 100  # rows of pictures in a parquet row group, so that a viewer need not read much to show one
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tiff"}


@dataclass(frozen=True)
class HubConfig:
    """What `load_dataset` is called with, and what its columns mean."""

    name: str  # "parquet", "imagefolder", "csv", "json", or a data set of the hub
    output: Path
    data: tuple[str, ...] = ()  # files, or one folder
    columns: tuple[tuple[str, str], ...] = ()  # our field → their column; default: the same name
    scale: tuple[float, float] = (0.0, 1.0)  # nominal bounds of their score; spread is in the same units
    domain: str | None = None  # default: the last part of the name, or of the data folder
    revision: str | None = None


def import_hub(config: HubConfig) -> Path:
    """Write `images/` (the pictures as they are stored) and `ratings.jsonl`; its path. AesError names split and row."""
    started = time.time()
    low, high = config.scale
    if not low < high:
        raise AesError(f"the scale runs from {low} to {high}", fix="pass --scale LOW HIGH with LOW below HIGH")
    unknown = [field for field, _ in config.columns if field not in FIELDS]
    if unknown:
        raise AesError(f"{unknown[0]!r} is no field of a rating", fix=f"map one of {', '.join(FIELDS)}")
    loaded = _load(config)
    target = config.output / "ratings.jsonl"
    with new_files(config.output, target.name, "images"):
        write_rows(target, _ratings(config, loaded))
    write_run(config.output, f"ratings import hf {config.name}", config, started=started)
    return target


def _load(config: HubConfig) -> Mapping[str, Any]:
    """The data set's splits, pictures left as they are stored."""
    try:
        import datasets
    except ImportError as error:
        raise AesError("this needs Hugging Face datasets", fix=FIX) from error
    where: dict[str, Any] = {}
    if len(config.data) == 1 and Path(config.data[0]).is_dir():
        where["data_dir"] = config.data[0]
    elif config.data:
        where["data_files"] = list(config.data)
    try:
        loaded = datasets.load_dataset(config.name, revision=config.revision, **where)
    except (ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise AesError(f"datasets cannot load {config.name}: {error}", fix="check the name and the files") from error
    stored = {}
    for split, rows in loaded.items():
        name = _column(config, "image", rows.column_names)
        as_bytes = isinstance(rows.features[name], datasets.Image)
        stored[split] = rows.cast_column(name, datasets.Image(decode=False)) if as_bytes else rows
    return stored


def _column(config: HubConfig, field: str, there: Sequence[str]) -> str:
    """Their name of our field. AesError where an image or score has no column."""
    name = dict(config.columns).get(field, field)
    if name not in there and (field in ("image", "score") or field in dict(config.columns)):
        raise AesError(
            f"{config.name} has no column {name!r}; it has {', '.join(there)}", fix=f"pass --map {field}=COLUMN"
        )
    return name


def _ratings(config: HubConfig, loaded: Mapping[str, Any]) -> Iterator[Rating]:
    low, high = config.scale
    domain = config.domain or Path(config.data[0] if config.data else config.name).stem
    for split_name, rows in loaded.items():
        names = {field: _column(config, field, rows.column_names) for field in FIELDS}
        for number, row in enumerate(rows, start=1):
            where = f"{config.name}, {split_name} row {number}"
            values = {field: row.get(name) for field, name in names.items()}
            split = SPLIT_NAMES.get(str(values["split"] or split_name).lower())
            if split is None:
                raise AesError(f"{where}: split is {values['split'] or split_name!r}", fix=f"use {', '.join(SPLITS)}")
            spread = values["spread"]
            yield Rating(
                image=_stored(values["image"], config.output / "images" / split, number, where),
                score=on_scale(str(values["score"]), names["score"], where, low=low, high=high),
                domain=str(values["domain"] or domain),
                split=split,
                spread=None if spread is None else float(spread) / (high - low),
                raters=None if values["raters"] is None else int(values["raters"]),
                votes=None if values["votes"] is None else tuple(values["votes"]),
                attributes=_attributes(values["attributes"]),
                group=_text(values["group"]),
                licence=_text(values["licence"]),
                source=_text(values["source"]) or config.name,
            )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _attributes(value: Any) -> dict[str, float] | None:
    """Marks by name, from a mapping or from a list of name, mark as `write_parquet` writes it."""
    if not value:
        return None
    if isinstance(value, dict):
        return {name: float(mark) for name, mark in value.items() if mark is not None}
    return {entry["name"]: float(entry["mark"]) for entry in value}


def _stored(image: Any, folder: Path, number: int, where: str) -> str:
    """The picture's path: where it lies already, or where its bytes are written under a name of their own kind."""
    if isinstance(image, str):
        return str(Path(image).absolute())
    if not isinstance(image, dict) or not (image.get("bytes") or image.get("path")):
        raise AesError(f"{where} holds no picture", fix="map image to a column of pictures or paths")
    if not image.get("bytes"):
        return str(Path(image["path"]).absolute())
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image["bytes"])) as picture:
            suffix = SUFFIXES.get(picture.format or "", ".img")
    except (OSError, ValueError, SyntaxError):
        suffix = ".img"  # `ratings check` will name it
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{number:07}{suffix}"
    file.write_bytes(image["bytes"])
    return str(file.absolute())


def write_parquet(rows: Sequence[Rating], output: Path) -> list[Path]:
    """One parquet file a split, the pictures' bytes inside; `load_dataset("parquet", data_files=…)` shows pictures.

    Written in groups of rows: `Dataset.to_parquet` would leave paths in place of the bytes.
    """
    try:
        from datasets import Features, Image, List, Value
        from pyarrow import Table
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise AesError("this needs Hugging Face datasets", fix=FIX) from error
    text, mark = Value("string"), Value("float64")
    kinds = {"image": Image(), "score": mark, "spread": mark, "raters": Value("int64"), "votes": List(Value("int64"))}
    kinds["attributes"] = List({"name": text, "mark": mark})
    schema = Features({name: kinds.get(name, text) for name in FIELDS}).arrow_schema
    files = []
    for split in dict.fromkeys(row.split for row in rows):
        chosen = [row for row in rows if row.split == split]
        output.mkdir(parents=True, exist_ok=True)
        file = output / f"{split}.parquet"
        with ParquetWriter(file, schema) as writer:
            for start in range(0, len(chosen), GROUP):
                cells = [_cells(row) for row in chosen[start : start + GROUP]]
                writer.write_table(Table.from_pylist(cells, schema=schema))
        files.append(file)
    return files


def _cells(row: Rating) -> dict[str, Any]:
    """A row for a table with typed columns: sets have attributes of their own, so they become a list of name, mark."""
    path = Path(row.image)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise AesError(f"{path} does not exist", fix="run `aesr1 ratings check` first") from error
    marks = None if row.attributes is None else [{"name": name, "mark": mark} for name, mark in row.attributes.items()]
    return {**asdict(row), "image": {"bytes": content, "path": path.name}, "attributes": marks}
