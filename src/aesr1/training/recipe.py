"""Recipes: a YAML file and flags become the settings dataclasses; help; values of a wrong kind are refused."""

from __future__ import annotations

import json
import types
import warnings
from argparse import SUPPRESS, Action, Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import TrainingArguments
from trl import TrlParser

from aesr1.errors import AesError

RENAMED_SETTINGS = {
    "across_domains": "compare_across_datasets",
    "images_together": "images_per_comparison",
    "resample": "dynamic_sampling_rounds",
    "scope": "comparison_scope",
    "tie": "tie_target",
}
"""Settings of earlier versions and their names today."""


def parse_recipe(
    kinds: Sequence[type],
    arguments: Sequence[str],
    *,
    stage: str = "sft|rapo",
    derive: Callable[[Namespace], int | None] | None = None,
    **defaults: Any,
) -> tuple[Any, ...]:
    """Parse `--config recipe.yaml` and the flags that override it; returns one object of each dataclass.

    `defaults` replace TRL's. `derive` may set some settings from others before the objects are made; if it returns a
    number of processes, TRL's settings are checked for that number. AesError for unknown and repeated keys and for
    values of a wrong type.
    """
    # TRL uses names that transformers has deprecated; a user cannot change that.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    parser = _Parser(
        list(kinds),
        usage=f"aesr1 {stage} --config RECIPE.yaml [--SETTING VALUE ...]",
        description="Every setting below can be a line of the recipe or a flag. A flag overrides the recipe.",
    )
    parser.derive = derive
    for action in parser._actions:
        if action.option_strings[0].startswith("--no_"):
            action.help = SUPPRESS  # it repeats the help of the setting that it turns off
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, default=SUPPRESS, help=SUPPRESS)

    def refuse(message: str) -> None:
        raise AesError(message, fix="give it in the recipe or as a flag; `--help` lists every setting")

    parser.error = refuse
    parser.set_defaults_with_config(**defaults)
    try:
        *settings, unknown = parser.parse_args_and_config(_with_recipe(arguments), return_remaining_strings=True)
    except FileNotFoundError as error:
        raise AesError(f"a file that a setting names does not exist: {error}", fix="correct the path") from error
    except ImportError as error:
        raise AesError(
            f"a setting needs a package that is not installed: {error}", fix="install it, or leave the setting out"
        ) from error
    except (ValueError, TypeError) as error:
        raise AesError(
            f"the settings contradict each other or are of the wrong kind: {error}",
            fix="correct the recipe or the flag",
        ) from error
    if unknown:
        names = [text for text in unknown if text.startswith("--")] or unknown
        raise AesError(
            f"unknown settings: {' '.join(names)}", fix="see `--help` for every setting, or remove them from the recipe"
        )
    return tuple(settings)


class _HelpAll(Action):
    """Prints the help with the settings of TRL and transformers."""

    def __call__(self, parser: Any, *_: Any) -> None:
        parser.help_all = True
        parser.print_help()
        parser.exit()


class _Parser(TrlParser):  # type: ignore[misc]  # TRL is untyped
    """TRL's parser. It also checks a recipe's values and derives settings from others before TRL checks them."""

    derive: Callable[[Namespace], int | None] | None = None
    dataclass_types: list[type]
    help_all = False

    def format_help(self) -> str:
        """Our settings; after them those of TRL and transformers where --help-all asks for them."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        ours = [group for group in self._action_groups if group not in (self._positionals, self._optionals)]
        for group in [*ours, *([self._optionals] if self.help_all else [])]:
            formatter.start_section("settings of TRL and transformers" if group is self._optionals else group.title)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        if not self.help_all:
            formatter.add_text("--help-all also lists the settings of TRL and transformers.")
        return str(formatter.format_help())

    def set_defaults_with_config(self, **values: Any) -> list[str]:
        """As TRL's, but values are checked: argparse does not check defaults."""
        kinds = {name: kind for owner in self.dataclass_types for name, kind in get_type_hints(owner).items()}
        fitted = {
            name: coerce_value(name, value, kinds[name]) if name in kinds else value for name, value in values.items()
        }
        unknown: list[str] = super().set_defaults_with_config(**fitted)
        return unknown

    def parse_known_args(self, *args: Any, **kwargs: Any) -> tuple[Namespace, list[str]]:
        namespace, rest = super().parse_known_args(*args, **kwargs)
        processes = self.derive(namespace) if self.derive is not None else None
        if processes:
            self.dataclass_types = [_for_processes(kind, processes) for kind in self.dataclass_types]
        return namespace, rest


