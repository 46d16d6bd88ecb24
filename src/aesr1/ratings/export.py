"""Exports ratings for TRL, LLaMA-Factory, lmms-eval, and as Hugging Face parquet and imagefolder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aesr1.contract import PROMPT
from aesr1.errors import AesError, install
from aesr1.images.strip import bytes_without_metadata
from aesr1.json_lines import ratings_file, read_rows
from aesr1.outputs import staged_output, write_run, write_text
from aesr1.records import Rating
from aesr1.sharegpt import Exchange, write_sharegpt

ROW_GROUP = 100  # pictures in one parquet row group: a viewer reads little to show one

LMMS_TASK = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: rating
generation_kwargs:
  max_new_tokens: 512
  temperature: 0
  do_sample: false
process_results: !function utils.process_results
metric_list:
  - metric: plcc
    aggregation: !function utils.aggregate_plcc
    higher_is_better: true
  - metric: srcc
    aggregation: !function utils.aggregate_srcc
    higher_is_better: true
  - metric: readable
    aggregation: mean
    higher_is_better: true
metadata:
  - version: 1.0
"""

LMMS_UTILS = '''\
"""Aes-R1's prompt, parser and metrics for lmms-eval; needs aesr1 installed."""

from PIL import Image

from aesr1.contract import PROMPT, parse_reply
from aesr1.metrics import plcc, srcc


def doc_to_visual(doc):
    return [Image.open(doc["image"]).convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return PROMPT


def process_results(doc, results):
    judgement = parse_reply(results[0].strip())
    pair = (None if judgement is None else judgement.score, doc["rating"])
    return {"plcc": pair, "srcc": pair, "readable": float(judgement is not None)}


def _agreement(metric, pairs):
    read = [(score, rating) for score, rating in pairs if score is not None]
    return metric(*map(list, zip(*read, strict=True))) if len(read) > 1 else 0.0


def aggregate_plcc(pairs):
    return _agreement(plcc, pairs)


def aggregate_srcc(pairs):
    return _agreement(srcc, pairs)
'''


@dataclass(frozen=True)
class ExportConfig:
    """Which rows to export, and for which tool."""

    ratings: Path
    to: str
    output: Path
    split: str | None = None  # default: all splits; for lmms-eval, test


def export(config: ExportConfig) -> list[Path]:
    """Write the files into the output folder, which must not exist yet; returns their paths."""
    started = time.time()
    if config.to not in WRITERS:
        raise AesError(f"{config.to!r} is not a known tool", fix=f"choose one of {', '.join(WRITERS)}")
    split = config.split or ("test" if config.to == "lmms-eval" else None)
    rows = [row for row in read_rows(ratings_file(config.ratings), Rating) if split in (None, row.split)]
    if not rows:
        raise AesError(f"{config.ratings} holds no rows of split {split}", fix="choose another --split")
    with staged_output(config.output.parent, config.output.name) as part:
        files = WRITERS[config.to](rows, part / config.output.name, config.output.absolute())
        write_run(part / config.output.name, f"ratings export {config.to}", config, started=started, rows=len(rows))
    return [config.output / file.relative_to(part / config.output.name) for file in files]


def _by_split(rows: Sequence[Rating]) -> Iterator[tuple[str, list[Rating]]]:
    for split in dict.fromkeys(row.split for row in rows):
        yield split, [row for row in rows if row.split == split]


def _trl(rows: Sequence[Rating], output: Path, final: Path) -> list[Path]:
    """For GRPOTrainer: the prompt as a conversation, the picture's path (cast it to datasets.Image), the rating."""
    files = []
    for split, chosen in _by_split(rows):
        lines = (
            {
                "prompt": [{"role": "user", "content": PROMPT}],
                "image": row.image,
                "rating": row.score,
                "domain": row.domain,
            }
            for row in chosen
        )
        files.append(_write_lines(output / f"{split}.jsonl", lines))
    return files


def _llama_factory(rows: Sequence[Rating], output: Path, final: Path) -> list[Path]:
    """ShareGPT with the human score as the answer, for a reward. To fine-tune on replies, export rationales instead."""
    answers = {split: [Exchange(row.image, f"{row.score:.2f}") for row in chosen] for split, chosen in _by_split(rows)}
    return write_sharegpt(answers, output)


