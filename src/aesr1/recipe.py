"""A recipe: a YAML file and flags over it, as one object of each dataclass."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from trl import TrlParser

from aesr1.errors import AesError


def parse_recipe(
    kinds: Sequence[type],
    arguments: Sequence[str],
    *,
    derive: Callable[[Namespace], None] | None = None,
    **defaults: Any,
) -> tuple[Any, ...]:
    """Settings from `--config recipe.yaml` and flags that override it, into one object of each dataclass.

    `defaults` replace TRL's own. `derive` may set some from others before the objects are made. Unknown keys, and keys
    that stand twice, are an AesError that names them.
    """
    # TRL still uses the names that transformers has deprecated; nobody who runs a recipe can act on that.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    parser = _Parser(list(kinds))
    parser.derive = derive

    def refuse(message: str) -> None:
        raise AesError(message, fix="give it in the recipe or as a flag; `--help` lists every setting")

    parser.error = refuse
    parser.set_defaults_with_config(**defaults)
    arguments = list(arguments)
    try:
        _refuse_doubles(arguments)
        *settings, unknown = parser.parse_args_and_config(arguments, return_remaining_strings=True)
    except (FileNotFoundError, IndexError) as error:
        raise AesError(
            f"there is no such recipe: {error}", fix="pass --config a YAML file; the project's lie in recipes/"
        ) from error
    except yaml.YAMLError as error:
        raise AesError(f"the recipe is no YAML: {error}", fix="mend the line it names") from error
    except (ValueError, TypeError) as error:
        raise AesError(
            f"the settings contradict each other or are of the wrong kind: {error}", fix="mend the recipe or the flag"
        ) from error
    if unknown:
        names = [text for text in unknown if text.startswith("--")] or unknown
        raise AesError(
            f"unknown settings: {' '.join(names)}", fix="see `--help` for every setting, or remove them from the recipe"
        )
    return tuple(settings)


class _Parser(TrlParser):  # type: ignore[misc]  # TRL is untyped
    """TRL's parser, which lets settings follow from others before TRL checks them."""

    derive: Callable[[Namespace], None] | None = None

    def parse_known_args(self, *args: Any, **kwargs: Any) -> tuple[Namespace, list[str]]:
        namespace, rest = super().parse_known_args(*args, **kwargs)
        if self.derive is not None:
            self.derive(namespace)
        return namespace, rest


def _refuse_doubles(arguments: list[str]) -> None:
    """AesError where a key stands twice in the recipe: YAML would take the last without a word."""
    if "--config" not in arguments[:-1]:
        return
    path = Path(arguments[arguments.index("--config") + 1])
    node = yaml.compose(path.read_text(encoding="utf-8"))
    if isinstance(node, yaml.MappingNode):
        doubled = [key for key, count in Counter(key.value for key, _ in node.value).items() if count > 1]
        if doubled:
            raise AesError(f"{path} says {doubled[0]} twice", fix="remove one of the two lines")
