"""SPAQ: 11,125 smartphone photographs, marks 0–100 as a whole and on five attributes. Quality, not beauty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesr1.errors import AesError, install
from aesr1.ratings.label_files import RESEARCH, DataSet, image_path, require_file
from aesr1.ratings.split import draw_splits
from aesr1.records import Rating
from aesr1.text_tables import Line, check_columns, parse_score, read_table, require_unique

DATA_SET = DataSet(
    name="spaq",
    title="SPAQ",
    licence=RESEARCH,
    source="Fang, Zhu, Zeng, Ma, Wang: SPAQ, CVPR 2020",
    images=("TestImage", "images", "."),
    published=({"all": 11_125},),
    counted=False,
)
TABLE = "MOS and Image attribute scores"
ATTRIBUTES = {
    "Brightness": "brightness",
    "Colorfulness": "colourfulness",
    "Contrast": "contrast",
    "Noisiness": "noisiness",
    "Sharpness": "sharpness",
}
COLUMNS = ("Image name", "MOS", *ATTRIBUTES)
SHARES = {"train": 0.8, "test": 0.2}


def load(root: Path) -> Iterator[Rating]:
    """Reads the workbook of scores, as .xlsx or .csv. No official split: a fifth is drawn for test, seed 0."""
    names = (f"Annotations/{TABLE}.xlsx", f"{TABLE}.xlsx", f"Annotations/{TABLE}.csv", f"{TABLE}.csv")
    table = require_file(root, *names)
    if table.suffix == ".xlsx":
        lines = list(_workbook(table))
    else:
        lines = list(read_table(table, columns=COLUMNS, unique="Image name", separator=None))
    drawn = draw_splits([line.cells["Image name"] for line in lines], SHARES)
    for (where, cells), split in zip(lines, drawn, strict=True):
        yield DATA_SET.rating(
            image=image_path(cells["Image name"], where),
            score=parse_score(cells["MOS"], "MOS", where, low=0, high=100),
            split=split,
            attributes={
                label: parse_score(cells[column], column, where, low=0, high=100)
                for column, label in ATTRIBUTES.items()
            },
        )


def _workbook(file: Path) -> Iterator[Line]:
    """The rows of the first sheet, below the header."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError as error:
        raise AesError(
            "reading .xlsx needs python-calamine", fix=f"{install('data')}, or save the sheet as csv"
        ) from error
    try:
        rows = CalamineWorkbook.from_path(file).get_sheet_by_index(0).to_python()
    except (CalamineError, OSError) as error:
        raise AesError(f"{file} is not a workbook: {error}", fix="get the file again; it may be incomplete") from error
    header = [str(cell).strip() for cell in rows[0]] if rows else []
    check_columns(file, header, COLUMNS)
    seen: set[str] = set()
    for number, row in enumerate(rows[1:], start=2):
        where = f"{file}, row {number}"
        cells = {name: str(cell).strip() for name, cell in zip(header, row, strict=True)}
        require_unique(seen, cells["Image name"], where)
        yield Line(where, cells)
