"""Imports ratings with Hugging Face `datasets`, and writes parquet."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aesr1.errors import AesError
from aesr1.outputs import staged_output, write_run
from aesr1.ratings.label_files import check_scale, parse_count, parse_score, parse_std, require_unique
from aesr1.records import RENAMED_FIELDS, SPLITS, Rating, write_rows

INSTALL_FIX = "pip install 'aesr1[data]'"
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
FIELDS = tuple(field.name for field in fields(Rating))
GROUP = 100  # rows of pictures in a parquet row group, so that a viewer need not read much to show one
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tiff"}


BUILDERS = ("parquet", "imagefolder", "csv", "json")
"""Names of file formats, not of data sets."""


@dataclass(frozen=True)
class HuggingFaceConfig:
    """The arguments of `load_dataset`, and the meaning of its columns."""

    name: str  # "parquet", "imagefolder", "csv", "json", or a data set of the hub
    output: Path
    data: tuple[str, ...] = ()  # one folder, or files: FILE or SPLIT=FILE
    columns: tuple[tuple[str, str], ...] = ()  # our field → their column; default: the same name
    scale: tuple[float, float] = (0.0, 1.0)  # nominal bounds of their score; rater_std is in the same units
    domain: str | None = None  # default: the last part of the name, or of the data folder
    revision: str | None = None
    allow_missing: bool = False  # leave rows out whose path leads to no picture


def import_huggingface(config: HuggingFaceConfig) -> Path:
    """Write `images/` (the pictures as they are stored) and `ratings.jsonl`; its path. AesError names split and row."""
    started = time.time()
    check_scale(*config.scale)
    unknown = [field for field, _ in config.columns if field not in FIELDS]
    if unknown:
        raise AesError(f"{unknown[0]!r} is not a field of a rating", fix=f"map one of {', '.join(FIELDS)}")
    loaded = _load(config)
    with staged_output(config.output, "ratings.jsonl", "run.json", "images") as part:
        (part / "images").mkdir()
        missing: list[str] = []
        write_rows(part / "ratings.jsonl", _ratings(config, loaded, part, missing))
        if missing and not config.allow_missing:
            raise AesError(
                f"{len(missing):,} images are missing, first: {missing[0]}",
                fix="paths are taken from the data's own folder; pass --allow-missing to leave them out",
            )
        write_run(part, f"ratings import hf {config.name}", config, started=started, missing=len(missing))
    return config.output / "ratings.jsonl"


def _load(config: HuggingFaceConfig) -> Mapping[str, Any]:
    """The data set's splits, with pictures as stored bytes."""
    try:
        import datasets
    except ImportError as error:
        raise AesError("this needs Hugging Face datasets", fix=INSTALL_FIX) from error
    where: dict[str, Any] = {}
    if len(config.data) == 1 and Path(config.data[0]).is_dir():
        where["data_dir"] = config.data[0]
    elif config.data:
        where["data_files"] = _files_by_split(config.data)
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


