"""Which files a search finds, and what it says of the others."""

import io
import os

import pytest
from dng import dng
from PIL import Image

from aesr1.errors import AesError
from aesr1.images.find import find_images, iterate_images
from aesr1.images.formats import formats
from aesr1.images.load import image_size, open_image
from aesr1.images.picture_list import PictureList


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(path, format="PNG")


def names(found):
    return [path.name for path in found.paths]


def test_pictures_are_found_in_folders_globs_and_by_name(tmp_path):
    put(tmp_path, "b.JPG", "a.png", "sub/c.webp")
    (tmp_path / "notes.txt").write_text("x")
    assert names(find_images([tmp_path])) == ["a.png", "b.JPG", "c.webp"]
    inputs = [str(tmp_path / "*.png"), tmp_path / "a.png", tmp_path / "notes.txt"]
    assert names(find_images(inputs)) == ["a.png", "notes.txt"]
    for nothing in (tmp_path / "*.gif", tmp_path / "sub" / "*.png"):
        with pytest.raises(AesError, match="no pictures"):
            find_images([str(nothing)])


def test_every_format_that_can_be_opened_is_found(tmp_path):
    kinds = [
        "avif",
        "bmp",
        "gif",
        "jfif",
        "jp2",
        "jpe",
        "jpeg",
        "jpg",
        "mpo",
        "pgm",
        "png",
        "ppm",
        "tif",
        "tiff",
        "webp",
    ]
    for suffix in kinds:
        Image.new("L" if suffix == "pgm" else "RGB", (40, 20)).save(tmp_path / f"a.{suffix}")
    assert names(find_images([tmp_path])) == [f"a.{suffix}" for suffix in kinds]


def test_what_was_skipped_is_said_with_the_package_that_reads_it(tmp_path, monkeypatch):
    put(tmp_path, "a.png", *(f"{n}.mp4" for n in range(2)), *(f"{n}.CR2" for n in range(12)))
    monkeypatch.setattr("aesr1.images.find.suffixes", lambda: frozenset({".png"}))
    found = find_images([tmp_path])
    assert names(found) == ["a.png"]
    assert len(found.warnings) == 1
    advice = "to read .cr2, in your clone of aesr1: pip install '.[photos]'"
    assert found.warnings[0] == f"skipped 14: 12 .cr2, 2 .mp4; {advice}"


def test_small_copies_that_systems_keep_are_no_pictures_and_are_not_spoken_of(tmp_path):
    put(tmp_path, "a.jpg", "._a.jpg", "@eaDir/a.jpg", ".thumbnails/a.jpg", "sub/._b.jpg")
    (tmp_path / ".DS_Store").write_text("x")
    assert find_images([tmp_path]) == ([tmp_path / "a.jpg"], [])


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    put(tmp_path, "disk/a.jpg", "album/b.jpg")
    (tmp_path / "album" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "album" / "self").symlink_to(tmp_path / "album")
    (tmp_path / "album" / "gone").symlink_to(tmp_path / "nowhere")
    assert names(find_images([tmp_path / "album"])) == ["b.jpg", "a.jpg"]


def test_an_input_that_matches_nothing_does_not_stop_the_others(tmp_path):
    put(tmp_path, "a.jpg")
    (tmp_path / "empty").mkdir()
    long = "x" * 300 + ".jpg"
    found = find_images([tmp_path / "empty", str(tmp_path / "*.gif"), long, tmp_path / "a.jpg"])
    assert found.paths[1] == tmp_path / "a.jpg" and found.paths[0].name == long
    assert found.warnings == [f"{tmp_path / 'empty'} holds no pictures", f"{tmp_path / '*.gif'} holds no pictures"]


def test_pictures_come_in_the_order_of_their_paths_and_each_once(tmp_path):
    put(tmp_path, "b.png", "a/z.png", "a.png", "c/1.png", "a/b/y.png", "B.png")
    wanted = sorted(tmp_path.rglob("*.png"))
    assert find_images([tmp_path]).paths == wanted
    pictures = PictureList(iterate_images([tmp_path / "c", tmp_path, tmp_path / "a.png"], []))
    assert list(pictures) == [str(path) for path in (wanted[-1], *wanted[:-1])]
    assert len(pictures) == 6 and list(pictures) == list(pictures)


def test_a_name_that_is_no_text_stays_as_it_is_in_a_list_of_pictures():
    names = [os.fsdecode(b"/a/caf\xe9.jpg"), "/a/日本.jpg", "/a/\ud800.jpg"]
    assert list(PictureList(names)) == names


def test_pipes_in_a_folder_are_left_out(tmp_path):
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    assert names(find_images([tmp_path])) == ["a.jpg"]


def test_heic_is_opened_where_its_package_is_installed(tmp_path):
    pytest.importorskip("pillow_heif")
    formats()
    Image.new("RGB", (64, 32), (200, 100, 50)).save(tmp_path / "a.heic", format="HEIF")
    assert names(find_images([tmp_path])) == ["a.heic"]
    opened = open_image(tmp_path / "a.heic")
    assert opened.size == (64, 32) and abs(opened.getpixel((9, 9))[0] - 200) < 8


def test_camera_raw_is_developed_where_its_package_is_installed(tmp_path):
    pytest.importorskip("rawpy")
    grey = [40_000] * (128 * 96)
    (tmp_path / "a.DNG").write_bytes(dng(128, 96, grey))
    assert names(find_images([tmp_path])) == ["a.DNG"]
    opened = open_image(tmp_path / "a.DNG")
    assert opened.size == (64, 48) and image_size(tmp_path / "a.DNG") == (64, 48)
    (tmp_path / "broken.cr2").write_bytes(b"hello")
    with pytest.raises(AesError, match=r"broken\.cr2 cannot be read as camera RAW"):
        open_image(tmp_path / "broken.cr2")


@pytest.mark.parametrize(
    ("size", "orientation", "wanted"),
    [
        ((800, 600), 1, (800, 600)),
        ((800, 600), 6, (600, 800)),
        ((160, 120), 1, (512, 384)),  # a thumbnail: the picture is developed
    ],
)
def test_the_preview_in_camera_raw_is_taken_before_it_is_developed(tmp_path, size, orientation, wanted):
    pytest.importorskip("rawpy")
    file = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(file, "JPEG")
    preview = (file.getvalue(), *size)
    raw = dng(1024, 768, [30_000] * (1024 * 768), preview=preview, orientation=orientation)
    (tmp_path / "a.dng").write_bytes(raw)
    opened = open_image(tmp_path / "a.dng")
    assert opened.size == wanted
    assert (abs(opened.getpixel((9, 9))[0] - 10) < 4) == (wanted != (512, 384))


def test_camera_raw_and_heic_without_their_packages_name_the_fix(tmp_path, monkeypatch):
    monkeypatch.setattr("aesr1.images.formats.find_spec", lambda _: None)
    formats.cache_clear()
    (tmp_path / "a.nef").write_bytes(b"x")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    for name, problem in (("a.nef", "is camera RAW"), ("a.heic", "is a HEIC picture")):
        with pytest.raises(AesError, match=problem) as error:
            open_image(tmp_path / name)
        assert "pip install '.[photos]'" in str(error.value)
    formats.cache_clear()
