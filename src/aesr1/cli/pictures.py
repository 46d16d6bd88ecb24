"""The commands for people with pictures: score, calibrate, pick, report, serve. No logic; heavy imports wait."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aesr1.cli.options import (
    BatchSize,
    Device,
    Fast,
    Json,
    MaxNewTokens,
    MaxPixels,
    Output,
    Page,
    Samples,
    Seed,
    Temperature,
)
from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError
from aesr1.terminal import print_result, say

if TYPE_CHECKING:
    from aesr1.app.score import ScoreConfig
    from aesr1.records import Prediction

pictures = typer.Typer()


@pictures.command()
def score(
    paths: Annotated[list[str] | None, typer.Argument(help="Pictures, folders (searched within), globs.")] = None,
    files_from: Annotated[
        Path | None, typer.Option(allow_dash=True, help="A file with the path of one picture on each line; - is stdin.")
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="--files-from is separated by null characters, as find -print0 writes.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded photo model.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Append rows to this .jsonl; or a .csv or .parquet. The same command resumes."
        ),
    ] = None,
    as_json: Json = False,
    top: Annotated[int | None, typer.Option(min=1, help="Print only so many of the best.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no table and no progress.")] = False,
    reference: Annotated[
        Path | None,
        typer.Option(help="Rows (.jsonl) of an earlier scoring: percentiles and stars then refer to those pictures."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of aesr1 calibrate: the scores become those of one person.")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL#MODEL",
            help="Ask the model behind this OpenAI-compatible server, instead of loading one; may be given several "
            "times. --batch-size is the number of requests in flight at each.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Score on this Ray cluster (local: start one here) pictures, Parquet files and WebDataset tars at "
            "paths or fsspec addresses; -o is then a folder of Parquet files that all machines see.",
        ),
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Workers of --ray. Default: one for each GPU, else for each CPU core.")
    ] = None,
    xmp: Annotated[
        bool, typer.Option("--xmp", help="Write stars and reasons into XMP sidecars; a person's rating always stays.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Score only every N-th picture of the sorted list, from the I-th; I is 0 to N - 1. Each shard needs "
            "its own output: --shard $SLURM_ARRAY_TASK_ID/100 -o rows-$SLURM_ARRAY_TASK_ID.jsonl, array 0-99.",
        ),
    ] = None,
    skip_scored: Annotated[
        bool, typer.Option("--skip-scored", help="Leave out pictures that have stars in a sidecar or in their file.")
    ] = False,
    device: Device = None,
    samples: Samples = 0,
    temperature: Temperature = 0.6,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    max_pixels: MaxPixels = MAX_PIXELS,
    max_new_tokens: MaxNewTokens = 512,
    fast: Fast = False,
) -> None:
    """Score pictures from 0 (ugly) to 1 (beautiful), with score_std and reasons. A bad picture stops nothing.

    Exit status 1 where no picture could be scored.
    """
    from aesr1.app.score import DEFAULT_MODEL_NOTE, ScoreConfig, score_files
    from aesr1.app.score_table import MOST_PRINTED, print_table
    from aesr1.app.xmp_sidecar import write_sidecars, xmp_library
    from aesr1.images.picture_list import parse_shard
    from aesr1.model.predict import PredictSettings

    if xmp or skip_scored:
        xmp_library()  # before hours of scoring
    settings = PredictSettings(
        batch_size=batch_size,
        samples=samples,
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        fast=fast,
    )
    config = ScoreConfig(
        tuple(paths or ()),
        model,
        output,
        max_pixels,
        settings,
        device,
        reference,
        calibration,
        quiet=quiet,
        skip_rated=skip_scored,
        files_from=files_from,
        null=null,
        shard=parse_shard(shard) if shard else None,
        endpoints=tuple(endpoint or ()),
    )
    if endpoint:
        local = {"--model": model, "--device": device, "--fast": fast, "--samples": samples, "--ray": ray}
        _refuse("--endpoint", {**local, "--reference": reference, "--calibration": calibration})
    elif model is None and not quiet:
        say(DEFAULT_MODEL_NOTE)
    if ray is not None:
        _refuse(
            "--ray", {"--json": as_json, "--top": top, "--shard": shard, "--xmp": xmp, "--skip-scored": skip_scored}
        )
        _score_on_ray(config, ray, ray_workers)
        return
    for_sidecars: list[Prediction] = []
    scored = failed = 0
    first_failure = ""

    def watched() -> Iterator[Prediction]:
        nonlocal scored, failed, first_failure
        for row in score_files(config):
            if row.score is None:
                failed += 1
                first_failure = first_failure or f"{row.image}: {row.error}"
            else:
                scored += 1
            if as_json:
                print(json.dumps(asdict(row)), flush=True)
            if xmp:
                for_sidecars.append(row)
            yield row

    if as_json or quiet:
        deque(watched(), maxlen=0)
    else:
        print_table(watched(), top=top)
        if top is None and scored + failed > MOST_PRINTED:
            say(f"these are the best {MOST_PRINTED:,} of {scored + failed:,}; -o FILE has all rows, --top N more")
    if xmp:
        made = write_sidecars(for_sidecars)
        say(f"sidecars: {made.written:,} written, {made.kept:,} with a person's rating, which stays")
        if made.problems:
            say(f"{len(made.problems):,} sidecars are as they were, first: {made.problems[0]}")
    if failed:
        say(f"{failed:,} of {scored + failed:,} failed, first: {first_failure}")
    if failed and not scored:
        raise typer.Exit(1)


def _refuse(option: str, others: dict[str, object]) -> None:
    given = [name for name, value in others.items() if value]
    if given:
        raise AesError(f"{option} does not go with {', '.join(given)}", fix="leave one of them out")


def _score_on_ray(config: ScoreConfig, address: str, workers: int | None) -> None:
    from aesr1.app.score_on_ray import score_on_ray

    if config.output is None:
        raise AesError("--ray needs a folder for its results", fix="name one that all machines see: -o FOLDER")
    found = score_on_ray(config, address, workers=workers)
    kept = f", {found.kept:,} of them from before" if found.kept else ""
    print_result(f"{config.output}: {found.files:,} files{kept}; {found.pictures:,} pictures scored now")
    if found.failed:
        say(f"{found.failed:,} of {found.pictures:,} failed, first: {found.first_failure}")
    if found.failed and found.failed == found.pictures and not found.kept:
        raise typer.Exit(1)


@pictures.command()
def calibrate(
    ratings_file: Annotated[
        Path, typer.Argument(metavar="RATINGS", help="ratings.jsonl of 20 pictures or more that one person rated.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration, a .json for score --calibration.")],
    model: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded photo model.")] = None,
    device: Device = None,
    batch_size: BatchSize = 16,
    max_pixels: MaxPixels = MAX_PIXELS,
    max_new_tokens: MaxNewTokens = 512,
    fast: Fast = False,
    seed: Seed = 0,
) -> None:
    """Learn one person's taste from 20 to 200 rated pictures: scores become theirs, and what to expect is said."""
    from aesr1.app.calibrate import CalibrateConfig, calibrate
    from aesr1.model.predict import PredictSettings

    settings = PredictSettings(batch_size=batch_size, max_new_tokens=max_new_tokens, fast=fast)
    found = calibrate(CalibrateConfig(ratings_file, output, model, max_pixels, settings, device, seed))
    print_result(f"{found.text()}\n{output}")


