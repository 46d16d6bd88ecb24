"""Several data sets: a comparison for each, and means in which each set counts once. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aesr1.errors import AesError
from aesr1.evaluation.compare import Comparison, by_domain, compare
from aesr1.records import Prediction, Rating


@dataclass(frozen=True)
class Study:
    """Models on one data set or several."""

    datasets: Mapping[str, Comparison]  # by name
    means: Mapping[str, Comparison]  # "all"; with `in_domain`, also "in domain" and "out of domain"


def compare_datasets(
    ratings: Sequence[Rating],
    predictions: Mapping[str, Sequence[Prediction]],
    *,
    in_domain: Sequence[str] = (),
    draws: int = 2000,
    seed: int = 0,
) -> Study:
    """Compare models on each data set, and the means over all sets, those in `in_domain`, and the others.

    AesError as in `compare`, and if a name of `in_domain` is no data set of the ratings.
    """
    sets = by_domain(ratings)
    unknown = [name for name in in_domain if name not in sets]
    if unknown:
        raise AesError(
            f"in domain: there are no ratings of {', '.join(unknown)}; there are {', '.join(sets)}",
            fix="name data sets that are evaluated",
        )
    parts = {"all": list(sets)}
    if in_domain:
        parts["in domain"] = [name for name in sets if name in in_domain]
        parts["out of domain"] = [name for name in sets if name not in in_domain]

    def over(names: Sequence[str]) -> Comparison:
        return compare([row for name in names for row in sets[name]], predictions, draws=draws, seed=seed)

    datasets = {name: over([name]) for name in sets}
    return Study(
        datasets,
        {part: datasets[names[0]] if len(names) == 1 else over(names) for part, names in parts.items() if names},
    )
