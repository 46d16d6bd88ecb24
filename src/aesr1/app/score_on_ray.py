"""`aesr1 score --ray`: the workers of a Ray cluster score shards of a source. Each finished shard is a Parquet file."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from aesr1.app.predictions_table import write_table
from aesr1.app.ray_shards import Opened, pictures_of, shards_of
from aesr1.app.score import ScoreConfig, scorer_of
from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError, install
from aesr1.images.find import read_list
from aesr1.outputs import replaced_file, require_same_settings
from aesr1.progress import progress_bar
from aesr1.records import Prediction

THREADS = 8
"""Of a worker, which fetch and open pictures."""
BOUND = ("inputs", "files_from", "model", "reference", "calibration")
"""Settings that stay the same when a run resumes."""


@dataclass(frozen=True)
class RayResult:
    """What came of a run."""

    files: int  # of all shards
    kept: int  # of them, from an earlier run
    pictures: int  # of this run
    failed: int  # of them, those without a score
    first_failure: str


def score_on_ray(config: ScoreConfig, address: str, *, workers: int | None = None) -> RayResult:
    """Score folders, Parquet files and tars into `config.output`, a folder that all machines see. Resumes by shard.

    `address`: of a running cluster, or `local` to start one here. `workers`: each loads the model once; one for each
    GPU of the cluster, else for each CPU core. AesError names a missing package, and settings that differ from before.
    """
    output = (config.output or Path("scores")).absolute()
    run = output / "_run"  # readers of a folder of Parquet files leave out what begins so
    if output.suffix or output.is_file():
        raise AesError(f"{output} is no folder", fix="name a folder that all machines see: -o FOLDER")
    _ray()
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock", blocking=False)
    try:
        with lock:
            require_same_settings(run, {**{name: getattr(config, name) for name in BOUND}, "read": _reading(config)})
            for part in output.glob(".part-*"):  # of a killed run
                part.unlink()
            return _score_shards(_as_workers_see_it(config), _listed(config, run, output), address, workers)
    except Timeout as error:
        raise AesError(f"another run is writing {output}", fix="wait for it, or choose another output") from error


def _reading(config: ScoreConfig) -> str:
    from aesr1.model.predict import PredictSettings

    return (config.settings or PredictSettings()).describe(config.max_pixels or MAX_PIXELS)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # and its warning of a coming change says nothing
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise AesError("scoring on a cluster needs Ray", fix=install("ray")) from error
    return ray


def _as_workers_see_it(config: ScoreConfig) -> ScoreConfig:
    """The settings with absolute paths: workers have another current folder."""
    model = str(Path(config.model).absolute()) if config.model and Path(config.model).is_dir() else config.model
    reference, calibration = (path and path.absolute() for path in (config.reference, config.calibration))
    return replace(
        config, model=model, reference=reference, calibration=calibration, output=(config.output or Path()).absolute()
    )


def _listed(config: ScoreConfig, run: Path, output: Path) -> Path:
    """The file with a shard a line. It is written by the first run alone, so that shards keep their numbers."""
    path = run / "shards.jsonl"
    if not path.exists():
        listed = read_list(config.files_from, null=config.null) if config.files_from else ()
        with replaced_file(path) as part, part.open("w", encoding="utf-8") as file:
            for shard in shards_of(chain(config.inputs, listed), leave_out=output):
                file.write(json.dumps(shard) + "\n")
    return path


def _score_shards(config: ScoreConfig, shards: Path, address: str, workers: int | None) -> RayResult:
    ray = _ray()
    output = config.output or Path()
    todo, files, offset = [], 0, 0
    with shards.open("rb") as lines:
        for files, line in enumerate(lines, start=1):
            name = f"part-{files - 1:06d}.parquet"
            if not (output / name).exists():
                todo.append({"name": name, "offset": offset})
            offset += len(line)
    result = RayResult(files, files - len(todo), 0, 0, "")
    if not todo:
        return result
    started = not ray.is_initialized()
    if started:
        _connect(ray, address)
    try:
        count, resources = _workers(ray, workers)
        worker = ray.remote(ShardScorer).options(max_restarts=-1, max_task_retries=-1, **resources)
        pool = ray.util.ActorPool([worker.remote(config, shards) for _ in range(min(count, len(todo)))])
        with progress_bar("shards", total=files, quiet=config.quiet) as progress:
            progress.advance(result.kept)
            for shard in pool.map_unordered(lambda actor, asked: actor.score.remote(asked), todo):
                if shard["problem"]:
                    raise AesError(shard["problem"], fix=shard["fix"])
                result = replace(
                    result,
                    pictures=result.pictures + shard["pictures"],
                    failed=result.failed + shard["failed"],
                    first_failure=result.first_failure or shard["first_failure"],
                )
                progress.advance(1)
    finally:
        if started:
            ray.shutdown()
    return result


def _connect(ray: Any, address: str) -> None:
    here = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    except Exception as error:  # a ConnectionError, and where processes do not start a plain Exception
        raise AesError(
            f"there is no Ray cluster at {address}: {error}",
            fix="try again: this machine is busy" if address == "local" else "start one: ray start --head",
        ) from error


def _workers(ray: Any, workers: int | None) -> tuple[int, dict[str, Any]]:
    """How many workers, and what each gets: a GPU where there are any, else its part of the CPU cores."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kind = "GPU" if any(node.get("GPU") for node in nodes) else "CPU"
    most = int(sum(node.get(kind, 0) for node in nodes))
    count = workers or most
    if count > most:
        raise AesError(f"the cluster has {most} {kind}s, and {count} workers were asked for", fix="ask for fewer")
    if kind == "GPU":
        return count, {"num_gpus": 1}
    sizes = range(most // count, 0, -1)
    return count, {"num_cpus": next(n for n in sizes if sum(node.get("CPU", 0) // n for node in nodes) >= count)}


class ShardScorer:
    """A worker: it loads the model once, then scores one shard after the other.

    What a user can solve is in the returned row: an exception would come as Ray's own, after retries.
    """

    def __init__(self, config: ScoreConfig, shards: Path) -> None:
        self._config, self._shards, self._problem = config, shards, None
        try:
            self._scorer = scorer_of(config)
            require_same_settings(shards.parent / "model", self._scorer.origin._asdict())
        except AesError as error:
            self._problem = {"problem": error.problem, "fix": error.fix}

    def score(self, shard: dict[str, Any]) -> dict[str, Any]:
        """Write the rows of a shard, whole. Returns how many pictures it had, and how many of them have no score."""
        found: dict[str, Any] = {"pictures": 0, "failed": 0, "first_failure": "", "problem": "", "fix": ""}
        if self._problem is not None:
            return {**found, **self._problem}
        with self._shards.open("rb") as lines:
            lines.seek(shard["offset"])
            asked = json.loads(lines.readline())

        def counted() -> Iterator[Prediction]:
            for row in self._rows(asked):
                found["pictures"] += 1
                if row.score is None:
                    found["failed"] += 1
                    found["first_failure"] = found["first_failure"] or f"{row.image}: {row.error}"
                yield row

        folder = self._config.output or Path()
        part = folder / f".{shard['name']}.{uuid4().hex}.parquet"  # a shard may be in the hands of two workers
        try:
            write_table(counted(), part)
            part.replace(folder / shard["name"])
        except AesError as error:
            return {**found, "problem": error.problem, "fix": error.fix}
        finally:
            part.unlink(missing_ok=True)
        return found

    def _rows(self, shard: dict[str, Any]) -> Iterator[Prediction]:
        from aesr1.model.predict import empty_row

        waiting: deque[Opened] = deque()

        def failed_first() -> Iterator[Prediction]:
            while waiting and waiting[0].picture is None:
                opened = waiting.popleft()
                yield replace(empty_row(self._scorer.origin), image=opened.name, error=opened.error)

        def readable(opened: Iterator[Opened]) -> Iterator[Any]:
            for each in opened:
                waiting.append(each)
                if each.picture is not None:
                    yield each.picture

        with ThreadPoolExecutor(THREADS) as pool:
            opened = pictures_of(shard, pool, max_pixels=self._config.max_pixels or MAX_PIXELS)
            for row in self._scorer.stream(readable(opened)):
                yield from failed_first()
                each = waiting.popleft()
                yield replace(row, image=each.name, **each.identity)
            yield from failed_first()
