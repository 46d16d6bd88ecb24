"""What the reasons of a model are like: measures with intervals, for results.json and results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from aesr1 import intervals
from aesr1.critique_text import DIMENSIONS, common_sentences, dimensions_of, find_leak, sentences, stance_of
from aesr1.errors import AesError
from aesr1.evaluation.claim_precision import ClaimPrecision, claim_precision
from aesr1.evaluation.reason_judge import JudgedReasons
from aesr1.evaluation.reasons import distinct_ngrams, distinct_texts, text_follows_picture, text_predicts_score
from aesr1.facts.measured_facts import facts_in
from aesr1.images.load import open_image
from aesr1.images.measure import Measurements, as_vector, measure
from aesr1.intervals import Interval, mean_bootstrap, share_bootstrap
from aesr1.metrics import Column, srcc
from aesr1.records import Prediction, Rating

MOST_PICTURES = 300
"""So many pictures are measured for the control with a wrong photograph; the interval says whether they suffice."""
FEWEST_TEXTS = 10
"""Fewer say nothing about words and scores (two for each fold)."""

TITLES = {
    "template_rate": "sentences used again and again",
    "dimensions_covered": "dimensions named",
    "critique_share": "critique share",
    "tone_follows_people": "tone ~ people (SRCC)",
    "text_follows_people": "words ~ people (SRCC)",
    "text_follows_score": "words ~ own score (SRCC)",
    "text_follows_picture": "words ~ picture (R² over a wrong one's)",
    "leak_rate": "leaks",
}
"""The measures with intervals: names in results.json, and in results.md."""


@dataclass(frozen=True)
class Reasons:
    """Measures of n texts. Those without an interval depend on n: compare them for equal n alone."""

    n: int
    distinct_texts: float
    distinct_bigrams: float
    measures: Mapping[str, Interval | None]  # by the names of TITLES; None where there is too little to measure
    claims: Mapping[str, ClaimPrecision]  # by what they are about
    judged: JudgedReasons | None = None  # what another model says of them, if it was asked

    def to_results(self) -> dict[str, Any]:
        """The entry in results.json."""
        named = {name: value and asdict(value) for name, value in self.measures.items()}
        counts = {"n": self.n, "distinct_texts": self.distinct_texts, "distinct_bigrams": self.distinct_bigrams}
        claims = {kind: asdict(value) for kind, value in self.claims.items()}
        return {**counts, **named, "claims": claims, "judged": self.judged and asdict(self.judged)}


def describe(
    ratings: Sequence[Rating],
    predictions: Sequence[Prediction],
    pictures: Mapping[str, Measurements],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Reasons | None:
    """Measures of all reasons of one model; None if it wrote none.

    pictures: what was measured in some pictures (`measure_pictures`), by path. What is compared with scores is compared
    within each data set.
    """
    reasons = {row.image: row for row in predictions if row.reasoning}
    rated = [(rating, reasons[rating.image]) for rating in ratings if rating.image in reasons]
    if not rated:
        return None
    texts = [str(row.reasoning) for _, row in rated]
    split = [sentences(text) for text in texts]
    templates = common_sentences(texts, common=0.05)
    stances = [[stance_of(sentence) for sentence in each] for each in split]
    praise, critique = (np.array([each.count(sign) for each in stances], dtype=np.float64) for sign in (1, -1))
    lengths = np.array([max(1, len(each)) for each in split], dtype=np.float64)
    repeated = np.array([sum(sentence in templates for sentence in each) for each in split], dtype=np.float64)
    named = np.array([len(dimensions_of(text)) / len(DIMENSIONS) for text in texts])

    def share(parts: Column, whole: Column) -> Interval | None:
        return share_bootstrap(parts, whole, draws=draws, seed=seed) if whole.any() else None

    def correlation(measured: Column) -> Interval | None:
        """SRCC with people, within each data set."""
        sets: dict[str, tuple[list[float], list[float]]] = {rating.domain: ([], []) for rating, _ in rated}
        for value, (rating, _) in zip(measured, rated, strict=True):
            sets[rating.domain][0].append(float(value))
            sets[rating.domain][1].append(rating.score)
        known = [columns for columns in sets.values() if len(columns[1]) >= FEWEST_TEXTS and np.ptp(columns[1])]
        return mean_bootstrap(srcc, known, draws=draws, seed=seed) if known else None

    scored = [
        (text, rating, row.score) for text, (rating, row) in zip(texts, rated, strict=True) if row.score is not None
    ]
    own = _within_sets([rating for _, rating, _ in scored], [score for _, _, score in scored])
    people = _within_sets([rating for rating, _ in rated], [rating.score for rating, _ in rated])
    seen = [
        (text, pictures[rating.image], rating.domain)
        for text, (rating, _) in zip(texts, rated, strict=True)
        if rating.image in pictures
    ]
    leaks = sum(find_leak(text) is not None for text in texts)
    return Reasons(
        n=len(texts),
        distinct_texts=distinct_texts(texts),
        distinct_bigrams=distinct_ngrams(texts, size=2),
        measures={
            "template_rate": share(repeated, lengths),
            "dimensions_covered": share(named, np.ones(len(texts))),
            "critique_share": share(critique, praise + critique),
            "tone_follows_people": correlation((praise - critique) / lengths),
            "text_follows_people": _predicted(texts, people, draws, seed),
            "text_follows_score": _predicted([text for text, _, _ in scored], own, draws, seed),
            "text_follows_picture": _picture_fit(
                [text for text, *_ in seen], [as_vector(measured) for _, measured, _ in seen], draws, seed
            ),
            "leak_rate": intervals.wilson(leaks, len(texts)),
        },
        claims=claim_precision(
            [text for text, *_ in seen],
            [facts_in(measured, domain=domain) for _, measured, domain in seen],
            draws=draws,
            seed=seed,
        ),
    )


def measure_pictures(images: Sequence[str], pool: Executor | None, *, seed: int = 0) -> dict[str, Measurements]:
    """What is measured in up to MOST_PICTURES of these pictures, drawn with a seed; broken ones are left out."""
    different = list(dict.fromkeys(images))
    order = np.random.default_rng(seed).permutation(len(different))[:MOST_PICTURES]
    chosen = [different[i] for i in sorted(order)]
    found = list(pool.map(_measured, chosen, chunksize=8) if pool else map(_measured, chosen))
    return {image: values for image, values in zip(chosen, found, strict=True) if values is not None}


def _measured(image: str) -> Measurements | None:
    try:
        return measure(open_image(image))
    except AesError:
        return None


def _within_sets(ratings: Sequence[Rating], scores: Sequence[float]) -> Column:
    """(n,) scores less the mean of their data set: words that only tell the sets apart then predict nothing."""
    values = np.array(scores, dtype=np.float64)
    domains = np.array([rating.domain for rating in ratings])
    for domain in set(domains.tolist()):
        values[domains == domain] -= values[domains == domain].mean()
    return values


def _predicted(texts: Sequence[str], scores: Column, draws: int, seed: int) -> Interval | None:
    if len(texts) < FEWEST_TEXTS or not np.ptp(scores):
        return None
    return text_predicts_score(texts, scores, seed=seed, draws=draws)


def _picture_fit(texts: Sequence[str], measured: Sequence[Column], draws: int, seed: int) -> Interval | None:
    if len(texts) < FEWEST_TEXTS or not np.ptp(measured, axis=0).any():
        return None
    return text_follows_picture(texts, np.array(measured), seed=seed, draws=draws).difference