@pictures.command()
def pick(
    paths: Annotated[list[str], typer.Argument(help="Pictures, folders (searched within), globs.")],
    output: Output,
    model: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded photo model.")] = None,
    keep_stars: Annotated[int, typer.Option(help="Keep from so many stars; 6 keeps none.")] = 4,
    drop_stars: Annotated[int, typer.Option(help="Drop up to so many stars; 0 drops none but worse of a group.")] = 2,
    seconds: Annotated[float, typer.Option(help="Longest time between two pictures of a burst.")] = 2.0,
    reference: Annotated[
        Path | None, typer.Option(help="Rows (.jsonl) of an earlier scoring, which stars then refer to.")
    ] = None,
    device: Device = None,
    batch_size: BatchSize = 16,
    max_pixels: MaxPixels = MAX_PIXELS,
    max_new_tokens: MaxNewTokens = 512,
    fast: Fast = False,
) -> None:
    """Propose the best of similar pictures, and what to keep: lists and a page. Nothing is moved or deleted."""
    from aesr1.app.pick import PickConfig, pick_files
    from aesr1.app.score import DEFAULT_MODEL_NOTE
    from aesr1.model.predict import PredictSettings

    settings = PredictSettings(batch_size=batch_size, max_new_tokens=max_new_tokens, fast=fast)
    config = PickConfig(
        tuple(paths), output, model, keep_stars, drop_stars, seconds, max_pixels, settings, device, reference
    )
    if model is None:
        say(DEFAULT_MODEL_NOTE)
    picked = pick_files(config)
    counts = ", ".join(f"{count:,} {name}" for name, count in picked.counts.items())
    print_result(f"{output / 'picks.html'}: {counts}; groups of similar pictures: {len(picked.groups):,}")


@pictures.command()
def report(
    predictions: Annotated[Path, typer.Argument(help="predictions.jsonl")],
    output: Page,
    ratings_file: Annotated[
        Path | None, typer.Option("--ratings", help="ratings.jsonl, to show the human scores.")
    ] = None,
) -> None:
    """Write one self-contained HTML page of pictures, scores and reasons, to sort, filter and enlarge."""
    from aesr1.app.report import write_report

    summary = write_report(predictions, output, ratings=ratings_file)
    print_result(f"{output}: {summary.pictures} pictures, {summary.failed} without a score, {summary.missing} missing")


@pictures.command()
def serve(
    model: Annotated[str | None, typer.Option(help="A folder or hub id; default: the embedded photo model.")] = None,
    host: Annotated[
        str, typer.Option(help="For another address than this machine's, set --api-key, and let a proxy encrypt.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 8000,
    max_pixels: MaxPixels = MAX_PIXELS,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest number of replies in one batch.")] = 16,
    max_new_tokens: MaxNewTokens = 512,
    api_key: Annotated[
        str | None, typer.Option(envvar="AESR1_API_KEY", help="A key that every client must send. Default: none.")
    ] = None,
    fetch_from: Annotated[
        list[str] | None,
        typer.Option(help="A server, https://HOST, whose pictures may be named by address. Default: none."),
    ] = None,
    max_waiting: Annotated[int, typer.Option(min=1, help="More waiting requests are turned away with 503.")] = 256,
    device: Device = None,
) -> None:
    """Serve a model: POST /v1/score, OpenAI's chat completions, and a web page that ranks pictures. Ctrl-C ends it."""
    from aesr1.app.score import DEFAULT_MODEL_NOTE
    from aesr1.server.serve import serve as run
    from aesr1.server.settings import ServeConfig

    if model is None:
        say(DEFAULT_MODEL_NOTE)
    config = ServeConfig(
        model,
        host,
        port,
        max_pixels,
        max_new_tokens,
        max_batch,
        max_waiting,
        api_key=api_key,
        fetch_from=tuple(fetch_from or ()),
        device=device,
    )
    run(config)
