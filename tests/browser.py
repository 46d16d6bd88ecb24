"""A real browser for the pages: Chromium without a window, its console and its network watched.

`driver` is selenium's, which has no types that mypy could follow here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
    yield browser
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