def _for_processes(kind: type, processes: int) -> type:
    """TRL's settings class for a number of processes, because it checks batch sizes against that number."""
    return type(kind.__name__, (kind,), {"world_size": processes}) if issubclass(kind, TrainingArguments) else kind


def _with_recipe(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config=FILE` as `--config FILE`, the only form that TRL knows.

    AesError for a bad recipe.
    """
    spelled = [
        part
        for argument in arguments
        for part in (argument.split("=", 1) if argument.startswith("--config=") else [argument])
    ]
    recipes = [position + 1 for position, argument in enumerate(spelled) if argument == "--config"]
    if len(recipes) > 1:
        raise AesError("--config is given twice", fix="write one recipe, and what differs from it as flags")
    if recipes and not "".join(spelled[recipes[0] : recipes[0] + 1]):
        raise AesError("--config names no recipe", fix="pass --config a YAML file; the project's own are in recipes/")
    _refuse_old_names(part[2:].partition("=")[0] for part in spelled if part.startswith("--"))
    if recipes:
        _check_recipe(Path(spelled[recipes[0]]))
    return spelled


def _refuse_old_names(names: Iterable[str]) -> None:
    for name in names:
        if name in RENAMED_SETTINGS:
            raise AesError(f"the setting {name} has a new name", fix=f"write {RENAMED_SETTINGS[name]} instead")


def _check_recipe(path: Path) -> None:
    """AesError for a file that cannot be read, has no settings, or has a key twice (YAML takes the last)."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AesError(
            f"there is no such recipe: {path} ({error.strerror})",
            fix="pass --config a YAML file; the project's own are in recipes/",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AesError(f"the recipe is not YAML: {error}", fix="correct the line that it names") from error
    if not isinstance(node, yaml.MappingNode):
        what = {type(None): "is empty", yaml.SequenceNode: "is a list"}.get(type(node), "is a single value")
        raise AesError(f"the recipe {path} {what}", fix="write one `setting: value` a line, as those in recipes/")
    _refuse_old_names(str(key.value) for key, _ in node.value)
    counts = Counter(key.value for key, _ in node.value)
    doubled = [key for key, count in counts.items() if count > 1]
    if doubled:
        raise AesError(f"{path} has {doubled[0]} twice", fix="remove one of the two lines")
    nameless = [key.value for key, _ in node.value if key.tag.rpartition(":")[2] not in ("str", "merge")]
    if nameless:
        raise AesError(f"{path} has {nameless[0]!r} where a setting's name belongs", fix="see `--help` for every name")


def coerce_value(name: str, value: Any, kind: Any) -> Any:
    """A recipe's value as the type of the setting; AesError for another type.

    A number may be a whole number or the text "1e-6" (to YAML 1.1 a text, because it has no point). A list may be one
    value. The choice "no" may be YAML's false.
    """
    adapter = TypeAdapter(kind, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    readings = [value, _with_numbers(value)]
    if value is False and "no" in _choices(kind):
        readings.append("no")
    if not isinstance(value, list | dict | None):
        readings += [[reading] for reading in readings]
    for reading in readings:
        try:
            return adapter.validate_json(json.dumps(reading))  # strict, but a list may be a tuple
        except (ValidationError, TypeError) as error:  # TypeError: a date is no JSON
            refused = error
    wanted = _in_words(kind)
    fix = f"give {wanted}" if value is not None else f"give {wanted}, or remove the line"
    if str in _options(kind) and isinstance(value, bool):
        fix = f"give {wanted}, in quotes: YAML reads yes, no, on and off without quotes as true and false"
    elif str in _options(kind) and not isinstance(value, list | dict | None):
        fix = f'put it in quotes: {name}: "{value}"'
    shown = json.dumps(value, default=str)
    raise AesError(f"the recipe says {name}: {shown}, but {name} is {wanted}", fix=fix) from refused


def _with_numbers(value: Any) -> Any:
    """The value, its texts that are numbers as numbers, in lists as well."""
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _choices(kind: Any) -> list[Any]:
    """The values of the Literals and Enums in an annotation."""
    choices: list[Any] = []
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, Enum):
            choices += [member.value for member in option]
        elif get_origin(option) is Literal:
            choices += get_args(option)
    return choices


_WORDS: dict[Any, str] = {
    str: "text",
    bool: "true or false (without quotes)",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    type(None): "null",
}


def _in_words(kind: Any) -> str:
    words = []
    for option in _options(kind):
        origin = get_origin(option) or option
        items = f" of {_in_words(get_args(option)[0]).removeprefix('a ')}s" if origin is list else ""
        words.append(_WORDS.get(origin, f"one of {', '.join(map(str, _choices(option)))}") + items)
    return " or ".join(words)
