"""The page about a build's drafts: whole counts, nothing of a model's text ever run, filters in a real browser."""

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

from aesr1.aescot.build import build
from aesr1.aescot.page import PageSummary, balanced_sample, by_image, reason_of, write_page
from aesr1.aescot.settings import CotConfig
from aesr1.errors import AesError
from aesr1.html_page import inline_thumbnail
from aesr1.json_lines import write_rows
from aesr1.records import Draft, Rating, Rationale

TITLE = "Rationales of build"


def draft(name: str, score: float, attempt: int = 0, refused: str | None = None, **changes: Any) -> Draft:
    values = {
        "domain": "mine",
        "text": f"Of {name}, the attempt {attempt}.",
        "critic": "some/teacher",
        "prompt": "teacher-1",
        "tokens_in": 1000,
        "tokens_out": 50,
    }
    return Draft(image=f"pictures/{name}", score=score, attempt=attempt, refused=refused, **{**values, **changes})


def rationale(row: Draft) -> Rationale:
    return Rationale(row.image, row.score, row.domain, row.text, row.critic, row.prompt)


REFUSED = [
    draft("a.jpg", 0.912, 0, "leak: says '9'", text="A harbour, 9 of 10."),
    draft("a.jpg", 0.912, 1, "fact: " + HOSTILE),
    draft("b.jpg", 0.15, 0, "refused: HTTP 400, flagged", text="", prompt=HOSTILE),
    draft("gone.jpg", 0.55, 0, "near: 71% of its word triples stand in an earlier text"),
    draft("d.jpg", 0.45, 0, HOSTILE),
]
KEPT = [
    draft("a.jpg", 0.912, 2, text="Warm light over a quiet harbour.", judged={"leak": "none", "align": "88"}),
    draft(HOSTILE_NAME, 0.8, 0, text=HOSTILE, critic=HOSTILE, judged={HOSTILE: HOSTILE}),
    draft("d.jpg", 0.45, 1, text="An ordinary view of the sea."),
]
SPARE = draft("e.jpg", 0.99)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build: three kept, five refused, one that was not needed; one picture is gone."""
    folder = tmp_path_factory.mktemp("show") / "build"
    for row in (*KEPT, *REFUSED):
        if "gone" not in row.image:
            (folder / row.image).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (500, 300), "teal").save(folder / row.image)
    write_rows(folder / "raw.jsonl", [*REFUSED, *KEPT, SPARE])
    write_rows(folder / "rationales.jsonl", map(rationale, KEPT))
    write_rows(folder / "refused.jsonl", REFUSED)
    summary = {"wanted": 2, "tokens_in": 9000, "tokens_out": 450, "unreadable": ["x.jpg cannot be read: " + HOSTILE]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    output = folder.parent / "out" / "page.html"
    assert write_page(folder, output) == PageSummary(drafts=8, shown=8, missing=1)
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]
    return output


def test_hostile_text_stays_text(file: Path) -> None:
    page = Page(file)
    assert len(page.named("script")) == 1
    # The text, its critic on the card and at the top, a prompt twice, judge and answer, two reasons, a bad picture.
    assert page.text.count(HOSTILE) == 10
    assert HOSTILE_NAME in page.text
    assert all((image.get("src") or "").startswith("data:image/jpeg;base64,") for image in page.named("img"))


def test_nothing_outside_the_file_is_asked_for(file: Path) -> None:
    check_self_contained(file)


def test_the_page_counts_and_says_what_is_there(file: Path) -> None:
    words = Page(file).words
    for part in (
        "8 drafts about 5 pictures · 3 kept · 5 refused · 1 more passed the filters but was not needed",
        "Tokens 9,000 read, 450 written",
        "bad fair good all wanted 2 2 2 6 kept 0 1 2 3 refused 1 2 2 5",
        "leak names a number or the score 0 0 1 1 fact contradicts what was measured 0 0 1 1",
        "near too similar to an earlier text 0 1 0 1 declined the teacher refused 1 0 0 1 other another reason 0 1 0 1",
        "1 picture could not be opened",
        "No picture gone.jpg does not exist",
        "0.91 of 1 good a.jpg ✕ refused: leak attempt 1 says '9' A harbour, 9 of 10. some/teacher · prompt teacher-1",
        "✓ kept attempt 3 Warm light over a quiet harbour. leak judge none align judge 88 some/teacher",
        "· 1,000 tokens read, 50 written",
        "✕ refused: declined attempt 1 HTTP 400, flagged The reply was empty.",
    ):
        assert part in words
    assert "Unfinished" not in words and "A sample" not in words
    assert str(file.parent.parent) not in file.read_text(encoding="utf-8")


def test_drafts_of_a_picture_stand_together_in_the_order_of_attempts(file: Path) -> None:
    named = [(tag, attributes) for tag, attributes in Page(file).tags if tag in ("article", "section")]
    order = [attributes.get("data-reason", "|") for _, attributes in named]
    assert order == ["|", "leak", "fact", "", "|", "", "|", "other", "", "|", "refused", "|", "near"]


def test_thumbnails_are_small_and_carry_nothing_but_pixels(file: Path, tmp_path: Path) -> None:
    sources = [image["src"] for image in Page(file).named("img")]
    assert len(sources) == 4
    content = base64.b64decode(str(sources[0]).removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(content)).size == (240, 144)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a secret camera", 6  # maker; turned by a quarter
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif, comment=b"a secret comment")
    source = inline_thumbnail(str(tmp_path / "a.jpg"), "a.jpg", 20).source
    content = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    assert b"secret" not in content and b"Exif" not in content
    assert Image.open(io.BytesIO(content)).size == (10, 20)


def test_an_unfinished_build_shows_its_ledger(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw.jsonl", [*REFUSED, *KEPT, SPARE])
    with (tmp_path / "raw.jsonl").open("a") as ledger:
        ledger.write('{"image": "torn')
    (tmp_path / "settings.json").write_text('{"n": 31}')
    assert write_page(tmp_path, tmp_path / "page.html") == PageSummary(drafts=9, shown=9, missing=6)
    words = Page(tmp_path / "page.html").words
    assert "Unfinished. These are the drafts so far" in words
    assert "wanted 10 10 10 30 kept 0 1 3 4 refused 1 2 2 5" in words
    assert "Tokens 9,000 read, 450 written" in words


def test_raw_shows_the_ledger_of_a_finished_build(folder: Path, tmp_path: Path) -> None:
    assert write_page(folder, tmp_path / "page.html", raw=True).drafts == 9
    words = Page(tmp_path / "page.html").words
    assert "As first judged." in words and "4 kept · 5 refused" in words and "not needed" not in words


def test_results_without_a_ledger_have_no_attempts_for_the_kept(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rationales.jsonl", map(rationale, KEPT))
    write_rows(tmp_path / "refused.jsonl", REFUSED)
    write_page(tmp_path, tmp_path / "page.html")
    words = Page(tmp_path / "page.html").words
    assert "✕ refused: leak attempt 1" in words and "✓ kept Warm light" in words and "wanted" not in words
    with pytest.raises(AesError, match=r"holds no raw\.jsonl"):
        write_page(tmp_path, tmp_path / "other.html", raw=True)


def test_a_build_by_the_embedded_critic_is_shown_whole(scene_folder: Path, tmp_path: Path) -> None:
    summary = build(CotConfig(scene_folder / "ratings.jsonl", tmp_path / "cot", n=6))
    shown = write_page(tmp_path / "cot", tmp_path / "page.html")
    refused = sum(sum(levels.values()) for levels in summary.refused.values())
    assert shown.missing == 0 and sum(summary.kept.values()) + refused == shown.drafts == shown.shown
    assert "Critic embedded Data" in Page(tmp_path / "page.html").words


def test_more_drafts_than_the_limit_are_a_choice_that_the_page_names(folder: Path, tmp_path: Path) -> None:
    shown = write_page(folder, tmp_path / "page.html", limit=4)
    assert shown.drafts == 8 and 3 <= shown.shown <= 4
    words = Page(tmp_path / "page.html").words
    assert f"A sample. Shown are {shown.shown} drafts about" in words
    assert "8 drafts about 5 pictures · 3 kept · 5 refused" in words
    write_page(folder, tmp_path / "again.html", limit=4)
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "again.html").read_bytes()


def test_a_choice_is_even_over_reasons_and_levels_and_cuts_no_picture() -> None:
    common = [draft(f"{i}.jpg", 0.9) for i in range(100)]
    rare = [draft(f"r{i}.jpg", 0.1, k, "leak: x") for i in range(2) for k in range(3)]
    groups = by_image([*common, *rare])
    chosen = balanced_sample(groups, 10)
    assert sorted(map(len, chosen)) == [1, 1, 1, 1, 3, 3]
    assert chosen == [group for group in groups if group in chosen]
    assert balanced_sample(groups, 10) == chosen != balanced_sample(groups, 10, seed=1)
    assert balanced_sample(groups, 1000) == groups
    assert [len(group) for group in balanced_sample(by_image(rare), 1)] == [3]


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (None, ("", "")),
        ("leak: says '3: 4'", ("leak", "says '3: 4'")),
        ("unreachable: timed out", ("unreachable", "timed out")),
        ("<b>: x", ("other", "<b>: x")),
        ("", ("other", "")),
    ],
)
def test_a_reason_has_a_kind(refused: str | None, expected: tuple[str, str]) -> None:
    assert reason_of(draft("a.jpg", 0.5, refused=refused)) == expected


def test_one_picture_rated_twice_stands_twice() -> None:
    assert len(by_image([draft("a.jpg", 0.1), draft("a.jpg", 0.9), draft("a.jpg", 0.1, 1)])) == 2


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw.jsonl", [draft("a.jpg", 0.5, text="half \ud800 a pair")])
    write_page(tmp_path, tmp_path / "page.html")
    assert "half ? a pair" in Page(tmp_path / "page.html").text


def test_bad_input_is_refused_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    with pytest.raises(AesError, match="exists"):
        write_page(folder, mine)
    assert mine.read_text() == "mine"
    with pytest.raises(AesError, match="limit of 0"):
        write_page(folder, tmp_path / "page.html", limit=0)
    with pytest.raises(AesError, match="holds no drafts"):
        write_page(tmp_path / "nowhere", tmp_path / "page.html")
    write_rows(tmp_path / "empty" / "raw.jsonl", list[Rating]())
    with pytest.raises(AesError, match="holds no drafts"):
        write_page(tmp_path / "empty", tmp_path / "page.html")
    write_rows(tmp_path / "torn" / "raw.jsonl", KEPT)
    (tmp_path / "torn" / "settings.json").write_text('{"n": ')
    with pytest.raises(AesError, match="is not JSON"):
        write_page(tmp_path / "torn", tmp_path / "page.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine.html", "torn"]


@pytest.fixture
def page(driver: Any, file: Path) -> Iterator[Any]:
    with opened(driver, file, title=TITLE):
        yield driver


def shown(driver: Any) -> list[str]:
    """Score and reasons of the pictures on view, in order."""
    script = """
      const seen = (all) => [...all].filter((one) => !one.closest('[hidden]'));
      return seen(document.querySelectorAll('.picture')).map((picture) => [picture.querySelector('.score').textContent,
        ...seen(picture.querySelectorAll('.draft')).map((draft) => draft.dataset.reason || 'kept')].join(' '));
    """
    return list(driver.execute_script(script))


def element(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


ALL = ["0.91 leak fact kept", "0.80 kept", "0.45 other kept", "0.15 refused", "0.55 near"]


def test_every_order_sorts(page: Any) -> None:
    assert shown(page) == ALL
    element(page, "#sort option[value=best]").click()
    assert [row[:4] for row in shown(page)] == ["0.91", "0.80", "0.55", "0.45", "0.15"]
    element(page, "#sort option[value=worst]").click()
    assert [row[:4] for row in shown(page)] == ["0.15", "0.45", "0.55", "0.80", "0.91"]
    element(page, "#sort option[value=build]").click()
    assert shown(page) == ALL


def test_states_reasons_and_levels_filter(page: Any) -> None:
    element(page, "input[value=kept]").click()
    assert shown(page) == ["0.91 kept", "0.80 kept", "0.45 kept"]
    assert element(page, "#shown").text == "3 of 8 drafts, 3 pictures"
    element(page, "input[value=fair]").click()
    assert shown(page) == ["0.45 kept"]
    element(page, "input[value=refused]").click()
    assert shown(page) == ["0.45 other kept", "0.55 near"]
    element(page, "#clear").click()
    assert shown(page) == ALL
    element(page, "#reason option[value=leak]").click()
    assert shown(page) == ["0.91 leak"]
    assert element(page, "#shown").text == "1 of 8 drafts, 1 picture"
    assert not element(page, "#clear").get_attribute("hidden")


def test_search_finds_every_word_in_texts_names_reasons_and_answers(page: Any) -> None:
    search = element(page, "#search")
    for words, expected in (
        ("HARBOUR", ["0.91 leak kept"]),
        ("harbour warm", ["0.91 kept"]),
        ("gone.jpg", ["0.55 near"]),
        ("flagged", ["0.15 refused"]),
        ("align 88", ["0.91 kept"]),
        ("<img src=x", ["0.91 fact", "0.80 kept", "0.45 other", "0.15 refused"]),
    ):
        search.clear()
        search.send_keys(words)
        assert shown(page) == expected, words


def test_an_empty_view_says_so_and_leads_back(page: Any) -> None:
    element(page, "#search").send_keys("no such words")
    assert shown(page) == []
    assert "No draft matches" in element(page, "#empty").text
    element(page, "#clear-empty").click()
    assert shown(page) == ALL
    assert not element(page, "#empty").is_displayed()


def test_the_keyboard_alone_reaches_every_filter(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        for key in keys:
            ActionChains(page).send_keys(key).perform()

    press("/", "o", "f", Keys.TAB, Keys.SPACE)
    assert element(page, "#search").get_attribute("value") == "of"
    assert [row for row in shown(page) if "kept" not in row] == []
    press(Keys.SPACE, *[Keys.TAB] * 2, Keys.SPACE, *[Keys.TAB] * 3, Keys.ARROW_DOWN)
    assert element(page, "input[value=good]").is_selected()
    assert shown(page) == ["0.91 leak"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_have_contrast_enough(page: Any, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for every text of the page against what lies behind it, its opacity included."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    worst = page.execute_script("""
      const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
      const light = (colour) => colour.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
      const behind = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return colour === "rgba(0, 0, 0, 0)" && element.parentElement ? behind(element.parentElement) : colour;
      };
      return [...document.querySelectorAll("body *:not(script)")]
        .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
        .map((e) => {
          const style = getComputedStyle(e), back = parts(behind(e)), share = Number(style.opacity);
          const front = parts(style.color).map((part, place) => share * part + (1 - share) * back[place]);
          const [one, two] = [light(front), light(back)];
          return [(Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05), e.className];
        }).reduce((least, one) => one[0] < least[0] ? one : least);
    """)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert worst[0] >= 4.5, worst


def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    resize(page, 390, 800)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth && innerWidth === 390")
    assert shown(page) == ALL


def test_without_scripts_every_draft_is_there(page: Any, file: Path) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.get(file.as_uri())
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert shown(page) == ALL
    assert not element(page, ".controls").is_displayed()
