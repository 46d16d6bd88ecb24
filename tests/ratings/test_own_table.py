"""Import of a user's own CSV table."""

from pathlib import Path
from unicodedata import normalize

import pytest
from PIL import Image

from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.ratings.own_table import CsvConfig, import_csv
from aesr1.ratings.public_sets import Pictures
from aesr1.records import Rating
from aesr1.text_tables import plain_number

OASIS = Path(__file__).parents[3] / "shared" / "oasis-beauty" / "ratings.csv"


@pytest.fixture
def table(tmp_path):
    """Write a table into a folder with three pictures; its settings."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (20, 20)).save(folder / f"{name}.jpg")

    def write(text: str, *, encoding: str = "utf-8", **settings: object) -> CsvConfig:
        (folder / "ratings.csv").write_bytes(text.encode(encoding))
        return CsvConfig(folder / "ratings.csv", tmp_path / "out", **settings)

    return write


def test_a_mean_is_mapped_from_the_scale_to_0_1(table):
    config = table("image,mean,sd,split\na.jpg,5.5,1.8,train\nb.jpg,1,0,val\nc.jpg,10,,test\n", scale=(1, 10))
    rows = read_rows(import_csv(config), Rating)
    assert [row.score for row in rows] == [0.5, 0.0, 1.0]
    assert [row.split for row in rows] == ["train", "val", "test"]
    assert rows[0].rater_std == pytest.approx(0.2)
    assert rows[2].rater_std is None
    assert rows[0].domain == "photos"
    assert Path(rows[0].image).is_file()


def test_where_keeps_the_rows_with_these_values(table):
    text = "image,mean,kind,place\na.jpg,1,person,in\nb.jpg,2,scene,out\nc.jpg,3,person, out \n"
    config = table(text, scale=(1, 5), where=(("kind", ("person", "animal")), ("place", ("out",))))
    assert [Path(row.image).name for row in read_rows(import_csv(config), Rating)] == ["c.jpg"]


@pytest.mark.parametrize(
    ("where", "problem"), [(("sort", ("a",)), "no column 'sort'; it has image, mean"), (("image", ("x",)), "no row of")]
)
def test_where_that_fits_nothing_is_refused(table, where, problem):
    with pytest.raises(AesError, match=problem):
        import_csv(table("image,mean\na.jpg,1\n", scale=(1, 5), where=(where,)))


def test_mean_and_rater_std_are_computed_from_votes(table):
    config = table("filename;votes_1;votes_2;votes_3\na.jpg;1;0;1\nb.jpg;0;0;4\n")
    first, second = read_rows(import_csv(config), Rating)
    assert (first.score, first.rater_std, first.raters, first.votes) == (0.5, 0.5, 2, (1, 0, 1))
    assert (second.score, second.rater_std) == (1.0, 0.0)


def test_a_mark_without_a_column_does_not_change_the_scale(table):
    (row,) = read_rows(import_csv(table("image,votes_1,votes_2,votes_4\na.jpg,0,1,0\n")), Rating)
    assert row.score == pytest.approx(1 / 3)


def test_bom_blanks_carriage_returns_and_tabs_are_accepted(table):
    config = table("\ufeffimage\t mos \r\n a.jpg\t 3 \r\nb.jpg\t5\r\n", scale=(1, 5))
    assert [row.score for row in read_rows(import_csv(config), Rating)] == [0.5, 1.0]


def test_rows_without_a_split_are_divided_by_the_seed(table):
    text = "image,mean\n" + "".join(f"{name}.jpg,1\n" for name in "abc")
    rows = read_rows(import_csv(table(text, scale=(0, 1), val_share=1.0)), Rating)
    assert {row.split for row in rows} == {"val"}


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("image,mean\na.jpg,3\n", {}, "scale"),
        ("image,mean\na.jpg,6\n", {"scale": (1, 5)}, "line 2.*outside"),
        ("image,mean\na.jpg,3\nb.jpg,x\n", {"scale": (1, 5)}, "line 3.*not a number"),
        ("image,mean\na.jpg,nan\n", {"scale": (1, 5)}, "not a number"),
        ("image,mean\na.jpg\n", {"scale": (1, 5)}, "line 2 has 1 cells, the header 2"),
        ("picture,mean\na.jpg,3\n", {"scale": (1, 5)}, "no image column"),
        ("image,beauty\na.jpg,3\n", {"scale": (1, 5)}, "neither a mean nor vote columns"),
        ("image,mean\na.jpg,3\n", {"scale": (1, 5), "mean_column": "m"}, "no column 'm'"),
        ("image,mean\na.jpg,3\n", {"scale": (5, 1)}, "from 5"),
        ("image,mean\n", {"scale": (1, 5)}, "no rows"),
        ("", {"scale": (1, 5)}, "no image column"),
        ("image,mean\na.jpg,3\na.jpg,4\n", {"scale": (1, 5)}, "rated twice"),
        ("image,mean\n../a.jpg,3\n", {"scale": (1, 5)}, "leaves the picture folder"),
        ("image,mean\n/etc/a.jpg,3\n", {"scale": (1, 5)}, "leaves the picture folder"),
        ("image,mean\n,3\n", {"scale": (1, 5)}, "the image name is empty"),
        ("image,mean\nz.jpg,3\n", {"scale": (1, 5)}, "1 of 1 images.*missing"),
        ("image,mean,split\na.jpg,3,training\n", {"scale": (1, 5)}, "split is 'training'"),
        ("image,votes_1,votes_2\na.jpg,0,0\n", {}, "there are no votes"),
        ("image,votes_1,votes_2\na.jpg,-1,2\n", {}, "not a number of votes"),
        ("image,votes_1,votes_2\na.jpg,0.5,2\n", {}, "not a number of votes"),
        ("image,votes_1,votes_5\na.jpg,1,2\n", {"scale": (1, 3)}, "vote columns run from 1 to 5"),
        ("image,mean\na.jpg,3,4\n", {"scale": (1, 5)}, "line 2 has 3 cells, the header 2"),
        ("image,mean\na.jpg,3\n./a.jpg,4\n", {"scale": (1, 5)}, "line 3: a.jpg is rated twice"),
        ("image,mean,sd\na.jpg,3,-1\n", {"scale": (1, 5)}, "sd is -1, not a standard deviation"),
        ("image,mean,sd\na.jpg,3,90\n", {"scale": (1, 5)}, "sd is 90, not a standard deviation"),
        ("image,mean\na.jpg,3\n", {"scale": (0, float("inf"))}, "scale runs from 0 to inf"),
        ("image,mean\na.jpg,3\n", {"scale": (1, 5), "val_share": 7}, "val_share is 7"),
        ("image,mean,mean\na.jpg,3,4\n", {"scale": (1, 5)}, "two columns 'mean'"),
        ("image,raters,votes_1,votes_2\na.jpg,9,5,5\n", {}, "votes sum to 10, raters is 9"),
        ("image,mean,votes_1,votes_2\na.jpg,1.9,5,5\n", {}, "votes average"),
    ],
)
def test_a_bad_table_raises_an_error_and_writes_nothing(table, text, settings, message):
    config = table(text, **settings)
    with pytest.raises(AesError, match=f"(?s){message}"):
        import_csv(config)
    assert not config.output.exists()


def test_another_encoding_raises_an_error(table):
    with pytest.raises(AesError, match="UTF-8"):
        import_csv(table("image,mean\nä.jpg,3\n", encoding="latin-1", scale=(1, 5)))


def test_missing_pictures_may_be_left_out_and_nothing_is_overwritten(table):
    config = table("image,mean\na.jpg,3\nz.jpg,3\n", scale=(1, 5), allow_missing=True)
    assert len(read_rows(import_csv(config), Rating)) == 1
    with pytest.raises(AesError, match="exists"):
        import_csv(config)
    (config.output / "ratings.jsonl").unlink()
    with pytest.raises(AesError, match=r"run\.json exists"):
        import_csv(config)


@pytest.mark.skipif(not OASIS.exists(), reason="the OASIS beauty ratings are not available")
def test_a_real_table_is_imported(tmp_path):
    rows = read_rows(import_csv(CsvConfig(OASIS, tmp_path / "out", scale=(1, 7))), Rating)
    assert len(rows) == 553
    assert sum(row.split == "train" for row in rows) == 445
    acorns = rows[0]
    assert acorns.score == pytest.approx((4.8643 - 1) / 6)
    assert acorns.votes == (4, 10, 9, 20, 48, 33, 16)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nimage;mean;split\na.jpg;5,5;train\n;;\nb.jpg;1,0;val\nc.jpg;10;test\n;;\n",
        "image;mean;split\r\na.jpg;5,50;train\r\n\r\nb.jpg;1;val\r\nc.jpg;10,000;test\r\n",
        "SEP=,\nimage,mean,split\na.jpg,5.5,train\n,,\nb.jpg,1,val\nc.jpg,10.0,test\n",
        "image\tmean\tsplit\na.jpg\t5,5\ttrain\nb.jpg\t1\tval\nc.jpg\t10\ttest\n",
    ],
)
def test_tables_that_excel_wrote_in_any_country_are_read(table, text):
    rows = read_rows(import_csv(table(text, scale=(1, 10))), Rating)
    assert [row.score for row in rows] == [0.5, 0.0, 1.0]


@pytest.mark.parametrize(
    ("cell", "separator", "number"),
    [
        ("1,234", ",", "1234"),
        ("1,234.5", ",", "1234.5"),
        ("1,23", ",", "1,23"),
        ("1.234,5", ";", "1234.5"),
        ("1 234,5", ";", "1234.5"),
        ("-0,5", "\t", "-0.5"),
        ("1.5", ";", "1.5"),
        ("a,5", ";", "a,5"),
    ],
)
def test_numbers_by_the_separator_of_cells(cell, separator, number):
    assert plain_number(cell, separator) == number


@pytest.mark.parametrize(("in_table", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_a_table_may_be_written_otherwise_on_the_disk(tmp_path, in_table, on_disk):
    name = "caf\u00e9.jpg"
    stored = tmp_path / normalize(on_disk, name)
    Image.new("RGB", (20, 20)).save(stored)
    (tmp_path / "t.csv").write_text(f"image,mean\n{normalize(in_table, name)},5\n", encoding="utf-8")
    (row,) = read_rows(import_csv(CsvConfig(tmp_path / "t.csv", tmp_path / "out", scale=(1, 10))), Rating)
    assert row.image == str(stored)
    assert Pictures([tmp_path], check=True).find(normalize(in_table, name)) == str(stored)
