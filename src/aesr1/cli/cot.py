"""The command line of `aesr1 cot`: have rationales written, look at them, filter them anew, hand them on."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from aesr1.errors import AesError

cot = typer.Typer(no_args_is_help=True, help="AesCoT: rationales that fit human ratings.")

Output = Annotated[
    Path, typer.Option("-o", "--output", help="Folder for the results; the same command goes on where it stopped.")
]
Json = Annotated[bool, typer.Option("--json", help="Print summary.json instead of the table.")]
Count = Annotated[int, typer.Option(help="Rationales to keep, a third each of bad, fair and good.")]
Shortest = Annotated[int | None, typer.Option(help="Filter: words at least.")]
Longest = Annotated[int | None, typer.Option(help="Filter: words at most.")]
Dimensions = Annotated[int | None, typer.Option(help="Filter: of five dimensions, so many at least.")]
English = Annotated[float | None, typer.Option(help="Filter: share of English function words at least.")]
Near = Annotated[float | None, typer.Option(help="Filter: share of word triples of an earlier text at most; 1 is off.")]
Template = Annotated[float | None, typer.Option(help="Filter: share of common sentences at most; 1 is off.")]
Common = Annotated[float | None, typer.Option(help="Filter: share of texts from which a sentence is a common one.")]
Tolerance = Annotated[float | None, typer.Option(help="Filter: how far a blind judge's score may lie off, 0–1.")]


def _read_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Take the recipe's settings as the flags' defaults, and the model's price from its table of prices."""
    if path is None:
        return None
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AesError(f"{path} is no recipe: {error}", fix="pass a YAML file, as recipes/aescot.yaml") from error
    known = {parameter.name for parameter in context.command.params} - {"config", "ratings_file"}
    settings = dict(recipe or {}) if isinstance(recipe, dict | None) else {"": recipe}
    prices = settings.pop("prices", None) or {}
    numbers = [value for pair in prices.values() for value in pair] if _is_prices(prices) else [""]
    if not all(isinstance(value, int | float) and value >= 0 for value in numbers):
        raise AesError(f"{path} has prices {prices!r}", fix="write them as in NAME: [2.0, 8.0], read and written")
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise AesError(f"{path} has an unknown setting {unknown[0]!r}", fix=f"use {', '.join(sorted(map(str, known)))}")
    context.default_map = {**settings, "prices": prices}
    return path


def _is_prices(table: object) -> bool:
    """Whether a table gives two values a model."""
    pairs = list(table.values()) if isinstance(table, dict) else [None]
    return all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)


