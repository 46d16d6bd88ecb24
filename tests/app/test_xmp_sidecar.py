"""XMP sidecars: written by the XMP library, read back by exiv2, and never over what a person wrote."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from aesr1.app.xmp_sidecar import is_rated, sidecar_paths, write_sidecars
from aesr1.records import Prediction

try:
    import libxmp  # noqa: F401
except Exception:  # the package raises its own error where exempi is missing
    pytest.skip("python-xmp-toolkit or exempi is not installed", allow_module_level=True)
EXIV2 = shutil.which("exiv2")
LIGHTROOM = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:Exposure2012="+0.35" {rating}>
<dc:subject><rdf:Bag><rdf:li>lake</rdf:li></rdf:Bag></dc:subject>{more}</rdf:Description></rdf:RDF></x:xmpmeta>"""
CAPTION = '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Our lake.</rdf:li></rdf:Alt></dc:description>'


def row(image: Path, score: float | None = 0.7, stars: int | None = 4, reasoning: str = "Clear light.") -> Prediction:
    return Prediction(
        str(image), score, 0.1, True, reasoning, "r", "tiny-photo", "rev", "expectation", stars=stars, percentile=70.0
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "lake.jpg"
    Image.new("RGB", (32, 32), (20, 90, 160)).save(path)
    return path


def read(sidecar: Path) -> dict[str, str]:
    """All that exiv2 reads in a sidecar."""
    if not EXIV2:
        pytest.skip("exiv2 is not installed")
    run = subprocess.run([EXIV2, "-PXkv", str(sidecar)], capture_output=True, text=True, check=True)
    return {key: value.strip() for key, _, value in (line.partition(" ") for line in run.stdout.splitlines())}


def test_stars_score_and_reason_are_read_back(picture):
    assert write_sidecars([row(picture)]) == (1, 0, [])
    found = read(picture.with_suffix(".xmp"))
    assert found["Xmp.xmp.Rating"] == "4"
    assert found["Xmp.dc.description"].endswith("Clear light.")
    assert found["Xmp.aesr1.Score"] == "0.7000"
    assert found["Xmp.aesr1.Model"] == "tiny-photo rev"


def test_our_own_rating_and_reason_are_replaced(picture):
    write_sidecars([row(picture)])
    assert write_sidecars([row(picture, 0.2, 1, "Flat light.")]) == (1, 0, [])
    found = read(picture.with_suffix(".xmp"))
    assert (found["Xmp.xmp.Rating"], found["Xmp.aesr1.Score"]) == ("1", "0.2000")
    assert found["Xmp.dc.description"].endswith("Flat light.")


@pytest.mark.parametrize("rating", ["2", "0", "-1"])
def test_a_persons_rating_and_caption_and_all_else_stay(picture, rating):
    sidecar = picture.with_suffix(".xmp")
    sidecar.write_text(LIGHTROOM.format(rating=f'xmp:Rating="{rating}"', more=CAPTION))
    assert write_sidecars([row(picture)]) == (0, 1, [])
    found = read(sidecar)
    assert found["Xmp.xmp.Rating"] == rating
    assert found["Xmp.dc.description"].endswith("Our lake.")
    assert found["Xmp.dc.subject"] == "lake"
    assert found["Xmp.crs.Exposure2012"] == "+0.35"
    assert found["Xmp.aesr1.Reason"] == "Clear light."
    assert "Xmp.aesr1.Rating" not in found


def test_a_sidecar_without_stars_is_merged_into(picture):
    sidecar = picture.with_suffix(".xmp")
    sidecar.write_text(LIGHTROOM.format(rating="", more=""))
    assert write_sidecars([row(picture)]) == (1, 0, [])
    assert {"Xmp.xmp.Rating": "4", "Xmp.dc.subject": "lake"}.items() <= read(sidecar).items()


def test_stars_that_a_person_changed_after_us_stay(picture):
    sidecar = picture.with_suffix(".xmp")
    write_sidecars([row(picture)])
    sidecar.write_text(sidecar.read_text().replace("<xmp:Rating>4<", "<xmp:Rating>5<"))
    assert write_sidecars([row(picture, 0.1, 1)]) == (0, 1, [])
    assert read(sidecar)["Xmp.xmp.Rating"] == "5"


def test_stars_in_the_pictures_own_metadata_stay_alone(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x4746] = 3
    Image.new("RGB", (32, 32)).save(path, exif=exif)
    assert is_rated(str(path))
    assert write_sidecars([row(path)]) == (0, 1, [])
    assert "Xmp.xmp.Rating" not in read(path.with_suffix(".xmp"))


def test_a_caption_in_the_pictures_own_metadata_stays_alone(tmp_path):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x010E] = "Our lake."
    Image.new("RGB", (32, 32)).save(path, exif=exif)
    assert write_sidecars([row(path)]) == (1, 0, [])
    found = read(path.with_suffix(".xmp"))
    assert found["Xmp.xmp.Rating"] == "4"
    assert "Xmp.dc.description" not in found


def test_stars_in_the_sidecar_that_raw_and_jpeg_share_stay_alone(picture, tmp_path):
    picture.with_suffix(".xmp").write_text(LIGHTROOM.format(rating='xmp:Rating="2"', more=""))
    assert write_sidecars([row(picture), row(tmp_path / "lake.CR2")]) == (0, 2, [])
    assert "Xmp.xmp.Rating" not in read(tmp_path / "lake.CR2.xmp")


def test_names_of_sidecars(tmp_path):
    images = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "b.CR2", "c.jpg", "a.jpg")]
    (tmp_path / "c.jpg.xmp").touch()
    assert [path.name for path in sidecar_paths(images)] == ["a.xmp", "b.jpg.xmp", "b.CR2.xmp", "c.jpg.xmp", "a.xmp"]


def test_a_row_without_a_score_gets_no_sidecar(picture):
    assert write_sidecars([row(picture, None, None)]) == (0, 0, [])
    assert not picture.with_suffix(".xmp").exists()


@pytest.mark.parametrize("content", ["no xml", "<x/>", "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_a_sidecar_that_is_no_xmp_is_named_and_not_changed_and_the_others_are_written(picture, tmp_path, content):
    sidecar, other = picture.with_suffix(".xmp"), tmp_path / "other.jpg"
    sidecar.write_text(content)
    made = write_sidecars([row(picture), row(other)])
    assert made[:2] == (1, 0)
    assert "lake.xmp cannot be read" in made.problems[0]
    assert sidecar.read_text() == content
    assert other.with_suffix(".xmp").exists()


def test_hostile_reasons_stay_text(picture):
    text = """</rdf:li><xmp:Rating>5</xmp:Rating> & <!-- ]]> "' \u202e é"""
    write_sidecars([row(picture, reasoning=text)])
    found = read(picture.with_suffix(".xmp"))
    assert found["Xmp.xmp.Rating"] == "4"
    assert found["Xmp.aesr1.Reason"] == text


def test_pictures_with_stars_are_known(picture, tmp_path):
    assert not is_rated(str(picture))
    write_sidecars([row(picture)])
    assert is_rated(str(picture))
