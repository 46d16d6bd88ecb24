import os
import re
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from png_file import png

from aesr1.errors import AesError
from aesr1.images import load, srgb
from aesr1.images.load import image_size, open_image


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
        (b"", r"a\.jpg has 0 bytes"),
        (b"hello", r"a\.jpg is of no picture format that is read here"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, r"a\.jpg is of no picture format that is read here"),
        (b"<svg/>", r"a\.jpg is SVG, not a picture"),
        (b"\n<!DOCTYPE html><p>gone", r"a\.jpg is HTML, not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"a\.jpg is PostScript, not a picture"),
        (b"\xd7\xcd\xc6\x9a" + b"\0" * 60, r"a\.jpg is of no picture format"),  # WMF
    ],
)
def test_a_bad_file_is_a_clear_error(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(AesError, match=reason):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_cut_off_picture_says_where_it_ends(tmp_path, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(1, 255, (400, 300, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.jpg", kind)
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: int(len(whole) * 0.41)])
    with pytest.raises(AesError, match=r"a\.jpg is cut off after about \d+ %: the end of") as error:
        open_image(tmp_path / "a.jpg")
    assert abs(int(re.search(r"(\d+) %", str(error.value))[1]) - 41) <= 3


def test_a_picture_cut_off_in_its_head_is_an_error_too(tmp_path):
    Image.new("RGB", (300, 300), "teal").save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(AesError, match=r"a\.png (is cut off: the end|cannot be read)"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_picture_with_broken_pixels_is_refused_and_not_half_black(tmp_path, place):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    middle = int(place * len(content))
    content[middle : middle + 9] = bytes(9)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(AesError):
        open_image(tmp_path / "a.png")


def test_a_very_thin_picture_is_refused(tmp_path):
    picture(2200, 9).save(tmp_path / "strip.png")
    with pytest.raises(AesError, match="too thin"):
        open_image(tmp_path / "strip.png")


def test_missing_tiny_and_folder_are_clear_errors(tmp_path):
    picture(4, 4).save(tmp_path / "small.png")
    for path in ("nothing.jpg", "small.png", "."):
        with pytest.raises(AesError):
            open_image(tmp_path / path)


def matrix_profile(red, green, blue, gamma):
    """An ICC profile of these primaries (XYZ at D50) and gamma."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": xyz((0.9642, 1, 0.8249)), b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue)}
    tags |= {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 80}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", place + len(body), len(content))
        body += padded
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + b"\0" * 12
    head += b"acsp" + b"\0" * 28 + struct.pack(">iii", 63190, 65536, 54061) + b"\0" * 48
    return head + table + body


ADOBE = matrix_profile((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446), 2.2)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
def test_colours_are_converted_from_the_pictures_profile_to_srgb_in_every_container(tmp_path, suffix):
    more = {"icc_profile": ADOBE, **({"lossless": True} if suffix == "webp" else {"quality": 95})}
    picture(colour=(150, 190, 80)).save(tmp_path / f"a.{suffix}", **more)
    # By the matrices of Adobe RGB and sRGB: linear (.311, .524, .078) is (.226, .524, .059) in sRGB.
    expected = np.array([131, 191, 69])
    seen = np.asarray(open_image(tmp_path / f"a.{suffix}"), dtype=int)[10, 20]
    assert abs(seen - expected).max() <= (2 if suffix in ("png", "tif", "webp") else 5)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        assert abs(np.asarray(open_image(opened), dtype=int)[10, 20] - seen).max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA"])
def test_a_profile_works_in_modes_with_transparency_and_palette_and_in_grey(tmp_path, mode):
    source = picture(colour=(153, 153, 153)).convert(mode)
    source.save(tmp_path / "a.png", icc_profile=ADOBE)
    grey = np.asarray(open_image(tmp_path / "a.png"), dtype=int)[10, 20]
    assert abs(grey - 153).max() <= 1 and np.ptp(grey) <= 1  # grey stays grey; gamma 2.2 is nearly sRGB's here


@pytest.mark.parametrize("profile", [b"nonsense", ADOBE[:200], b"\0" * 4000])
def test_a_broken_profile_is_ignored(tmp_path, profile):
    picture().save(tmp_path / "a.png", icc_profile=profile)
    assert open_image(tmp_path / "a.png").getpixel((5, 5)) == (200, 10, 10)


def test_an_rgb_profile_on_a_cmyk_picture_is_ignored(tmp_path):
    picture(colour=(255, 255, 255)).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=ADOBE)
    assert min(open_image(tmp_path / "a.jpg").getpixel((5, 5))) >= 250


def test_nothing_but_pixels_is_kept_of_a_file(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "secret"
    picture().save(tmp_path / "a.jpg", comment=b"secret", exif=exif, icc_profile=ADOBE, dpi=(300, 300))
    opened = open_image(tmp_path / "a.jpg")
    again = BytesIO()
    opened.save(again, "JPEG")
    assert opened.info == {} and not opened.getexif()
    assert b"secret" not in again.getvalue() and b"ICC" not in again.getvalue()


RAMP = np.linspace(0, 1, 40 * 20).reshape(20, 40)


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.rint(RAMP * 65535).astype(np.uint16), 255),
        (np.rint(RAMP * 65535).astype(">u2"), 255),
        (np.rint(RAMP * 255).astype(np.int32), 255),
        (np.rint(RAMP * 65535).astype(np.int32), 255),
        (np.rint(RAMP * (2**31 - 1)).astype(np.int32), 255),
        (RAMP.astype(np.float32), 255),
        ((RAMP * 0.5).astype(np.float32), 127.5),
        ((RAMP * 255).astype(np.float32), 255),
        ((RAMP * 65535).astype(np.float32), 255),
    ],
)
def test_grey_of_16_and_32_bits_and_float_is_scaled_by_the_stated_rule(tmp_path, values, white):
    Image.fromarray(values).save(tmp_path / "a.tif")
    seen = np.asarray(open_image(tmp_path / "a.tif"), dtype=float)
    assert abs(seen - white * RAMP[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.nan, "NaN or Inf"), (np.inf, "NaN or Inf"), (-0.5, "from -0.5"), (1e6, "white is not known")],
)
def test_grey_without_a_known_white_is_refused(tmp_path, value, problem):
    values = RAMP.astype(np.float32)
    values[3, 3] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(AesError, match=problem):
        open_image(tmp_path / "a.tif")


def test_signed_grey_with_negative_values_is_refused_and_without_is_scaled(tmp_path):
    Image.fromarray(np.rint(RAMP * 32767).astype(np.int32)).save(tmp_path / "a.tif")
    assert np.asarray(open_image(tmp_path / "a.tif")).max() == 127  # half of 16 bits
    Image.fromarray(np.rint(RAMP * 32767 - 9).astype(np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(AesError, match="from -9 to"):
        open_image(tmp_path / "b.tif")


def test_one_transparent_grey_value_of_16_bits_becomes_white(tmp_path):
    values = np.full((20, 40), 20_000, np.uint16)
    values[:, 20:] = 40_000
    Image.fromarray(values).save(tmp_path / "a.png", transparency=40_000)
    seen = np.asarray(open_image(tmp_path / "a.png"))
    assert seen[5, 5, 0] == 78 and seen[5, 30, 0] == 255


def test_lab_is_converted(tmp_path):
    Image.new("LAB", (20, 20), (255, 128, 128)).save(tmp_path / "a.tif")
    assert min(open_image(tmp_path / "a.tif").getpixel((5, 5))) >= 250


@pytest.mark.parametrize("chunk", [(b"eXIf", b"garbage"), (b"tEXt", b"Raw profile type exif\0\nexif\n  9\nzz")])
def test_unreadable_metadata_does_not_refuse_a_picture(tmp_path, chunk):
    rows = zlib.compress((b"\0" + b"\x09\x08\x07" * 10) * 10)
    (tmp_path / "a.png").write_bytes(png(10, 10, rows, more=[chunk]))
    assert open_image(tmp_path / "a.png").getpixel((3, 3)) == (9, 8, 7)


def test_an_orientation_is_applied_beside_a_value_that_cannot_be_written_back(tmp_path):
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHIi", 0x9204, 3, 1, -5)
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0" + tiff)
    assert open_image(tmp_path / "a.jpg").size == (20, 40)


def test_a_callers_picture_keeps_its_size_and_metadata(tmp_path):
    picture(1600, 800).save(tmp_path / "a.jpg", comment=b"mine")
    with Image.open(tmp_path / "a.jpg") as mine:
        assert open_image(mine, max_pixels=5_000).size == (100, 50)
        assert mine.size == (1600, 800) and mine.info["comment"] == b"mine"


def test_bytes_open_files_and_arrays_are_pictures_as_well(tmp_path):
    picture().save(tmp_path / "a.png")
    expected = np.asarray(open_image(tmp_path / "a.png"))
    with (tmp_path / "a.png").open("rb") as file:
        for source in (file.read(), file, np.asarray(picture())):
            assert (np.asarray(open_image(source)) == expected).all()
    for array in (np.zeros((20, 20), np.uint8), np.zeros((20, 20, 3)), np.zeros((0, 20, 3), np.uint8)):
        with pytest.raises(AesError, match="height × width × 3"):
            open_image(array)


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        for opener in (open_image, image_size):
            with pytest.raises(AesError, match="is not a regular file"):
                opener(path)


def test_a_name_that_is_too_long_is_a_clear_error():
    with pytest.raises(AesError, match="name too long"):
        open_image("a" * 300 + ".jpg")


def test_strips_give_the_same_picture_as_the_whole(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 4), dtype=np.uint8)
    Image.fromarray(noise).resize((1600, 1200)).save(tmp_path / "a.png")
    whole = np.asarray(open_image(tmp_path / "a.png", max_pixels=3_000), dtype=float)
    monkeypatch.setattr(srgb, "LARGE_PIXELS", 100_000)
    monkeypatch.setattr(srgb, "STRIP_PIXELS", 50_000)
    reduced = np.asarray(open_image(tmp_path / "a.png", max_pixels=3_000), dtype=float)
    assert reduced.shape == whole.shape and abs(reduced - whole).mean() < 3


def peak_memory(path):
    """MiB that a new process needs at most to open a picture."""
    code = (
        "import re, sys; from pathlib import Path\n"
        "from aesr1.images.load import open_image; from aesr1.errors import AesError\n"
        "try: print(open_image(sys.argv[1], max_pixels=262144).size)\n"
        "except AesError as error: print(error.problem)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    *said, peak = done.stdout.split("\n")[:-1]
    return said, int(peak)


def test_a_small_file_of_169_megapixels_needs_600_mib_at_most(tmp_path):
    side = 13_000
    packer = zlib.compressobj(9)
    row = b"\0" + b"\x55" * ((side + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    palette = [(b"PLTE", bytes([200, 30, 30, 20, 20, 90])), (b"tRNS", b"\0\xff")]
    (tmp_path / "a.png").write_bytes(png(side, side, rows, kind=3, depth=1, more=palette))
    said, peak = peak_memory(tmp_path / "a.png")
    assert said == ["(512, 512)"] and peak <= 600


def test_one_large_picture_is_decoded_at_a_time(tmp_path, monkeypatch):
    picture(100, 100).save(tmp_path / "a.png")
    monkeypatch.setattr(load, "ALONE_PIXELS", 5_000)
    real, now, most = load.to_srgb, [0], []

    def slow(source, **more):
        now[0] += 1
        most.append(now[0])
        time.sleep(0.05)
        opened = real(source, **more)
        now[0] -= 1
        return opened

    monkeypatch.setattr(load, "to_srgb", slow)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(open_image, [tmp_path / "a.png"] * 6))) == 6
    assert max(most) == 1


def test_a_large_picture_needs_no_folder_that_can_be_written(tmp_path, monkeypatch):
    picture(100, 100).save(tmp_path / "a.png")
    monkeypatch.setattr(load, "ALONE_PIXELS", 5_000)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "a.png"))
    assert open_image(tmp_path / "a.png").size == (100, 100)


@pytest.mark.slow
def test_a_jpeg_of_200_megapixels_is_decoded_reduced(tmp_path):
    Image.new("RGB", (16_320, 12_256), (200, 100, 50)).save(tmp_path / "a.jpg", quality=30)
    said, peak = peak_memory(tmp_path / "a.jpg")
    assert said == ["(590, 443)"] and peak <= 300


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000, zlib.compress(b"")))
    said, peak = peak_memory(tmp_path / "a.png")
    assert "too large" in said[0] and peak <= 200
