"""The commands `aesr1 ratings …`: import, show, mix, split, check and export ratings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aesr1.cli.options import AllowMissing, ImageFolder, Json, Seed
from aesr1.errors import AesError
from aesr1.ratings.sets import SETS
from aesr1.terminal import print_result, say


class DataSets(TyperGroup):
    """The import commands, one for each data set. AesError for an unknown name."""

    def get_command(self, context: Any, name: str) -> Any:
        command = super().get_command(context, name)
        if command is None:
            fix = f"choose {', '.join(self.commands)}; csv reads a table of your own"
            raise AesError(f"there is no data set {name}", fix=fix)
        return command


ratings = typer.Typer(no_args_is_help=True, help="Human ratings, in one form: ratings.jsonl.")
importing = typer.Typer(
    cls=DataSets, no_args_is_help=True, help="Import ratings: your own table, or a public data set."
)
ratings.add_typer(importing, name="import")

Output = Annotated[Path, typer.Option("-o", "--output", help="Folder for the results; nothing is overwritten.")]
Ratings = Annotated[list[Path], typer.Argument(metavar="RATINGS…", help="ratings.jsonl, or the folder that holds it")]


@importing.command("csv")
def ratings_import_csv(
    file: Annotated[Path, typer.Argument(help="A CSV table: an image column, and a mean or votes_1, votes_2 …")],
    output: Output,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; default: the folder of the table.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Default: image, filename, path …")] = None,
    mean_column: Annotated[str | None, typer.Option(help="Default: mean, score, mos …")] = None,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(help="LOW HIGH, the lowest and highest possible mark.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Name of the data set; default: the name of the table's folder.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of rows without one in the table.")] = None,
    val_share: Annotated[float, typer.Option(help="Without a split column: share drawn for validation.")] = 0.1,
    seed: Seed = 0,
    allow_missing: AllowMissing = False,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE,…", help="Only rows with one of these values; may be repeated."),
    ] = None,
) -> None:
    """Your own ratings from a CSV table."""
    from aesr1.ratings.own_table import CsvConfig, import_csv

    kept = [text.partition("=") for text in where or ()]

    print_result(
        import_csv(
            CsvConfig(
                file=file,
                output=output,
                images=images,
                image_column=image_column,
                mean_column=mean_column,
                scale=scale,
                domain=domain,
                split=split,
                val_share=val_share,
                seed=seed,
                allow_missing=allow_missing,
                where=tuple((column, tuple(values.split(","))) for column, _, values in kept),
            )
        )
    )


@ratings.command("scenes")
def ratings_scenes(
    output: Output,
    n: Annotated[int, typer.Option(help="Number of scenes.")] = 1_000,
    seed: Seed = 0,
    split: Annotated[str | None, typer.Option(help="One split for all scenes; default: 90 % train, 10 % val.")] = None,
    style: Annotated[list[str] | None, typer.Option(help="Styles to draw; may be repeated.")] = None,
) -> None:
    """Draw scenes with simulated raters: data for trying out every command."""
    from aesr1.tiny.album import AlbumConfig, make_album

    config = AlbumConfig(output, n=n, seed=seed, split=split)
    print_result(make_album(replace(config, styles=tuple(style)) if style else config))


@importing.command("hf")
def ratings_import_hf(
    name: Annotated[str, typer.Argument(help='"parquet", "imagefolder", "csv", "json", or a data set of the hub.')],
    output: Output,
    data: Annotated[list[str] | None, typer.Option(help="A folder, or files: FILE or SPLIT=FILE, repeated.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="image, score, rater_std, raters, split …")
    ] = None,
    scale: Annotated[tuple[float, float], typer.Option(help="LOW HIGH, the lowest and highest possible score.")] = (
        0.0,
        1.0,
    ),
    domain: Annotated[str | None, typer.Option(help="Name of the data set.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub data set.")] = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Any data set that Hugging Face `datasets` loads; the pictures are written to images/ unchanged."""
    from aesr1.ratings.huggingface import HuggingFaceConfig, import_huggingface

    pairs = tuple(_field_and_column(text) for text in columns or ())
    print_result(
        import_huggingface(
            HuggingFaceConfig(name, output, tuple(data or ()), pairs, scale, domain, revision, allow_missing)
        )
    )


