"""What leaves this machine is pixels alone."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.images.strip import bytes_without_metadata

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)).resize((120, 80))


def exif(orientation=1):
    values = Image.Exif()
    values[0x010F], values[0x0112] = "secret", orientation
    return values


def text():
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("where", "secret")
    return chunk


@pytest.mark.parametrize(
    ("suffix", "more"),
    [
        ("jpg", {"comment": b"secret"}),
        ("jpg", {"exif": exif()}),
        ("jpg", {"exif": exif(6)}),
        ("jpg", {"xmp": b"<x>secret</x>"}),
        ("png", {"pnginfo": text()}),
        ("png", {"exif": exif(3)}),
        ("webp", {"exif": exif(), "lossless": True}),
        ("tif", {"description": "secret"}),
        ("avif", {"exif": exif()}),
    ],
)
def test_metadata_is_left_out_and_pixels_stay(tmp_path, suffix, more):
    path = tmp_path / f"a.{suffix}"
    NOISE.save(path, **more)
    assert b"secret" in path.read_bytes()
    content = bytes_without_metadata(path)
    assert b"secret" not in content
    before, after = (np.asarray(open_image(source), dtype=int) for source in (path, content))
    assert before.shape == after.shape and abs(before - after).mean() < 2


def test_bytes_after_the_end_of_a_picture_are_left_out(tmp_path):
    for suffix in ("jpg", "png"):
        NOISE.save(tmp_path / f"a.{suffix}")
        with (tmp_path / f"a.{suffix}").open("ab") as file:
            file.write(b"secret")
        assert b"secret" not in bytes_without_metadata(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_a_file_without_metadata_stays_as_it_is(tmp_path, suffix):
    NOISE.save(tmp_path / f"a.{suffix}")
    assert bytes_without_metadata(tmp_path / f"a.{suffix}") == (tmp_path / f"a.{suffix}").read_bytes()


def test_a_profile_stays_because_colours_depend_on_it(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    NOISE.save(tmp_path / "a.jpg", icc_profile=profile, comment=b"secret")
    with Image.open(BytesIO(bytes_without_metadata(tmp_path / "a.jpg"))) as picture:
        assert picture.info["icc_profile"] == profile


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"secret")
    with pytest.raises(AesError, match="of no picture format"):
        bytes_without_metadata(tmp_path / "a.jpg")


def test_a_jpeg_whose_head_names_a_huge_size_is_an_error(tmp_path):
    file = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "JPEG", comment=b"private")
    content = bytearray(file.getvalue())
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = b"\xea\x60" * 2  # 60,000 × 60,000
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(AesError, match=r"a\.jpg"):
        bytes_without_metadata(tmp_path / "a.jpg")
