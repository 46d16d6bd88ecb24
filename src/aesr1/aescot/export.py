"""Exports rationales for other trainers, as whole replies under the contract."""

from __future__ import annotations

import json
import time
from pathlib import Path

from aesr1.contract import PROMPT, Judgement, render_reply
from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.outputs import staged_output, write_run, write_text
from aesr1.records import Rationale
from aesr1.sharegpt import Exchange, write_sharegpt

TOOLS = ("trl", "llama-factory")


def export(rationales: Path, to: str, output: Path) -> list[Path]:
    """Write the files into a new folder and return their paths.

    For TRL: `messages` and `images`, as SFTTrainer reads them.
    """
    started = time.time()
    if to not in TOOLS:
        raise AesError(f"{to!r} is not a known tool", fix=f"choose one of {', '.join(TOOLS)}")
    file = rationales / "rationales.jsonl" if rationales.is_dir() else rationales
    rows = read_rows(file, Rationale)
    if not rows:
        raise AesError(f"{file} holds no rationales", fix="see why the filters kept none: aesr1 cot show")
    exchanges = [Exchange(row.image, render_reply(Judgement(row.score, row.reasoning))) for row in rows]
    with staged_output(output.parent, output.name) as part:
        folder = part / output.name
        if to == "trl":
            written = [folder / "train.jsonl"]
            write_text(written[0], "".join(json.dumps(_messages(one), ensure_ascii=False) + "\n" for one in exchanges))
        else:
            written = write_sharegpt({"cold_start": exchanges}, folder)
        write_run(folder, f"cot export {to}", {"rationales": str(file)}, started=started, rows=len(rows))
    return [output / path.name for path in written]


def _messages(exchange: Exchange) -> dict[str, object]:
    question = {"role": "user", "content": PROMPT}
    return {"messages": [question, {"role": "assistant", "content": exchange.answer}], "images": [exchange.image]}
