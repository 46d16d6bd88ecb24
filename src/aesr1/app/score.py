"""Scores pictures: `Scorer` for Python, `score_files` for files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from aesr1.app.calibration import load_calibration
from aesr1.app.predictions_table import TABLES, rows_file, write_table
from aesr1.app.reference_scores import reference_of_model, reference_of_rows, with_meaning
from aesr1.app.xmp_sidecar import is_rated
from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError
from aesr1.images.find import iterate_images, read_list
from aesr1.images.picture_list import PictureList, Shard
from aesr1.images.prefetch import prefetch_pool
from aesr1.json_lines import Appender
from aesr1.progress import progress_bar
from aesr1.records import Prediction
from aesr1.terminal import say

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from aesr1.app.reference_scores import Reference
    from aesr1.images.load import ImageSource
    from aesr1.model.predict import Origin, PredictSettings

DEFAULT_MODEL_NOTE = (
    "scored by the embedded photo model, which has learnt from 445 photographs: its order of others agrees with "
    "people's by an SRCC of .67. A large model sees more: --model ssssmark/Aes-R1"
)
RETRIES_OF_MANY = 2
"""Of a request, where there are several servers."""


class Scorer:
    """A loaded model that turns pictures into predictions. The same picture always gets the same score.

    Threads may share it: pictures that they bring at the same time are scored in one batch. One thread of its own loads
    and runs the model, so a call is as fast from any thread.

    from aesr1 import Scorer
    prediction, = Scorer("ssssmark/Aes-R1").score(["photo.jpg"])
    prediction.score, prediction.score_std, prediction.reasoning
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        max_pixels: int | None = None,
        device: str | None = None,
        settings: PredictSettings | None = None,
        reference: Path | None = None,
        calibration: Path | None = None,
    ) -> None:
        """`model`: a folder, a hub id, None for the embedded photo model. `max_pixels` caps a picture's area.

        `reference`: rows of an earlier scoring with this model, which percentiles and stars then refer to.
        `calibration`: a file of `aesr1 calibrate`, which turns scores into those of one person.
        """
        from aesr1.app.shared_batches import SharedBatches
        from aesr1.model.image_classes import load_classifier
        from aesr1.model.load import DEFAULT, checkpoint_folder, load
        from aesr1.model.model_thread import model_thread
        from aesr1.model.predict import PredictSettings, origin_of, score_batch

        thread, pixels = model_thread(device), max_pixels or MAX_PIXELS
        self.vlm = thread.run(load, model or DEFAULT, max_pixels=pixels, device=device, for_scoring=True)
        self.settings = settings or PredictSettings()
        self._run = SharedBatches(
            thread,
            lambda pictures: score_batch(self.vlm, pictures, self.settings),
            self.settings.batch_size,
            joined=not self.settings.samples,  # samples depend on the other pictures of a batch
        )
        self.origin, self.reference = origin_of(self.vlm, self.settings), None
        self.calibration = load_calibration(calibration) if calibration else None
        if self.calibration:
            self.calibration.require(self.origin)
            self.origin = self.calibration.origin(self.origin)
            if self.calibration.weights:
                model_thread("cpu").run(load_classifier)  # now: transformers cannot load in several threads at once
        if reference is not None:
            self.reference = reference_of_rows(reference, self.origin)
        elif not self.settings.samples and not self.calibration and (folder := checkpoint_folder(model or DEFAULT)):
            self.reference = reference_of_model(folder, fast=self.settings.fast)

    def score(self, images: Iterable[ImageSource]) -> list[Prediction]:
        """One prediction an image, in order; score and std are 0–1. A bad picture is a row with its error.

        An image is a path, the bytes of a file, an open file, a PIL picture, or a uint8 array of height × width × 3.
        AesError for a single picture: `score(["photo.jpg"])` is meant.
        """
        return list(self.stream(images))

    def stream(self, images: Iterable[ImageSource], *, pool: Executor | None = None) -> Iterator[Prediction]:
        """As `score`, one prediction at a time. `pool`: see `images.prefetch.prefetch_pool`."""
        from aesr1.model.predict import predict

        if isinstance(images, str | Path | bytes) or not hasattr(images, "__iter__") or hasattr(images, "read"):
            raise AesError(f"score takes a list of pictures, not one {type(images).__name__}", fix="write score([…])")

        return map(self._finished, predict(self.vlm, images, self.settings, pool=pool, run=self._run))

    def _finished(self, row: Prediction) -> Prediction:
        if self.calibration:
            row = replace(self.calibration.calibrated(row), decoding=self.origin.decoding)
        return with_meaning(row, self.reference)


