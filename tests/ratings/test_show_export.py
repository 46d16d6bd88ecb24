"""Overviews of ratings, exports for other tools, and import with Hugging Face datasets."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from aesr1.contract import PROMPT, Judgement, render_reply
from aesr1.errors import AesError
from aesr1.json_lines import read_rows, write_rows
from aesr1.ratings.export import ExportConfig, export, unique_names
from aesr1.ratings.huggingface import HuggingFaceConfig, import_huggingface
from aesr1.ratings.show import blocks, overview, save_plot, to_text
from aesr1.records import Rating

datasets = pytest.importorskip("datasets")


@pytest.fixture
def ratings(tmp_path):
    """Six pictures of two data sets; rows with every field."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for i in range(6):
        Image.new("RGB", (20 + i, 20), (40 * i, 0, 0)).save(folder / f"{i}.png")
        known = (
            {"rater_std": 0.1, "raters": 5, "votes": (2, 3), "attributes": {"light": 0.25}, "group": "g"}
            if i < 4
            else {}
        )
        domain = "one" if i < 4 else "two"
        split = "test" if i % 2 else "train"
        rows.append(
            Rating(
                str(folder / f"{i}.png"), i / 5, domain, split, licence="CC0", source="us", **(known if i < 4 else {})
            )
        )
    write_rows(folder / "ratings.jsonl", rows)
    return folder / "ratings.jsonl"


def test_an_overview_counts_and_averages(ratings):
    (one, two), columns = overview([ratings])
    assert one.rows == {"train": 2, "val": 0, "test": 2}
    assert one.levels == {"bad": 2, "fair": 2, "good": 0}  # 0, .2 | .4, .6
    assert (one.mean, one.lowest, one.highest, one.raters) == (pytest.approx(0.3), 0.0, 0.6, 5.0)
    assert one.deviation == pytest.approx(0.05**0.5)
    assert one.rater_std == pytest.approx(0.1)
    assert [i for i, count in enumerate(one.histogram) if count][:3] == [0, 4, 8]
    assert (two.rater_std, two.raters, two.attributes) == (None, None, [])
    assert columns["two"].scores.tolist() == [0.8, 1.0]


def test_an_overview_is_printed_as_text(ratings):
    text = to_text(overview([ratings.parent])[0])
    assert "one: 4 images (2 train, 2 test)" in text
    assert "50% bad, 50% fair, 0% good" in text
    assert "raters  5 an image" in text
    assert blocks([0, 1, 400, 800]) == " ▁▄█"


def test_an_overview_is_drawn_as_a_picture(ratings, tmp_path):
    pytest.importorskip("matplotlib")
    _, columns = overview([ratings])
    with Image.open(save_plot(columns, tmp_path / "plot.png")) as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    with pytest.raises(AesError, match="exists"):
        save_plot(columns, tmp_path / "plot.png")
    save_plot({"$x^^{": columns["one"]}, tmp_path / "odd.svg")
    with pytest.raises(AesError, match="not a supported picture format"):
        save_plot(columns, tmp_path / "plot.txt")


def test_a_file_without_rows_raises_an_error(tmp_path):
    (tmp_path / "ratings.jsonl").touch()
    with pytest.raises(AesError, match="no rows"):
        overview([tmp_path])


def test_the_export_for_trl_loads_with_datasets(ratings, tmp_path):
    files = export(ExportConfig(ratings, "trl", tmp_path / "out"))
    assert [file.name for file in files] == ["train.jsonl", "test.jsonl"]
    row = datasets.load_dataset("json", data_files=str(files[0]), split="train")[1]
    assert row["prompt"] == [{"role": "user", "content": PROMPT}]
    assert (row["rating"], row["domain"]) == (0.4, "one")
    assert Path(row["image"]).is_file()


def test_the_export_for_llama_factory_is_sharegpt(ratings, tmp_path):
    train, info = export(ExportConfig(ratings, "llama-factory", tmp_path / "out", split="train"))
    described = json.loads(info.read_text())[train.stem]
    assert described["formatting"] == "sharegpt"
    assert described["file_name"] == train.name
    first = json.loads(train.read_text())[1]
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    assert first["messages"][0]["content"].count("<image>") == len(first["images"]) == 1
    assert first["messages"][1]["content"] == "0.40"


