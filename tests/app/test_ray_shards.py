"""Which shards a source has, which pictures are in them, and what a worker writes of a shard. Without a cluster."""

import io
import json
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from aesr1 import Scorer
from aesr1.app.predictions_table import COLUMNS
from aesr1.app.ray_shards import pictures_of, shards_of
from aesr1.app.score import ScoreConfig
from aesr1.app.score_on_ray import ShardScorer
from aesr1.errors import AesError
from aesr1.model.predict import PredictSettings

FAST = PredictSettings(fast=True)


def tar_of(path, pictures):
    with tarfile.open(path, "w") as file:
        for picture in pictures:
            file.add(picture, f"./{picture.name}")
        note = tarfile.TarInfo("00.json")
        note.size = 2
        file.addfile(note, io.BytesIO(b"{}"))
    return path


def table(place, /, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), place)
    return place


def opened(inputs, tmp_path, **options):
    """Name, and whether it is a picture, of everything in the shards; and how many shards there are."""
    shards = list(shards_of(map(str, inputs), leave_out=tmp_path / "out", **options))
    with ThreadPoolExecutor(2) as pool:
        found = [each for shard in shards for each in pictures_of(shard, pool, max_pixels=65_536)]
    return [(each.name, each.picture is not None) for each in found], len(shards)


@pytest.fixture
def scenes(scene_folder):
    return sorted(scene_folder.glob("*.png"))


def test_a_folder_is_divided_into_shards_of_pictures_in_order(scenes, tmp_path):
    for scene in scenes[:5]:
        shutil.copy(scene, tmp_path)
    (tmp_path / "out").mkdir()
    table(tmp_path / "out" / "part-000000.parquet", a=[1])
    found, count = opened([tmp_path], tmp_path, pictures=2)
    assert found == [(str(tmp_path / scene.name), True) for scene in scenes[:5]] and count == 3
    address = f"file://{tmp_path}"
    found, count = opened([f"{address}/0*.png"], tmp_path)
    assert found == [(f"{address}/{scene.name}", True) for scene in scenes[:5]] and count == 1


def test_parquet_files_hold_paths_or_bytes_or_both(scenes, tmp_path):
    for scene in scenes[:3]:
        shutil.copy(scene, tmp_path)
    raw = [scene.read_bytes() for scene in scenes[:3]]
    names = [scene.name for scene in scenes[:3]]
    paths = table(tmp_path / "paths.parquet", path=names)
    found, count = opened([paths], tmp_path, pictures=2)
    assert found == [(str(tmp_path / name), True) for name in names] and count == 2
    both = table(tmp_path / "both.parquet", bytes=raw, path=names)
    assert opened([both], tmp_path)[0] == [(f"{both}#0.{row} {name}", True) for row, name in enumerate(names)]
    struct = [{"bytes": raw[0], "path": "a"}, {"bytes": None, "path": names[1]}, {"bytes": b"no picture", "path": None}]
    faces = table(tmp_path / "faces.parquet", image=struct, path=["x", "y", "z"])
    assert opened([faces], tmp_path)[0] == [
        (f"{faces}#0.0 a", True),
        (str(tmp_path / names[1]), True),
        (f"{faces}#0.2 z", False),
    ]


def test_a_parquet_file_without_pictures_and_what_cannot_be_found_are_errors(tmp_path):
    table(tmp_path / "a.parquet", score=[1.0], image=[2])
    (tmp_path / "b.parquet").write_text("no parquet")
    for name, problem in (
        ("a.parquet", "has no column of pictures; it has score, image"),
        ("b.parquet", "cannot be read"),
        ("file:///nowhere", "holds no pictures"),
        ("nowhere://a", "cannot be read: Protocol not known"),
    ):
        place = name if "://" in name else str(tmp_path / name)
        with pytest.raises(AesError, match=problem):
            list(shards_of([place], leave_out=tmp_path / "out"))


def test_a_tar_is_one_shard_and_a_cut_one_ends_in_an_error(scenes, tmp_path):
    whole = tar_of(tmp_path / "a.tar", scenes[:3])
    found, count = opened([tmp_path], tmp_path)
    assert found == [(f"{whole}/./{scene.name}", True) for scene in scenes[:3]] and count == 1
    cut = tmp_path / "b.tar"
    cut.write_bytes(whole.read_bytes()[: scenes[0].stat().st_size + 5_000])
    assert opened([cut], tmp_path)[0] == [(f"{cut}/./00.png", True), (str(cut), False)]


def test_a_worker_writes_a_row_for_each_picture_of_a_shard_whole(random_model, scenes, tmp_path):
    for scene in scenes[:3]:
        shutil.copy(scene, tmp_path)
    (tmp_path / "01.png").write_text("no picture")
    (tmp_path / "03.png").write_text("nor this")
    tar_of(tmp_path / "a.tar", scenes[:1])
    shards = tmp_path / "_run" / "shards.jsonl"
    shards.parent.mkdir()
    lines = [json.dumps(shard) + "\n" for shard in shards_of([str(tmp_path)], leave_out=tmp_path / "out")]
    shards.write_text("".join(lines))
    config = ScoreConfig(("x",), str(random_model), tmp_path, settings=FAST)
    worker = ShardScorer(config, shards)
    offset, pictures, rows = 0, [], []
    for number, line in enumerate(lines):
        found = worker.score({"name": f"part-{number}.parquet", "offset": offset})
        offset += len(line)
        pictures.append((found["pictures"], found["failed"], found["problem"]))
        rows.append(pyarrow.parquet.read_table(tmp_path / f"part-{number}.parquet"))
    assert sorted(pictures) == [(1, 0, ""), (4, 2, "")]
    assert not list(tmp_path.glob(".part-*"))
    (of_tar,), of_folder = sorted((table.to_pylist() for table in rows), key=len)
    assert list(of_folder[0]) == list(COLUMNS) == list(of_tar)
    assert [Path(row["image"]).name for row in of_folder] == ["00.png", "01.png", "02.png", "03.png"]
    assert [row["score"] is None for row in of_folder] == [False, True, False, True]
    assert "no picture format" in of_folder[1]["error"] and of_folder[0]["content"]
    alone = Scorer(str(random_model), settings=FAST).score([scenes[0], scenes[2]])
    assert [of_folder[0]["score"], of_folder[2]["score"]] == pytest.approx([row.score for row in alone], abs=1e-5)
    assert of_tar["score"] == pytest.approx(alone[0].score, abs=1e-5)
    assert of_folder[0]["stars"] == alone[0].stars
    other = ShardScorer(ScoreConfig(("x",), str(random_model), tmp_path, settings=PredictSettings()), shards)
    assert "was started with decoding" in other.score({"name": "part-9.parquet", "offset": 0})["problem"]
