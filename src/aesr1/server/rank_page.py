"""The web page of the server: pictures are ranked while they are scored, compared, kept or dropped, and exported."""

from __future__ import annotations

from pathlib import Path

from aesr1 import __version__
from aesr1.html_page import page_template
from aesr1.images.formats import suffixes
from aesr1.server.settings import ServeConfig
from aesr1.server.sidecar_zip import MOST_ROWS

TEMPLATE = Path(__file__).parent / "templates" / "rank.html.j2"
FILES_AT_A_TIME = 8
"""In one request of the page: few enough that the first scores come soon."""

PICTURES_IN_A_ZIP = MOST_ROWS // 2
"""Pictures whose sidecars the page asks for at a time. Those of one name stay together, so a zip may hold more."""


def rank_page(model: str, config: ServeConfig) -> str:
    """The page as HTML, with the limits that the server sets."""
    return page_template(TEMPLATE).render(
        generator="aesr1 serve",
        version=__version__,
        model=model,
        key=config.api_key is not None,
        suffixes=" ".join(sorted(suffixes())),
        files=min(FILES_AT_A_TIME, config.max_pictures, config.max_waiting),
        bytes=config.max_upload,
        pictures_in_a_zip=PICTURES_IN_A_ZIP,
    )
