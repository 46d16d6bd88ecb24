"""Broken label files: each gives an error with file, line and fix, and nothing is written."""

import shutil
import tempfile
from pathlib import Path

import pytest

from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.ratings.label_files import image_path
from aesr1.ratings.public_sets import ImportConfig, import_set
from aesr1.records import Rating
from aesr1.text_tables import read_table

DATA = Path(__file__).parents[1] / "data" / "ratings"


@pytest.fixture
def import_changed(tmp_path):
    """Import a copy of a data set's fixtures with one file changed."""

    def change(name: str, file: str, content: str | bytes, *, folder: str | None = None):
        shutil.copytree(DATA / (folder or name), tmp_path / "set", dirs_exist_ok=True)
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / "set" / file).write_bytes(raw)
        found = import_set(ImportConfig(name, tmp_path / "set", tmp_path / "out", labels_only=True, subset=True))
        return read_rows(found.ratings, Rating)

    return change


TAD = "merge/train.csv"
AVA = "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396\n"
KONIQ = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
COUNTS = "koniq10k_scores_and_distributions.csv"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("tad66k", TAD, "image,score\na.jpg,3\nb.jpg\n", r"train\.csv, line 3 has 1 cells, the header 2.*cut off"),
        ("tad66k", TAD, 'image,score\na.jpg,3\n"b.jpg,4\n', r"line 3 is not a valid table row"),
        ("tad66k", TAD, "image,score\na.jpg,nan\n", r"line 2: score is 'nan', not a number"),
        ("tad66k", TAD, "image,score\na.jpg,\n", r"line 2: score is '', not a number"),
        ("tad66k", TAD, "image,score\na.jpg,10.5\n", r"line 2: score is 10\.5, outside the scale 0–10"),
        ("tad66k", TAD, "image,score\na.jpg,3\na.jpg,4\n", r"line 3: a\.jpg is rated twice"),
        ("tad66k", TAD, "image,score\n../a.jpg,3\n", r"line 2: \.\./a\.jpg leaves the picture folder"),
        ("tad66k", TAD, "image,score\n/etc/a.jpg,3\n", r"line 2: /etc/a\.jpg leaves"),
        ("tad66k", TAD, "image,score\nC:\\a.jpg,3\n", r"line 2: C:\\a\.jpg leaves"),
        ("tad66k", TAD, "image,score\n..\\a.jpg,3\n", r"line 2: .* leaves"),
        ("tad66k", TAD, "picture,score\na.jpg,3\n", r"line 1 has no column 'image'; it has picture, score"),
        ("tad66k", TAD, "", r"line 1 has no column 'image'; it has nothing"),
        ("tad66k", TAD, "image,score\na.jpg,3\n油画.jpg,3\n".encode("gb18030"), r"line 3 is not UTF-8.*GB18030.*iconv"),
        ("tad66k", TAD, "image,score\na.jpg,3\n".encode("utf-16"), r"UTF-16"),
        ("tad66k", TAD, "image,score\nstreet3369487147.jpg,3\n", r"has two rows, in train and in test"),
        ("ava", "AVA.txt", f"{AVA}2 953958 10 7\n", r"AVA\.txt, line 2 has 4 numbers"),
        ("ava", "AVA.txt", f"{AVA}{AVA}", r"line 2: 953619 is rated twice"),
        ("ava", "AVA.txt", "1 953619 0 0 0 0 0 0 0 0 0 0 1 22 1396\n", r"line 1: the votes are 0 0"),
        ("ava", "AVA.txt", "1 953619 0 -1 5 17 38 36 15 6 5 1 1 22 1396\n", r"line 1: the votes are 0 -1"),
        ("ava", "AVA.txt", "1 953619 0 x 5 17 38 36 15 6 5 1 1 22 1396\n", r"line 1: votes for 2 is 'x'"),
        ("ava", "AVA.txt", "", r"have no rows"),
        ("ava", "aesthetics_image_lists/generic_test.jpgl", "7\n8\n", r"none of the 2 ids of .* is in .*AVA\.txt"),
        ("flickr-aes", "test.txt", "z.jpg\n", r"none of the 1 test images"),
        ("flickr-aes", "test.txt", "", r"no worker of .* rated 105 to 171 pictures.*test\.txt"),
        (
            "aadb",
            "imgListFiles_label/imgListValidationRegression_score.txt",
            "a.jpg 1\na.jpg 1\n",
            r"line 2: a\.jpg is",
        ),
        ("tad66k", TAD, "image,score,score\na.jpg,3,4\n", r"line 1 has two columns 'score'"),
        ("tad66k", TAD, "image,score\na.jpg,1_0\n", r"line 2: score is '1_0', not a number"),
        ("aadb", "imgListFiles_label/imgListTrainRegression_score.txt", "a.jpg\n", r"line 1 has 1 words"),
        ("aadb", "imgListFiles_label/imgListTrainRegression_Light.txt", "a.jpg 2\n", r"Light is 2, outside .* -1–1"),
        ("eva", "data/votes_filtered.csv", "image_id,score\n71,5\n", r"line 1 has no column 'image_id'"),
        ("flickr-aes", "FLICKR-AES_image_score.txt", "a.jpg 0.5 1\n", r"line 1 has 3 words"),
        ("lapis", "imageset/ValImageSet.txt", "claude_01.jpg\n", r"claude_01\.jpg is in train too"),
        ("lapis", "imageset/ValImageSet.txt", "nobody.jpg\n", r"line 1: there is no rating of nobody\.jpg"),
        ("spaq", "Annotations/MOS and Image attribute scores.xlsx", "PK not a workbook", r"is not a workbook"),
        ("koniq-10k", "koniq10k_distributions_sets.csv", f"{KONIQ}a.jpg,0,0,.5,.4,0,9,70,1,test\n", r"sum to 0\.9"),
        ("koniq-10k", "koniq10k_distributions_sets.csv", f"{KONIQ}a.jpg,0,0,.5,.5,0,9,70,1,dev\n", r"set is 'dev'"),
        ("koniq-10k", "koniq10k_distributions_sets.csv", f"{KONIQ}a.jpg,0,0,0,0,0,0,70,1,test\n", r"votes sum to 0"),
        (
            "koniq-10k",
            "koniq10k_distributions_sets.csv",
            f"{KONIQ}a.jpg,0,0,0,0,1,9,3.2,1,test\n",
            r"average 5\.00",
        ),
    ],
)
def test_bad_label_files_raise_an_error_that_names_the_place(import_changed, tmp_path, name, file, content, message):
    with pytest.raises(AesError, match=f"(?s){message}"):
        import_changed(name, file, content)
    assert not (tmp_path / "out").exists()


