"""Text for a terminal: results on stdout, messages on stderr, without escape sequences of others."""

from __future__ import annotations

import sys
import unicodedata


def say(text: str) -> None:
    """Print a message on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def print_result(text: object) -> None:
    """Print a result on stdout; to a file or another program it goes unchanged."""
    print(printable(str(text)) if sys.stdout.isatty() else text)


def printable(text: str) -> str:
    """Text for a terminal: control characters and halves of characters are escaped, line breaks and tabs stay.

    File names and replies may hold escape sequences, which a terminal would obey.
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
