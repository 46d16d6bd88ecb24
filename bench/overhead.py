"""Time that RAPO's code adds to a GRPO step of TRL with constant rewards; same model, data and reply lengths.

    python bench/overhead.py

Two figures: the share of a step that is spent in the reward functions (exact), and the ratio of whole steps in paired
runs (with the noise of the machine).
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from aesr1.json_lines import read_rows
from aesr1.model.load import BACKBONE, load
from aesr1.rapo.reward_functions import RewardSettings, reward_functions
from aesr1.rapo.train import PAPER, RapoTrainer, _rows
from aesr1.records import Rating
from aesr1.tiny.album import AlbumConfig, make_album
from aesr1.training.picture_dataset import picture_dataset

PAIRS, STEPS, LENGTH = 5, 3, 48


def constant(completions: list[Any], **_: Any) -> list[float]:
    """A reward that costs nothing."""
    return [1.0] * len(completions)


def steps(rewards: list[Any], ratings: list[Rating], folder: str) -> list[float]:
    """Seconds of each step except the first."""
    from transformers import PrinterCallback
    from trl import GRPOConfig

    settings = {
        **PAPER,
        "output_dir": folder,
        "per_device_train_batch_size": 64,
        "num_generations": 8,
        "max_completion_length": LENGTH,
        "max_steps": STEPS + 1,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "generation_kwargs": {"min_new_tokens": LENGTH},  # equal lengths, so that both runs do the same work
    }
    vlm = load(BACKBONE, device="cpu")
    trainer = RapoTrainer(
        model=vlm.model.train(),
        reward_funcs=rewards,
        args=GRPOConfig(**settings),
        train_dataset=picture_dataset(_rows(ratings), max_pixels=12_544),
        processing_class=vlm.processor,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [row["step_time"] for row in trainer.state.log_history if "step_time" in row][1:]


def main() -> None:
    """Print both figures."""
    warnings.simplefilter("ignore")
    reward_seconds = 0.0

    def timed(reward: Any) -> Any:
        def call(**columns: Any) -> list[float]:
            nonlocal reward_seconds
            start = time.perf_counter()
            result: list[float] = reward(**columns)
            reward_seconds += time.perf_counter() - start
            return result

        call.__name__ = reward.__name__
        return call

    settings = RewardSettings(comparison_scope="global")
    rapo_rewards = [timed(r) for r in reward_functions(settings)]
    with tempfile.TemporaryDirectory() as folder:
        ratings = read_rows(make_album(AlbumConfig(Path(folder) / "album", n=64, split="train")), Rating)
        ratios, shares = [], []
        for _ in range(PAIRS):
            plain = steps([constant], ratings, folder)
            reward_seconds = 0.0
            rapo = steps(rapo_rewards, ratings, folder)
            shares.append(reward_seconds / (STEPS + 1) / statistics.median(rapo))
            ratios.append(statistics.median(rapo) / statistics.median(plain))
    print(f"inside the rewards: {100 * statistics.median(shares):.2f} % of a step (target < 5 %)")
    span = f"{min(ratios):.3f}–{max(ratios):.3f}, {PAIRS} pairs"
    print(f"RAPO step / constant-reward step: {statistics.median(ratios):.3f} ({span})")


if __name__ == "__main__":
    main()