def test_koniq_counts_must_sum_to_their_total(import_changed):
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD\n"
    with pytest.raises(AesError, match="the votes sum to 103, not 104"):
        import_changed("koniq-10k", COUNTS, f"{header}a.jpg,0,0,25,78,0,104,3.75,1\n", folder="koniq-10k-counts")


def test_para_votes_must_agree_with_the_mean(import_changed):
    table = "annotation/PARA-GiaaTrain.csv"
    text = (DATA / "para" / table).read_text().replace(",3.24,", ",3.94,")
    with pytest.raises(AesError, match=r"line 2: the votes average 3\.240, aestheticScore_mean is 3\.94"):
        import_changed("para", table, text)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffimage,score\na.jpg,3\nb.jpg,4\n",  # a byte order mark
        "image,score\ra.jpg,3\rb.jpg,4\r",  # carriage returns alone
        "image , score\r\n a.jpg, 3 \r\n b.jpg,4",  # blanks, and no last line break
        "image,score\n\na.jpg,3\n\nb.jpg,4\n\n",  # empty lines
    ],
    ids=["BOM", "CR", "blanks", "empty lines"],
)
def test_harmless_differences_of_a_table_are_accepted(import_changed, content):
    rows = [row for row in import_changed("tad66k", TAD, content) if row.split == "train"]
    assert [(Path(row.image).name, row.score) for row in rows] == [("a.jpg", 0.3), ("b.jpg", 0.4)]


