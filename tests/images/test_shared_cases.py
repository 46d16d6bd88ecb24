"""Small inputs that went wrong once, each with its right value. Skipped where they are absent."""

from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from aesr1.errors import AesError
from aesr1.html_page import JPEG_QUALITY, InlineThumbnail, inline_thumbnail
from aesr1.images.data_url import data_url
from aesr1.images.find import find_images, read_list
from aesr1.images.load import open_image
from aesr1.images.strip import bytes_without_metadata
from aesr1.training.picture_dataset import check_images

CASES = Path(__file__).parents[3] / "shared" / "cases"
PICTURES = CASES / "pictures"

pytestmark = pytest.mark.skipif(not PICTURES.is_dir(), reason="the shared cases are not here")


def pixels(name):
    return np.asarray(open_image(PICTURES / name), dtype=float)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("icc-p3.png", 1),
        ("icc-prophoto.png", 1),
        ("icc-adobe.jpg", 4),
        ("icc-swap.jpg", 4),
        ("icc-broken.jpg", 4),
        ("webp-exif-garbage.webp", 1),
        ("png-rawprofile-garbage.png", 1),
        ("x.avif", 4),
        ("x.jfif", 4),
        ("x.jp2", 1),
        ("two.mpo", 4),
        ("x.ppm", 1),
    ],
)
def test_the_same_visible_picture_gives_the_same_pixels(name, most):
    assert abs(pixels(name) - pixels("base.png")).mean() <= most


@pytest.mark.parametrize("name", ["gray16-trns.png", "gray32int8.tif", "gray32int31.tif", "float01.tif", "gray16.png"])
def test_grey_of_any_type_keeps_its_mean(name):
    assert pixels(name).mean() == pytest.approx(124, abs=0.5)


@pytest.mark.parametrize("name", ["exif-o6-neg.jpg", "exif-o6.jpg"])
def test_a_turned_picture_is_upright(name):
    assert pixels(name).shape == pixels("turned.png").shape
    assert abs(pixels(name) - pixels("turned.png")).mean() <= 4


def test_a_page_shows_the_pixels_that_are_judged():
    judged = open_image(PICTURES / "icc-p3.png")
    thumbnail = inline_thumbnail(str(PICTURES / "icc-p3.png"), "p3", 160)
    assert thumbnail == inline_thumbnail_of(judged)


def inline_thumbnail_of(picture):
    content = BytesIO()
    picture.save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return InlineThumbnail(
        "data:image/jpeg;base64," + b64encode(content.getvalue()).decode(), picture.width, picture.height, ""
    )


def test_no_comment_leaves_the_machine():
    stored = (PICTURES / "comment.jpg").read_bytes()
    start = stored.index(b"\xff\xfe")
    comment = stored[start + 4 : start + 2 + int.from_bytes(stored[start + 2 : start + 4])]
    assert len(comment) > 3
    url = data_url(open_image(PICTURES / "comment.jpg"))
    thumbnail = inline_thumbnail(str(PICTURES / "comment.jpg"), "c", 100).source
    for content in (
        b64decode(url.partition(",")[2]),
        b64decode(thumbnail.partition(",")[2]),
        bytes_without_metadata(PICTURES / "comment.jpg"),
    ):
        assert comment not in content


@pytest.mark.parametrize(("name", "reason"), [("size-7x7.png", "7 × 7 pixels"), ("cut.jpg", "cut off")])
def test_a_dry_run_refuses_what_the_run_refuses(name, reason):
    with pytest.raises(AesError, match=f"{name}.* {reason}"):
        check_images([str(PICTURES / "base.png"), str(PICTURES / name)])


def test_every_picture_is_found_by_a_search():
    assert {path.name for path in find_images([PICTURES]).paths} == {path.name for path in PICTURES.iterdir()}


def test_lists_are_read():
    for name in ("list-bom.txt", "list-latin1.txt"):
        names = list(read_list(CASES / name))
        assert names and not any(entry.startswith("\ufeff") or entry.endswith("\r") for entry in names)
