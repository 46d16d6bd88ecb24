"""`aesr1 score --ray` with a real local cluster of two workers."""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from test_ray_shards import tar_of

from aesr1.app.score import ScoreConfig
from aesr1.app.score_on_ray import score_on_ray
from aesr1.errors import AesError

SHARDS, PICTURES = 8, 5


@pytest.mark.slow
def test_a_killed_run_on_two_workers_goes_on_without_scoring_a_finished_shard_again(
    random_model, scene_folder, tmp_path
):
    pytest.importorskip("ray")
    scenes = sorted(scene_folder.glob("*.png"))
    source, output = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    for number in range(SHARDS):
        pictures = scenes[number * PICTURES : (number + 1) * PICTURES]
        tar_of(source / f"{number}.tar", [*pictures, broken] if number == 3 else pictures)
    command = [sys.executable, "-m", "aesr1", "score", source, "--model", random_model, "-o", output, "--quiet"]
    options = ["--ray", "local", "--ray-workers", "2", "--batch-size", "1"]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and len(list(output.glob("part-*.parquet"))) < 2:
            time.sleep(0.02)
        process.kill()
        assert process.wait() < 0, process.stderr.read().decode()
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    assert 2 <= len(before) < SHARDS
    run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"8 files, {len(before)} of them from before" in run.stdout
    parts = sorted(output.glob("part-*.parquet"))
    assert {path.name: path.stat().st_mtime_ns for path in parts if path.name in before} == before
    rows = [row for path in parts for row in pyarrow.parquet.read_table(path).to_pylist()]
    names = sorted(Path(row["image"]).name for row in rows)
    assert names == sorted([*(scene.name for scene in scenes), "broken.png"])
    assert [row["error"] for row in rows if row["score"] is None] == [
        "the picture is of no picture format that is read here"
    ]
    assert not list(output.glob(".part-*")) and len(parts) == SHARDS


def test_an_output_for_ray_is_a_folder_and_belongs_to_one_source_and_model(scene_folder, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    source = (str(scene_folder),)
    with pytest.raises(AesError, match="is no folder"):
        score_on_ray(ScoreConfig(source, output=tmp_path / "x.jsonl"), "local")
    monkeypatch.setattr("aesr1.app.score_on_ray._score_shards", lambda *_: None)
    score_on_ray(ScoreConfig(source, output=tmp_path / "out"), "local")
    with pytest.raises(AesError, match="was started with model"):
        score_on_ray(ScoreConfig(source, "other", output=tmp_path / "out"), "local")
    with pytest.raises(AesError, match="was started with inputs"):
        score_on_ray(ScoreConfig((str(tmp_path),), output=tmp_path / "out"), "local")


def test_without_ray_the_extra_is_named(scene_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AesError, match="needs Ray") as error:
        score_on_ray(ScoreConfig((str(scene_folder),), output=tmp_path / "out"), "local")
    assert ".[ray]" in error.value.fix
