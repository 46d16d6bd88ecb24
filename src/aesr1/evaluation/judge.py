"""Any judge: a local model under the contract or by a profile, or a model behind a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aesr1.endpoint.endpoint_judge import ask_endpoints, endpoint_judge, is_address
from aesr1.endpoint.profile import Profile
from aesr1.evaluation.local_judge import judge_locally
from aesr1.images.picture_list import PictureList
from aesr1.json_lines import Appender
from aesr1.model.load import load
from aesr1.model.predict import (
    Origin,
    PredictSettings,
    has_no_error,
    origin_of,
    predict,
    with_identity,
)
from aesr1.model.resumed_rows import ResumedRows
from aesr1.progress import progress_bar
from aesr1.records import Prediction


class Judge(NamedTuple):
    """How rows are got, and which rows of an interrupted run stay."""

    origins: Sequence[Origin]
    ask: Callable[
        [Sequence[str], Callable[[Prediction], None], Executor | None], None
    ]  # pictures, what to do with a row
    is_final: Callable[[Prediction], bool]


def judge_of(model: str, profile: Profile, settings: PredictSettings) -> Judge:
    """The judge for a folder, a hub id or an address. AesError where it cannot be loaded or found.

    Of a server batch_size is the number of requests in flight.
    """
    if is_address(model):
        judge = endpoint_judge(model, profile, in_flight=settings.batch_size, seed=settings.seed)
        return Judge(judge.origins, partial(ask_endpoints, [judge]), was_answered)
    vlm = load(model, max_pixels=profile.max_pixels, for_scoring=True)

    def ask_by_contract(images: Sequence[str], write: Callable[[Prediction], None], pool: Executor | None) -> None:
        for row in predict(vlm, images, settings, pool=pool):
            write(row)

    def ask_by_profile(images: Sequence[str], write: Callable[[Prediction], None], pool: Executor | None) -> None:
        batch_size, seed = settings.batch_size, settings.seed
        for row in judge_locally(vlm, images, profile, batch_size=batch_size, seed=seed, pool=pool):
            write(row)

    if profile.reading == "contract":
        return Judge([origin_of(vlm, settings)], ask_by_contract, has_no_error)
    return Judge([Origin(vlm.name, vlm.revision, profile.describe(settings.seed))], ask_by_profile, was_answered)


def judged_rows(
    judge: Judge, images: Sequence[str], path: Path, pool: Executor | None, *, title: str, by_content: bool = True
) -> list[Prediction]:
    """The row of each picture, in order. Rows are appended to the file; those that it has are not asked for again.

    by_content: a copy of a picture gets the picture's row, and a picture that was changed is asked about again.
    """
    with Appender(path) as file, progress_bar(title, total=len(images)) as progress:
        rows = ResumedRows(file, judge.origins, PictureList(images), is_final=judge.is_final)
        progress.advance(rows.count())

        def write(prediction: Prediction) -> None:
            rows.add(with_identity(prediction) if by_content else prediction)
            progress.advance(1)

        judge.ask(list(rows.missing()), write, pool)
        return list(rows)


def was_answered(row: Prediction) -> bool:
    """Whether there is a reply, also one that cannot be read: asking again would bring the same."""
    return row.error is None or bool(row.reply)
