"""The server's page in a real browser: drop a folder, rank, filter, choose by keys, undo, compare, export, a phone."""

import csv
import io
import json
import re
import time
import zipfile

import httpx2 as httpx
import pytest
from browser import HOSTILE_NAME
from PIL import Image
from serving import running

from aesr1.server import batching as module
from aesr1.server import rank_page
from aesr1.server.settings import ServeConfig


@pytest.fixture(scope="module")
def address():
    with running(ServeConfig("tiny", device="cpu", max_new_tokens=120)) as address:
        yield address


@pytest.fixture
def folder(scene_folder, tmp_path):
    """Twelve scenes in a folder and one within it; one of an evil name, one that is broken, and a text."""
    folder = tmp_path / "trip"
    (folder / "day 2").mkdir(parents=True)
    for number in range(12):
        where = folder / "day 2" if number > 7 else folder
        (where / f"{number:02d}.png").write_bytes((scene_folder / f"{number:02d}.png").read_bytes())
    (folder / HOSTILE_NAME.replace("/", "")).write_bytes((scene_folder / "12.png").read_bytes())
    (folder / "=1+1.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("hello")
    return folder


class Page:
    """The page in the browser, as a person uses it."""

    def __init__(self, driver, address, downloads):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        self.driver, self.keys, self._actions, self._downloads = driver, Keys, ActionChains, downloads
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        driver.get("about:blank")
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(address)

    def drop(self, *paths):
        data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": 300, "y": 200, "data": data}
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)

    def press(self, *keys):
        self._actions(self.driver).send_keys(*keys).perform()

    def text(self, element):
        return self.driver.execute_script("return document.getElementById(arguments[0]).textContent", element)

    def until(self, element, words):
        deadline = time.monotonic() + 30
        while words not in self.text(element):
            assert time.monotonic() < deadline, self.text(element)
            time.sleep(0.05)

    def cards(self):
        """Name, score and decision of each card, in the order of the page."""
        script = """return [...document.querySelectorAll('#cards .card')].map((card) => [
            card.querySelector('.name').textContent, card.querySelector('.score').textContent,
            card.classList.contains('is-keep') ? 'keep' : card.classList.contains('is-drop') ? 'drop' : ''])"""
        return self.driver.execute_script(script)

    def select(self, element, value):
        script = """const field = document.getElementById(arguments[0]); field.value = arguments[1];
            field.dispatchEvent(new Event('change')); field.dispatchEvent(new Event('input'))"""
        self.driver.execute_script(script, element, value)

    def export(self, name):
        self.select("export", name)
        self.until("said", f"{name} was exported")
        deadline = time.monotonic() + 10
        while not (file := self._downloads / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return file.read_bytes()

    def check(self, address):
        """Nothing stands in the console, and nothing but this server was asked."""
        assert [entry for entry in self.driver.get_log("browser") if "favicon" not in entry["message"]] == []
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
        assert {url for url in asked if not url.startswith((address, "blob:", "data:"))} == set()
        self.driver.execute_script("unsaved = false")


@pytest.fixture
def page(driver, address, tmp_path):
    (tmp_path / "downloads").mkdir()
    page = Page(driver, address, tmp_path / "downloads")
    yield page
    page.check(address)


@pytest.fixture
def ranked(page, folder):
    page.drop(folder)
    page.until("counts", "13 of 14 scored, 1 failed")
    page.until("shown", "14 of 14 shown")
    time.sleep(0.4)  # the last arranging
    return page


def test_a_dropped_folder_is_ranked_best_first_with_what_failed_last(ranked):
    cards = ranked.cards()
    scores = [float(score) for _, score, _ in cards[:-1]]
    assert len(cards) == 14 and scores == sorted(scores, reverse=True)
    assert cards[-1][:2] == ["trip/=1+1.png", "—"] and "trip/day 2/08.png" in [name for name, _, _ in cards]
    assert "1 files are no pictures" in ranked.text("said") or ranked.text("said") == ""
    assert ranked.driver.title == "aesr1"  # no script of a name ran


def test_scores_come_one_by_one_while_others_wait(page, folder, monkeypatch):
    real = module.Batcher._results

    def slow(self, jobs):
        time.sleep(0.3)
        return real(self, jobs)

    monkeypatch.setattr(module.Batcher, "_results", slow)
    page.drop(folder)
    seen = set()
    while "13 of 14 scored, 1 failed" not in (counts := page.text("counts")):
        seen.add(counts.partition(" of ")[0])
        time.sleep(0.05)
    assert len(seen) > 1


def test_keys_choose_and_go_on_and_undo_takes_back(ranked):
    names = [name for name, _, _ in ranked.cards()]
    ranked.driver.find_element("css selector", "#cards .card").click()
    ranked.press("k", "d", ranked.keys.ARROW_RIGHT, "k")
    assert [choice for _, _, choice in ranked.cards()[:4]] == ["keep", "drop", "", "keep"]
    assert "2 keep, 1 drop" in ranked.text("counts")
    ranked.press("z")
    assert [choice for _, _, choice in ranked.cards()[:4]] == ["keep", "drop", "", ""]
    assert ranked.text("said") == f"Undone: {names[3]} is undecided again"
    ranked.press("z", "z", "z")
    assert "0 keep, 0 drop" in ranked.text("counts")


def test_the_keyboard_alone_reaches_everything(ranked):
    """Tab leads from the top to the first card, whose keys then work; the dialogs open and close."""
    focused = "return [document.activeElement.id, document.activeElement.className]"
    visited = []
    while not visited or visited[-1][1] != "card":
        ranked.press(ranked.keys.TAB)
        visited.append(ranked.driver.execute_script(focused))
        assert len(visited) < 20
    for name in ("files", "folder", "reasons", "show", "least", "order", "find", "keys", "export"):
        assert name in [element for element, _ in visited]
    ranked.press("k", "?")
    assert ranked.driver.execute_script("return document.getElementById('help').open")
    ranked.press(ranked.keys.ESCAPE, "/")
    assert ranked.driver.execute_script(focused)[0] == "find"
    ranked.press(ranked.keys.ESCAPE, ranked.keys.ENTER)
    assert ranked.driver.execute_script("return document.getElementById('view').open")
    ranked.press(ranked.keys.ARROW_RIGHT, "d", ranked.keys.ESCAPE)
    assert "1 keep, 1 drop" in ranked.text("counts")


def test_filters_show_what_they_name(ranked):
    ranked.driver.find_element("css selector", "#cards .card").click()
    ranked.press("k", "d")
    ranked.select("show", "keep")
    assert [choice for _, _, choice in ranked.cards()] == ["keep"]
    ranked.select("show", "open")
    assert len(ranked.cards()) == 12 and ranked.text("shown") == "12 of 14 shown"
    ranked.select("show", "all")
    ranked.select("find", "day 2/")
    assert len(ranked.cards()) == 4
    ranked.select("find", "no such words")
    assert ranked.cards() == [] and ranked.driver.find_element("id", "none").is_displayed()
    ranked.select("find", "")
    ranked.select("order", "name")
    names = [name for name, _, _ in ranked.cards()]
    assert names.index("trip/00.png") < names.index("trip/01.png") < names.index("trip/02.png")
    ranked.select("least", "5")
    assert all(
        len(stars) == 5
        for stars in ranked.driver.execute_script(
            "return [...document.querySelectorAll('#cards .stars')].map((each) => each.textContent)"
        )
    )


def test_two_marked_pictures_are_compared_and_one_is_kept(ranked):
    names = [name for name, _, _ in ranked.cards()]
    ranked.driver.find_element("css selector", "#cards .card").click()
    ranked.press("c", ranked.keys.ARROW_RIGHT, "c")
    shown = "return [...document.querySelectorAll('#sides .name')].map((each) => each.textContent)"
    assert ranked.driver.execute_script(shown) == names[:2]
    widths = "return [...document.querySelectorAll('#sides img')].map((each) => each.naturalWidth)"
    time.sleep(0.3)
    assert all(ranked.driver.execute_script(widths))
    ranked.press("2")
    assert [choice for _, _, choice in ranked.cards()[:2]] == ["drop", "keep"]
    ranked.press("z")
    assert [choice for _, _, choice in ranked.cards()[:2]] == ["", ""]


def test_exports_hold_what_was_chosen_and_cells_are_inert(ranked):
    ranked.driver.find_element("css selector", "#cards .card").click()
    ranked.press("k", "k", "d")
    names = [name for name, _, _ in ranked.cards()]
    assert ranked.export("keep.txt").decode().splitlines() == names[:2]
    assert ranked.export("drop.txt").decode().splitlines() == names[2:3]
    rows = list(csv.DictReader(io.StringIO(ranked.export("scores.csv").decode("utf-8-sig"))))
    assert [row["image"] for row in rows] == names
    assert [row["choice"] for row in rows[:4]] == ["keep", "keep", "drop", ""]
    assert rows[0]["reasoning"] and rows[0]["model"].startswith("tiny ") and rows[-1]["error"]
    assert float(rows[0]["score"]) == pytest.approx(float(ranked.cards()[0][1]), abs=5e-4)


def test_a_name_that_a_spreadsheet_would_run_gets_a_quote(page, tmp_path):
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "=cmd|x.png")
    page.drop(tmp_path / "=cmd|x.png")
    page.until("counts", "1 of 1 scored")
    (row,) = csv.DictReader(io.StringIO(page.export("scores.csv").decode("utf-8-sig")))
    assert row["image"] == "'=cmd|x.png"


