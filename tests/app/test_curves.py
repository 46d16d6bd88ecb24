"""The curves of runs: what is drawn, whose file is replaced, nothing of a model's text ever run; in a real browser."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from browser import HOSTILE, HOSTILE_NAME, Page, check_self_contained, opened, resize
from PIL import Image

from aesr1.app.curve_panels import Points, limits, points, sections, shown, smoothed, thinned, ticks
from aesr1.app.curves import draw_curves
from aesr1.app.run_files import read_run
from aesr1.cli.main import app
from aesr1.errors import AesError
from aesr1.json_lines import write_rows
from aesr1.records import SampledReply
from aesr1.training.alarms import Alarm

ALARM = Alarm(30, "kl", "KL runs away " + HOSTILE, "halve learning_rate " + HOSTILE)


def write_run(folder: Path, *, logs: int = 30, lift: float = 0.0, finished: bool = True) -> Path:
    """A run's files, as training leaves them; a torn line at the end, where it was killed."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number in range(1, logs + 1):
        row = {"reward": 2 + number / 100 + lift, "rewards/relative/mean": 0.8, "kl": number / 500, "readable": 0.95}
        rows.append({**row, "loss": math.nan if number == 3 else 1e-4, "learning_rate": 1e-4, "step": 5 * number})
        if number % 10 == 0:
            rows.append({"validation/srcc": 0.9 + lift / 10, "step": 5 * number})
    torn = "" if finished else '{"reward": 2.'
    (folder / "figures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    if finished:
        (folder / "run.json").write_text(json.dumps({"stage": "rapo", "seconds": 480.0}, indent=2))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one name; the second was killed and holds whatever a model may say."""
    base = tmp_path_factory.mktemp("curves")
    first, second = write_run(base / "a" / "rapo"), write_run(base / "b" / "rapo", logs=8, lift=0.3, finished=False)
    (first / "alarms.jsonl").write_text("")
    (second / "alarms.jsonl").write_text(json.dumps(vars(ALARM)) + "\n")
    picture = base / "pictures" / HOSTILE_NAME
    picture.parent.mkdir()
    Image.new("RGB", (300, 200), "teal").save(picture, "PNG")
    for folder in (first, second):
        write_rows(
            folder / "replies.jsonl",
            [
                SampledReply(step, image, 0.7, score, readable, HOSTILE if readable else None, HOSTILE)
                for step, score, readable in ((10, 0.25, True), (20, None, False))
                for image in (str(picture), str(base / "pictures" / "gone.png"))
            ],
        )
    return [first, second]


@pytest.fixture(scope="module")
def file(runs: list[Path]) -> Path:
    output = runs[0].parent.parent / "out" / "curves.html"
    assert draw_curves(runs, output) == output
    assert [path.name for path in output.parent.iterdir()] == ["curves.html"]
    return output


def test_hostile_text_stays_text(file: Path) -> None:
    page = Page(file)
    assert [script.get("type") for script in page.named("script")] == ["application/json", None]
    # Two runs' replies about two pictures at two steps, and an alarm's two sentences; its problem marks a panel too.
    assert page.text.count(HOSTILE) == 8 + 2 + 1
    assert all((image.get("src") or "").startswith("data:image/jpeg;base64,") for image in page.named("img"))


def test_nothing_outside_the_file_is_asked_for(file: Path) -> None:
    check_self_contained(file)


def test_the_page_says_how_each_run_went(file: Path) -> None:
    words = Page(file).words
    for part in (
        "a/rapo rapo 150 1e-4 → 1e-4 2.010 → 2.300 0.950 → 0.950 0.002 → 0.060 0.900 → 0.900 0 finished in 8.0 min",
        "b/rapo – 40 1e-4 → 1e-4 2.310 → 2.380 0.950 → 0.950 0.002 → 0.016 – 1 unfinished; last figures 20",
        "b/rapo · step 30 · KL divergence KL runs away",
        "→ halve learning_rate",
        "People: 0.70",
        "step 10 score 0.25 -0.45",
        "step 20 unreadable",
        "gone.png does not exist",
    ):
        assert part in words, part
    assert str(file.parent.parent) not in file.read_text(encoding="utf-8")


def test_a_run_in_which_all_is_well_says_so(runs: list[Path]) -> None:
    words = Page(draw_curves(runs[:1])).words
    assert "Training curves of rapo" in words and "None was raised." in words
    assert (runs[0] / "curves.html").is_file()  # the default


def test_a_run_that_nobody_watched_has_no_word_of_alarms(tmp_path: Path) -> None:
    words = Page(draw_curves([write_run(tmp_path / "rapo")])).words
    assert "None was raised" not in words and "rapo 150 1e-4 → 1e-4 2.010 → 2.300" in words


def test_pointing_at_a_curve_reads_all_figures_at_that_step(driver: Any, file: Path) -> None:
    with opened(driver, file, title="Training curves"):
        panel = driver.find_element("css selector", ".panel svg")
        box = panel.rect
        driver.execute_script(
            "arguments[0].dispatchEvent(new PointerEvent('pointermove', "
            "{clientX: arguments[0].getBoundingClientRect().left + arguments[1], bubbles: true}))",
            panel,
            box["width"] * (46 + 266 * 100 / 150) / 320,
        )
        read = [element.text.split() for element in driver.find_elements("css selector", ".readout")]
        assert read[:2] == [["2.200", "2.380"], ["0.800", "0.800"]]
        assert driver.find_element("css selector", ".cross").get_attribute("hidden") is None
        driver.execute_script("arguments[0].dispatchEvent(new PointerEvent('pointerleave'))", panel)
        assert driver.find_element("css selector", ".readout").text == ""


def test_a_run_can_be_left_out(driver: Any, file: Path) -> None:
    with opened(driver, file, title="Training curves"):
        seen = driver.find_elements("css selector", ".panel .run-1 path.curve, .strip.run-1")
        driver.find_element("css selector", "[data-run='1']").click()
        assert seen and not any(element.is_displayed() for element in seen)
        assert driver.find_element("css selector", ".panel .run-0 path.curve").is_displayed()


def test_the_page_fits_a_narrow_window(driver: Any, file: Path) -> None:
    with opened(driver, file, title="Training curves"):
        for width in (1400, 700, 380):
            resize(driver, width, 900)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_png_has_content(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    odd = write_run(tmp_path / "_$x$ 美")
    output = draw_curves([*runs, odd], tmp_path / "curves.png")
    assert draw_curves([*runs, odd], output) == output  # ours, so it is replaced
    with Image.open(output) as picture:
        assert picture.width == 2100
        colours = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height) or []}
    assert {(49, 89, 138), (194, 87, 43), (47, 125, 88)} <= colours


@pytest.mark.parametrize("name", ["mine.html", "mine.png"])
def test_what_is_not_ours_is_never_overwritten(runs: list[Path], tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.write_text("<p>mine")
    with pytest.raises(AesError, match="holds no aesr1 curves"):
        draw_curves(runs, mine)
    assert mine.read_text() == "<p>mine"


def test_what_cannot_be_drawn_is_a_clear_error(runs: list[Path], tmp_path: Path) -> None:
    above = runs[0].parent
    for folders, output, words in (
        ([tmp_path], None, "holds no figures of a run"),
        ([above], None, f"pass one of its runs: {runs[0]}"),
        (runs, tmp_path / "x.gif", "neither a page nor a picture"),
        (runs * 5, tmp_path / "x.html", "10 runs in one picture"),
    ):
        with pytest.raises(AesError, match=re.escape(words)):
            draw_curves(folders, output)
    assert list(tmp_path.iterdir()) == []


def write_figures(folder: Path, *lines: Any) -> Path:
    """A run of the given lines: bytes and texts as they are, all else as JSON."""
    folder.mkdir()
    parts = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode() + b"\n"
        for line in lines
    ]
    (folder / "figures.jsonl").write_bytes(b"".join(parts))
    return folder


GOOD = {"step": 5, "loss": 1.0, "kl": 0.01}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([1, 2], "line 2, is not a JSON object"),
        ("3", "line 2, is not a JSON object"),
        ("{x}", "line 2, is not JSON"),
        (b'{"step": 10, "lo', "line 2, breaks off"),  # as a killed run leaves it
        (b'{"step": 10, "a": "\xff"}\n', "line 2, is not UTF-8"),
        ("[" * 100_000, "line 2, is nested too deep"),
        ({"loss": 7.0}, "line 2, has no step"),
        ({"step": "ten", "loss": 7.0}, "line 2, has 'ten' for a step"),
        ({"step": -5, "loss": 7.0}, "line 2, has -5 for a step"),
        ({"step": 2.5, "loss": 7.0}, "line 2, has 2.5 for a step"),
        ({"step": math.nan, "loss": 7.0}, "line 2, has nan for a step"),
        ({"step": True, "loss": 7.0}, "line 2, has True for a step"),
        ({"step": 10, "loss": "7"}, "has '7' for 'loss' at step 10"),
        ({"step": 10, "loss": [7.0]}, "has [7.0] for 'loss' at step 10"),
        ({"step": 10, "loss": True}, "has True for 'loss' at step 10"),
        ({"step": 10, "loss": -1e308}, "has a number that is too large for 'loss' at step 10"),
        ({"step": 10, "loss": 10**400}, "has a number that is too large for 'loss' at step 10"),
    ],
)
def test_an_odd_line_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, said: str
) -> None:
    run = read_run(write_figures(tmp_path / "run", GOOD, line), "run")
    assert points(run.rows, "loss") == Points([5.0], [1.0])
    draw_curves([tmp_path / "run"])
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1 and said in warnings[0] and "figures.jsonl" in warnings[0] and "left out" in warnings[0]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_was_not_measured_is_left_out_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float | None
) -> None:
    draw_curves([write_figures(tmp_path / "run", GOOD, {"step": 10, "loss": value})])
    assert capsys.readouterr().err == ""


def test_one_sentence_on_a_file_however_much_of_it_is_odd(tmp_path: Path) -> None:
    run = read_run(write_figures(tmp_path / "run", "x", GOOD, *["y"] * 1500), "run")
    assert run.problems == [f"{tmp_path}/run/figures.jsonl, line 1, is not JSON: left out (and 1,500 more)"]


def test_of_a_figure_that_is_logged_twice_the_later_counts(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": loss} for step, loss in ((5, 1.0), (10, 2.0), (15, 3.0), (10, 4.0))]
    run = read_run(write_figures(tmp_path / "run", *lines, {"step": 10, "validation/srcc": 0.5}), "run")
    assert points(run.rows, "loss") == Points([5.0, 10.0, 15.0], [1.0, 4.0, 3.0])
    assert points(run.rows, "validation/srcc") == Points([10.0], [0.5]) and run.steps == 15
    assert run.problems == [
        f"{tmp_path}/run/figures.jsonl has 'loss' twice at step 10; the earlier one: left out",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", "{", "run.json is not JSON"),
        ("run.json", "", "run.json is not JSON"),
        ("run.json", "[]", "run.json is not a JSON object"),
        ("run.json", '{"stage": "rapo"}', "does not say in how many seconds"),
        ("run.json", '{"seconds": "x"}', "does not say in how many seconds"),
        ("run.json", '{"seconds": 1e999}', "does not say in how many seconds"),
        ("run.json", '{"seconds": 5, "stage": 3}', "has 3 for its stage"),
        ("alarms.jsonl", "x", "line 1, breaks off"),
        ("alarms.jsonl", "[]\n", "line 1, is not a JSON object"),
        ("alarms.jsonl", '{"step": "x", "name": "kl", "problem": "p", "advice": "a"}\n', "has 'x' for a step"),
        ("alarms.jsonl", '{"step": 5, "name": [], "problem": "p", "advice": "a"}\n', "has [] for its name"),
        ("alarms.jsonl", '{"step": 5, "name": "kl"}\n', "has None for its problem"),
        ("replies.jsonl", '{"step": 5}\n', "does not say whether it is readable"),
        ("replies.jsonl", "\\udcff\n", "line 1, is not JSON"),
    ],
)
def test_what_stands_beside_the_figures_may_be_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, said: str
) -> None:
    (write_figures(tmp_path / "run", GOOD) / name).write_text(content)
    words = Page(draw_curves([tmp_path / "run"])).words
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1 and name in warnings[0] and said in warnings[0] and "left out" in warnings[0]
    assert "unfinished" in words


@pytest.mark.parametrize(
    "changes",
    [{"rating": 5}, {"rating": "x"}, {"score": 7}, {"score": []}, {"step": None}, {"reply": None}, {"image": 3}],
)
def test_an_odd_reply_is_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    reply = {"step": 5, "image": "gone\0.png", "rating": 0.5, "score": 0.5, "readable": True, "reasoning": "r"}
    rows = [{**reply, "reply": "said"}, {**reply, "reply": "odd", **changes}]
    write_figures(tmp_path / "run", GOOD)
    (tmp_path / "run" / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(tmp_path / "run", "run")
    assert [row.reply for row in run.replies] == ["said"] and "line 2" in run.problems[0]
    assert "does not exist" in Page(draw_curves([tmp_path / "run"])).words


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "holds no figures of a run"),
        ([[1, 2]], "line 1, is not a JSON object: left out"),
        (["x".encode("utf-16")], "line 1, is not UTF-8: left out"),
        ([{"step": 5, "loss": math.nan}], "no number that can be drawn"),
        ([{"step": 5, "loss": "x"}], "has 'x' for 'loss' at step 5: left out"),
    ],
)
def test_where_nothing_can_be_drawn_one_error_says_why(tmp_path: Path, lines: list[Any], words: str) -> None:
    run = write_figures(tmp_path / "run", *lines)
    with pytest.raises(AesError, match=re.escape(words)):
        draw_curves([run])
    assert [path.name for path in run.iterdir()] == ["figures.jsonl"]


@pytest.mark.parametrize("values", [[0.0], [1e-310, 2e-310], [1e99, -1e99], [1e15], [-5.0, -5.0]])
@pytest.mark.parametrize("name", ["loss", "readable"])
def test_every_number_finds_an_axis(tmp_path: Path, values: list[float], name: str) -> None:
    draw_curves([write_figures(tmp_path / "run", *[{"step": n, name: value} for n, value in enumerate(values)])])


def test_a_picture_of_other_figures_alone_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = write_figures(tmp_path / "run", {"step": 0, "odd": 1.0})
    with pytest.raises(AesError, match="no figure that a picture shows"):
        draw_curves([run], tmp_path / "run.png")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_alarm_beyond_the_last_figures_is_marked_at_the_edge(tmp_path: Path) -> None:
    run = write_figures(tmp_path / "run", GOOD)
    (run / "alarms.jsonl").write_text(json.dumps({"step": 10**6, "name": "kl", "problem": "p", "advice": "a"}) + "\n")
    assert "translate(312.0 " in draw_curves([run]).read_text()


def test_the_command_prints_the_path(runs: list[Path], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    output = tmp_path / "x.html"
    result = CliRunner().invoke(app, ["curves", *map(str, runs), "-o", str(output)])
    assert result.exit_code == 0 and result.stdout == f"{output}\n"


def test_panels_come_in_their_order_and_leave_out_what_nobody_measured() -> None:
    rows = [{"step": 1, "reward": 1.0, "rewards/absolute/mean": 0.5, "kl": None, "odd": 3, "epoch": 0.1}]
    found = [(section.title, [panel.title for panel in section.panels]) for section in sections([rows], [[]])]
    assert found == [("Reward", ["Reward", "Reward: absolute"]), ("Other figures", ["odd"])]


def test_values_that_are_no_numbers_are_left_out() -> None:
    rows = [{"step": 1, "x": 1}, {"step": 2, "x": math.nan}, {"step": 3, "x": None}, {"step": 4, "x": "n"}, {"step": 5}]
    assert points(rows, "x") == Points([1.0], [1.0])


def test_a_running_mean_stays_within_the_curve() -> None:
    assert smoothed(Points([1.0] * 23, [1.0] * 23)) is None
    means = smoothed(Points([*map(float, range(24))], [0.0, 3.0, 0.0] * 8))
    assert means is not None and means.values == pytest.approx([0, *[1] * 22, 0])


def test_a_long_curve_is_drawn_by_means_of_neighbours() -> None:
    long = Points([*map(float, range(1000))], [*map(float, range(1000))])
    assert thinned(long).steps[:2] == [0.5, 2.5] and len(thinned(long).values) == 500


@pytest.mark.parametrize(
    ("ends", "labels"),
    [
        ((0, 130), ["0", "50", "100"]),
        ((0, 4), ["0", "1", "2", "3", "4"]),
        ((0.91, 0.96), ["0.91", "0.92", "0.93", "0.94", "0.95", "0.96"]),
        ((-0.2, 0.9), ["0.00", "0.25", "0.50", "0.75"]),
        ((0, 1e-4), ["0", "2e-5", "4e-5", "6e-5", "8e-5", "1e-4"]),
        ((0, 1e-3), ["0.0000", "0.0002", "0.0004", "0.0006", "0.0008", "0.0010"]),
        ((0, 1.1e-3), ["0", "2.5e-4", "5e-4", "7.5e-4", "1e-3"]),
        ((0, 2e6), ["0", "5e5", "1e6", "1.5e6", "2e6"]),
        ((0, 6000), ["0", "2,000", "4,000", "6,000"]),
    ],
)
def test_ticks_are_round(ends: tuple[float, float], labels: list[str]) -> None:
    assert ticks(*ends).labels == labels


def test_axes_leave_room_and_hide_no_zero() -> None:
    assert limits(0.0, 1.0) == (0.0, 1.08)
    assert limits(-1.0, 1.0) == pytest.approx((-1.16, 1.16))
    assert limits(0.0, 0.0) == (0.0, 0.5)
    assert limits(0.99, 1.0, span=0.05, most=1.0) == pytest.approx((0.97, 1.0))


def test_figures_are_said_in_few_digits() -> None:
    assert [shown(v) for v in (0.0, 0.12345, 66.56, 41127.0, 1e-6, 9.68e-05)] == [
        *("0.000", "0.123", "66.6", "41,127", "1e-6", "9.68e-5")
    ]
