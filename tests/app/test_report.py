"""The report page: one file, nothing of a model's text ever run, and a gallery that works in a real browser."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import HOSTILE, HOSTILE_NAME, Page, check_self_contained, opened, resize
from PIL import Image

from aesr1.app.report import GENERATOR, ReportSummary, write_report
from aesr1.app.score_table import print_table
from aesr1.errors import AesError
from aesr1.json_lines import write_rows
from aesr1.records import Prediction, Rating


def prediction(image: str, score: float | None, **changes: Any) -> Prediction:
    values = {
        "score_std": None if score is None else 0.05,
        "readable": score is not None,
        "reasoning": "Clear light, a level horizon.",
        "reply": "",
        "model": "some/model",
        "revision": "abc123",
        "decoding": "expectation",
    }
    return Prediction(image=image, score=score, **{**values, **changes})


def draw(path: Path, *, colour: str = "teal", size: tuple[int, int] = (90, 60), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight predictions: three good, two fair, two bad, one failed; one picture missing, one reply unreadable."""
    folder = tmp_path_factory.mktemp("report")
    rows = [
        prediction("pictures/a.jpg", 0.91, score_std=0.04, reasoning="Warm light over a quiet harbour."),
        prediction("pictures/b.jpg", 0.15, score_std=0.12, reasoning="Blurred and cluttered."),
        prediction(
            "pictures/c.jpg",
            0.55,
            score_std=0.09,
            reasoning="An ordinary harbour. " + "It is long. " * 100 + "The end.",
        ),
        prediction("pictures/gone.jpg", 0.72, score_std=0.02),
        prediction("pictures/e.jpg", 0.45, readable=False, reasoning=None, reply="I give it " + HOSTILE),
        prediction("pictures/f.jpg", None, reasoning=None, error="the endpoint answered 503 " + HOSTILE),
        prediction("pictures/" + HOSTILE_NAME, 0.80, score_std=0.2, reasoning=HOSTILE),
        prediction("pictures/h.jpg", 0.02, score_std=0.0),
    ]
    for row in rows:
        if "gone" not in row.image:
            draw(folder / row.image)
    write_rows(folder / "predictions.jsonl", rows)
    people = {"a": 0.90, "b": 0.50, "c": 0.40}
    write_rows(
        folder / "people" / "ratings.jsonl",
        [Rating(f"../pictures/{name}.jpg", score, "drawn", "test") for name, score in people.items()],
    )
    output = folder / "out" / "report.html"
    summary = write_report(
        folder / "predictions.jsonl", output, ratings=folder / "people" / "ratings.jsonl", title="Eight <pictures>"
    )
    assert summary == ReportSummary(pictures=8, failed=1, unreadable=1, missing=1, rated=3)
    return output


def test_hostile_text_stays_text(report: Path) -> None:
    page = Page(report)
    assert len(page.named("script")) == 1
    assert page.text.count(HOSTILE) == 3  # a reason, a reply, an error
    assert HOSTILE_NAME in page.text
    assert all((image.get("src") or "data:").startswith("data:") for image in page.named("img"))


def test_nothing_outside_the_file_is_asked_for(report: Path) -> None:
    check_self_contained(report)


def test_the_best_comes_first_and_the_failed_last(report: Path) -> None:
    assert [card["data-number"] for card in Page(report).named("article")] == ["1", "7", "4", "3", "5", "2", "8", "6"]


def test_the_page_says_what_made_it_and_what_is_wrong(report: Path) -> None:
    text = " ".join(Page(report).text.split())
    for part in (
        "Eight <pictures>",
        "Model some/model",
        "Revision abc123",
        "Contract version 1",
        "0.91 of 1 ± 0.04 good",
        "human score 0.90",
        "on average 0.17 away from the human score (known of 3)",  # (.01 + .35 + .15) / 3
        "gone.jpg does not exist",
        "the score was read with the answer forced",
        "Failed: the endpoint answered 503",
        "The end.",
    ):
        assert part in text
    assert "for trying things out" not in text
    assert str(report.parent.parent) not in report.read_text(encoding="utf-8")