def test_sidecars_are_merged_with_those_that_were_dropped_along(ranked, folder):
    pytest.importorskip("libxmp")
    first = ranked.export("sidecars.zip")
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = set(archive.namelist())
        sidecar = archive.read("trip/00.xmp").decode()
    assert "trip/day 2/08.xmp" in names and len(names) == 13
    stars = re.search(r'xmp:Rating(?:="|>)(\d)', sidecar)[1]
    mine = re.sub(r'(xmp:Rating(?:="|>))\d', r"\g<1>1" if stars != "1" else r"\g<1>5", sidecar, count=1)
    (folder / "00.xmp").write_text(mine.replace("aesr1:Score", "aesr1:Old"))
    (ranked._downloads / "sidecars.zip").unlink()
    ranked.drop(folder)
    while not ranked.driver.execute_script("return sidecars.size"):
        time.sleep(0.05)
    with zipfile.ZipFile(io.BytesIO(ranked.export("sidecars.zip"))) as archive:
        merged = archive.read("trip/00.xmp").decode()
    assert re.search(r'xmp:Rating(?:="|>)(\d)', merged)[1] != stars


def test_sidecars_of_many_pictures_come_in_parts_and_pictures_of_one_name_stay_together(
    driver, folder, tmp_path, monkeypatch
):
    pytest.importorskip("libxmp")
    monkeypatch.setattr(rank_page, "PICTURES_IN_A_ZIP", 2)
    for name in ("02.jpg", "02.webp"):
        Image.open(folder / "02.png").save(folder / name)
    (tmp_path / "downloads").mkdir()
    with running(ServeConfig("tiny", device="cpu", max_new_tokens=120)) as address:
        page = Page(driver, address, tmp_path / "downloads")
        page.drop(*(folder / name for name in ("00.png", "01.png", "02.png", "02.jpg", "02.webp", "03.png")))
        page.until("counts", "6 of 6 scored")
        page.select("export", "sidecars.zip")
        page.until("said", "sidecars-1-of-3.zip, sidecars-2-of-3.zip, sidecars-3-of-3.zip were exported")
        held = []
        for part in (1, 2, 3):
            path = page._downloads / f"sidecars-{part}-of-3.zip"
            while not path.exists():
                time.sleep(0.05)
            with zipfile.ZipFile(path) as archive:
                held.append(archive.namelist())
        page.check(address)
    assert held == [["00.xmp", "01.xmp"], ["02.jpg.xmp", "02.png.xmp", "02.webp.xmp"], ["03.xmp"]]


