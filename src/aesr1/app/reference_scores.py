"""What a score means to people: its percentile in a reference set, stars, and the scale 1–10."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aesr1.errors import AesError
from aesr1.json_lines import iterate_rows
from aesr1.records import Prediction

if TYPE_CHECKING:
    from aesr1.model.predict import Origin

REFERENCE_FILE = "reference_scores.json"
"""In a checkpoint's folder: the name of a set, and 101 quantiles of the model's scores of it for each reading."""
FEWEST_ROWS = 20


@dataclass(frozen=True)
class Reference:
    """A model's own scores of a set of pictures."""

    name: str
    quantiles: tuple[float, ...]  # from the lowest to the highest score, at equal shares

    def percentile(self, score: float) -> float:
        """The share of the set with a lower score, in percent."""
        import numpy as np

        return round(float(np.interp(score, self.quantiles, np.linspace(0, 100, len(self.quantiles)))), 1)


def reference_of_model(folder: Path, *, fast: bool) -> Reference | None:
    """The reference that comes with a checkpoint; None where it has none. AesError where the file is broken."""
    path = folder / REFERENCE_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Reference(str(values["set"]), tuple(map(float, values["fast" if fast else "expectation"])))
    except (ValueError, KeyError, TypeError) as error:
        raise AesError(f"{path} holds no reference scores", fix="delete the file, or make it again") from error


def reference_of_rows(path: Path, origin: Origin) -> Reference:
    """The rows of an earlier `aesr1 score` as a reference. AesError where another model wrote them, or too few."""
    import numpy as np

    scores, others = array("d"), set()
    for row in iterate_rows(path, Prediction):
        if row.score is not None:
            scores.append(row.score)
            others |= {(row.model, row.revision, row.decoding)} - {tuple(origin)}
    if len(scores) < FEWEST_ROWS:
        raise AesError(f"{path} has {len(scores)} scores", fix=f"score {FEWEST_ROWS} pictures or more for a reference")
    if others:
        raise AesError(
            f"the scores of {path} come from {', '.join(sorted(others)[0])}; now it is {', '.join(origin)}",
            fix="score the reference pictures with the same model and in the same way",
        )
    quantiles = np.quantile(scores, np.linspace(0, 1, 101))
    return Reference(path.stem, tuple(quantiles.tolist()))


def with_meaning(row: Prediction, reference: Reference | None) -> Prediction:
    """The row with score_10, stars, and, where there is a reference, the percentile in it.

    Stars are fifths: of the reference set where there is one, else of the scale 0–1.
    """
    if row.score is None:
        return row
    percentile = reference.percentile(row.score) if reference else None
    share = row.score if percentile is None else percentile / 100
    return replace(
        row,
        score_10=round(1 + 9 * row.score, 2),
        stars=1 + min(4, int(5 * share)),
        percentile=percentile,
        reference=reference.name if reference else None,
    )
