"""`aesr1 calibrate`: learns one person's taste from few rated pictures, by cross-validation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesr1.app.calibration import KINDS, Calibration, features_of
from aesr1.app.score import Scorer
from aesr1.errors import AesError, install
from aesr1.intervals import Interval, bootstrap
from aesr1.json_lines import ratings_file, read_rows
from aesr1.metrics import mae, srcc
from aesr1.progress import progress_bar
from aesr1.records import Rating

if TYPE_CHECKING:
    from aesr1.model.predict import PredictSettings

Column = NDArray[np.float64]

FEWEST = 20
FOLDS, REPEATS = 5, 5
PENALTIES = np.logspace(1, 6, 21)
"""Of the ridge regression, on standardised features; the last leaves hardly anything but the line."""


@dataclass(frozen=True)
class CalibrateConfig:
    """Whose ratings, by which model, and where the calibration goes."""

    ratings: Path
    output: Path
    model: str | None = None
    max_pixels: int | None = None
    settings: PredictSettings | None = None
    device: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """What one kind reaches on pictures that it had not seen."""

    error: float  # root mean squared, 0–1
    srcc: float


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and how well it may do on new pictures."""

    calibration: Calibration
    trials: dict[str, Trial]  # "the score as it is", "one score for all", and KINDS
    srcc: Interval  # of the whole procedure, the choice of the kind included, on unseen pictures
    mae: Interval

    @property
    def helps(self) -> bool:
        """Whether unseen pictures are scored better than by one score for all."""
        return self.srcc.low > 0 and self.calibration.error < self.trials["one score for all"].error

    def text(self) -> str:
        """A table of the trials, and what to expect."""
        lines = ["| | error | SRCC |", "|---|---|---|"]
        lines += [f"| {name} | {trial.error:.3f} | {trial.srcc:.3f} |" for name, trial in self.trials.items()]
        s, m = self.srcc, self.mae
        lines += [
            "",
            f"{self.calibration.n} pictures, {REPEATS} × {FOLDS}-fold cross-validation.",
            f"Chosen: {self.calibration.kind}.",
            f"On new pictures expect SRCC {s.value:.2f} [{s.low:.2f}, {s.high:.2f}], "
            f"MAE {m.value:.3f} [{m.low:.3f}, {m.high:.3f}] (the choice of the kind included).",
        ]
        if not self.helps:
            lines.append("This is not clearly better than one score for all pictures: rate more before you rely on it.")
        return "\n".join(lines)


def calibrate(config: CalibrateConfig) -> Calibrated:
    """Score the rated pictures, learn, and write the calibration. AesError on too few ratings or pictures."""
    if importlib.util.find_spec("sklearn") is None:
        raise AesError("calibrate needs scikit-learn, which is not installed", fix=install("baselines"))
    ratings = read_rows(ratings_file(config.ratings), Rating)
    if len(ratings) < FEWEST:
        raise AesError(f"{config.ratings} has {len(ratings)} ratings", fix=f"rate {FEWEST} pictures or more")
    scorer = Scorer(config.model, max_pixels=config.max_pixels, device=config.device, settings=config.settings)
    rows = []
    with progress_bar("calibrate", total=len(ratings)) as progress:
        for row in scorer.stream([rating.image for rating in ratings]):
            rows.append(row)
            progress.advance(1)
    known = [(rating, row.score) for rating, row in zip(ratings, rows, strict=True) if row.score is not None]
    if len(known) < FEWEST:
        raise AesError(
            f"{len(known)} of {len(ratings)} pictures could be scored", fix="check the paths of the pictures"
        )
    human = np.array([rating.score for rating, _ in known])
    if np.ptp(human) == 0:
        raise AesError("all ratings are the same", fix="rate pictures that you like and pictures that you do not")
    scores = np.array([score for _, score in known])
    features = features_of([rating.image for rating, _ in known])
    found = learn(scores, features, human, scorer.origin, seed=config.seed)
    found.calibration.write(config.output)
    return found


