"""Asks a model behind a server how much of the reasons is true of their pictures, and of wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from aesr1.endpoint.endpoint_judge import ask_endpoints, endpoint_judge, is_address
from aesr1.endpoint.profile import CRITIQUE, PICTURE, Profile
from aesr1.errors import AesError
from aesr1.evaluation.judge import Judge, judged_rows, was_answered
from aesr1.intervals import Interval, share_bootstrap
from aesr1.model.predict import PredictSettings
from aesr1.records import Prediction

MOST_TEXTS = 300
"""So many texts are judged, drawn with a seed; each twice."""
PROFILE = Profile(
    "critique",
    f"{PICTURE}A critic wrote about this photograph:\n\n{CRITIQUE}\n\nHow much of what the critic says is true of this "
    "photograph? Answer with one whole number from 0 (nothing) to 100 (everything), and with nothing else.",
    "number",
    (0.0, 100.0),
    max_new_tokens=16,
    source="our own words",
)


@dataclass(frozen=True)
class JudgedReasons:
    """How much of the texts is true, 0–1, by a judge that sees the picture."""

    judge: str  # URL#MODEL
    n: int  # texts with a readable answer about both pictures
    own: Interval  # of their own picture
    other: Interval  # of another picture of the same run
    difference: Interval  # own − other: 0 for texts that would fit any picture, and for a judge that does not look


def judge_reasons(
    address: str,
    settings: PredictSettings,
    name: str,
    predictions: Sequence[Prediction],
    *,
    output: Path,
    pool: Executor | None,
) -> JudgedReasons | None:
    """Ask about each text with its own picture and with another's; None where fewer than two texts can be compared.

    The answers are in `reasons-NAME-own.jsonl` and `reasons-NAME-other.jsonl` of `output`, and are not asked for again.
    AesError where the server cannot be asked.
    """
    if not is_address(address):
        raise AesError(f"the judge of reasons {address} is no server", fix="give it as http://HOST/v1#MODEL")
    texts = {row.image: row.reasoning for row in predictions if row.reasoning}
    drawn = np.random.default_rng(settings.seed).permutation(sorted(texts))[:MOST_TEXTS].tolist()
    if len(drawn) < 2:
        return None
    base = endpoint_judge(address, PROFILE, in_flight=settings.batch_size, seed=settings.seed)
    scores = {}
    for kind, shown in (("own", drawn), ("other", [*drawn[1:], drawn[0]])):
        asked = replace(base, critiques={picture: texts[of] for picture, of in zip(shown, drawn, strict=True)})
        judge = Judge(asked.origins, partial(ask_endpoints, [asked]), was_answered)
        path = output / f"reasons-{name}-{kind}.jsonl"
        title = f"reasons of {name}, {kind} picture"
        rows = judged_rows(judge, shown, path, pool, title=title, by_content=False)  # a copy may have another text
        scores[kind] = np.array([np.nan if row.score is None else row.score for row in rows])
    known = np.isfinite(scores["own"]) & np.isfinite(scores["other"])
    own, other = (scores[kind][known] for kind in ("own", "other"))
    if len(own) < 2:
        return None
    mean = partial(share_bootstrap, whole=np.ones(len(own)), seed=settings.seed)
    where = f"{base.config.url}#{base.config.model}"
    return JudgedReasons(where, len(own), mean(own), mean(other), mean(own - other))
