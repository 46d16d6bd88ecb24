"""The command line: one subcommand for each stage, no logic. Heavy imports wait until a command is called."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from aesr1 import __version__
from aesr1.cli.cot import cot
from aesr1.cli.options import (
    BatchSize,
    Fast,
    Json,
    MaxNewTokens,
    MaxPixels,
    Output,
    Samples,
    Seed,
    Temperature,
)
from aesr1.cli.pictures import pictures
from aesr1.cli.ratings import ratings
from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError
from aesr1.terminal import print_result, say
from aesr1.training.processes import is_first_process, should_print_error

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Judge the beauty of photographs, with reasons (Aes-R1): make data, train, evaluate, score.",
)
app.add_typer(pictures)
app.add_typer(ratings, name="ratings")
app.add_typer(cot, name="cot")

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command()
def demo(output: Output, seed: Seed = 0) -> None:
    """Run all of Aes-R1 on drawn scenes with the embedded backbone: about eight minutes on two CPU cores."""
    from aesr1.demo import DemoConfig, run_demo

    print(run_demo(DemoConfig(output, seed=seed)))


@app.command(context_settings=PASS_ON)
def sft(context: typer.Context) -> None:
    """Cold start: `--config RECIPE.yaml`; every setting is also a flag (see `aesr1 sft --help`)."""
    from aesr1.cold_start import main

    _print_once(main(context.args))


@app.command(context_settings=PASS_ON)
def rapo(context: typer.Context) -> None:
    """RAPO: `--config RECIPE.yaml`; every setting is also a flag (see `aesr1 rapo --help`)."""
    from aesr1.rapo.train import main

    _print_once(main(context.args))


def _named(texts: list[str] | None) -> list[tuple[str, str]]:
    """NAME=TARGET or TARGET, as name (maybe empty) and target."""
    return [(name, target) for name, _, target in (text.rpartition("=") for text in texts or ())]


@app.command("eval")
def evaluate(
    ratings_files: Annotated[
        list[Path], typer.Argument(metavar="RATINGS...", help="ratings.jsonl of one data set or several, or folders.")
    ],
    output: Output,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="MODEL or NAME=MODEL: a folder, a hub id, or a server as http://HOST/v1#MODEL. Repeat it to compare "
            "models, each with the one before."
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help="PROFILE or NAME=PROFILE: how all models, or this one, are asked: the name of a profile "
            "(docs/evaluation.md), or a .toml file. Default: the contract's prompt."
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            help="FILE or NAME=FILE (.csv, .tsv, .jsonl) of scores that another program made; before the models."
        ),
    ] = None,
    scale: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="Scale of the scores in --predictions.")
    ] = (0.0, 1.0),
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines", help="Also the mean of the split train, and regressions learnt from it; before all others."
        ),
    ] = False,
    reason_judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL#MODEL", help="A server whose model says how much of the reasons is true of the pictures."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to evaluate on. Default: test if there is one, else val.")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Evaluate on this data set alone; may be repeated.")] = None,
    in_domain: Annotated[
        list[str] | None,
        typer.Option(help="A data set that the models were trained on: its mean stands apart; may be repeated."),
    ] = None,
    batch_size: BatchSize = 16,
    max_pixels: MaxPixels = MAX_PIXELS,
    max_new_tokens: MaxNewTokens = 512,
    samples: Samples = 0,
    temperature: Temperature = 0.6,
    seed: Seed = 0,
    fast: Fast = False,
    as_json: Json = False,
) -> None:
    """Score held-out images and compare with people: PLCC, SRCC, KRCC, MAE, pair accuracy, with intervals.

    Several data sets get a row each and the mean over sets; they are never put together. The output folder also gets
    results.html, a page with plots and pictures.
    """
    from aesr1.evaluation.run import EvalConfig, evaluate_models
    from aesr1.model.predict import PredictSettings

    evaluate_models(
        EvalConfig(
            tuple(ratings_files),
            tuple((name or Path(target).name.rpartition("#")[2], target) for name, target in _named(model)),
            output,
            prediction_files=tuple((name or Path(target).stem, Path(target)) for name, target in _named(predictions)),
            scale=scale,
            baselines=baselines,
            reason_judge=reason_judge,
            split=split,
            domains=tuple(domain or ()),
            in_domain=tuple(in_domain or ()),
            profiles=tuple(_named(profile)),
            max_pixels=max_pixels,
            predict_settings=PredictSettings(
                batch_size=batch_size,
                samples=samples,
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                seed=seed,
                fast=fast,
            ),
        )
    )
    print((output / ("results.json" if as_json else "results.md")).read_text(), end="")


@app.command()
def results(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Output folders of aesr1 eval.")],
    published: Annotated[
        str | None, typer.Option(metavar="1-4", help="Beside this table of the paper, with the differences to it.")
    ] = None,
) -> None:
    """Print one table of earlier evaluations: a row for each model, a column for each data set, PLCC/SRCC."""
    from aesr1.evaluation.join_results import join_results

    print(join_results(runs, published=published), end="")


@app.command()
def experiment(
    recipe: Annotated[Path, typer.Argument(help="A YAML file: stages, tests, cells and seeds (docs/experiments.md).")],
    output: Output,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="The value of a variable of the recipe.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Steps at once; each gets its share of the cores.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print all commands and run none.")] = False,
) -> None:
    """Train and judge a grid of settings over several seeds: one table with intervals, differences and plots."""
    from aesr1.experiment.recipe import read_experiment
    from aesr1.experiment.run import ExperimentConfig, describe_plan, run_experiment

    pairs = [value.partition("=") for value in values or ()]
    if not all(equals for _, equals, _ in pairs):
        raise AesError(f"--set {' '.join(values or ())} has no value", fix="write --set NAME=VALUE")
    read = read_experiment(recipe, given={name: value for name, _, value in pairs})
    if dry_run:
        print_result(describe_plan(read, output))
    else:
        print(run_experiment(ExperimentConfig(read, output, jobs)), end="")


@app.command()
def curves(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Output folders of sft or rapo, finished or not.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .html or .png file. Default: curves.html in the first RUN.")
    ] = None,
) -> None:
    """Draw the curves of training runs: rewards, replies, validation, alarms with advice."""
    from aesr1.app.curves import draw_curves

    print_result(draw_curves(runs, output))


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Options of the command itself."""
    if show:
        print(__version__)
        raise typer.Exit


class Stopped(BaseException):
    """Ctrl-C. Not KeyboardInterrupt: typer would exit without a message."""


def main() -> None:
    """Entry point. An AesError is two lines and exit 1, Ctrl-C is exit 130; what was written stays."""
    signal.signal(signal.SIGINT, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text in the terminal's encoding
    try:
        app()
    except AesError as error:
        _fail(error.problem, error.fix)
    except Stopped:
        say("stopped; what was written stays, and the same command resumes")
        sys.exit(130)
    except Exception as error:
        if "No space left on device" in str(error):  # torch and safetensors wrap the operating system's error
            _fail(str(error), "free some space; what was written stays, and the same command resumes")
        if isinstance(error, OSError):
            _fail(str(error), "check the path and its permissions")
        raise


def _stop(number: int, frame: object) -> None:
    raise Stopped


def _print_once(result: object) -> None:
    """Print the result of a run from its first process alone."""
    if is_first_process():
        print_result(result)


def _fail(problem: str, fix: str) -> None:
    if should_print_error(problem):
        say(f"error: {problem}\n  fix: {fix}")
    sys.exit(1)
