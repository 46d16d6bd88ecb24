import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from aesr1 import Scorer
from aesr1.app.predictions_table import write_table
from aesr1.app.score import ScoreConfig, score_files
from aesr1.app.score_table import print_table
from aesr1.cli.main import main
from aesr1.contract import LEVELS, reply_until_score
from aesr1.errors import AesError
from aesr1.images import prefetch
from aesr1.images.find import read_list
from aesr1.images.load import open_image
from aesr1.images.picture_list import Shard, parse_shard
from aesr1.images.prefetch import prefetch_pool
from aesr1.json_lines import Appender, read_rows
from aesr1.model.predict import PredictSettings, predict
from aesr1.model.processor import picture_length
from aesr1.model.score_expectation import expect_scores
from aesr1.records import Prediction
from aesr1.worker_processes import worker_pool

QUICK = PredictSettings(max_new_tokens=6)
FAST = PredictSettings(fast=True)


@pytest.fixture(scope="module")
def scorer(random_model):
    return Scorer(str(random_model), device="cpu", settings=QUICK)


def test_paths_and_pictures_in_memory_score_alike_and_always_the_same(scorer, scene_folder):
    path = scene_folder / "00.png"
    rows = scorer.score([path, Image.open(path), str(path)])
    assert [row.score for row in rows] == pytest.approx([rows[0].score] * 3, abs=1e-6)
    first, second = (scorer.score([path])[0].score for _ in range(2))
    assert first == second == pytest.approx(rows[0].score, abs=1e-6)
    assert rows[0].image == str(path)