def _lmms_eval(rows: Sequence[Rating], output: Path, final: Path) -> list[Path]:
    """A folder for `lmms_eval --include_path DIR --tasks aesr1_<domain>`: one task for each data set."""
    files = []
    domains = list(dict.fromkeys(row.domain for row in rows))
    plain = unique_names(["".join(mark if mark.isalnum() else "_" for mark in domain) for domain in domains])
    for domain, name in zip(domains, plain, strict=True):
        task = f"aesr1_{name}"
        chosen = ({"image": row.image, "rating": row.score} for row in rows if row.domain == domain)
        data = _write_lines(output / f"{task}.jsonl", chosen)
        place = json.dumps(str(final / data.name), ensure_ascii=False)
        write_text(output / f"{task}.yaml", LMMS_TASK.format(task=task, data=place))
        files += [output / f"{task}.yaml", data]
    write_text(output / "utils.py", LMMS_UTILS)
    return [*files, output / "utils.py"]


def _parquet(rows: Sequence[Rating], output: Path, final: Path) -> list[Path]:
    """One parquet file for each split, for `load_dataset("parquet", data_files=…)`: all fields and bare pictures.

    Written in groups of rows: `Dataset.to_parquet` would write paths instead of the bytes.
    """
    columns = _parquet_columns()
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    files = []
    output.mkdir(parents=True, exist_ok=True)
    for split, chosen in _by_split(rows):
        files.append(output / f"{split}.parquet")
        with ParquetWriter(files[-1], columns) as writer:
            for start in range(0, len(chosen), ROW_GROUP):
                cells = [
                    {**_cells(row), "image": {"bytes": bytes_without_metadata(row.image), "path": Path(row.image).name}}
                    for row in chosen[start : start + ROW_GROUP]
                ]
                writer.write_table(Table.from_pylist(cells, schema=columns))
    return files


def _imagefolder(rows: Sequence[Rating], output: Path, final: Path) -> list[Path]:
    """For `load_dataset("imagefolder", data_dir=…)`: a folder for each split with the pictures and their metadata.

    The metadata is parquet because its columns have types: from jsonl, a column that is empty in one split fails.
    """
    typed = _parquet_columns()
    import pyarrow
    from pyarrow.parquet import write_table

    columns = pyarrow.schema(
        [("file_name", pyarrow.string()), *(typed.field(name) for name in typed.names if name != "image")]
    )
    files = []
    for split, chosen in _by_split(rows):
        folder = output / split
        folder.mkdir(parents=True)
        names = unique_names([row.image for row in chosen])
        for row, name in zip(chosen, names, strict=True):
            (folder / name).write_bytes(bytes_without_metadata(row.image))
        cells = [{**_cells(row), "file_name": name} for row, name in zip(chosen, names, strict=True)]
        write_table(pyarrow.Table.from_pylist(cells, schema=columns), folder / "metadata.parquet")
        files.append(folder / "metadata.parquet")
    return files


def _parquet_columns() -> Any:
    """The columns of a rating as a pyarrow schema. With types, a column that is empty in one split still loads."""
    try:
        from datasets import Features, Image, List, Value
    except ImportError as error:
        raise AesError("this needs Hugging Face datasets", fix=install("data")) from error
    text, number, count = Value("string"), Value("float64"), Value("int64")
    types = {"image": Image(), "score": number, "rater_std": number, "raters": count, "votes": List(count)}
    types["attributes"] = List({"name": text, "mark": number})
    return Features({field.name: types.get(field.name, text) for field in fields(Rating)}).arrow_schema


def _cells(row: Rating) -> dict[str, Any]:
    """A row for `_parquet_columns`. Attribute names differ between data sets, so they become a list of {name, mark}."""
    marks = None if row.attributes is None else [{"name": name, "mark": mark} for name, mark in row.attributes.items()]
    return {**asdict(row), "attributes": marks}


def unique_names(paths: Sequence[str]) -> list[str]:
    """File names for pictures from several folders: a repeated name gets a number in front."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = os.path.basename(path), 1  # noqa: PTH119  # one of many thousands
        while name.casefold() in taken:
            name, number = f"{number}-{os.path.basename(path)}", number + 1  # noqa: PTH119
        taken.add(name.casefold())
        names.append(name)
    return names


def _write_lines(file: Path, values: Iterator[dict[str, Any]]) -> Path:
    write_text(file, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))
    return file


WRITERS: dict[str, Callable[[Sequence[Rating], Path, Path], list[Path]]] = {
    "trl": _trl,
    "llama-factory": _llama_factory,
    "lmms-eval": _lmms_eval,
    "parquet": _parquet,
    "imagefolder": _imagefolder,
}