@cot.command("build")
def cot_build(
    context: typer.Context,
    ratings_file: Annotated[Path, typer.Argument(metavar="RATINGS", help="ratings.jsonl")],
    output: Output,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=_read_recipe, is_eager=True, help="YAML with any of these settings, and prices by model."
        ),
    ] = None,
    n: Count = 3_000,
    split: Annotated[str, typer.Option(help="Split to write about.")] = "train",
    attempts: Annotated[int, typer.Option(help="Drafts a picture before it is given up.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
    teacher: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible address, …/v1; default: the embedded critic.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The teacher's model.")] = None,
    prompt: Annotated[
        str,
        typer.Option(help="What is asked: teacher-1, scorer-1 (for a model like ours), or a .txt file."),
    ] = "teacher-1",
    judge: Annotated[list[str] | None, typer.Option(help="leak, align, fact: also judged by the model.")] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests at once, at most.")] = 64,
    rpm: Annotated[float | None, typer.Option(help="Requests a minute, at most.")] = None,
    tpm: Annotated[float | None, typer.Option(help="Tokens a minute, at most.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the teacher.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 700,
    timeout: Annotated[float, typer.Option(help="Seconds of one try.")] = 180.0,
    retries: Annotated[int, typer.Option(min=0, help="Tries more of one request.")] = 8,
    max_pixels: Annotated[int, typer.Option(help="Picture size cap.")] = 262_144,
    price_in: Annotated[float | None, typer.Option(min=0, help="Of a million tokens read.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Of a million tokens written.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop before it costs more; needs the prices.")] = None,
    shortest: Shortest = None,
    longest: Longest = None,
    dimensions: Dimensions = None,
    english: English = None,
    near: Near = None,
    template: Template = None,
    common: Common = None,
    tolerance: Tolerance = None,
    batch_file: Annotated[
        Path | None, typer.Option(help="Write the questions here for a Batch API or vllm run-batch; ask nobody.")
    ] = None,
    batch_results: Annotated[Path | None, typer.Option(help="Read the answers to such a file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked and what it may cost.")] = False,
    as_json: Json = False,
) -> None:
    """Write rationales and keep those that pass the filters: by a teacher over HTTP, or by the embedded critic.

    The key is read from OPENAI_API_KEY and kept nowhere.
    """
    from aesr1.aescot.build import CotConfig, build, estimate, read_batch, write_batch
    from aesr1.aescot.endpoint import EndpointConfig
    from aesr1.aescot.filters import EMBEDDED, FilterSettings
    from aesr1.aescot.select import to_markdown
    from aesr1.aescot.teacher import Teacher

    asked: Teacher | None = None
    by_file = batch_file is not None or batch_results is not None
    if teacher is not None or by_file:
        if not model:
            raise AesError("the teacher's model is not named", fix="pass --model NAME, as the server calls it")
        endpoint = EndpointConfig(
            url=teacher or "http://localhost/v1",  # by file nobody is called
            model=model,
            in_flight=in_flight,
            retries=retries,
            timeout=timeout,
            rpm=rpm,
            tpm=tpm,
            temperature=temperature,
            max_tokens=max_tokens,
        )
        listed_in, listed_out = (context.default_map or {}).get("prices", {}).get(model, (0.0, 0.0))
        price_in = listed_in if price_in is None else price_in
        price_out = listed_out if price_out is None else price_out
        if max_cost is not None and not (price_in or price_out):
            raise AesError("a cost limit needs prices", fix="pass --price-in and --price-out, or a recipe with prices")
        asked = Teacher(endpoint, prompt, tuple(judge or ()), max_pixels, price_in, price_out, max_cost)
        if by_file and judge:
            raise AesError("judges cannot be asked by file", fix="leave out --judge, or ask a server")
    elif model or judge or dry_run:
        raise AesError("there is no teacher to ask", fix="pass --teacher URL")
    filters = replace(EMBEDDED if asked is None else FilterSettings(), **_thresholds(context))
    chosen = CotConfig(ratings_file, output, n, split, attempts, seed, filters, asked)
    if dry_run:
        print(estimate(chosen))
        return
    if batch_file is not None:
        written = write_batch(chosen, batch_file)
        print("\n".join([f"{written.file}: {written.requests:,} requests", *written.unreadable]))
        return
    if batch_results is not None:
        read, summary = read_batch(chosen, batch_results)
        found = f"{read.answers:,} answers, {read.failed:,} failed, {read.known:,} known before"
        print(f"{found}, {read.unknown:,} of no picture here", file=sys.stderr)
    else:
        summary = build(chosen)
    print(json.dumps(summary._asdict()) if as_json else f"{to_markdown(summary)}\n{output / 'rationales.jsonl'}")


@cot.command("filter")
def cot_filter(
    context: typer.Context,
    raw: Annotated[Path, typer.Argument(metavar="RAW", help="raw.jsonl, or the folder of a build")],
    output: Output,
    n: Count = 3_000,
    shortest: Shortest = None,
    longest: Longest = None,
    dimensions: Dimensions = None,
    english: English = None,
    near: Near = None,
    template: Template = None,
    common: Common = None,
    tolerance: Tolerance = None,
    as_json: Json = False,
) -> None:
    """Put the raw answers of a build through other filters, into another folder. Nobody is asked again."""
    from aesr1.aescot.filters import FilterSettings
    from aesr1.aescot.select import refilter, to_markdown

    filters = replace(FilterSettings(), **_thresholds(context))
    ledger = raw / "raw.jsonl" if raw.is_dir() else raw
    summary = refilter(ledger, output, n=n, filters=filters)
    print(json.dumps(summary._asdict()) if as_json else f"{to_markdown(summary)}\n{output / 'rationales.jsonl'}")


@cot.command("export")
def cot_export(
    rationales: Annotated[Path, typer.Argument(metavar="RATIONALES", help="rationales.jsonl, or its folder")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder.")],
    to: Annotated[str, typer.Option(help="trl or llama-factory.")],
) -> None:
    """Hand rationales on to other trainers, as whole replies under the contract."""
    from aesr1.aescot.export import export

    for file in export(rationales, to, output):
        print(file)


@cot.command("show")
def cot_show(
    folder: Annotated[Path, typer.Argument(help="The folder of a build, finished or not, or of a filter.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file.")],
    raw: Annotated[bool, typer.Option("--raw", help="The drafts as they were first judged.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Drafts on the page, spread over reasons and levels.")] = 300,
) -> None:
    """One self-contained HTML page: kept and refused rationales beside their pictures, with the reason."""
    from aesr1.aescot.page import write_page

    shown = write_page(folder, output, raw=raw, limit=limit)
    print(f"{output}: {shown.shown:,} of {shown.drafts:,} drafts, {shown.missing:,} pictures missing")


def _thresholds(context: typer.Context) -> dict[str, Any]:
    """The filters' settings that the command line or the recipe names."""
    from aesr1.aescot.filters import FilterSettings

    named = {field.name: context.params.get(field.name) for field in fields(FilterSettings)}
    return {name: value for name, value in named.items() if value is not None}
