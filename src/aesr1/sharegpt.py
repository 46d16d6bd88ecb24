"""LLaMA-Factory's files: conversations about a picture in ShareGPT form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aesr1.contract import PROMPT
from aesr1.outputs import write_json, write_text

TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


class Exchange(NamedTuple):
    """The contract's prompt about a picture, and what is answered."""

    image: str
    answer: str


def write_sharegpt(sets: Mapping[str, Sequence[Exchange]], output: Path) -> list[Path]:
    """One file a set, named aesr1_<set>.json, and `dataset_info.json`; the files."""
    files, info = [], {}
    for name, exchanges in sets.items():
        conversations = [
            {
                "messages": [
                    {"role": "user", "content": f"<image>{PROMPT}"},
                    {"role": "assistant", "content": exchange.answer},
                ],
                "images": [exchange.image],
            }
            for exchange in exchanges
        ]
        file = output / f"aesr1_{name}.json"
        write_text(file, json.dumps(conversations, ensure_ascii=False, indent=1))
        columns = {"messages": "messages", "images": "images"}
        info[file.stem] = {"file_name": file.name, "formatting": "sharegpt", "columns": columns, "tags": TAGS}
        files.append(file)
    write_json(output / "dataset_info.json", info)
    return [*files, output / "dataset_info.json"]
