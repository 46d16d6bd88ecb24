"""The contact sheet of `aesr1 pick`: groups of similar pictures with their best, then all by what is proposed."""

from __future__ import annotations

from concurrent.futures import Executor
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from aesr1.html_page import inline_thumbnail, render_page, short_names
from aesr1.outputs import replaced_file

if TYPE_CHECKING:
    from aesr1.app.pick import Picked

GENERATOR = "aesr1 pick"
TEMPLATE = Path(__file__).parent / "templates" / "pick.html.j2"
SIDE = 240
MOST_SHOWN = 2_000
"""More pictures would make a page that browsers open slowly; the lists have all."""


def write_page(output: Path, picked: Picked, *, pool: Executor | None) -> None:
    """Write one self-contained page; a picture that cannot be opened is a placeholder. `pool` opens the pictures."""
    names = short_names([pick.row.image for pick in picked.picks])
    in_groups = [pick for group in picked.groups for pick in group]
    shown = [*in_groups, *(pick for pick in picked.picks if pick.size == 1)][:MOST_SHOWN]
    paths = [pick.row.image for pick in shown]
    made = (pool.map if pool else map)(
        inline_thumbnail, paths, [names[path] for path in paths], repeat(SIDE, len(paths))
    )
    pictures = dict(zip(paths, made, strict=True))
    context = {
        "picked": picked,
        "groups": [[pick for pick in group if pick.row.image in pictures] for group in picked.groups],
        "alone": [pick for pick in shown if pick.size == 1],
        "names": names,
        "pictures": pictures,
        "left_out": len(picked.picks) - len(shown),
    }
    with replaced_file(output) as part:
        render_page(part, TEMPLATE, GENERATOR, context)
