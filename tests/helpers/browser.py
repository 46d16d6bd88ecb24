"""A real browser for the pages: Chromium without a window, its console and its network watched.

`driver` is selenium's, which has no types that mypy could follow here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = (
    """</script><script>document.title='owned'</script><!-- "' <img src=x onerror="document.title='owned'"> """
    "\u2028\u2029 {{ 7*7 }} \u202e"
)
HOSTILE_NAME = """"><script>alert('x')<!--&amp;.png"""


@contextmanager
def started(profile: Path) -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    browser = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        yield browser
    finally:
        browser.quit()


@contextmanager
def opened(driver: Any, file: Path, *, title: str) -> Iterator[Any]:
    """A page freshly opened; afterwards nothing may stand in the console nor have left the machine."""
    resize(driver, 1400, 900)
    driver.get("about:blank")
    driver.get_log("performance")  # what the browser's own start page fetched is not ours
    driver.get(file.as_uri())
    yield driver
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url.split("#")[0] for url in asked if not url.startswith("data:")} <= {file.as_uri(), "about:blank"}
    assert driver.title == title


def resize(driver: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


class Page(HTMLParser):
    """Tags and texts as a browser sees them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.words = ""  # of what is seen, apart by single spaces
        self.feed(path.read_text(encoding="utf-8"))
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.words += f" {data}"

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_self_contained(file: Path) -> None:
    """Nothing outside the file is asked for, and a strict policy says so."""
    page = Page(file)
    assert not [
        a for _, a in page.tags for name in ("src", "href") if not (a.get(name) or "#").startswith(("data:", "#"))
    ]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", file.read_text(encoding="utf-8"))
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