def test_a_busy_server_is_asked_again_and_a_dead_one_is_told(page, folder, monkeypatch):
    refusals = iter([True, True])
    real = module.Batcher.require_room

    def busy(self, requests):
        if next(refusals, False):
            raise module.HttpRefusal("full", fix="wait", status=503, code="overloaded", retry_after=1)
        real(self, requests)

    monkeypatch.setattr(module.Batcher, "require_room", busy)
    page.drop(folder)
    page.until("counts", "13 of 14 scored, 1 failed")
    page.driver.get_log("browser")  # Chromium reports the two refusals there


def test_the_page_asks_for_the_key_and_goes_on_with_it(driver, folder, tmp_path):
    (tmp_path / "downloads").mkdir()
    with running(ServeConfig("tiny", device="cpu", max_new_tokens=20, api_key="secret")) as address:
        page = Page(driver, address, tmp_path / "downloads")
        assert httpx.post(f"{address}/v1/score", json={"images": ["x"]}).status_code == 401
        page.driver.find_element("id", "key").send_keys("secret", page.keys.ENTER)
        page.drop(folder)
        page.until("counts", "13 of 14 scored, 1 failed")
        page.check(address)


def test_a_phone_shows_it_without_scrolling_sideways_and_chooses_by_touch(ranked):
    driver = ranked.driver
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        small = """return [...document.querySelectorAll('.choice, .controls .plain, .controls select')]
            .filter((each) => each.checkVisibility() && each.offsetHeight < 44).length"""
        assert driver.execute_script(small) == 0
        driver.find_element("css selector", "#cards .card .choice.keep").click()
        assert ranked.cards()[0][2] == "keep"
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
