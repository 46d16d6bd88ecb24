import numpy as np
import pytest
from PIL import Image

from aesr1.errors import AesError
from aesr1.images.load import find_images, open_image


def picture(width=40, height=20, colour=(200, 10, 10)):
    return Image.new("RGB", (width, height), colour)


def test_exif_orientation_is_applied(tmp_path):
    source = picture()
    source.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    source.save(tmp_path / "a.png", exif=exif)
    upright = open_image(tmp_path / "a.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((19, 0)) == (0, 0, 255)


def test_the_file_type_is_read_from_the_content_not_the_name(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (40, 20)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1", "I"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    source = Image.fromarray(np.full((20, 40), 40_000, np.uint16)) if mode.startswith("I") else picture().convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    source.save(path)
    assert open_image(path).mode == "RGB"


def test_transparent_areas_become_white(tmp_path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((5, 5)) == (255, 255, 255)


def test_max_pixels_keeps_the_aspect_ratio(tmp_path):
    picture(2000, 1000).save(tmp_path / "a.jpg")
    small = open_image(tmp_path / "a.jpg", max_pixels=20_000)
    assert small.width * small.height <= 20_000
    assert small.width / small.height == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "text"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "a broken head"),
        (b"<svg/>", "a drawing"),
    ],
)
def test_a_bad_file_is_a_clear_error(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(AesError, match=r"a\.jpg"):
        open_image(tmp_path / "a.jpg")


def test_a_cut_off_picture_is_a_clear_error(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AesError, match="cannot be read"):
        open_image(tmp_path / "a.jpg")


def test_a_very_thin_picture_is_refused(tmp_path):
    picture(2200, 9).save(tmp_path / "strip.png")
    with pytest.raises(AesError, match="too thin"):
        open_image(tmp_path / "strip.png")


def test_missing_tiny_and_folder_are_clear_errors(tmp_path):
    picture(4, 4).save(tmp_path / "small.png")
    for path in ("nothing.jpg", "small.png", "."):
        with pytest.raises(AesError):
            open_image(tmp_path / path)


def test_pictures_are_found_in_folders_globs_and_by_name(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "a.png", "sub/c.webp"):
        picture().save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("x")
    names = [path.name for path in find_images([tmp_path])]
    assert names == ["a.png", "b.JPG", "c.webp"]
    assert [
        path.name for path in find_images([str(tmp_path / "*.png"), tmp_path / "a.png", tmp_path / "notes.txt"])
    ] == ["a.png", "notes.txt"]
    for nothing in (tmp_path / "*.gif", tmp_path / "sub" / "*.png"):
        with pytest.raises(AesError, match="no pictures"):
            find_images([str(nothing)])
