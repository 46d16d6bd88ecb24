"""One folder of odd, broken and hostile files: each is a row or is said to be skipped, and no row can do harm."""

from __future__ import annotations

import csv
import io
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import check_self_contained, opened
from PIL import Image
from png_file import png

from aesr1.app.report import write_report
from aesr1.app.score import ScoreConfig, score_files
from aesr1.json_lines import read_rows
from aesr1.model.predict import PredictSettings
from aesr1.records import Prediction

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
FAST = PredictSettings(fast=True)


def saved(kind: str, picture: Image.Image = NOISE, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def cut(kind: str) -> bytes:
    whole = saved(kind)
    return whole[: len(whole) // 2]


def exif(tag: int, kind: int, value: bytes) -> bytes:
    """EXIF of one entry, whatever its type says."""
    entry = struct.pack("<HHHI", 1, tag, kind, 1) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0\x08\0\0\0" + entry + b"\0\0\0\0"


def tiff_of_size(width: int, height: int) -> bytes:
    """The head of a TIFF without pixels."""
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0" * 4


ROWS = zlib.compress((b"\0" + b"\x55" * 30) * 10)
SCORED, FAILED, SKIPPED = "scored", "failed", "skipped"
JPEG, PNG = saved("JPEG"), saved("PNG")
HUGE_TEXT = (b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))

FILES: dict[str | bytes, tuple[str, bytes]] = {
    # Cut off, one of each format.
    **{f"cut.{kind.lower()}": (FAILED, cut(kind)) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF")},
    "cut.jp2": (FAILED, cut("JPEG2000")),
    "cut.ppm": (FAILED, cut("PPM")),
    "cut in its head.png": (FAILED, PNG[:30]),
    # More pixels than a file of this size should hold, or than anyone can hold.
    "bomb.png": (FAILED, png(60_000, 60_000, zlib.compress(b""))),
    "bomb.gif": (
        FAILED,
        b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0" + b"\xff" * 4 + b"\0\x02\0;",
    ),
    "bomb.tif": (FAILED, tiff_of_size(100_000, 100_000)),
    "bomb.bmp": (
        FAILED,
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 90_000, 90_000, 1, 24, 0, 0, 0, 0, 0, 0),
    ),
    "bomb.ppm": (FAILED, b"P6 90000 90000 255\n" + bytes(99)),
    "bomb of text.png": (FAILED, png(10, 10, ROWS, more=[HUGE_TEXT])),
    # No pictures.
    "empty.jpg": (FAILED, b""),
    "zeros.jpg": (FAILED, bytes(5000)),
    "words.jpg": (FAILED, b"hello"),
    "drawing.jpg": (FAILED, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
    "page.jpg": (FAILED, b"<!doctype html><script>document.title='owned'</script>"),
    "printer.jpg": (FAILED, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "paper.png": (FAILED, b"%PDF-1.7\n"),
    "archive.png": (FAILED, b"PK\x03\x04" + bytes(60)),
    "metafile.jpg": (FAILED, b"\xd7\xcd\xc6\x9a" + bytes(60)),
    "notes.txt": (SKIPPED, b"x"),
    "film.mp4": (SKIPPED, bytes(60)),
    # Broken within.
    "broken pixels.png": (FAILED, PNG[:3000] + bytes(40) + PNG[3040:]),
    "wrong checksum.png": (FAILED, png(10, 10, ROWS)[:-20] + b"\0\0\0\0" + png(10, 10, ROWS)[-16:]),
    # Too small, too thin.
    "one pixel.png": (FAILED, saved("PNG", NOISE.resize((1, 1)))),
    "thread.png": (FAILED, saved("PNG", NOISE.resize((3000, 9)))),
    # Odd, and pictures all the same.
    "wide.png": (SCORED, saved("PNG", NOISE.resize((900, 12)))),
    "grey.png": (SCORED, saved("PNG", NOISE.convert("L"))),
    "grey and transparent.png": (SCORED, saved("PNG", NOISE.convert("LA"))),
    "one bit.png": (SCORED, saved("PNG", NOISE.convert("1"))),
    "palette.png": (SCORED, saved("PNG", NOISE.quantize(16), transparency=b"\0\x80\xff")),
    "sixteen bits.png": (SCORED, saved("PNG", Image.fromarray(np.full((20, 40), 40_000, np.uint16)))),
    "nan.tif": (FAILED, saved("TIFF", Image.fromarray(np.full((20, 40), np.nan, np.float32)))),
    "cmyk.jpg": (SCORED, saved("JPEG", NOISE.convert("CMYK"))),
    "lab.tif": (SCORED, saved("TIFF", Image.new("LAB", (20, 20)))),
    "animated.gif": (SCORED, saved("GIF", NOISE, save_all=True, append_images=[NOISE.rotate(90)] * 3)),
    "animated.webp": (SCORED, saved("WEBP", NOISE, save_all=True, append_images=[NOISE.rotate(90)] * 3)),
    "two pictures.mpo": (SCORED, saved("MPO", NOISE, save_all=True, append_images=[NOISE])),
    "a png.jpg": (SCORED, PNG),
    "a jpeg.webp": (SCORED, JPEG),
    "more after its end.jpg": (SCORED, JPEG + b"<script>document.title='owned'</script>" * 99),
    "turned to nowhere.jpg": (SCORED, saved("JPEG", exif=exif(0x0112, 3, b"\x63"))),
    "turned by a word.jpg": (SCORED, saved("JPEG", exif=exif(0x0112, 2, b"<b>"))),
    "exif of nonsense.jpg": (SCORED, saved("JPEG", exif=b"Exif\0\0" + bytes(range(256)))),
    "huge exif.jpg": (SCORED, saved("JPEG", exif=exif(0x010F, 2, b"x") + b"x" * 65_000)),
    "profile of nonsense.jpg": (SCORED, saved("JPEG", icc_profile=b"=cmd|' /C calc'!A0" * 99)),
    "comment.jpg": (SCORED, saved("JPEG", comment=b"<script>document.title='owned'</script>")),
    # Names.
    "=1+1.jpg": (SCORED, JPEG),
    "+1.jpg": (SCORED, JPEG),
    "-rf.jpg": (SCORED, JPEG),
    "@SUM(A1).jpg": (SCORED, JPEG),
    "\t=1.jpg": (SCORED, JPEG),
    "two\nlines,\"quotes\" and 'more'.jpg": (SCORED, JPEG),
    "carriage\rreturn.jpg": (SCORED, JPEG),
    "\x1b[31mred\x07.jpg": (SCORED, JPEG),
    "\u202egpj.exe.jpg": (SCORED, JPEG),
    "<script>document.title='owned'<!--.jpg": (SCORED, JPEG),
    "\"><img src=x onerror=document.title='owned'>.jpg": (SCORED, JPEG),
    "{{ 7*7 }}${7*7}.jpg": (SCORED, JPEG),
    "'; DROP TABLE scores; --.jpg": (SCORED, JPEG),
    "<img src=x onerror=document.title='owned'>.png": (FAILED, b""),
    "x" * 245 + ".jpg": (SCORED, JPEG),
    " .jpg": (SCORED, JPEG),
    "*?[a].jpg": (SCORED, JPEG),
    "日本 é.jpg": (SCORED, JPEG),
    b"caf\xe9 \xff\xfe.jpg": (SCORED, JPEG),
}


PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pipe.jpg": (SKIPPED, os.mkfifo),
    "link to itself.jpg": (SKIPPED, lambda path: path.symlink_to(path)),
    "link to nothing.jpg": (SKIPPED, lambda path: path.symlink_to("gone.jpg")),
    "link to a device.jpg": (SKIPPED, lambda path: path.symlink_to("/dev/zero")),
    "link.jpg": (SCORED, lambda path: path.symlink_to("cmyk.jpg")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (_, content) in FILES.items():
        Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name)))).write_bytes(content)  # noqa: PTH118
    for name, (_, make) in PLACES.items():
        make(folder / name)
    inner = folder / "folder.jpg"
    inner.mkdir()
    (inner / "inner.jpg").write_bytes(JPEG)
    (inner / "circle").symlink_to(folder)
    (folder / "unreadable.jpg").write_bytes(JPEG)
    (folder / "unreadable.jpg").chmod(0)
    return folder