def _field_and_column(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not equals or not column:
        raise AesError(f"--map {text} is not FIELD=COLUMN", fix="write it as in --map score=mos")
    return field, column


def _import_public(name: str) -> Callable[..., None]:
    def command(
        root: Annotated[Path, typer.Argument(help="The data set's top folder, or its label file.")],
        output: Output,
        images: ImageFolder = None,
        labels_only: Annotated[bool, typer.Option("--labels-only", help="Do not look for the pictures.")] = False,
        allow_missing: AllowMissing = False,
        subset: Annotated[
            bool, typer.Option("--subset", help="Accept label files that are only a part of the set.")
        ] = False,
    ) -> None:
        from aesr1.ratings.public_sets import ImportConfig, import_set

        imported = import_set(ImportConfig(name, root, output, images, labels_only, allow_missing, subset))
        rows = ", ".join(f"{count:,} {split}" for split, count in imported.rows.items())
        say(f"{rows}; {imported.missing:,} missing")
        print_result(imported.ratings)

    return command


for _name, (_, _files) in SETS.items():
    importing.command(_name, help=f"{_files}.")(_import_public(_name))


@ratings.command("mix")
def ratings_mix(
    sources: Annotated[list[str], typer.Argument(metavar="PATH[:WEIGHT]…", help="ratings.jsonl or its folder")],
    output: Output,
    n: Annotated[int, typer.Option(min=1, help="Rows in all.")],
    split: Annotated[str, typer.Option(help="Split of these rows.")] = "train",
    val: Annotated[int, typer.Option(min=0, help="Additional rows of split val, for validation.")] = 0,
    balance: Annotated[str | None, typer.Option(help="bad,fair,good: the same number of rows of each level.")] = None,
    seed: Seed = 0,
) -> None:
    """Mix one training set from several, by weight. The paper's: ava:2 tad66k:2 flickr-aes:1 --n 15000."""
    from aesr1.ratings.mix import MixConfig, mix, parse_sources

    levels = tuple(balance.split(",")) if balance else ()
    mixed = mix(MixConfig(parse_sources(sources), output, n, split, val, levels, seed))
    for domain, rows in mixed.rows.items():
        say(f"{domain}: {', '.join(f'{count:,} {split}' for split, count in rows.items())}")
    print_result(mixed.ratings)


@ratings.command("split")
def ratings_split(
    ratings_file: Annotated[Path, typer.Argument(metavar="RATINGS", help="ratings.jsonl")],
    output: Output,
    train: Annotated[float, typer.Option(min=0, help="Share.")] = 0.8,
    val: Annotated[float, typer.Option(min=0, help="Share.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, help="Share.")] = 0.1,
    keep: Annotated[list[str] | None, typer.Option(help="A split whose rows do not change; may be repeated.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="Regular expression that finds the group in the file name; default: the group of the row."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Divide the rows anew into train, val and test. Groups of pictures stay together."""
    from aesr1.ratings.split import SplitConfig, split

    shares = (("train", train), ("val", val), ("test", test))
    counts = split(SplitConfig(ratings_file, output, shares, tuple(keep or ()), group_by, seed))
    say(", ".join(f"{count:,} {name}" for name, count in counts.items()))
    print_result(output / "ratings.jsonl")


@ratings.command("views")
def ratings_views(
    ratings_file: Annotated[Path, typer.Argument(metavar="RATINGS", help="ratings.jsonl")],
    output: Output,
    views: Annotated[int, typer.Option(min=1, help="Views of each picture; the first is the picture itself.")] = 4,
    crop: Annotated[float, typer.Option(help="Largest share of width and height that is cut off.")] = 0.1,
    split: Annotated[str, typer.Option(help="Other splits stay as they are.")] = "train",
    seed: Seed = 0,
) -> None:
    """Add mirrored and a little cropped copies of the pictures, for training on few pictures."""
    from aesr1.ratings.views import ViewsConfig, write_views

    print_result(write_views(ViewsConfig(ratings_file, output, views, crop, split, seed)))


@ratings.command("show")
def ratings_show(
    files: Ratings,
    plot: Annotated[Path | None, typer.Option(help="Also draw a picture: a .png, .svg or .pdf file.")] = None,
    as_json: Json = False,
) -> None:
    """Show counts, the histogram of the scores and rater_std for each data set in the files."""
    from aesr1.ratings.show import overview, save_plot, to_text

    overviews, columns = overview(files)
    print_result(json.dumps([each._asdict() for each in overviews]) if as_json else to_text(overviews))
    if plot is not None:
        say(str(save_plot(columns, plot)))


@ratings.command("check")
def ratings_check(
    files: Ratings,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Missing pictures do not fail the check.")
    ] = False,
    alike: Annotated[float, typer.Option(help="Correlation from which two pictures count as the same.")] = 0.9,
    as_json: Json = False,
) -> None:
    """Read all rows, decode all pictures, find look-alikes across splits. Exit status 1 if there is a problem."""
    from aesr1.ratings.check import CheckConfig, check, to_text

    report = check(CheckConfig(tuple(files), allow_missing, alike))
    if as_json:
        problems = [problem._asdict() for problem in report.problems]
        print_result(json.dumps({**report._asdict(), "problems": problems, "failed": report.failed}))
    else:
        print_result(to_text(report))
    if report.failed:
        raise typer.Exit(1)


@ratings.command("export")
def ratings_export(
    ratings_file: Annotated[Path, typer.Argument(metavar="RATINGS", help="ratings.jsonl")],
    output: Output,
    to: Annotated[str, typer.Option(help="trl, llama-factory, lmms-eval, parquet or imagefolder.")],
    split: Annotated[str | None, typer.Option(help="One split; default: all.")] = None,
) -> None:
    """Write ratings in the formats of other tools."""
    from aesr1.ratings.export import ExportConfig, export

    for file in export(ExportConfig(ratings_file, to, output, split)):
        print_result(file)
