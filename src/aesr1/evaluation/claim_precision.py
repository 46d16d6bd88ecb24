"""How many claims of the reasons are true by measurement, by what they are about. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aesr1.evaluation.reasons import derangement
from aesr1.facts.claims import Claim, claims_of
from aesr1.facts.measured_facts import PictureFacts
from aesr1.intervals import Interval, share_bootstrap
from aesr1.metrics import Column

SHUFFLES = 10
ALL = "all claims"


@dataclass(frozen=True)
class ClaimPrecision:
    """Of n claims: the share that is true, that the measurement contradicts, and that is true of another's picture."""

    n: int
    right: Interval
    contradicted: Interval
    chance: float


def claim_precision(
    texts: Sequence[str], facts: Sequence[PictureFacts], *, draws: int = 2000, seed: int = 0
) -> Mapping[str, ClaimPrecision]:
    """The precision of each type of claim that was made, and of all; facts: of each text's own picture.

    A claim is right where it names the measured step, and contradicted as the filter `fact` says: two steps off, or on
    the wrong side. `chance` is the mean over SHUFFLES pairings of each text with another picture. Intervals resample
    the texts. Empty without claims, or with fewer than two texts.
    """
    claims = [claims_of(text) for text in texts]
    kinds = sorted({claim.name for each in claims for claim in each})
    if not kinds or len(texts) < 2:
        return {}
    rng = np.random.default_rng(seed)
    shuffled = [[facts[i] for i in derangement(len(texts), rng)] for _ in range(SHUFFLES)]
    found = {}
    for kind in (ALL, *kinds):
        chosen = [[claim for claim in each if kind in (ALL, claim.name)] for each in claims]
        counts = np.array([len(each) for each in chosen], dtype=np.float64)
        found[kind] = ClaimPrecision(
            n=int(counts.sum()),
            right=share_bootstrap(_count(chosen, facts, _is_right), counts, draws=draws, seed=seed),
            contradicted=share_bootstrap(_count(chosen, facts, Claim.contradicts), counts, draws=draws, seed=seed),
            chance=float(np.mean([_count(chosen, others, _is_right).sum() for others in shuffled]) / counts.sum()),
        )
    return found


def _is_right(claim: Claim, facts: PictureFacts) -> bool:
    return claim.distance(facts) == 0


def _count(
    claims: Sequence[Sequence[Claim]], facts: Sequence[PictureFacts], holds: Callable[[Claim, PictureFacts], bool]
) -> Column:
    """(n,) how many claims of each text hold of its facts."""
    return np.array(
        [sum(holds(claim, own) for claim in each) for each, own in zip(claims, facts, strict=True)], dtype=np.float64
    )
