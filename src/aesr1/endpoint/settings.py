"""Which server is asked, and how many requests it gets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aesr1.errors import AesError

KEY_VARIABLE = "OPENAI_API_KEY"


def setting(default: Any, text: str, **option: Any) -> Any:
    """A field with its help text. `option`: its name on the command line (`flag`), its `minimum`."""
    return field(default=default, metadata={"help": text, **option})


@dataclass(frozen=True)
class EndpointConfig:
    """Which model at which address, and how many requests it gets."""

    url: str = field(metadata={"help": "OpenAI-compatible address, …/v1."})
    model: str = field(metadata={"help": "The model's name at the server."})
    in_flight: int = setting(64, "Largest number of requests at the same time.", minimum=1)
    retries: int = setting(8, "Retries of one request.", minimum=0)
    timeout: float = setting(180.0, "Seconds for one try, to the last byte.")
    rpm: float | None = setting(None, "Largest number of requests a minute.")
    tpm: float | None = setting(None, "Largest number of tokens a minute, in and out.")
    temperature: float = setting(1.0, "Temperature of the answers.", minimum=0)
    max_tokens: int = setting(700, "Longest answer, in tokens.", minimum=1)
    key_variable: str = KEY_VARIABLE  # the environment variable that holds the key; the key itself is not stored

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise AesError(f"{self.url} is not the address of a server", fix="give one like http://localhost:8000/v1")
        if address.username or address.password or address.query:
            raise AesError(
                "the address holds a name, a key or a query, which would appear in files and logs",
                fix=f"put the key into the environment variable {self.key_variable}",
            )
        limits = [self.timeout, *(limit for limit in (self.rpm, self.tpm) if limit is not None)]
        valid = all(0 < limit < math.inf for limit in limits)
        if self.in_flight < 1 or self.retries < 0 or self.max_tokens < 1 or not valid:
            raise AesError(
                f"these settings send no request: {self}",
                fix="in_flight, timeout, rpm, tpm and max_tokens must be above 0",
            )