def test_the_export_for_lmms_eval_is_a_working_task(ratings, tmp_path):
    files = export(ExportConfig(ratings, "lmms-eval", tmp_path / "out", split="test"))
    task = tmp_path / "out" / "aesr1_one.yaml"
    assert task in files

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    described = yaml.load(task.read_text(), Loader)
    docs = datasets.load_dataset(described["dataset_path"], **described["dataset_kwargs"])[described["test_split"]]
    spec = importlib.util.spec_from_file_location("exported", tmp_path / "out" / "utils.py")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    called = [described[key].removeprefix("utils.") for key in ("doc_to_visual", "doc_to_text", "process_results")]
    assert all(hasattr(utils, name) for name in called)
    assert utils.doc_to_visual(docs[0])[0].mode == "RGB"
    assert utils.doc_to_text(docs[0]) == PROMPT
    replies = [render_reply(Judgement(score, "Soft light.")) for score in (0.3, 0.8)]
    found = [utils.process_results(doc, [reply]) for doc, reply in zip(docs, replies, strict=True)]
    assert [result["readable"] for result in found] == [1.0, 1.0]
    assert utils.aggregate_srcc([result["srcc"] for result in found]) == pytest.approx(1.0)
    assert utils.process_results(docs[0], ["eight"])["readable"] == 0.0
    assert utils.aggregate_plcc([(None, 0.3), (0.5, 0.5)]) == 0.0


def test_similar_domain_names_get_different_files(ratings, tmp_path):
    rows = [
        replace(row, domain="a-b" if i % 2 else "a_b", split="test") for i, row in enumerate(read_rows(ratings, Rating))
    ]
    write_rows(tmp_path / "r.jsonl", rows)
    files = export(ExportConfig(tmp_path / "r.jsonl", "lmms-eval", tmp_path / "out \U0001f600"))
    data = [file for file in files if file.suffix == ".jsonl"]
    assert [len(file.read_text().splitlines()) for file in data] == [3, 3]
    assert all(str(file.absolute()) in file.with_suffix(".yaml").read_text() for file in data)


def test_a_parquet_export_imports_to_the_same_rows(ratings, tmp_path):
    files = export(ExportConfig(ratings, "parquet", tmp_path / "out"))
    before = {(row.score, row.split): row for row in read_rows(ratings, Rating)}
    colours = {row.score: Image.open(row.image).getpixel((0, 0)) for row in before.values()}
    for row in before.values():
        Path(row.image).unlink()  # the bytes are inside
    shown = datasets.load_dataset("parquet", data_files=str(files[0]), split="train")
    assert shown[1]["image"].size == (22, 20)
    back = []
    for file in files:
        done = import_huggingface(HuggingFaceConfig("parquet", tmp_path / file.stem, (str(file),)))
        back += read_rows(done, Rating)
    assert len(back) == 6
    for row in back:
        was = before[row.score, row.split]
        assert replace(row, image="") == replace(was, image="")
        with Image.open(row.image) as picture:
            assert picture.getpixel((0, 0)) == colours[row.score]


def test_an_imagefolder_export_imports_to_the_same_rows(ratings, tmp_path):
    export(ExportConfig(ratings, "imagefolder", tmp_path / "out"))
    shown = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))
    assert sorted(shown) == ["test", "train"]
    assert shown["train"][1]["score"] == 0.4
    done = import_huggingface(HuggingFaceConfig("imagefolder", tmp_path / "back", (str(tmp_path / "out"),)))
    assert sorted((row.score, row.split) for row in read_rows(done, Rating)) == sorted(
        (row.score, row.split) for row in read_rows(ratings, Rating)
    )


def test_a_set_whose_columns_are_empty_in_one_split_loads(ratings, tmp_path):
    bare = [
        replace(row, votes=None, attributes=None) if row.split == "test" else row for row in read_rows(ratings, Rating)
    ]
    write_rows(tmp_path / "r.jsonl", bare)
    export(ExportConfig(tmp_path / "r.jsonl", "imagefolder", tmp_path / "out"))
    shown = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))
    assert shown["train"][0]["votes"] == [2, 3] and shown["test"][0]["votes"] is None