@dataclass(frozen=True)
class ScoreConfig:
    """What to score, by which model, and where the rows go."""

    inputs: tuple[str, ...] = ()  # files, folders, globs
    model: str | None = None
    output: Path | None = None  # .jsonl, appended and resumed; or .csv or .parquet, made of a .jsonl beside it
    max_pixels: int | None = None
    settings: PredictSettings | None = None
    device: str | None = None  # cuda, mps, cpu; default: the best that is there
    reference: Path | None = None  # rows of an earlier scoring
    calibration: Path | None = None  # a file of `aesr1 calibrate`
    quiet: bool = False  # no progress bar
    skip_rated: bool = False  # leave out pictures that have stars in a sidecar or in their own metadata
    files_from: Path | None = None  # a list of more inputs, one a line; - is stdin
    null: bool = False  # that list is separated by null characters
    shard: Shard | None = None  # only these of the pictures
    endpoints: tuple[str, ...] = ()  # servers of the model, URL#MODEL, instead of a model that is loaded here

    def __post_init__(self) -> None:
        if not self.inputs and self.files_from is None:
            raise AesError("no pictures were named", fix="name files, folders or globs, or pass --files-from LIST")


def scorer_of(config: ScoreConfig) -> Scorer:
    """The loaded model of these settings."""
    return Scorer(
        config.model,
        max_pixels=config.max_pixels,
        device=config.device,
        settings=config.settings,
        reference=config.reference,
        calibration=config.calibration,
    )


def score_files(config: ScoreConfig) -> Iterator[Prediction]:
    """Predictions of all pictures found, in order. Rows of the same model in the output file are not scored again.

    Neither paths nor rows are held in memory.
    """
    if config.output is not None:
        rows_file(config.output)  # AesError before a model loads
    pictures = chosen_pictures(config)
    if not len(pictures):
        return
    with prefetch_pool(len(pictures)) as pool:
        if config.endpoints:
            yield from _scored_by_servers(config, pictures, pool)
            return
        scorer = scorer_of(config)
        if config.output is None:
            with progress_bar("score", total=len(pictures), quiet=config.quiet) as progress:
                for prediction in scorer.stream(pictures, pool=pool):
                    progress.advance(1)
                    yield prediction
            return

        def ask(missing: Iterable[str], write: Callable[[Prediction], None]) -> None:
            for row in scorer.stream(missing, pool=pool):
                write(row)

        yield from _resumed(config, config.output, pictures, [scorer.origin], ask, scorer.reference)


def _scored_by_servers(config: ScoreConfig, pictures: PictureList, pool: Executor | None) -> Iterator[Prediction]:
    """Rows by the model behind servers. They come in any order: without an output they go to a temporary file first."""
    from aesr1.endpoint.endpoint_judge import ask_endpoints, endpoint_judge
    from aesr1.endpoint.profile import AESR1
    from aesr1.model.predict import PredictSettings

    settings = config.settings or PredictSettings()
    profile = replace(AESR1, max_new_tokens=settings.max_new_tokens, max_pixels=config.max_pixels or AESR1.max_pixels)
    judges = [
        endpoint_judge(address, profile, in_flight=settings.batch_size, seed=settings.seed)
        for address in config.endpoints
    ]
    if len(judges) > 1:  # another server is better than more tries
        judges = [replace(judge, config=replace(judge.config, retries=RETRIES_OF_MANY)) for judge in judges]
    origins = list(dict.fromkeys(origin for judge in judges for origin in judge.origins))

    def ask(missing: Iterable[str], write: Callable[[Prediction], None]) -> None:
        ask_endpoints(judges, missing, write, pool)

    with TemporaryDirectory() as folder:
        output = config.output or Path(folder, "rows.jsonl")
        yield from _resumed(config, output, pictures, origins, ask, None)


def chosen_pictures(config: ScoreConfig) -> PictureList:
    """The pictures that are named, of the shard that is asked for. What was skipped is said. AesError for none."""
    listed = read_list(config.files_from, null=config.null) if config.files_from else ()
    warnings: list[str] = []
    pictures = PictureList(iterate_images(chain(config.inputs, listed), warnings))
    for warning in warnings:
        say(warning)
    if config.shard is not None:
        pictures = PictureList(config.shard.of(pictures))
    if config.skip_rated:
        unrated = PictureList(path for path in pictures if not is_rated(path))
        say(f"{len(pictures) - len(unrated):,} of {len(pictures):,} pictures have stars and are left out")
        return unrated
    return pictures


def _resumed(
    config: ScoreConfig,
    output: Path,
    pictures: PictureList,
    origins: Sequence[Origin],
    ask: Callable[[Iterable[str], Callable[[Prediction], None]], None],
    reference: Reference | None,
) -> Iterator[Prediction]:
    """The rows of the pictures, in order. `ask` is given those without a row, and what to do with each row it gets."""
    from aesr1.model.predict import with_identity
    from aesr1.model.resumed_rows import ResumedRows

    def meant(rows: Iterable[Prediction]) -> Iterator[Prediction]:
        return (with_meaning(row, reference) for row in rows)  # a row may be of an older version

    with Appender(rows_file(output)) as file:
        with progress_bar("score", total=len(pictures), quiet=config.quiet) as progress:
            rows = ResumedRows(file, origins, pictures)
            progress.advance(rows.count())

            def write(row: Prediction) -> None:
                rows.add(with_meaning(with_identity(row), reference))
                progress.advance(1)

            ask(rows.missing(), write)
        if output.suffix in TABLES:
            write_table(meant(rows.best_first()), output)
        yield from meant(rows)