def test_the_order_and_the_bad_ones_are_kept(scorer, scene_folder, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    rows = scorer.score([tmp_path / "bad.jpg", scene_folder / "01.png", tmp_path / "gone.jpg"])
    assert [row.score is None for row in rows] == [True, False, True]
    assert "is of no picture format" in rows[0].error


def test_a_run_resumes_and_skips_what_is_done(random_model, scene_folder, tmp_path, monkeypatch):
    output = tmp_path / "p.jsonl"
    config = ScoreConfig((str(scene_folder / "0[0-3].png"),), str(random_model), output, settings=QUICK)
    first = list(score_files(config))
    with output.open("a") as file:
        file.write('{"torn')
    more = ScoreConfig((str(scene_folder / "0[0-5].png"),), str(random_model), output, settings=QUICK)
    second = list(score_files(more))
    assert second[:4] == first and len(second) == 6
    assert len(read_rows(output, Prediction)) == 6
    monkeypatch.setattr("aesr1.model.predict.prefill_pictures", lambda *_, **__: pytest.fail("scored again"))
    assert list(score_files(more)) == second


def test_two_models_never_share_a_file(random_model, scene_folder, tmp_path):
    output = tmp_path / "p.jsonl"
    config = ScoreConfig((str(scene_folder / "00.png"),), str(random_model), output, settings=QUICK)
    (row,) = score_files(config)
    output.write_text(json.dumps({**row.__dict__, "revision": "other"}) + "\n")
    with pytest.raises(AesError, match="was written by"):
        list(score_files(config))


def test_fast_scores_are_the_expectation_after_an_empty_reasoning(scorer, random_model, scene_folder, tmp_path):
    paths = [scene_folder / "00.png", scene_folder / "01.png"]
    rows = list(predict(scorer.vlm, paths, PredictSettings(fast=True)))
    pictures = [open_image(path, max_pixels=scorer.vlm.max_pixels) for path in paths]
    expected = expect_scores(scorer.vlm, pictures, [reply_until_score("")] * 2)
    assert [(row.score, row.score_std) for row in rows] == [tuple(each) for each in expected]
    assert {(row.readable, row.reasoning, row.reply, row.error) for row in rows} == {(None, None, "", None)}
    output = tmp_path / "p.jsonl"
    kinds = (QUICK, PredictSettings(fast=True))
    first, second = (ScoreConfig((str(paths[0]),), str(random_model), output, settings=kind) for kind in kinds)
    list(score_files(first))
    with pytest.raises(AesError, match="expectation without reasoning"):
        list(score_files(second))
    with pytest.raises(AesError, match="no samples"):
        PredictSettings(fast=True, samples=2)


@pytest.fixture(scope="module")
def album(scene_folder, tmp_path_factory):
    """Forty-five pictures of all sizes, a broken one and a missing one among them."""
    folder = tmp_path_factory.mktemp("album")
    for number in range(45):
        side = 16 + 37 * number % 50
        with Image.open(scene_folder / f"{number % 40:02d}.png") as picture:
            picture.resize((side, 64)).save(folder / f"{number:02d}.png")
    (folder / "20.png").write_text("no picture")
    return [folder / f"{number:02d}.png" for number in range(45)] + [folder / "gone.png"]


def test_pictures_that_worker_processes_open_are_the_same_in_the_same_order(scorer, album):
    settings = PredictSettings(batch_size=4, fast=True)
    alone = list(predict(scorer.vlm, album, replace(settings, batch_size=1)))
    with prefetch_pool(len(album)) as pool:
        images = [Image.open(path) if number == 7 else path for number, path in enumerate(album)]
        together = list(predict(scorer.vlm, images, settings, pool=pool))
    assert [row.image for row in together] == [str(path) for path in album] == [row.image for row in alone]
    assert [row.score is None for row in together] == [path.name in ("20.png", "gone.png") for path in album]
    assert [row.error for row in together] == [row.error for row in alone]
    pairs = [(row.score, other.score) for row, other in zip(together, alone, strict=True) if row.score is not None]
    assert [mine for mine, _ in pairs] == pytest.approx([theirs for _, theirs in pairs], abs=1e-5)


def test_a_batch_holds_pictures_of_like_length(scorer, album, monkeypatch):
    lengths = []

    def scored(vlm, pictures, settings):
        lengths.append([picture_length(vlm.processor, picture.size) for picture in pictures])
        return [Prediction("", 0.5, 0.1, False, None, "", "", "", "") for _ in pictures]

    monkeypatch.setattr("aesr1.model.predict.score_batch", scored)
    rows = list(predict(scorer.vlm, album, PredictSettings(batch_size=4)))
    assert [row.image for row in rows] == [str(path) for path in album]
    window = [length for batch in lengths[:4] for length in batch]
    assert window == sorted(window) and len(set(window)) > 3


@pytest.mark.parametrize("end", ["an error", "nobody asks for more"])
def test_worker_processes_end_with_the_scoring(scorer, album, end):
    def score():
        with prefetch_pool(len(album)) as pool:
            yield from predict(scorer.vlm, album, PredictSettings(batch_size=1, fast=True), pool=pool)

    rows = score()
    next(rows)
    assert multiprocessing.active_children()
    if end == "an error":
        with pytest.raises(ZeroDivisionError):
            rows.throw(ZeroDivisionError())
    else:
        rows.close()
    assert not multiprocessing.active_children()


def test_a_killed_worker_process_costs_no_row(scorer, album):
    with prefetch_pool(len(album)) as pool:
        rows = predict(scorer.vlm, album, PredictSettings(batch_size=1, fast=True), pool=pool)
        next(rows)
        for worker in multiprocessing.active_children():
            worker.kill()
        scores = [row.score for row in rows]
    alone = predict(scorer.vlm, album, PredictSettings(batch_size=1, fast=True))
    assert scores == [row.score for row in alone][1:]


def test_a_picture_that_kills_its_process_costs_its_row_alone(tmp_path, monkeypatch):
    for name in ("a.png", "deadly.png", "b.png"):
        Image.new("RGB", (40, 20)).save(tmp_path / name)
    deadly = "import sys, os, signal\nif 'deadly' in sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)\n"
    monkeypatch.setattr(prefetch, "LARGE_PIXELS", 0)
    monkeypatch.setattr(prefetch, "OPEN_APART", deadly + prefetch.OPEN_APART)
    with worker_pool(1) as pool:
        next(iter(pool._processes.values())).kill()
        paths = [tmp_path / name for name in ("a.png", "deadly.png", "b.png")]
        opened = list(prefetch.prefetch_images(paths, max_pixels=400, pool=pool, depth=1))
    assert [isinstance(picture, Image.Image) for picture in opened] == [True, False, True]
    assert "was killed" in opened[1].problem


def test_few_pictures_are_opened_without_processes():
    with prefetch_pool(31) as pool:
        assert pool is None


def aesr1(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aesr1", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_command_prints_json_lines_on_stdout_alone(random_model, scene_folder, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'bad.jpg'}\n\n")
    arguments = ["--model", random_model, "--max-new-tokens", "6", "--json", "--files-from", tmp_path / "list.txt"]
    run = aesr1("score", scene_folder / "00.png", *arguments)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["score"] is None for row in rows] == [False, True]
    assert {"image", "score", "score_std", "readable", "reasoning", "model", "revision", "contract", "aesr1"} <= set(
        rows[0]
    )


@pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names
@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (["score"], "no pictures were named", "name files"),
        (["score", "x.jpg", "--fast", "--samples", "2"], "fast scoring draws no samples", "leave out one"),
        (["score", "x.jpg", "--model", "./nowhere"], "no folder ./nowhere", "pass --model"),
        (["score", "x.jpg", "--device", "tpu9"], "the device tpu9 cannot be used here", "use cpu"),
        (["score", "nothing/*.jpg"], "holds no pictures", "looked for"),
        (["report", "nothing.jsonl", "-o", "x.html"], "does not exist", "check the path"),
        (["cot", "build", "nothing.jsonl", "-o", "x"], "does not exist", "check the path"),
        (["eval", "nothing.jsonl", "--model", "tiny", "-o", "x"], "does not exist", "check the path"),
        (["ratings", "import", "csv", "nothing.csv", "-o", "x"], "no file nothing.csv", "check the path"),
        (["ratings", "import", "kon", "x", "-o", "x"], "there is no data set kon", "choose csv, "),
        (["ratings", "scenes", "-o", "x", "--n", "0"], "n is 0", "at least one"),
        (["sft", "--config", "nothing.yaml"], "no such recipe", "--config"),
        (
            ["rapo", "--ratings", "nothing.jsonl", "--output_dir", "x", "--use_cpu", "true", "--bf16", "false"],
            "does not exist",
            "check the path",
        ),
    ],
)
def test_a_users_mistake_is_two_lines_and_exit_1(arguments, problem, fix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["aesr1", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    printed = capsys.readouterr()
    error, advice = printed.err.strip().splitlines()[-2:]
    assert error.startswith("error:") and problem in error
    assert advice.startswith("  fix:") and fix in advice
    assert not printed.out


def scored(image: str, score: float | None, **more: object) -> Prediction:
    return Prediction(image, score, 0.1, True, "Clear light.", "r", "m", "rev", "expectation", **more)


def test_the_table_is_best_first_with_paths_below_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    rows = [
        scored(str(tmp_path / "a" / "dull.jpg"), 0.2, stars=1, percentile=3.0, reference="lakes"),
        scored("/far/broken.jpg", None, error="it is cut off"),
        scored(str(tmp_path / "fine.jpg"), 0.8, stars=5, percentile=97.0, reference="lakes"),
    ]
    print_table(rows)
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if ".jpg" in line]
    assert [line.split()[1] for line in lines] == ["fine.jpg", "a/dull.jpg", "/far/broken.jpg"]
    assert "★★★★★" in lines[0] and "97" in lines[0] and "it is cut off" in lines[2]
    assert "share of lakes with a lower score" in " ".join(text.split())
    print_table(rows, top=1)
    assert capsys.readouterr().out.count(".jpg") == 1


def test_quiet_prints_nothing_and_skip_scored_leaves_out_what_has_stars(random_model, scene_folder, tmp_path):
    pytest.importorskip("libxmp", exc_type=Exception)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((scene_folder / "00.png").read_bytes())
    (tmp_path / "a.xmp").write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="2"/></rdf:RDF></x:xmpmeta>'
    )
    arguments = ["--model", random_model, "--max-new-tokens", "6", "--quiet", "--xmp", "--skip-scored"]
    run = aesr1("score", tmp_path, *arguments, "-o", tmp_path / "rows.jsonl")
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert "1 of 2 pictures have stars" in run.stderr
    assert [Path(row.image).name for row in read_rows(tmp_path / "rows.jsonl", Prediction)] == ["b.png"]
    assert 'xmp:Rating="2"' in (tmp_path / "a.xmp").read_text()
    assert (tmp_path / "b.xmp").exists()


