"""The label files of every public set: small fixtures, and the real files if they are available."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.ratings import sets
from aesr1.ratings.public_sets import ImportConfig, import_set
from aesr1.ratings.sets import SETS
from aesr1.records import Rating

DATA = Path(__file__).parents[1] / "data" / "ratings"
REAL = Path(__file__).parents[3] / "shared" / "labels"


@pytest.fixture
def read(tmp_path):
    """Import the labels of a folder of fixtures and give the rows by the name of their picture."""

    def read(name: str, folder: Path | str | None = None, **settings: object) -> dict[str, Rating]:
        root = DATA / (folder or name)
        settings = {"labels_only": True, "subset": True, **settings}
        found = import_set(ImportConfig(name, root, tmp_path / "out", **settings))
        return {Path(row.image).name: row for row in read_rows(found.ratings, Rating)}

    return read


def test_the_table_of_data_sets_names_every_module_and_each_module_its_own_name():
    modules = {path.stem for path in Path(sets.__file__).parent.glob("[a-z]*.py")}
    assert {module for module, _ in SETS.values()} == modules
    for name, (module, _) in SETS.items():
        assert import_module(f"aesr1.ratings.sets.{module}").DATA_SET.name == name


def test_ava_txt_with_the_official_list(read):
    rows = read("ava")
    assert [row.split for row in rows.values()] == ["train", "train", "test", "train"]
    first = rows["953619.jpg"]
    assert first.votes == (0, 1, 5, 17, 38, 36, 15, 6, 5, 1)
    assert first.raters == 124
    assert first.score == pytest.approx((699 / 124 - 1) / 9)  # 1·2 + 5·3 + 17·4 + 38·5 + 36·6 + 15·7 + 6·8 + 5·9 + 10
    torn = rows["954113.jpg"]  # one vote for 1, one for 10
    assert (torn.score, torn.rater_std) == (0.5, 0.5)


@pytest.mark.parametrize("form", ["ava-tanet", "ava-idealo"])
def test_the_other_forms_of_ava_give_the_same_scores(read, form):
    rows = read("ava", form)
    assert rows["953619.jpg"].score == pytest.approx((699 / 124 - 1) / 9)
    assert (rows["954113.jpg"].score, rows["954113.jpg"].split) == (0.5, "test")
    assert rows["953958.jpg"].split == ("val" if form == "ava-tanet" else "train")


def test_a_single_label_file_may_be_passed(read):
    assert list(read("ava", "ava-tanet/val.csv")) == ["953958.jpg"]


def test_tad66k_scores_and_splits(read):
    rows = read("tad66k")
    assert rows["meadow54810922.jpg"].score == pytest.approx(0.285)
    assert rows["43751877@N0123456789.jpg"].score == 1.0
    assert rows["street3369487147.jpg"].split == "test"


def test_flickr_aes_removes_blanks_and_splits_by_the_list(read):
    rows = read("flickr-aes")
    assert [row.split for row in rows.values()] == ["train", "test", "train"]
    rated = rows["farm1_1_100_a.jpg"]
    assert (rated.score, rated.votes, rated.rater_std) == (0.35, (0, 1, 0, 1, 0), 0.25)
    assert rows["farm1_1_102_c.jpg"].votes is None


def test_flickr_aes_without_a_list_splits_by_the_number_of_pictures_per_worker(read, tmp_path):
    shutil.copytree(DATA / "flickr-aes", tmp_path / "set")
    (tmp_path / "set" / "test.txt").unlink()
    names = [f"p{number}.jpg" for number in range(300)]
    lines = [f"busy, {name}, 3" for name in names] + [f"tester, {name}, 3" for name in names[:105]]
    table = tmp_path / "set" / "FLICKR-AES_image_labeled_by_each_worker.csv"
    table.write_text("\n".join(["worker, imagePair, score", *lines]))
    (tmp_path / "set" / "FLICKR-AES_image_score.txt").write_text("".join(f"{name} 0.5\n" for name in names))
    rows = read("flickr-aes", tmp_path / "set")
    assert sum(row.split == "test" for row in rows.values()) == 105


def test_para_scores_votes_and_attributes(read):
    rows = read("para")
    row = rows["iaa_pub1_.jpg"]
    assert row.image.endswith("imgs/session1/iaa_pub1_.jpg")
    assert row.score == pytest.approx(0.56)
    assert row.rater_std == pytest.approx(0.1)
    assert (row.raters, row.votes) == (25, (0, 0, 0, 2, 12, 8, 3, 0, 0))
    assert row.attributes["composition"] == 0.5
    assert rows["iaa_pub71_.jpg"].split == "test"


def test_aadb_lists_and_matlab_file_give_the_same_scores(read, tmp_path):
    lists = read("aadb")
    assert lists["farm1_255_500.jpg"].attributes == {"light": 0.75, "symmetry": 0.5}
    assert lists["farm2_1_1.jpg"].split == "val"
    shutil.rmtree(tmp_path / "out")
    matlab = read("aadb", "aadb-matlab")
    assert {name: (row.score, row.split) for name, row in matlab.items()} == {
        "farm1_255_500.jpg": (0.65, "train"),
        "farm1_256_501.jpg": (0.0, "train"),
        "farm3_1_1.jpg": (1.0, "test"),
    }


def test_eva_collects_single_votes(read):
    rows = read("eva")
    row = rows["71.jpg"]
    assert (row.score, row.raters, row.rater_std) == (0.7, 2, 0.2)
    assert row.votes == (0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0)
    assert row.attributes == pytest.approx(
        {"light and colour": 2 / 3, "composition and depth": 2 / 3, "quality": 0.0, "semantics": 1.0}
    )


def test_baid_scores_and_splits(read):
    rows = read("baid")
    assert [(row.score, row.split) for row in rows.values()] == [(0.4034603, "train"), (0.35, "val"), (1.0, "test")]


def test_apddv2_empty_cells_are_not_attributes(read):
    rows = read("apddv2")
    assert rows["422028f2.png"].score == pytest.approx(0.1833)
    assert "Creativity" not in rows["422028f2.png"].attributes
    assert rows["422028f2.png"].attributes["Mood"] == pytest.approx(0.3)
    assert rows["e933c226.png"].attributes is None
    assert [row.split for row in rows.values()] == ["train", "val", "test"]


def test_the_single_apddv2_file_is_gb18030_and_has_scores_from_0_to_100(read):
    (row,) = read("apddv2", "apddv2-whole").values()
    assert row.score == pytest.approx(0.1833)


def test_lapis_averages_raters_and_leaves_out_missing_responses(read):
    rows = read("lapis")
    assert [(row.score, row.raters, row.split) for row in rows.values()] == [
        (pytest.approx(0.6), 2, "train"),
        (0.0, 1, "val"),
        (1.0, 1, "test"),
    ]
    assert rows["claude_01.jpg"].rater_std == pytest.approx(0.2)


def test_the_spaq_workbook_is_read(read):
    rows = read("spaq")
    assert rows["00001.jpg"].score == pytest.approx(0.484)
    assert rows["00001.jpg"].attributes["colourfulness"] == pytest.approx(0.605)
    assert rows["00002.jpg"].score == 1.0


def test_koniq_shares_become_counts(read):
    rows = read("koniq-10k")
    assert rows["10004473376.jpg"].votes == (0, 0, 26, 78, 0)
    assert rows["10004473376.jpg"].score == pytest.approx(0.7738)
    assert rows["10004473376.jpg"].rater_std == pytest.approx(0.433 / 4, abs=1e-4)
    assert [row.split for row in rows.values()] == ["train", "val", "test"]


def test_the_koniq_table_of_counts_has_another_scale(read):
    (row,) = read("koniq-10k", "koniq-10k-counts").values()
    assert (row.votes, row.score) == ((0, 0, 26, 78, 0), 0.6875)


def test_pictures_of_one_agiqa_prompt_stay_in_one_split(read):
    rows = read("agiqa-3k")
    assert (rows["sd1.5_normal_001.jpg"].score, rows["sd1.5_normal_001.jpg"].group) == (1.0, "a tray of sushi, sharp")
    assert rows["AttnGAN_normal_000.jpg"].split == rows["Midjourney_normal_000.jpg"].split
    assert rows["AttnGAN_normal_000.jpg"].attributes == {"fits the prompt": 0.1}


def test_every_row_has_licence_and_source(read):
    (row, *_) = read("baid").values()
    assert row.licence == "CC BY-NC-ND 4.0"
    assert "BAID" in row.source


def test_pictures_are_found_in_any_letter_case(read, tmp_path):
    shutil.copytree(DATA / "baid", tmp_path / "set")
    (tmp_path / "set" / "images").mkdir()
    for name in ("24429.JPG", "55406.jpg", "82427.Jpg"):
        Image.new("RGB", (20, 20)).save(tmp_path / "set" / "images" / name, "JPEG")
    rows = read("baid", tmp_path / "set", labels_only=False)
    assert sorted(rows) == ["24429.JPG", "55406.jpg", "82427.Jpg"]
    assert all(Path(row.image).is_file() for row in rows.values())


def test_missing_pictures_are_an_error_or_left_out(read, tmp_path):
    shutil.copytree(DATA / "baid", tmp_path / "set")
    (tmp_path / "set" / "images").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "set" / "images" / "24429.jpg")
    with pytest.raises(AesError, match=r"2 of 3 images of BAID are missing, first: 55406\.jpg"):
        read("baid", tmp_path / "set", labels_only=False)
    assert not (tmp_path / "out").exists()
    assert list(read("baid", tmp_path / "set", labels_only=False, allow_missing=True)) == ["24429.jpg"]


def test_an_incomplete_set_is_refused(read, tmp_path):
    with pytest.raises(AesError, match="TAD66K has 52,248 train, 14,079 test rows, the files here 2 train, 1 test"):
        read("tad66k", subset=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not REAL.exists(), reason="the real label files are not at hand")
@pytest.mark.parametrize(
    ("name", "root", "counts"),
    [
        ("tad66k", "tad66k", {"train": 52_248, "test": 14_079}),
        ("baid", "baid", {"train": 50_737, "val": 3_200, "test": 6_400}),
        ("koniq-10k", "koniq10k", {"train": 7_058, "test": 2_015, "val": 1_000}),
        ("apddv2", "apddv2", {"train": 8_019, "val": 1_002, "test": 1_002}),
        ("agiqa-3k", "agiqa3k", {"train": 2_385, "test": 597}),
        ("aadb", "aadb", {"train": 8_458, "test": 1_000}),
        ("ava", "ava/tanet_test.csv", {"test": 12_776}),
    ],
)
def test_real_label_files_have_the_published_counts(tmp_path, name, root, counts):
    assert import_set(ImportConfig(name, REAL / root, tmp_path, labels_only=True)).rows == counts


def test_the_command_writes_rows_and_prints_their_number(tmp_path):
    command = ["-m", "aesr1", "ratings", "import", "tad66k", str(DATA / "tad66k"), "-o", str(tmp_path / "out")]
    run = subprocess.run(
        [sys.executable, *command, "--labels-only", "--subset"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(tmp_path / "out" / "ratings.jsonl")
    assert "2 train, 1 test; 0 missing" in run.stderr