def _files_by_split(data: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split before "=" or in their names; a single file without a split is train."""
    files: dict[str, list[str]] = {}
    for text in data:
        said, equals, path = text.partition("=")
        if not equals or said not in SPLIT_NAMES:
            path = text
            said = next((word for word in SPLIT_NAMES if word in Path(path).stem.lower()), "")
            if not said and len(data) > 1:
                raise AesError(f"{path} names no split", fix="write it as in --data test=FILE")
        files.setdefault(SPLIT_NAMES.get(said, "train"), []).append(path)
    return files


def _column(config: HuggingFaceConfig, field: str, there: Sequence[str]) -> str:
    """The column of a field. AesError where image or score has none."""
    name = dict(config.columns).get(field, field)
    if name not in there:
        name = next((old for old, new in RENAMED_FIELDS[Rating].items() if new == field and old in there), name)
    if name not in there and (field in ("image", "score") or field in dict(config.columns)):
        raise AesError(
            f"{config.name} has no column {name!r}; it has {', '.join(there)}", fix=f"pass --map {field}=COLUMN"
        )
    return name


def _ratings(config: HuggingFaceConfig, loaded: Mapping[str, Any], part: Path, missing: list[str]) -> Iterator[Rating]:
    low, high = config.scale
    files = [text.rpartition("=")[2] for text in config.data]
    domain = config.domain or Path(files[0] if files else config.name).stem
    seen: set[str] = set()
    for split_name, rows in loaded.items():
        names = {field: _column(config, field, rows.column_names) for field in FIELDS}
        for number, row in enumerate(rows, start=1):
            where = f"{config.name}, {split_name} row {number}"
            values = {field: row.get(name) for field, name in names.items()}
            split = SPLIT_NAMES.get(str(values["split"] or split_name).lower())
            if split is None:
                raise AesError(f"{where}: split is {values['split'] or split_name!r}", fix=f"use {', '.join(SPLITS)}")
            image = _stored(values["image"], config, part, f"{split}/{number:07}", where)
            if not image.startswith(str(config.output.absolute())) and not Path(image).is_file():
                missing.append(image)
                continue
            require_unique(seen, image, where)
            yield Rating(
                image=image,
                score=parse_score(str(values["score"]), names["score"], where, low=low, high=high),
                domain=str(values["domain"] or domain),
                split=split,
                rater_std=None
                if values["rater_std"] is None
                else parse_std(str(values["rater_std"]), names["rater_std"], where, low=low, high=high),
                raters=None if values["raters"] is None else parse_count(str(values["raters"]), names["raters"], where),
                votes=_votes(values["votes"], where),
                attributes=_attributes(values["attributes"], where),
                group=_text(values["group"]),
                licence=_text(values["licence"]),
                source=_text(values["source"]) or (None if config.name in BUILDERS else config.name),
            )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _votes(value: Any, where: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise AesError(f"{where}: votes are {value!r}, not a list of numbers", fix="map votes to a column of lists")
    return tuple(parse_count(str(vote), "votes", where) for vote in value)


def _attributes(value: Any, where: str) -> dict[str, float] | None:
    """Marks by name, from a mapping or from a list of name, mark as `write_parquet` writes it."""
    if not value:
        return None
    try:
        marks = value.items() if isinstance(value, dict) else [(entry["name"], entry["mark"]) for entry in value]
    except (TypeError, KeyError) as error:
        raise AesError(f"{where}: attributes are {value!r}", fix="give marks 0–1 by name") from error
    return {name: parse_score(str(mark), name, where, low=0, high=1) for name, mark in marks if mark is not None}


def _stored(image: Any, config: HuggingFaceConfig, part: Path, name: str, where: str) -> str:
    """The picture's path: the existing file, or a new file for its bytes."""
    if isinstance(image, dict) and image.get("bytes"):
        file = part / "images" / f"{name}{_suffix(image['bytes'])}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image["bytes"])
        return str(config.output.absolute() / file.relative_to(part))
    path = image.get("path") if isinstance(image, dict) else image
    if not isinstance(path, str) or not path:
        raise AesError(f"{where} holds no picture", fix="map image to a column of pictures or paths")
    first = Path(config.data[0].rpartition("=")[2]) if config.data else Path()
    folder = first if first.is_dir() else first.parent
    return str(folder.absolute() / path)


def _suffix(content: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return SUFFIXES.get(picture.format or "", ".img")
    except Exception:  # decoders raise many kinds of errors; `ratings check` will name the picture
        return ".img"


def schema() -> Any:
    """The typed columns of a rating, as `datasets` knows them: columns that are empty in one split load as well."""
    from datasets import Features, Image, List, Value

    text, mark = Value("string"), Value("float64")
    kinds = {
        "image": Image(),
        "score": mark,
        "rater_std": mark,
        "raters": Value("int64"),
        "votes": List(Value("int64")),
    }
    kinds["attributes"] = List({"name": text, "mark": mark})
    return Features({name: kinds.get(name, text) for name in FIELDS})


def write_parquet(rows: Sequence[Rating], output: Path) -> list[Path]:
    """One parquet file a split, the pictures' bytes inside; `load_dataset("parquet", data_files=…)` shows pictures.

    Written in groups of rows: `Dataset.to_parquet` would leave paths in place of the bytes.
    """
    try:
        from pyarrow import Table
        from pyarrow.parquet import ParquetWriter

        columns = schema().arrow_schema
    except ImportError as error:
        raise AesError("this needs Hugging Face datasets", fix=INSTALL_FIX) from error
    files = []
    for split in dict.fromkeys(row.split for row in rows):
        chosen = [row for row in rows if row.split == split]
        output.mkdir(parents=True, exist_ok=True)
        file = output / f"{split}.parquet"
        with ParquetWriter(file, columns) as writer:
            for start in range(0, len(chosen), GROUP):
                cells = [_cells(row) for row in chosen[start : start + GROUP]]
                writer.write_table(Table.from_pylist(cells, schema=columns))
        files.append(file)
    return files


def _cells(row: Rating) -> dict[str, Any]:
    """A row with its picture's bytes."""
    path = Path(row.image)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise AesError(f"{path} does not exist", fix="run `aesr1 ratings check` first") from error
    return {**typed(row), "image": {"bytes": content, "path": path.name}}


def typed(row: Rating) -> dict[str, Any]:
    """A row's cells for `schema`: sets have attributes of their own, so they become a list of name, mark."""
    marks = None if row.attributes is None else [{"name": name, "mark": mark} for name, mark in row.attributes.items()]
    return {**asdict(row), "attributes": marks}