def learn(scores: Column, features: Column, human: Column, origin: Sequence[str], *, seed: int = 0) -> Calibrated:
    """Choose a kind and learn it. scores, human (n,), 0–1; features (n, channels)."""
    model, revision, decoding = origin
    trials = _trials(scores, features, human, seed)
    kind = min(KINDS, key=lambda name: trials[name].error)
    # The choice is made again without each fold, so that it is not judged on what it was made with.
    nested = np.empty(len(human))
    for held in _folds(len(human), np.random.default_rng([seed, 1])):
        inner = _trials(scores[~held], features[~held], human[~held], seed)
        best = min(KINDS, key=lambda name, inner=inner: inner[name].error)  # type: ignore[misc]
        nested[held] = _fit(best, scores[~held], features[~held], human[~held])(scores[held], features[held])
    curve = _curve(kind, scores, human)
    weights, intercept = _residual_weights(scores, features, human) if kind == "features" else ((), 0.0)
    expected = {"srcc": bootstrap(srcc, nested, human, seed=seed), "mae": bootstrap(mae, nested, human, seed=seed)}
    report = {
        "trials": {name: asdict(trial) for name, trial in trials.items()},
        "expected": {name: asdict(value) for name, value in expected.items()},
    }
    error = _error(nested, human)
    calibration = Calibration(
        kind, model, revision, decoding, curve, len(human), error, tuple(weights), float(intercept), report
    )
    return Calibrated(calibration, trials, expected["srcc"], expected["mae"])


def _trials(scores: Column, features: Column, human: Column, seed: int) -> dict[str, Trial]:
    """What each kind reaches on unseen pictures; predictions are the mean over REPEATS divisions into folds."""
    sums = {name: np.zeros(len(human)) for name in ("one score for all", *KINDS)}
    rng = np.random.default_rng(seed)
    for _ in range(REPEATS):
        for held in _folds(len(human), rng):
            learnt = scores[~held], features[~held], human[~held]
            sums["one score for all"][held] += human[~held].mean()
            for kind in KINDS:
                sums[kind][held] += _fit(kind, *learnt)(scores[held], features[held])
    out = {"the score as it is": scores, **{name: total / REPEATS for name, total in sums.items()}}
    flat = {"one score for all"}  # the means of folds differ a little, and their order means nothing
    return {
        name: Trial(_error(values, human), 0.0 if name in flat else srcc(values, human)) for name, values in out.items()
    }


def _folds(n: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    place = rng.permutation(n) % FOLDS
    return [place == fold for fold in range(FOLDS)]


def _fit(kind: str, scores: Column, features: Column, human: Column) -> Callable[[Column, Column], Column]:
    """Learn a kind; returns scores (m,), features (m, channels) → (m,) calibrated, 0–1."""
    knots = np.array(_curve(kind, scores, human)).T
    weights, intercept = _residual_weights(scores, features, human) if kind == "features" else (None, 0.0)

    def predict(of: Column, seen: Column) -> Column:
        mapped: Column = np.interp(of, *knots)
        return np.clip(mapped if weights is None else mapped + seen @ weights + intercept, 0.0, 1.0)

    return predict


def _curve(kind: str, scores: Column, human: Column) -> tuple[tuple[float, float], ...]:
    """The knots of a rising curve; of a line its ends at 0 and 1. A falling line becomes a flat one."""
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        fitted: Any = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, human)
        return tuple(zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True))
    centred = scores - scores.mean()
    slope = max(0.0, float(centred @ human) / max(float(centred @ centred), 1e-12))
    low = float(human.mean() - slope * scores.mean())
    return ((0.0, low), (1.0, low + slope))


def _residual_weights(scores: Column, features: Column, human: Column) -> tuple[Column, float]:
    """Ridge regression of what the line leaves on the features: weights (channels,) and intercept."""
    from sklearn.linear_model import RidgeCV

    left = human - np.interp(scores, *np.array(_curve("linear", scores, human)).T)
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    fitted: Any = RidgeCV(PENALTIES).fit((features - centre) / spread, left)
    weights: Column = fitted.coef_ / spread
    return weights, float(fitted.intercept_ - centre @ weights)


def _error(predicted: Column, human: Column) -> float:
    return float(np.sqrt(np.mean((predicted - human) ** 2)))
