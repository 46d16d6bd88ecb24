"""How long a report of many pictures takes to open in Chromium without a window.

    python bench/report_opens.py FOLDER [--pictures 2000] [--opens 5]

The folder's pictures, each time a little more cropped, until there are enough; made-up scores and reasons. Seconds from
asking for the file to the load event, to the first paint, and until every picture on view is decoded and painted; and
the processor seconds of the page's main thread, which other work on the machine does not change. Needs the extra dev,
chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aesr1.app.report import write_report
from aesr1.images.find import find_images
from aesr1.json_lines import write_rows
from aesr1.records import Prediction

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from browser import resize, started

REASONS = (
    "The light is soft and comes from the left, so that the shapes stand out. The colours are few and calm. The "
    "subject stands right of centre and has room to look into; the horizon is level. A bright spot distracts. "
)
PAINTED = """
  const done = arguments[0];
  // Of cards alone, because to ask where a picture in a card out of view lies makes the browser lay that card out.
  const shown = [...document.querySelectorAll(".card")].filter((card) => {
    const box = card.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  }).map((card) => card.querySelector("img"));
  Promise.all(shown.map((image) => image.decode())).then(() =>
    requestAnimationFrame(() => requestAnimationFrame(() => done([performance.now(), shown.length]))));
"""


def page_of(folder: Path, pictures: list[Path], count: int) -> Path:
    """A report of that many pictures."""
    rng = np.random.default_rng(0)
    rows = []
    for number, source in enumerate(islice(cycle(pictures), count)):
        path = folder / f"{number:05d}.jpg"
        with Image.open(source) as opened:
            border = number // len(pictures)
            opened.convert("RGB").crop((border, border, opened.width, opened.height)).save(path, quality=85)
        score, std = float(rng.uniform()), float(rng.uniform(0, 0.2))
        rows.append(
            Prediction(str(path), score, std, True, REASONS * 2, REASONS * 2, "model", "revision", "expectation")
        )
    write_rows(folder / "rows.jsonl", rows)
    write_report(folder / "rows.jsonl", folder / "report.html")
    return folder / "report.html"


def opened(driver: Any, page: Path) -> tuple[float, float, float, float]:
    """Seconds to load, first paint and painted pictures; processor seconds of the main thread."""
    driver.get("about:blank")
    driver.execute_cdp_cmd("Performance.enable", {})
    driver.get(page.as_uri())
    painted, on_view = driver.execute_async_script(PAINTED)
    assert on_view >= 4, on_view
    load, paint = driver.execute_script("""
      return [performance.getEntriesByType("navigation")[0].loadEventEnd,
              performance.getEntriesByName("first-contentful-paint")[0].startTime];
    """)
    metrics = {
        entry["name"]: entry["value"] for entry in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    }
    return load / 1e3, paint / 1e3, painted / 1e3, metrics["ThreadTime"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--opens", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        page = page_of(Path(place), find_images([given.folder])[0], given.pictures)
        size, seconds = page.stat().st_size / 1e6, time.perf_counter() - begun
        print(
            f"{given.pictures:,} pictures: a page of {size:.0f} MB, made in {seconds:.0f} s with its pictures",
            flush=True,
        )
        with started(Path(place) / "profile") as driver:
            resize(driver, 1400, 900)
            times = [opened(driver, page) for _ in range(given.opens)]
        names = ("load event", "first paint", "pictures on view painted", "processor, main thread")
        for name, column in zip(names, zip(*times, strict=True), strict=True):
            print(
                f"{name}: {statistics.median(column):.2f} s ({min(column):.2f}–{max(column):.2f}, {given.opens} opens)"
            )


if __name__ == "__main__":
    main()
