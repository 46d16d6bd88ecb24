"""Reads the files of a training run, whether it is finished, unfinished or broken."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

from aesr1.errors import AesError
from aesr1.records import SampledReply
from aesr1.training.alarms import Alarm, LogRow

RENAMED_FIGURES = {"score/spread": "score/std"}
"""Names that figures had in earlier versions."""
MOST_STEPS = 10**9
LEAST, MOST = 1e-100, 1e100
"""Values below LEAST are drawn as 0, values above MOST are not drawn: floats could not hold the axis."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Run:
    """The usable content of a run's folder."""

    name: str
    rows: Sequence[LogRow]  # one a step, in their order; numbers that can be drawn
    alarms: list[Alarm] | None  # None where the run had no alarms file
    replies: list[SampledReply]
    stage: str  # empty while it is unfinished
    state: str
    problems: list[str]  # a sentence on each file of which something was left out

    @property
    def steps(self) -> int:
        """The last step that was logged."""
        return int(self.rows[-1]["step"])


class _Read(NamedTuple):
    """The rows of a file, and a sentence about those left out."""

    rows: list[Any] | None  # None where there is no file
    problems: list[str]


def read_run(folder: Path, name: str) -> Run:
    """A run's figures, alarms and sampled replies. AesError where there are no figures."""
    path = folder / "figures.jsonl"
    figures = _read(path, _figures)
    rows, odd = _by_step(figures.rows or [], path)
    if not rows:
        near = sorted(str(file.parent) for file in folder.glob("*/figures.jsonl"))
        raise AesError(
            ": ".join([f"{folder} holds no figures of a run", *figures.problems, *odd]),
            fix=f"pass one of its runs: {', '.join(near)}"
            if near
            else "pass the output folder of aesr1 sft or rapo; its first figures come after logging_steps steps",
        )
    alarms = _read(folder / "alarms.jsonl", _alarm)
    replies = _read(folder / "replies.jsonl", lambda values: _reply(values, str(folder.absolute())))
    done = _read(folder / "run.json", _summary, whole=True)
    stage, seconds = done.rows[0] if done.rows else ("", None)
    return Run(
        name=name,
        rows=rows,
        alarms=alarms.rows,
        replies=replies.rows or [],
        stage=stage,
        state=f"unfinished; last figures {datetime.fromtimestamp(path.stat().st_mtime):%Y-%m-%d %H:%M}"
        if seconds is None
        else f"finished in {_duration(seconds)}",
        problems=[*figures.problems, *odd, *alarms.problems, *replies.problems, *done.problems],
    )


def _read(path: Path, made: Callable[[dict[str, Any]], Row], *, whole: bool = False) -> _Read:
    """Apply `made` to the JSON object of each line, or of the `whole` file; a ValueError leaves the row out."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return _Read(None, [])
    except OSError as error:
        return _Read([], [f"{path} cannot be read and is left out: {error.strerror}"])
    parts = [content] if whole else content.split(b"\n")
    rows, left_out = [], []
    for number, part in enumerate(parts, start=1):
        if not part.strip() and not whole:
            continue
        where = str(path) if whole else f"{path}, line {number},"
        try:
            values = json.loads(part.decode("utf-8-sig"))  # an editor may have written a byte order mark
            if not isinstance(values, dict):
                raise ValueError("is not a JSON object")
            rows.append(made(values))
        except UnicodeDecodeError:
            left_out.append(f"{where} is not UTF-8")
        except json.JSONDecodeError:
            torn = number == len(parts) and not whole
            left_out.append(f"{where} {'breaks off' if torn else 'is not JSON'}")
        except RecursionError:
            left_out.append(f"{where} is nested too deep")
        except ValueError as error:
            left_out.append(f"{where} {error}")
    return _Read(rows, _told(left_out))


def _told(left_out: Sequence[str]) -> list[str]:
    """One sentence that names the first; none if there are none."""
    more = f" (and {len(left_out) - 1:,} more)" if len(left_out) > 1 else ""
    return [f"{left_out[0]}: left out{more}"] if left_out else []


def _figures(values: dict[str, Any]) -> dict[str, Any]:
    return {**{RENAMED_FIGURES.get(name, name): value for name, value in values.items()}, "step": _step(values)}


def _alarm(values: dict[str, Any]) -> Alarm:
    name, problem, advice = (_text(values, key) for key in ("name", "problem", "advice"))
    return Alarm(_step(values), name, problem, advice)


def _reply(values: dict[str, Any], folder: str) -> SampledReply:
    score, readable, reasoning = (values.get(key) for key in ("score", "readable", "reasoning"))
    if not isinstance(readable, bool):
        raise ValueError("does not say whether it is readable")
    return SampledReply(
        step=_step(values),
        image=os.path.join(folder, _text(values, "image")),  # noqa: PTH118  # a Path knows no NUL, which JSON can hold
        rating=_share(values, "rating"),
        score=None if score is None else _share(values, "score"),
        readable=readable,
        reasoning=None if reasoning is None else _text(values, "reasoning"),
        reply=_text(values, "reply"),
    )


def _summary(values: dict[str, Any]) -> tuple[str, float]:
    """The stage and how many seconds it took."""
    seconds = values.get("seconds")
    if not _is_number(seconds) or not 0 <= seconds <= MOST:
        raise ValueError("does not say in how many seconds the run finished")
    return _text(values, "stage") if "stage" in values else "", float(seconds)


def _step(values: dict[str, Any]) -> int:
    step = values.get("step")
    if not _is_number(step) or not 0 <= step <= MOST_STEPS or step != int(step):
        raise ValueError("has no step" if step is None else f"has {_shown(step)} for a step")
    return int(step)


def _share(values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"has {_shown(value)} for a {key}")
    return float(value)


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise ValueError(f"has {_shown(value)} for its {key}")
    return value


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if _is_number(value) and abs(value) > MOST:  # Python does not print thousands of digits
        return "a number that is too large"
    text = ascii(value)
    return text if len(text) < 40 else text[:36] + " …"


def _by_step(rows: Iterable[dict[str, Any]], path: Path) -> tuple[list[dict[str, float]], list[str]]:
    """One row for each step with the figures that can be drawn, and sentences about the rest.

    If a figure was logged twice at a step, as after a resume, the later one counts. NaN and infinity are left out
    without a message: alarms report them.
    """
    merged: dict[int, dict[str, float]] = {}
    odd, twice = [], []
    for values in rows:
        step = values["step"]
        row = merged.setdefault(step, {"step": step})
        for name, value in values.items():
            if name == "step" or value is None or (isinstance(value, float) and not math.isfinite(value)):
                continue
            if not _is_number(value) or abs(value) > MOST:
                odd.append(f"{path} has {_shown(value)} for {_shown(name)} at step {step}")
                continue
            if name in row and name != "epoch":
                twice.append(f"{path} has {_shown(name)} twice at step {step}; the earlier one")
            row[name] = 0.0 if abs(value) < LEAST else float(value)
    return [merged[step] for step in sorted(merged)], [*_told(odd), *_told(twice)]


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.1f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
