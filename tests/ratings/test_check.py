"""`ratings check`: bad rows, bad pictures, copies and look-alikes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from aesr1.errors import AesError
from aesr1.images.look_alikes import grey_fingerprint, look_alikes
from aesr1.ratings.check import CheckConfig, check, to_text
from aesr1.tiny.album import AlbumConfig, make_album
from aesr1.tiny.scenes import draw_scene, sample_scene


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(5)
    return [draw_scene(sample_scene(rng)) for _ in range(40)]


def test_a_good_album_passes(tmp_path):
    ratings = make_album(AlbumConfig(tmp_path / "a", n=12, seed=1))
    report = check(CheckConfig((ratings,)))
    assert (report.rows, report.pictures, report.problems, report.failed) == (12, 12, [], False)
    assert "nothing wrong was found" in to_text(report)


@pytest.fixture
def folder(tmp_path, scenes):
    """Write ratings of pictures: name → picture or bytes, or None for a missing one."""

    def write(pictures: dict[str, object], rows: list[dict[str, object]] | None = None) -> Path:
        for name, picture in pictures.items():
            if isinstance(picture, bytes):
                (tmp_path / name).write_bytes(picture)
            elif picture is not None:
                picture.save(tmp_path / name)
        rows = rows or [{"image": name} for name in pictures]
        lines = [{"score": 0.5, "domain": "d", "split": "train", **row} for row in rows]
        (tmp_path / "ratings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path

    return write


def kinds(report):
    return {(problem.kind, Path(problem.image).name) for problem in report.problems}


def test_every_kind_of_picture_problem_is_reported(folder, scenes):
    whole = io.BytesIO()
    scenes[0].save(whole, "JPEG")
    report = check(
        CheckConfig(
            (
                folder(
                    {
                        "good.png": scenes[0],
                        "copy.png": scenes[0],
                        "gone.png": None,
                        "torn.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
                        "text.jpg": b"not a picture",
                        "empty.jpg": b"",
                        "small.png": Image.new("RGB", (7, 300)),
                        "thin.png": Image.new("RGB", (3_000, 20)),
                    }
                ),
            )
        )
    )
    assert kinds(report) == {
        ("copy", "copy.png"),
        ("missing", "gone.png"),
        ("corrupt", "torn.jpg"),
        ("corrupt", "text.jpg"),
        ("corrupt", "empty.jpg"),
        ("small", "small.png"),
        ("small", "thin.png"),
    }
    assert report.failed
    assert "1 missing pictures\n    " in to_text(report)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"score": 1.2}, {("score", "a.png")}),
        ({"score": -0.1}, {("score", "a.png")}),
        ({"score": float("nan")}, {("score", "a.png")}),
        ({"score": "0.5"}, {("score", "a.png")}),
        ({"score": None}, {("score", "a.png")}),
        ({"score": 10**400}, {("score", "a.png")}),
        ({"split": "dev"}, {("row", "a.png")}),
        ({"image": ""}, {("row", "")}),
        ({"domain": None}, {("row", "a.png")}),
        ({"rater_std": "x"}, {("row", "a.png")}),
        ({"taste": 1}, {("row", "a.png")}),
        ({"image": "n" * 300}, {("missing", "n" * 300)}),
    ],
)
def test_every_kind_of_row_problem_is_reported(folder, scenes, row, found):
    report = check(CheckConfig((folder({"a.png": scenes[0]}, [{"image": "a.png", **row}]),)))
    assert kinds(report) == found


def test_a_line_that_is_not_json_is_reported_and_the_rest_is_checked(folder, scenes):
    path = folder({"a.png": scenes[0]})
    with (path / "ratings.jsonl").open("a") as file:
        file.write('{"image": "b.png", \n[1]\n' + "[" * 100_000 + "\n")
    report = check(CheckConfig((path,)))
    assert [problem.kind for problem in report.problems] == ["row", "row", "row"]
    assert "not a JSON object" in report.problems[0].message
    assert "line 2" in report.problems[0].message


def test_missing_pictures_may_be_allowed(folder, scenes):
    path = folder({"a.png": scenes[0], "gone.png": None})
    assert not check(CheckConfig((path,), allow_missing=True)).failed
    assert check(CheckConfig((path,))).failed


def test_one_picture_in_two_splits_is_found_by_name_and_by_content(folder, scenes):
    small = scenes[1].resize((80, 80), Image.Resampling.LANCZOS)
    compressed = io.BytesIO()
    small.save(compressed, "JPEG", quality=40)
    rows = [
        {"image": "a.png"},
        {"image": "a.png", "split": "test"},
        {"image": "b.png"},
        {"image": "b-small.jpg", "split": "test"},
        {"image": "c.png", "split": "test"},
    ]
    report = check(
        CheckConfig(
            (
                folder(
                    {
                        "a.png": scenes[0],
                        "b.png": scenes[1],
                        "b-small.jpg": compressed.getvalue(),
                        "c.png": scenes[2],
                    },
                    rows,
                ),
            )
        )
    )
    assert {problem.kind for problem in report.problems} == {"twice", "split"}
    assert kinds(report) >= {("twice", "a.png"), ("split", "a.png"), ("split", "b-small.jpg")}
    assert ("split", "c.png") not in kinds(report)


def test_several_files_are_checked_against_each_other(folder, tmp_path, scenes):
    path = folder({"a.png": scenes[0]})
    other = tmp_path / "other"
    other.mkdir()
    scenes[0].save(other / "same.png")
    row = {"image": "same.png", "score": 0.5, "domain": "e", "split": "val"}
    (other / "ratings.jsonl").write_text(json.dumps(row) + "\n")
    assert [problem.kind for problem in check(CheckConfig((path, other))).problems] == ["split"]


def altered(picture: Image.Image) -> list[Image.Image]:
    buffer = io.BytesIO()
    picture.resize((56, 56), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=50)
    return [Image.open(buffer).convert("RGB"), ImageEnhance.Brightness(picture).enhance(1.15)]


def seen(*pictures: Image.Image) -> np.ndarray:
    return np.frombuffer(b"".join(map(grey_fingerprint, pictures)), dtype=np.uint8).reshape(len(pictures), -1)


def test_altered_copies_are_found_and_different_scenes_are_not(scenes):
    copies = [copy for scene in scenes for copy in altered(scene)]
    splits = np.array([0] * len(scenes) + [1] * len(copies))
    found = set(look_alikes(seen(*scenes, *copies), splits))
    right = {(i, len(scenes) + 2 * i + k) for i in range(len(scenes)) for k in (0, 1)}
    assert len(found & right) >= 0.95 * len(right)
    assert not found - right


def test_only_pictures_of_different_splits_are_compared(scenes):
    same = seen(scenes[0], scenes[0], scenes[0])
    assert list(look_alikes(same, np.array([0, 0, 0]))) == []
    assert sorted(look_alikes(same, np.array([1, 0, 2]))) == [(0, 1), (0, 2), (1, 2)]
    assert list(look_alikes(same[:0], np.array([], dtype=int))) == []


def test_look_alikes_are_decided_by_edges_not_by_gradients():
    across, down = np.meshgrid(np.linspace(0, 200, 16), np.linspace(0, 200, 16))
    bent = across + np.where(across > 100, 50, 0)
    pictures = np.stack([across, across * 0.5 + 30, down, bent]).reshape(4, -1).astype(np.uint8)
    found = set(look_alikes(pictures, np.array([0, 1, 1, 1])))
    assert found == {(0, 1)}  # darker and paler; not turned, not with an edge in it


def test_blank_pictures_are_not_compared():
    blank = seen(Image.new("RGB", (50, 50), "white"), Image.new("RGB", (50, 50), "white"))
    assert list(look_alikes(blank, np.array([0, 1]))) == []


def test_an_empty_file_and_invalid_names_are_reported(folder, scenes, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    assert "is empty" in to_text(check(CheckConfig((tmp_path / "empty.jsonl",))))
    path = folder({"a.png": scenes[0]}, [{"image": "\ud800.png"}])
    assert "\\ud800.png" in to_text(check(CheckConfig((path,))))


def test_an_error_in_a_decoder_does_not_stop_the_check(folder, scenes, monkeypatch):
    dds = b"DDS " + (124).to_bytes(4, "little") + bytes(72) + (32).to_bytes(4, "little") + bytes(200)
    report = check(CheckConfig((folder({"a.png": scenes[0], "odd.dds": dds}),), workers=1))
    assert kinds(report) == {("corrupt", "odd.dds")}


def test_a_missing_file_or_a_bad_setting_raises_an_error(tmp_path):
    with pytest.raises(AesError, match="does not exist"):
        check(CheckConfig((tmp_path / "no.jsonl",)))
    with pytest.raises(AesError, match="alike is 20"):
        check(CheckConfig((tmp_path,), alike=20))


def test_the_command_exits_with_1_and_prints_json(folder, scenes):
    path = folder({"a.png": scenes[0], "gone.png": None})
    command = [sys.executable, "-m", "aesr1", "ratings", "check", str(path), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    found = json.loads(run.stdout)
    assert found["failed"]
    assert [problem["kind"] for problem in found["problems"]] == ["missing"]
    allowed = subprocess.run([*command, "--allow-missing"], capture_output=True, text=True, check=False)
    assert allowed.returncode == 0
