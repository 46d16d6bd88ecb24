"""The commands `aesr1 cot …`: write rationales, look at them, filter them again, export them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from aesr1.aescot.settings import EMBEDDED, CotConfig, FilterSettings, Teacher
from aesr1.cli.options import Json, Output, Page, options_from
from aesr1.endpoint.settings import EndpointConfig
from aesr1.errors import AesError
from aesr1.terminal import print_result, say

cot = typer.Typer(no_args_is_help=True, help="AesCoT: rationales that fit human ratings.")


def _read_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Take the recipe's settings as the options' defaults, and the model's price from its table of prices."""
    if path is None:
        return None
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AesError(f"{path} is not a recipe: {error}", fix="pass a YAML file like recipes/aescot.yaml") from error
    known = {parameter.name for parameter in context.command.params} - {"config", "ratings_file"}
    settings = dict(recipe or {}) if isinstance(recipe, dict | None) else {"": recipe}
    if "judge" in settings:
        settings["judges"] = settings.pop("judge")
    prices = settings.pop("prices", None) or {}
    numbers = [value for pair in prices.values() for value in pair] if _is_price_table(prices) else [""]
    if not all(isinstance(value, int | float) and value >= 0 for value in numbers):
        raise AesError(f"{path} has prices {prices!r}", fix="write them as NAME: [2.0, 8.0], tokens in and out")
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise AesError(f"{path} has an unknown setting {unknown[0]!r}", fix=f"use {', '.join(sorted(map(str, known)))}")
    context.default_map = {**settings, "prices": prices}
    return path


def _is_price_table(table: object) -> bool:
    """Whether a table gives two values for each model."""
    pairs = list(table.values()) if isinstance(table, dict) else [None]
    return all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)


@cot.command("build")
@options_from(
    CotConfig,
    EndpointConfig,
    Teacher,
    FilterSettings,
    leave_out=("url", "price_in", "price_out"),
    optional=(FilterSettings,),
)
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
    teacher: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible address, …/v1; default: the embedded critic.")
    ] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens in.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens out.")] = None,
    batch_file: Annotated[
        Path | None, typer.Option(help="Write the requests here, for a Batch API or vllm run-batch; send none.")
    ] = None,
    batch_results: Annotated[Path | None, typer.Option(help="Read the answers to such a file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be asked and what it may cost.")] = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Write rationales with a teacher over HTTP or with the embedded critic, and keep those that pass the filters.

    The key is read from OPENAI_API_KEY and is not stored.
    """
    from aesr1.aescot.build import build, estimate, read_batch, write_batch
    from aesr1.aescot.select import to_markdown

    by_file = batch_file is not None or batch_results is not None
    asked: Teacher | None = None
    if teacher is not None or by_file:
        if not settings["model"]:
            raise AesError("the teacher's model is not named", fix="pass --model NAME, as the server calls it")
        # no server is called where the requests go into a file
        endpoint = EndpointConfig(teacher or "http://localhost/v1", **_values(EndpointConfig, settings, "url"))
        listed = (context.default_map or {}).get("prices", {}).get(settings["model"], (0.0, 0.0))
        prices: dict[str, Any] = {
            name: price if given is None else given
            for name, given, price in zip(("price_in", "price_out"), (price_in, price_out), listed, strict=True)
        }
        if settings["max_cost"] is not None and not any(prices.values()):
            raise AesError("a cost limit needs prices", fix="pass --price-in and --price-out, or a recipe with prices")
        asked = Teacher(endpoint, **prices, **_values(Teacher, settings, "price_in", "price_out"))
        if by_file and asked.judges:
            raise AesError("judges cannot be asked by file", fix="leave out --judge, or ask a server")
    elif settings["model"] or settings["judges"] or dry_run:
        raise AesError("there is no teacher to ask", fix="pass --teacher URL")
    filters = replace(EMBEDDED if asked is None else FilterSettings(), **_given_filters(settings))
    chosen = CotConfig(ratings_file, output, filters=filters, teacher=asked, **_values(CotConfig, settings))
    if dry_run:
        print_result(estimate(chosen))
        return
    if batch_file is not None:
        written = write_batch(chosen, batch_file)
        print_result("\n".join([f"{written.file}: {written.requests:,} requests", *written.unreadable]))
        return
    if batch_results is not None:
        read, summary = read_batch(chosen, batch_results)
        found = f"{read.answers:,} answers, {read.failed:,} failed, {read.known:,} known before"
        say(f"{found}, {read.unknown:,} for other pictures")
    else:
        summary = build(chosen)
    print_result(json.dumps(summary._asdict()) if as_json else f"{to_markdown(summary)}\n{output / 'rationales.jsonl'}")


@cot.command("filter")
@options_from(CotConfig, FilterSettings, leave_out=("split", "attempts", "seed"), optional=(FilterSettings,))
def cot_filter(
    raw: Annotated[Path, typer.Argument(metavar="RAW", help="raw.jsonl, or the folder of a build")],
    output: Output,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Apply other filters to the raw answers of a build, into another folder. No request is sent."""
    from aesr1.aescot.select import refilter, to_markdown

    filters = FilterSettings(**_given_filters(settings))
    ledger = raw / "raw.jsonl" if raw.is_dir() else raw
    summary = refilter(ledger, output, n=settings["n"], filters=filters)
    print_result(json.dumps(summary._asdict()) if as_json else f"{to_markdown(summary)}\n{output / 'rationales.jsonl'}")


@cot.command("export")
def cot_export(
    rationales: Annotated[Path, typer.Argument(metavar="RATIONALES", help="rationales.jsonl, or its folder")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder.")],
    to: Annotated[str, typer.Option(help="trl or llama-factory.")],
) -> None:
    """Export rationales for other trainers, as whole replies under the contract."""
    from aesr1.aescot.export import export

    for file in export(rationales, to, output):
        print_result(file)


@cot.command("show")
def cot_show(
    folder: Annotated[Path, typer.Argument(help="The folder of a build, finished or not, or of a filter.")],
    output: Page,
    raw: Annotated[bool, typer.Option("--raw", help="The drafts as they were first filtered.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Drafts on the page, balanced over reasons and levels.")] = 300,
) -> None:
    """Write one self-contained HTML page: kept and refused rationales next to their pictures, with the reason."""
    from aesr1.aescot.page import write_page

    shown = write_page(folder, output, raw=raw, limit=limit)
    print_result(f"{output}: {shown.shown:,} of {shown.drafts:,} drafts, {shown.missing:,} pictures missing")


def _values(kind: type, settings: dict[str, Any], *without: str) -> dict[str, Any]:
    """The values of a dataclass's options."""
    names = [field.name for field in fields(kind) if field.name in settings and field.name not in without]
    return {name: tuple(value) if isinstance(value := settings[name], list) else value for name in names}


def _given_filters(settings: dict[str, Any]) -> dict[str, Any]:
    """The thresholds that the command line or the recipe gives."""
    return {field.name: value for field in fields(FilterSettings) if (value := settings.get(field.name)) is not None}