@pytest.fixture(scope="module")
def output(folder: Path, random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of the folder, and a table of them beside."""
    output = tmp_path_factory.mktemp("rows") / "rows.csv"
    list(score_files(ScoreConfig((str(folder),), str(random_model), output, settings=FAST, quiet=True)))
    return output.with_suffix(".jsonl")


def expected(folder: Path) -> dict[str, str]:
    """What is to become of each file, by its path."""
    fates = {os.fsdecode(name): fate for name, (fate, _) in (FILES | PLACES).items()}
    privileged = os.access(folder / "unreadable.jpg", os.R_OK)
    fates |= {"folder.jpg/inner.jpg": SCORED, "unreadable.jpg": SCORED if privileged else FAILED}
    return {str(folder / name): fate for name, fate in fates.items()}


def test_each_file_is_one_row_or_is_said_to_be_skipped(
    folder: Path, output: Path, random_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fates = expected(folder)
    assert len(fates) >= 40
    rows = read_rows(output, Prediction)
    found = {row.image: FAILED if row.score is None else SCORED for row in rows}
    assert len(rows) == len(found)
    assert found == {path: fate for path, fate in fates.items() if fate != SKIPPED}
    assert all(row.error and "Traceback" not in row.error for row in rows if row.score is None)
    config = ScoreConfig((str(folder),), str(random_model), output, settings=FAST, quiet=True)
    capfd.readouterr()
    again = list(score_files(config))
    said = capfd.readouterr().err
    assert Counter(row.image for row in again) == Counter(list(found))
    assert said.startswith(f"skipped {sum(fate == SKIPPED for fate in fates.values())}: ")
    for kind in (".txt", ".mp4", "2 broken links", "2 pipes or devices"):
        assert kind in said
    assert "\x1b" not in said


def test_no_cell_of_the_table_is_a_formula(folder: Path, output: Path) -> None:
    with output.with_suffix(".csv").open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    names = {row["image"] for row in cells}
    assert len(names) == len(cells) == len(read_rows(output, Prediction))
    assert str(folder / "=1+1.jpg") in names and str(folder / "two\nlines,\"quotes\" and 'more'.jpg") in names
    assert not [cell for row in cells for cell in row.values() if re.match(r"[=+\-@\t\r]", cell)]


def test_the_report_runs_nothing_of_it(output: Path, driver: object) -> None:
    page = output.with_name("report.html")
    write_report(output, page)
    check_self_contained(page)
    with opened(driver, page, title="Aesthetic report"):
        assert driver.execute_script("return document.scripts.length") == 1
        shown = driver.execute_script("return [...document.querySelectorAll('.card .name')].map(n => n.textContent)")
        assert "<script>document.title='owned'<!--.jpg" in shown
        assert len(shown) == len(read_rows(output, Prediction))