def test_the_split_of_a_file_is_read_from_its_name_or_prefix(ratings, tmp_path):
    files = export(ExportConfig(ratings, "parquet", tmp_path / "out"))
    plain = []
    for file in files:  # without a column that says the split
        table = datasets.Dataset.from_parquet(str(file)).remove_columns("split")
        plain.append(tmp_path / f"{file.stem}.parquet")
        table.to_parquet(str(plain[-1]))
    done = import_huggingface(
        HuggingFaceConfig("parquet", tmp_path / "back", tuple(map(str, plain)), (("image", "image"),))
    )
    assert sorted(row.split for row in read_rows(done, Rating)) == ["test"] * 3 + ["train"] * 3
    named = import_huggingface(HuggingFaceConfig("parquet", tmp_path / "named", (f"val={plain[0]}",)))
    assert {row.split for row in read_rows(named, Rating)} == {"val"}
    odd = plain[0].rename(tmp_path / "one.parquet")
    with pytest.raises(AesError, match="contains no split"):
        import_huggingface(HuggingFaceConfig("parquet", tmp_path / "x", (str(odd), str(plain[1]))))


def test_columns_with_other_names_are_mapped(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    rows = [{"file": "a.png", "mos": 5.5, "sd": 1.8, "part": "validation"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["-m", "aesr1", "ratings", "import", "hf", "json", "--data", str(tmp_path / "rows.jsonl"), "-o"]
    names = ["image=file", "score=mos", "rater_std=sd", "split=part"]
    flags = ["--scale", "1", "10", "--domain", "mine", *[part for name in names for part in ("--map", name)]]
    subprocess.run([sys.executable, *command, str(tmp_path / "out"), *flags], check=True, capture_output=True)
    (row,) = read_rows(tmp_path / "out" / "ratings.jsonl", Rating)
    assert (row.score, row.rater_std, row.split, row.domain) == (0.5, pytest.approx(0.2), "val", "mine")
    assert row.image == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"mos": 3.0}, {}, "no column 'image'; it has mos"),
        ({"image": "a.png", "mos": 3.0}, {}, "no column 'score'.*--map score=COLUMN"),
        ({"image": "a.png", "score": 3.0}, {}, "train row 1: score is 3, outside the scale 0–1"),
        ({"image": "a.png", "score": None}, {}, "score is 'None', not a number"),
        ({"image": "a.png", "score": 0.5, "split": "dev"}, {}, "split is 'dev'"),
        ({"image": None, "score": 0.5}, {}, "row 1 has no picture"),
        ({"image": "a.png", "score": 0.5}, {"columns": (("mark", "score"),)}, "not a field of a rating"),
        ({"image": "a.png", "score": 0.5}, {"scale": (5, 1)}, "scale runs from 5"),
        ({"image": "gone.png", "score": 0.5}, {}, "1 images are missing, first: .*gone.png"),
        ({"image": "a.png", "score": 0.5, "rater_std": "abc"}, {}, "rater_std is 'abc', not a number"),
        ({"image": "a.png", "score": 0.5, "rater_std": -3}, {}, "rater_std is -3, not a standard"),
        ({"image": "a.png", "score": 0.5, "raters": -7}, {}, "raters is -7, not a number of votes"),
        ({"image": "a.png", "score": 0.5, "votes": "[1]"}, {}, "not a list of numbers"),
        ({"image": "a.png", "score": 0.5, "attributes": "text"}, {}, "attributes are 'text'"),
    ],
)
def test_an_unsuitable_data_set_raises_an_error(tmp_path, row, settings, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(AesError, match=f"(?s){message}"):
        import_huggingface(HuggingFaceConfig("json", tmp_path / "out", (str(tmp_path / "rows.jsonl"),), **settings))
    assert not (tmp_path / "out").exists()


def test_impossible_exports_raise_an_error_and_write_nothing(ratings, tmp_path):
    with pytest.raises(AesError, match="not a known tool"):
        export(ExportConfig(ratings, "keras", tmp_path / "out"))
    with pytest.raises(AesError, match="no rows of split val"):
        export(ExportConfig(ratings, "trl", tmp_path / "out", split="val"))
    with pytest.raises(AesError, match="exists"):
        export(ExportConfig(ratings, "trl", ratings.parent))
    Path(read_rows(ratings, Rating)[0].image).unlink()
    for to in ("parquet", "imagefolder"):
        with pytest.raises(AesError, match="does not exist"):
            export(ExportConfig(ratings, to, tmp_path / to))
        assert not (tmp_path / to).exists()


def test_equal_file_names_of_several_folders_get_numbers():
    assert unique_names(["x/a.jpg", "y/a.jpg", "z/A.jpg", "x/b.jpg"]) == ["a.jpg", "1-a.jpg", "2-A.jpg", "b.jpg"]
