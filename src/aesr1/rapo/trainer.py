"""TRL's GRPOTrainer, changed where RAPO needs it: the order of images, groups without spread, pictures for vLLM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from aesr1.rapo.once import ReadingOnce
from aesr1.rapo.resample import Batch, exchange, other_rows, without_spread
from aesr1.rapo.rollout import roll_out
from aesr1.training import Resuming


class EpochSampler(RepeatSampler):  # type: ignore[misc]  # TRL is untyped
    """TRL's sampler, its order a function of seed and epoch: a resumed run meets the images it would have met."""

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of every epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)


class RapoTrainer(Resuming, ReadingOnce, GRPOTrainer):  # type: ignore[misc]  # TRL is untyped
    """GRPOTrainer whose weights and order of images survive a resume.

    `resample`: rounds in which groups without spread make room for other images of the training set. `read_once`: a
    picture is read once for all its replies where the model family allows it.
    """

    def __init__(self, *args: Any, resample: int = 0, read_once: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resample, self.read_once = resample, read_once
        grid = getattr(self.accelerator.unwrap_model(self.model).config, "image_grid_pinpoints", None)
        if grid is not None and self.ref_model is not None:
            # TRL reads the reference's config from disk; a picture has as many tiles as our processor cuts
            self.accelerator.unwrap_model(self.ref_model).config.image_grid_pinpoints = grid
        self._rounds: Counter[int] = Counter()  # of asking for other images, by step

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        stock = super()._get_train_sampler(dataset)
        return EpochSampler(
            stock.data_source, stock.mini_repeat_count, stock.batch_size, stock.repeat_count, stock.shuffle, stock.seed
        )

    def _generate_single_turn(self, prompt_ids: Any, images: Any, fields: Any, *args: Any, **kwargs: Any) -> Any:
        if self.read_once and (replies := roll_out(self, prompt_ids, images, fields)) is not None:
            return replies, None
        if images is not None and self.use_vllm and self.vllm_mode == "colocate":
            # vLLM expands the first picture token of a prompt once more, and TRL has expanded it already (TRL#6294)
            prompt_ids = [collapsed(ids, self._image_pad_token_id) for ids in prompt_ids]
        return super()._generate_single_turn(prompt_ids, images, fields, *args, **kwargs)

    def _calculate_rewards(self, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        parts: torch.Tensor = super()._calculate_rewards(inputs, *args, **kwargs)
        rewards = (parts * self.reward_weights.to(parts.device)).nansum(dim=1)
        start = self.accelerator.process_index * len(inputs)
        self._own_rewards = rewards[start : start + len(inputs)]
        return parts

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        batch: Batch = super()._generate_and_score_completions(inputs)
        if not self.resample or not self.model.training:
            return batch
        replies = self.num_generations
        dull = without_spread(self._own_rewards, replies)
        found = len(dull)
        for _ in range(self.resample):
            asked = max(gather_object([len(dull)]))  # every process asks for as many, or none does
            if not asked:
                break
            other = super()._generate_and_score_completions(self._others(max(2, asked)))
            flat = set(without_spread(self._own_rewards, replies))
            fresh = [group for group in range(len(other["advantages"]) // replies) if group not in flat]
            leave, enter = dull[: len(fresh)], fresh[: len(dull)]
            batch = exchange(
                batch,
                other,
                leave=_rows_of(leave, replies),
                enter=_rows_of(enter, replies),
                pad=self._tokenizer.pad_token_id,
            )
            dull = dull[len(fresh) :]
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        self._metrics["train"]["resampled"].append(float(found - len(dull)) * replies / len(inputs))
        return batch

    def _others(self, images: int) -> list[dict[str, Any]]:
        """Other images of the training set, a row for each reply."""
        step = self.state.global_step
        self._rounds[step] += 1
        seed = (self.args.seed, step, self._rounds[step], self.accelerator.process_index)
        rows = other_rows(images, size=len(self.train_dataset), seed=seed)
        return [self.train_dataset[row] for row in rows for _ in range(self.num_generations)]


def _rows_of(groups: Sequence[int], replies: int) -> list[int]:
    return [group * replies + reply for group in groups for reply in range(replies)]


def collapsed(ids: Sequence[int], token: int | None) -> list[int]:
    """Token ids with every run of the picture token as one: what an engine expects that expands it itself."""
    return [id_ for place, id_ in enumerate(ids) if id_ != token or place == 0 or ids[place - 1] != token]