def test_help_and_version():
    assert "score" in aesr1("--help").stdout
    assert aesr1("--version").stdout.strip() == "0.1.0"


def test_ctrl_c_says_so_and_keeps_what_is_written(random_model, scene_folder, tmp_path):
    output = tmp_path / "p.jsonl"
    command = [sys.executable, "-m", "aesr1", "score", str(scene_folder), "--model", str(random_model)]
    options = ["--batch-size", "1", "-o", str(output)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; what was written stays" in printed and "Traceback" not in printed
    assert 0 < len(read_rows(output, Prediction)) < 40


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs Linux's always full device")
def test_a_full_disk_is_a_clear_error(tmp_path, monkeypatch, capsys):
    def write_rows(path, rows):
        with Path("/dev/full").open("w") as file:
            file.writelines("x" * 100_000 for _ in rows)

    monkeypatch.setattr(sys, "argv", ["aesr1", "ratings", "scenes", "-o", str(tmp_path / "out"), "--n", "1"])
    monkeypatch.setattr("aesr1.tiny.album.write_rows", write_rows)
    with pytest.raises(SystemExit):
        main()
    assert "free some space" in capsys.readouterr().err


def test_what_a_list_of_pictures_may_hold(scorer, scene_folder):
    path = scene_folder / "00.png"
    with path.open("rb") as file, Image.open(path) as picture:
        sources = iter([str(path), path.read_bytes(), file, picture, np.asarray(picture.convert("RGB"))])
        rows = scorer.score(sources)
    assert [row.score for row in rows] == pytest.approx([rows[0].score] * 5, abs=1e-6)


def test_one_bad_item_of_a_list_is_a_row_with_its_error(scorer, scene_folder):
    rows = scorer.score([None, scene_folder / "00.png", 7, np.zeros((9, 9)), b"", b"hello"])
    assert [row.score is None for row in rows] == [True, False, True, True, True, True]
    assert [row.error for row in rows if row.error][-2:] == [
        "the picture has 0 bytes",
        "the picture is of no picture format that is read here",
    ]


@pytest.mark.parametrize("single", ["photo.jpg", Path("photo.jpg"), b"bytes", Image.new("RGB", (20, 20))])
def test_a_single_picture_is_no_list(scorer, single):
    with pytest.raises(AesError, match="takes a list of pictures"):
        scorer.score(single)


def test_a_callers_picture_is_not_changed(scorer, tmp_path):
    Image.new("RGB", (1600, 1200)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as mine:
        scorer.score([mine])
        assert mine.size == (1600, 1200)


def test_two_runs_on_one_file_lose_no_row(random_model, scene_folder, tmp_path):
    output = tmp_path / "p.jsonl"
    paths = [str(path) for path in sorted(scene_folder.glob("*.png"))[:4]]
    list(score_files(ScoreConfig((*paths, str(tmp_path / "gone.png")), str(random_model), output, settings=QUICK)))
    before = output.read_bytes()
    with Appender(output), pytest.raises(AesError, match="another run is writing"):  # the failed row is to be removed
        list(score_files(ScoreConfig((paths[0],), str(random_model), output, settings=QUICK)))
    assert output.read_bytes() == before
    again = score_files(ScoreConfig((paths[0],), str(random_model), output, settings=QUICK))
    next(again)
    assert len(read_rows(output, Prediction)) == 4


def test_exit_status_1_where_nothing_could_be_scored(random_model, scene_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    for wrong in ("gone.jpg", "https://example.org/a.jpg", str(tmp_path / "empty")):
        monkeypatch.setattr(sys, "argv", ["aesr1", "score", wrong, "--model", str(random_model)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 1, wrong
    arguments = ["gone.jpg", str(scene_folder / "00.png"), "--model", str(random_model), "--max-new-tokens", "6"]
    monkeypatch.setattr(sys, "argv", ["aesr1", "score", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().err
    assert "1 of 2 failed, first:" in said and "gone.jpg: does not exist" in said


@pytest.mark.parametrize("as_json", [pytest.param(True, marks=pytest.mark.slow), False])
def test_names_that_are_no_text_or_hold_escape_sequences_are_escaped(random_model, scene_folder, tmp_path, as_json):
    picture = (scene_folder / "00.png").read_bytes()
    for name in (b"caf\xe9.png", b"red\x1b[31m.png", "日本.png".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(picture)
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    command = [sys.executable, "-m", "aesr1", "score", tmp_path, "--model", random_model, "--max-new-tokens", "6"]
    done = subprocess.run(
        [*command, *(["--json"] if as_json else [])], capture_output=True, env=ascii_only, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    if as_json:
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert sorted(os.fsencode(row["image"]).rpartition(b"/")[2] for row in rows) == sorted(
            (b"caf\xe9.png", b"red\x1b[31m.png", "日本.png".encode())
        )
    else:
        assert b"stars" in done.stdout and rb"caf\udce9.png" in done.stdout and rb"red\x1b[31m.png" in done.stdout


def test_lists_of_names_in_every_form(tmp_path, monkeypatch):
    names = ["a b.jpg", "é.jpg"]
    for content in (
        "\ufeffa b.jpg\r\né.jpg\r\n".encode(),
        "a b.jpg\n\né.jpg".encode(),
        "a b.jpg\né.jpg\n".encode("utf-16"),
    ):
        (tmp_path / "list").write_bytes(content)
        assert list(read_list(tmp_path / "list")) == names
    (tmp_path / "list").write_bytes(b"a\nb.jpg\0caf\xe9.jpg\0")
    assert [os.fsencode(name) for name in read_list(tmp_path / "list", null=True)] == [b"a\nb.jpg", b"caf\xe9.jpg"]
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"x.jpg\n")))
    assert list(read_list(Path("-"))) == ["x.jpg"]
    with pytest.raises(AesError, match=r"the list .* cannot be read"):
        list(read_list(tmp_path / "gone"))


def test_an_edited_picture_is_scored_again_and_a_moved_one_is_not(random_model, scene_folder, tmp_path, monkeypatch):
    folder, output = tmp_path / "a", tmp_path / "p.jsonl"
    folder.mkdir()
    for number in range(3):
        shutil.copy(scene_folder / f"0{number}.png", folder)

    def scored(place):
        names = []
        stream = Scorer.stream

        def spy(self, images, *, pool=None):
            images = list(images)
            names.extend(Path(image).name for image in images)
            return stream(self, images, pool=pool)

        with monkeypatch.context() as patch:
            patch.setattr(Scorer, "stream", spy)
            rows = list(score_files(ScoreConfig((str(place),), str(random_model), output, settings=QUICK)))
        return names, rows

    names, first = scored(folder)
    assert names == ["00.png", "01.png", "02.png"]
    assert all(row.size and row.mtime and len(row.content) == 32 for row in first)
    assert scored(folder)[0] == []
    shutil.copy(scene_folder / "05.png", folder / "01.png")
    names, rows = scored(folder)
    assert names == ["01.png"] and rows[1].content != first[1].content
    os.utime(folder / "02.png")  # touched, not changed
    assert scored(folder)[0] == []
    folder.rename(tmp_path / "b")
    names, moved = scored(tmp_path / "b")
    assert names == [] and [row.score for row in moved] == [row.score for row in rows]
    assert {Path(row.image).parent.name for row in moved} == {"b"}
    assert len(read_rows(output, Prediction)) == 6


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_of_predictions(random_model, scene_folder, tmp_path, suffix):
    shutil.copy(scene_folder / "00.png", tmp_path / "=1+1.png")
    output = tmp_path / f"scores{suffix}"
    inputs = (str(tmp_path / "=1+1.png"), str(tmp_path / "gone.png"))
    scores = [row.score for row in score_files(ScoreConfig(inputs, str(random_model), output, settings=QUICK))]
    if suffix == ".csv":
        rows = list(csv.DictReader(StringIO(output.read_text(encoding="utf-8-sig"))))
        assert float(rows[0]["score"]) == scores[0] and rows[1]["score"] == ""
    else:
        rows = pyarrow.parquet.read_table(output).to_pylist()
        assert [row["score"] for row in rows] == scores
    assert rows[0]["level"] in LEVELS and "does not exist" in rows[1]["error"]
    assert len(read_rows(tmp_path / "scores.jsonl", Prediction)) == 2


def test_text_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    row = Prediction("a.png", 0.5, None, True, "=HYPERLINK(1)", "-x", "m", "r", "d")
    write_table([row], tmp_path / "t.csv")
    (read,) = csv.DictReader(StringIO((tmp_path / "t.csv").read_text(encoding="utf-8-sig")))
    assert (read["reasoning"], read["reply"]) == ("'=HYPERLINK(1)", "'-x")


def test_an_output_of_another_kind_is_refused_before_the_model_loads(tmp_path):
    with pytest.raises(AesError, match="of no kind that is written here"):
        next(score_files(ScoreConfig(("a.png",), "nowhere", tmp_path / "x.xlsx")))


def test_a_table_is_best_first_also_after_a_resume(random_model, scene_folder, tmp_path):
    output = tmp_path / "t.csv"
    for names in ("0[3-5].png", "0[0-5].png"):
        inputs = (str(scene_folder / names), str(tmp_path / "gone.png"))
        scored = list(score_files(ScoreConfig(inputs, str(random_model), output, settings=FAST)))
    assert [Path(row.image).name for row in scored] == [*(f"0{number}.png" for number in range(6)), "gone.png"]
    rows = list(csv.DictReader(StringIO(output.read_text(encoding="utf-8-sig"))))
    written = [float(row["score"]) for row in rows[:-1]]
    assert written == sorted((row.score for row in scored[:-1]), reverse=True)
    assert rows[-1]["image"].endswith("gone.png")


def test_pictures_that_changed_places_keep_their_scores(random_model, scene_folder, tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(scene_folder / f"0{ord(name[0]) - ord('a')}.png", tmp_path / name)
    config = ScoreConfig((str(tmp_path),), str(random_model), tmp_path / "p.jsonl", settings=FAST)
    first = [row.score for row in score_files(config)]
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (tmp_path / f"{old}.png").rename(tmp_path / f"{new}.png")
    monkeypatch.setattr("aesr1.model.predict.score_batch", lambda *_: pytest.fail("scored again"))
    again = list(score_files(config))
    assert [row.score for row in again] == [first[1], first[0], first[2]]
    assert [Path(row.image).name for row in again] == ["a.png", "b.png", "c.png"]
    assert len(read_rows(tmp_path / "p.jsonl", Prediction)) == 3


def test_all_shards_together_are_all_pictures_once_each(random_model, scene_folder, tmp_path):
    found = []
    for index in range(3):
        output = tmp_path / f"{index}.jsonl"
        shard = Shard(index, 3)
        config = ScoreConfig((str(scene_folder / "*.png"),), str(random_model), output, settings=FAST, shard=shard)
        found.append([Path(row.image).name for row in score_files(config)])
    assert [len(names) for names in found] == [14, 13, 13]
    assert sorted(name for names in found for name in names) == sorted(path.name for path in scene_folder.glob("*.png"))
    assert found[1][:2] == ["01.png", "04.png"]
    few = ScoreConfig((str(scene_folder / "00.png"),), "nowhere", shard=Shard(1, 3))
    assert list(score_files(few)) == []


@pytest.mark.parametrize("text", ["3/3", "1", "-1/3", "a/b", "0/0", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(AesError, match="is not a shard"):
        parse_shard(text)


def test_a_long_table_prints_the_best_alone(monkeypatch, capsys):
    monkeypatch.setattr("aesr1.app.score_table.MOST_PRINTED", 2)
    monkeypatch.setenv("COLUMNS", "120")
    print_table(scored(f"/{number}.jpg", number / 10) for number in range(5))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines() if ".jpg" in line] == ["/4.jpg", "/3.jpg"]


def test_fast_rows_say_that_no_reply_was_asked_for(scorer, scene_folder):
    (row,) = predict(scorer.vlm, [scene_folder / "00.png"], PredictSettings(fast=True))
    assert row.readable is None


def test_a_mistyped_folder_is_told_at_once_with_the_one_that_was_meant(tmp_path, monkeypatch):
    (tmp_path / "runs" / "rapo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AesError, match="there is no folder runs/rappo") as error:
        Scorer("runs/rappo")
    assert "did you mean runs/rapo?" in error.value.fix


def test_a_cap_that_leaves_nothing_to_judge_is_refused():
    with pytest.raises(AesError, match="max_pixels is 5"):
        Scorer(max_pixels=5)