def test_lines_are_counted_with_any_line_ending(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(b"image,score\ra.jpg,3\rb.jpg\r")
    with pytest.raises(AesError, match="line 3 has 1 cells"):
        list(read_table(table))


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 cut", b"\0" * 200])
def test_a_broken_matlab_file_raises_an_error(import_changed, content):
    with pytest.raises(AesError, match="is not AADB's MATLAB file"):
        import_changed("aadb", "AADBinfo.mat", content, folder="aadb-matlab")


@pytest.mark.parametrize("label", ["5", "null", '"abc"', "[1, 2]", "[" * 3_000])
def test_labels_of_idealo_without_votes_raise_an_error(import_changed, label):
    with pytest.raises(AesError, match=r"row 1 is not an image_id with ten votes|is not JSON|nested"):
        import_changed("ava", "ava_labels_train.json", f'[{{"image_id": "1", "label": {label}}}]', folder="ava-idealo")


def test_a_wrong_value_in_the_gb18030_file_is_not_reported_as_an_encoding_error(import_changed):
    file = "APDDv2-10023.csv"
    text = (DATA / "apddv2-whole" / file).read_bytes().replace(b"18.33", b"x")
    with pytest.raises(AesError, match=r"line 2: Total aesthetic score is 'x', not a number"):
        import_changed("apddv2", file, text, folder="apddv2-whole")


def test_two_names_of_one_picture_are_an_error(tmp_path):
    root = tmp_path / "set"
    shutil.copytree(DATA / "baid", root)
    (root / "images").mkdir()
    (root / "images" / "a.jpg").touch()
    for part, name in (("train", "A.jpg"), ("val", "a.jpg"), ("test", "a.JPG")):
        (root / "dataset" / f"{part}_set.csv").write_text(f"image,score\n{name},3\n")
    with pytest.raises(AesError, match=r"images/a\.jpg has two rows, in train and in val"):
        import_set(ImportConfig("baid", root, tmp_path / "out", subset=True))


def test_a_broken_link_is_a_missing_picture(tmp_path):
    root = tmp_path / "set"
    shutil.copytree(DATA / "baid", root)
    (root / "images").mkdir()
    (root / "images" / "24429.jpg").touch()
    (root / "images" / "55406.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(AesError, match=r"2 of 3 images of BAID are missing, first: 55406\.jpg"):
        import_set(ImportConfig("baid", root, tmp_path / "out", subset=True))


@pytest.mark.parametrize("name", ["eva", "flickr-aes", "para", "lapis", "spaq", "ava"])
def test_a_set_with_a_count_from_papers_must_be_nearly_complete(tmp_path, name):
    with pytest.raises(AesError, match=r"rows, the files here(?s:.*)--subset"):
        import_set(ImportConfig(name, DATA / name, tmp_path / "out", labels_only=True))


def test_any_file_of_a_set_may_be_passed(tmp_path):
    found = load("tad66k", DATA / "tad66k" / "merge" / "test.csv")
    assert found.rows == {"train": 2, "test": 1}


def load(name, root, **settings):
    place = Path(tempfile.mkdtemp()) / "made"
    return import_set(ImportConfig(name, root, place, labels_only=True, subset=True, **settings))


def test_a_folder_level_too_high_or_too_low_is_named(tmp_path):
    shutil.copytree(DATA / "tad66k", tmp_path / "download" / "TAD66K-main" / "labels-v2")
    with pytest.raises(AesError, match=r"wrong folder level(?s:.*)pass .*labels-v2"):
        load("tad66k", tmp_path / "download")
    with pytest.raises(AesError, match=r"wrong folder level(?s:.*)pass .*labels-v2"):
        load("tad66k", tmp_path / "download" / "TAD66K-main" / "labels-v2" / "unmerge" / "train")


def test_another_set_or_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(AesError, match=r"holds none of AVA\.txt"):
        load("ava", DATA / "baid" / "dataset")
    with pytest.raises(AesError, match="there is no folder"):
        load("ava", tmp_path / "nowhere")


def test_tables_by_theme_are_refused(tmp_path):
    with pytest.raises(AesError, match="split by theme"):
        load("tad66k", DATA / "tad66k" / "unmerge")


def test_ava_without_its_test_list_is_refused(tmp_path):
    shutil.copytree(DATA / "ava", tmp_path / "ava")
    shutil.rmtree(tmp_path / "ava" / "aesthetics_image_lists")
    with pytest.raises(AesError, match=r"generic_test\.jpgl"):
        load("ava", tmp_path / "ava")


def test_a_loop_of_links_ends_in_an_ordinary_error(tmp_path):
    root = tmp_path / "set"
    shutil.copytree(DATA / "baid", root)
    (root / "images").symlink_to(root / "images")
    (root / "deep").mkdir()
    (root / "deep" / "up").symlink_to(root)
    with pytest.raises(AesError, match="none of 3 images"):
        import_set(ImportConfig("baid", root, tmp_path / "out", subset=True))
    with pytest.raises(AesError, match="holds none of"):
        load("ava", root)


def test_the_error_on_renamed_pictures_shows_an_existing_name(tmp_path):
    root = tmp_path / "set"
    shutil.copytree(DATA / "baid", root)
    (root / "images").mkdir()
    (root / "images" / "baid_24429.jpg").touch()
    with pytest.raises(AesError, match=r"none of 3 images.*first: 24429\.jpg; a file there is .*baid_24429\.jpg"):
        import_set(ImportConfig("baid", root, tmp_path / "out", subset=True))


def test_nothing_is_overwritten_and_unknown_sets_are_refused(tmp_path):
    config = ImportConfig("baid", DATA / "baid", tmp_path / "out", labels_only=True, subset=True)
    import_set(config)
    with pytest.raises(AesError, match="exists"):
        import_set(config)
    with pytest.raises(AesError, match="not a known data set"):
        import_set(ImportConfig("avaa", DATA / "ava", tmp_path / "other"))


@pytest.mark.parametrize("name", ["a/b.jpg", "a.jpg", "a b.jpg", "43751877@N08.jpg", "...jpg"])
def test_ordinary_picture_names_are_accepted(name):
    assert image_path(name, "here") == name


@pytest.mark.parametrize("name", ["", " ", "../a.jpg", "a/../../b.jpg", "/a.jpg", "C:/a.jpg", "\\\\host\\a", "a\0b"])
def test_picture_names_outside_the_folder_are_refused(name):
    with pytest.raises(AesError):
        image_path(name, "here")
