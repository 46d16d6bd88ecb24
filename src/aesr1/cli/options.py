"""Options that several commands share, and options made from a dataclass of settings."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

Output = Annotated[
    Path, typer.Option("-o", "--output", help="Folder for the results. The same command resumes an interrupted run.")
]
Page = Annotated[Path, typer.Option("-o", "--output", help="The HTML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures in one batch.")]
MaxPixels = Annotated[int, typer.Option(help="Larger pictures are shrunk to this many pixels.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")]
Samples = Annotated[
    int, typer.Option(min=0, help="Mean of this many sampled replies, instead of the expectation of one.")
]
Temperature = Annotated[float, typer.Option(help="Temperature of --samples.")]
Fast = Annotated[bool, typer.Option("--fast", help="Scores without reasons, several times faster.")]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, mps or cpu. Default: the best that is there.")]
ImageFolder = Annotated[Path | None, typer.Option(help="Folder of the pictures.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Leave out rows whose picture is missing.")]


def options_from(*kinds: type, leave_out: tuple[str, ...] = (), optional: tuple[type, ...] = ()) -> Callable[..., Any]:
    """Give a command an option for each field that has a help text, in place of its `**settings`.

    `leave_out`: fields that the command declares itself. `optional`: dataclasses whose options default to None, so
    that the command can tell which ones were given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        for kind in kinds:
            hints = get_type_hints(kind)
            for field in fields(kind):
                if "help" not in field.metadata or field.name in leave_out:
                    continue
                unset = kind in optional or field.default is MISSING
                default = None if unset else list(field.default) if isinstance(field.default, tuple) else field.default
                parameters.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=default,
                        annotation=Annotated[_option_type(hints[field.name], unset), _option(field.metadata)],
                    )
                )
        # typer reads a command's options from its signature and its annotations
        command.__signature__ = own.replace(parameters=[_keyword(p) for p in parameters])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _option(metadata: Any) -> Any:
    names = [metadata["flag"]] if "flag" in metadata else []
    return typer.Option(*names, help=metadata["help"], min=metadata.get("minimum"))


def _option_type(hint: Any, unset: bool) -> Any:
    """The field's type as typer knows it: a tuple becomes a list, and a value that may be missing may be None."""
    if get_origin(hint) is tuple:
        return list[get_args(hint)[0]]  # type: ignore[misc]
    already = get_origin(hint) in (Union, types.UnionType)
    return hint | None if unset and not already else hint