def test_the_toy_is_called_a_toy(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    write_rows(tmp_path / "p.jsonl", [prediction("a.png", 0.5, model="tiny")])
    write_report(tmp_path / "p.jsonl", tmp_path / "r.html")
    assert "only seen drawn scenes: for trying things out, not a judge of photographs" in Page(tmp_path / "r.html").text


def test_pictures_carry_nothing_but_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a secret camera", 6  # maker; turned by a quarter
    draw(tmp_path / "a.jpg", size=(80, 40), exif=exif, comment=b"a secret comment")
    write_rows(tmp_path / "p.jsonl", [prediction("a.jpg", 0.5)])
    write_report(tmp_path / "p.jsonl", tmp_path / "r.html")
    source = Page(tmp_path / "r.html").named("img")[0]["src"]
    assert source is not None
    content = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    assert b"secret" not in content and b"Exif" not in content
    assert Image.open(io.BytesIO(content)).size == (40, 80)


def test_embedded_pictures_shrink_as_they_grow_many(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", size=(3000, 2000))
    for count, longest in ((1, 400), (100, 245), (700, 100)):  # 100 × √(600 / 100) = 245
        write_rows(tmp_path / "p.jsonl", [prediction("a.jpg" if n == 0 else "gone.jpg", 0.5) for n in range(count)])
        write_report(tmp_path / "p.jsonl", tmp_path / "r.html", thumbnail_pixels=100)
        assert Page(tmp_path / "r.html").named("img")[0]["width"] == str(longest)


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path) -> None:
    line = json.dumps({**prediction("a.png", 0.5).__dict__, "reasoning": "half \ud800 a pair"})
    (tmp_path / "p.jsonl").write_text(line + "\n")
    write_report(tmp_path / "p.jsonl", tmp_path / "r.html")
    assert "half ? a pair" in Page(tmp_path / "r.html").text


def test_a_page_without_any_score_is_still_a_page(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", [prediction("a.png", None, error="no")])
    assert write_report(tmp_path / "p.jsonl", tmp_path / "r.html").failed == 1
    assert "No picture a.png does not exist" in " ".join(Page(tmp_path / "r.html").text.split())


def test_only_reports_are_replaced(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", [prediction("a.png", 0.5)])
    mine = tmp_path / "index.html"
    mine.write_text("<!doctype html>my own page")
    with pytest.raises(AesError, match="is not an aesr1 report"):
        write_report(tmp_path / "p.jsonl", mine)
    assert mine.read_text() == "<!doctype html>my own page"
    with pytest.raises(AesError, match="is not an aesr1 report"):
        write_report(tmp_path / "p.jsonl", tmp_path)
    for _ in range(2):
        write_report(tmp_path / "p.jsonl", tmp_path / "r.html")
    assert f'content="{GENERATOR}"' in (tmp_path / "r.html").read_text()[:1024]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "p.jsonl", "r.html"]


@pytest.mark.parametrize(
    ("row", "thumbnail", "reason"),
    [
        (prediction("a.png", 7.2), 320, "score 7.2"),  # another scale
        (prediction("a.png", float("nan")), 320, "score nan"),
        (prediction("a.png", 0.5, score_std=-0.1), 320, "score_std -0.1"),
        (prediction("a.png", 0.5), 0, "thumbnail of 0 pixels"),
        (None, 320, "holds no predictions"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, row: Prediction | None, thumbnail: int, reason: str
) -> None:
    write_rows(tmp_path / "p.jsonl", [row] if row else [])
    with pytest.raises(AesError, match=reason):
        write_report(tmp_path / "p.jsonl", tmp_path / "r.html", thumbnail_pixels=thumbnail)
    assert not (tmp_path / "r.html").exists()


def test_ratings_of_other_pictures_are_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", [prediction("a.png", 0.5)])
    write_rows(tmp_path / "ratings.jsonl", [Rating("b.png", 0.5, "mine", "test")])
    with pytest.raises(AesError, match="rates none"):
        write_report(tmp_path / "p.jsonl", tmp_path / "r.html", ratings=tmp_path / "ratings.jsonl")


@pytest.fixture
def page(driver: Any, report: Path) -> Iterator[Any]:
    with opened(driver, report, title="Eight <pictures>"):
        yield driver


def shown(driver: Any) -> list[int]:
    """Numbers of the cards on view, in order."""
    script = "return [...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => +c.dataset.number)"
    return list(driver.execute_script(script))


def element(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def press(driver: Any, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(key).perform()


def eventually(driver: Any, script: str) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 5, poll_frequency=0.05).until(lambda d: d.execute_script(f"return {script}"))


def choose(driver: Any, order: str) -> None:
    element(driver, f"#sort option[value={order}]").click()


def test_every_order_sorts(page: Any) -> None:
    assert shown(page) == [1, 7, 4, 3, 5, 2, 8, 6]
    for order, expected in (
        ("worst", [8, 2, 5, 3, 4, 7, 1, 6]),
        ("unsure", [7, 2, 3, 5, 1, 4, 8, 6]),
        ("error", [2, 3, 1]),  # the others have no human score
        ("best", [1, 7, 4, 3, 5, 2, 8, 6]),
    ):
        choose(page, order)
        assert shown(page)[: len(expected)] == expected
    choose(page, "name")
    assert [n for n in shown(page) if n != 7] == [1, 2, 3, 5, 6, 4, 8]
    eventually(page, "location.hash === '#sort=name'")


def test_levels_search_and_range_filter(page: Any) -> None:
    element(page, "input[value=good]").click()
    assert shown(page) == [1, 7, 4]
    element(page, "input[value=none]").click()
    assert shown(page) == [1, 7, 4, 6]
    element(page, "#clear").click()
    assert len(shown(page)) == 8
    element(page, "#search").send_keys("HARBOUR")
    assert shown(page) == [1, 3]
    assert element(page, "#shown").text == "2 of 8 pictures"
    element(page, "#search").send_keys(" end")  # both words, one of them in the folded part
    assert shown(page) == [3]
    element(page, "#clear").click()
    page.execute_script("lowest.value = 0.45; lowest.dispatchEvent(new Event('input'))")
    page.execute_script("highest.value = 0.8; highest.dispatchEvent(new Event('input'))")
    assert shown(page) == [7, 4, 3, 5]
    eventually(page, "location.hash === '#from=0.45&to=0.8'")


def test_an_empty_view_says_so_and_leads_back(page: Any) -> None:
    element(page, "#search").send_keys("no such words")
    assert shown(page) == []
    assert "No picture matches" in element(page, "#empty").text
    element(page, "#clear-empty").click()
    assert len(shown(page)) == 8
    assert not element(page, "#empty").is_displayed()


def test_a_link_restores_a_view(page: Any, report: Path) -> None:
    page.get("about:blank")
    page.get(report.as_uri() + "#sort=worst&level=good,fair&search=harbour&from=0.2&picture=3")
    assert shown(page) == [3, 1]
    assert element(page, "dialog").get_attribute("open")
    page.execute_script("location.hash = '#sort=<script>&from=x&to=9&level=%00&picture=99'")
    eventually(page, "!document.querySelector('dialog').open")
    assert shown(page) == [1, 7, 4, 3, 5, 2, 8, 6]


def test_a_picture_enlarges_and_the_keys_go_on(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    element(page, "[data-number='1'] button").click()
    assert element(page, "#large").is_displayed()
    assert "quiet harbour" in element(page, "#placard").text
    assert element(page, "#place").text == "1 of 7"  # the missing picture is passed over
    press(page, Keys.ARROW_RIGHT)
    assert element(page, "#large").get_attribute("alt") == HOSTILE_NAME
    press(page, Keys.ARROW_RIGHT)
    assert "ordinary" in element(page, "#placard").text
    press(page, Keys.ESCAPE)
    # The browser tells a page that a dialog closed some time after it did, and only then can the focus move.
    eventually(page, "document.activeElement.closest('.card')?.dataset.number === '3'")
    assert not element(page, "dialog").get_attribute("open")
    press(page, Keys.ENTER)
    assert element(page, "dialog").get_attribute("open")
    element(page, "#close").click()
    eventually(page, "location.hash === ''")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_have_contrast_enough(page: Any, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for every text of the page against what lies behind it."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    worst = page.execute_script("""
      const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
      const behind = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return colour === "rgba(0, 0, 0, 0)" && element.parentElement ? behind(element.parentElement) : colour;
      };
      return [...document.querySelectorAll("body *:not(script)")]
        .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && !e.closest("svg, dialog"))
        .map((e) => {
          const [one, two] = [light(getComputedStyle(e).color), light(behind(e))];
          return [(Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05), e.className];
        }).reduce((least, one) => one[0] < least[0] ? one : least);
    """)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert worst[0] >= 4.5, worst


def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    resize(page, 390, 800)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth && innerWidth === 390")
    assert len(shown(page)) == 8


def test_without_scripts_every_card_is_there(page: Any, report: Path) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.get(report.as_uri() + "#level=good")
    page.refresh()
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert page.execute_script("return document.documentElement.className") == ""
    assert len(shown(page)) == 8
    assert not element(page, ".controls").is_displayed()


def test_a_score_without_a_reply_is_no_unreadable_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "a.png")
    row = prediction(str(tmp_path / "a.png"), 0.5, readable=False, reasoning=None)
    write_rows(tmp_path / "fast.jsonl", [row])
    assert write_report(tmp_path / "fast.jsonl", tmp_path / "fast.html").unreadable == 0
    text = Page(tmp_path / "fast.html").text
    assert "Scored without reasoning." in text and "Unreadable reply" not in text
    print_table([row])
    assert "forced" not in capsys.readouterr().out
