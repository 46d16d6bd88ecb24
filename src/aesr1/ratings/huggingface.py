"""Imports ratings that Hugging Face `datasets` can load."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from aesr1.errors import AesError, install
from aesr1.json_lines import RENAMED_FIELDS, write_rows
from aesr1.outputs import staged_output, write_run
from aesr1.records import SPLITS, Rating
from aesr1.text_tables import check_scale, parse_count, parse_score, parse_std, require_unique

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
FIELDS = tuple(field.name for field in fields(Rating))
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tiff"}
BUILDERS = ("parquet", "imagefolder", "csv", "json")  # names of file formats, not of data sets


@dataclass(frozen=True)
class HuggingFaceConfig:
    """The arguments of `load_dataset`, and the meaning of its columns."""

    name: str  # "parquet", "imagefolder", "csv", "json", or a data set of the hub
    output: Path
    data: tuple[str, ...] = ()  # one folder, or files: FILE or SPLIT=FILE
    columns: tuple[tuple[str, str], ...] = ()  # field of a rating → column of the data set; default: the same name
    scale: tuple[float, float] = (0.0, 1.0)  # lowest and highest possible score; rater_std is in the same units
    domain: str | None = None  # default: the last part of the name, or of the data folder
    revision: str | None = None
    allow_missing: bool = False  # leave out rows whose picture does not exist


def import_huggingface(config: HuggingFaceConfig) -> Path:
    """Write `images/` (the stored bytes, unchanged) and `ratings.jsonl`; returns the path of `ratings.jsonl`.

    AesError names the split and the row.
    """
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
                fix="paths are relative to the folder of the data files; pass --allow-missing to leave these rows out",
            )
        write_run(part, f"ratings import hf {config.name}", config, started=started, missing=len(missing))
    return config.output / "ratings.jsonl"


def _load(config: HuggingFaceConfig) -> Mapping[str, Any]:
    """The data set by split. Pictures are not decoded."""
    try:
        import datasets
    except ImportError as error:
        raise AesError("this needs Hugging Face datasets", fix=install("data")) from error
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
    """Files by split. The split stands before "=" or in the file name; a single file without one is train."""
    files: dict[str, list[str]] = {}
    for text in data:
        split, equals, path = text.partition("=")
        if not equals or split not in SPLIT_NAMES:
            path = text
            split = next((word for word in SPLIT_NAMES if word in Path(path).stem.lower()), "")
            if not split and len(data) > 1:
                raise AesError(f"the name {path} contains no split", fix="name the split: --data test=FILE")
        files.setdefault(SPLIT_NAMES.get(split, "train"), []).append(path)
    return files


def _column(config: HuggingFaceConfig, field: str, columns: Sequence[str]) -> str:
    """The column that holds a field of a rating. AesError if image, score or a mapped field has no column."""
    name = dict(config.columns).get(field, field)
    if name not in columns:
        name = next((old for old, new in RENAMED_FIELDS[Rating].items() if new == field and old in columns), name)
    if name not in columns and (field in ("image", "score") or field in dict(config.columns)):
        raise AesError(
            f"{config.name} has no column {name!r}; it has {', '.join(columns)}", fix=f"pass --map {field}=COLUMN"
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
            image = _image_path(values["image"], config, part, f"{split}/{number:07}", where)
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
    """Attribute scores by name, from a mapping or from a list of {name, mark} as our parquet export writes it."""
    if not value:
        return None
    try:
        marks = value.items() if isinstance(value, dict) else [(entry["name"], entry["mark"]) for entry in value]
    except (TypeError, KeyError) as error:
        raise AesError(f"{where}: attributes are {value!r}", fix="give scores from 0 to 1 by name") from error
    return {name: parse_score(str(mark), name, where, low=0, high=1) for name, mark in marks if mark is not None}


def _image_path(image: Any, config: HuggingFaceConfig, part: Path, name: str, where: str) -> str:
    """The path of a picture. Bytes from the data set are written below `part`, with the suffix of their format."""
    if isinstance(image, dict) and image.get("bytes"):
        file = part / "images" / f"{name}{_suffix(image['bytes'])}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image["bytes"])
        return str(config.output.absolute() / file.relative_to(part))
    path = image.get("path") if isinstance(image, dict) else image
    if not isinstance(path, str) or not path:
        raise AesError(f"{where} has no picture", fix="map image to a column of pictures or paths")
    first = Path(config.data[0].rpartition("=")[2]) if config.data else Path()
    folder = first if first.is_dir() else first.parent
    return str(folder.absolute() / path)


def _suffix(content: bytes) -> str:
    from PIL import Image

    from aesr1.images.formats import formats

    try:
        with Image.open(io.BytesIO(content), formats=formats()) as picture:
            return SUFFIXES.get(picture.format or "", ".img")
    except Exception:  # decoders raise errors of many types; `ratings check` reports the picture
        return ".img"
