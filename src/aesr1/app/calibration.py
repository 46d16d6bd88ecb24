"""A calibration: how a model's scores become those of one person, as `aesr1 calibrate` learnt it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.outputs import write_json
from aesr1.records import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aesr1.model.predict import Origin

KINDS = ("linear", "isotonic", "features")
"""A line on the score; a rising curve on it; the line and a ridge regression on the photo tower's mean features."""


@dataclass(frozen=True)
class Calibration:
    """Maps scores of one model, read in one way. A score between two knots is interpolated, outside they are held."""

    kind: str  # of KINDS
    model: str
    revision: str
    decoding: str
    knots: tuple[tuple[float, float], ...]  # (score, calibrated), rising
    n: int  # pictures that it was learnt from
    error: float  # root mean squared error on pictures that it had not seen, 0–1
    weights: tuple[float, ...] = ()  # of the features, added to the curve; empty without features
    intercept: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)  # what the cross-validation found

    def apply(self, scores: NDArray[np.float64], features: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """(n,) scores, and (n, channels) features where there are weights → (n,) calibrated scores, 0–1."""
        import numpy as np

        mapped: NDArray[np.float64] = np.interp(scores, *np.array(self.knots).T)
        if self.weights:
            assert features is not None
            mapped = mapped + features @ np.array(self.weights) + self.intercept
        return mapped.clip(0.0, 1.0)

    def require(self, origin: Origin) -> None:
        """AesError where it was learnt from another model, or from scores that were read in another way."""
        mine = (self.model, self.revision, self.decoding)
        if mine != tuple(origin):
            raise AesError(
                f"the calibration was learnt from {', '.join(mine)}; now it is {', '.join(origin)}",
                fix="score as it was learnt, or calibrate again with these options",
            )

    def origin(self, origin: Origin) -> Origin:
        """The origin of calibrated rows."""
        values = {name: value for name, value in self.__dict__.items() if name != "report"}
        digest = hashlib.blake2b(json.dumps(values).encode(), digest_size=4).hexdigest()
        return origin._replace(decoding=f"{origin.decoding}; calibrated ({self.kind}, {digest})")

    def calibrated(self, row: Prediction) -> Prediction:
        """The row with the calibrated score; score_std is then the error that was found in cross-validation.

        With weights the picture's file is opened; where it cannot be, the row has no score.
        """
        import numpy as np

        if row.score is None:
            return row
        features = None
        if self.weights:
            try:
                features = features_of([row.image])
            except AesError as error:
                return replace(row, score=None, score_std=None, error=error.problem)
        return replace(row, score=float(self.apply(np.array([row.score]), features)[0]), score_std=self.error)

    def write(self, path: Path) -> None:
        """Write the file that `load_calibration` reads."""
        write_json(path, {**self.__dict__, "knots": [list(knot) for knot in self.knots], "weights": list(self.weights)})


def load_calibration(path: Path) -> Calibration:
    """Read a calibration. AesError where the file is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        knots = tuple((float(score), float(mapped)) for score, mapped in values.pop("knots"))
        found = Calibration(knots=knots, weights=tuple(map(float, values.pop("weights"))), **values)
        if found.kind not in KINDS:
            raise ValueError(f"its kind is {found.kind}")
        if not knots or any(list(column) != sorted(column) for column in zip(*knots, strict=True)):
            raise ValueError("its curve does not rise")
    except OSError as error:
        raise AesError(f"{path} cannot be read: {error.strerror}", fix="make one: aesr1 calibrate") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AesError(f"{path} is no calibration: {error}", fix="make one: aesr1 calibrate") from error
    return found


def features_of(paths: Sequence[str]) -> NDArray[np.float64]:
    """(n, channels) mean features of pictures by the embedded photo tower, which has seen no rating."""
    import numpy as np

    from aesr1.model.image_classes import load_classifier
    from aesr1.model.model_thread import model_thread

    thread = model_thread("cpu")
    means = thread.run(load_classifier).mean_features
    return np.concatenate([thread.run(means, [open_image(path, max_pixels=MAX_PIXELS)]) for path in paths])
