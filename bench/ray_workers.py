"""How much faster two Ray workers score than one, on a local cluster with as many CPU cores as workers.

    python bench/ray_workers.py FOLDER [--pictures 400] [--workers 2]

The embedded photo model, with reasons. The start of Ray and the loading of the model are not counted: the rows of a
first shard for each worker are. Both runs are of one process, one after the other. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import ray
from ray.util import ActorPool

from aesr1.app.ray_shards import shards_of
from aesr1.app.score import ScoreConfig
from aesr1.app.score_on_ray import ShardScorer
from aesr1.images.find import find_images

SHARD = 20


def rate(config: ScoreConfig, shards: Path, asked: list[dict[str, object]], workers: int) -> float:
    """Pictures a second of so many workers with a CPU core each."""
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        worker = ray.remote(ShardScorer).options(num_cpus=1)
        actors = [worker.remote(config, shards) for _ in range(workers)]
        ray.get([actor.score.remote(asked[0]) for actor in actors])  # the model is loaded and warm
        started = time.perf_counter()
        done = list(ActorPool(actors).map_unordered(lambda actor, shard: actor.score.remote(shard), asked))
        seconds = time.perf_counter() - started
    finally:
        ray.shutdown()
    if problems := [found["problem"] for found in done if found["problem"]]:
        raise SystemExit(problems[0])
    return float(sum(found["pictures"] for found in done) / seconds)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    pictures = [str(path) for path in find_images([given.folder]).paths[: given.pictures]]
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "_run", "shards.jsonl")
        shards.parent.mkdir()
        asked: list[dict[str, object]] = []
        with shards.open("w") as file:
            for number, shard in enumerate(shards_of(pictures, leave_out=Path(folder), pictures=SHARD)):
                asked.append({"name": f"{number}.parquet", "offset": file.tell()})
                file.write(json.dumps(shard) + "\n")
        config = ScoreConfig((given.folder,), output=Path(folder))
        one, many = (rate(config, shards, asked, workers) for workers in (1, given.workers))
    print(
        f"{len(pictures)} pictures: 1 worker {one:.1f}/s, {given.workers} workers {many:.1f}/s, ratio {many / one:.2f}"
    )


if __name__ == "__main__":
    main()
