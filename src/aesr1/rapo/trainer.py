"""TRL's GRPOTrainer with RAPO's changes: order of images, zero-advantage groups, pictures for vLLM."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer

from aesr1.errors import AesError
from aesr1.model.load import ATTENTION
from aesr1.rapo.dynamic_sampling import Batch, replace_groups, replacement_rows, zero_advantage_groups
from aesr1.rapo.image_order import ImageOrder
from aesr1.rapo.shared_prefix import SharedPrefix
from aesr1.rapo.shared_prefix_rollout import shared_prefix_rollout
from aesr1.training.resume import ResumableTrainer


class RapoTrainer(ResumableTrainer, SharedPrefix, GRPOTrainer):  # type: ignore[misc]  # TRL is untyped
    """GRPOTrainer that resumes with the same weights and the same order of images.

    `dynamic_sampling_rounds`: rounds in which groups with zero advantage are replaced by groups of other images.
    `rank_replacements`: a reward compares images, so groups of replacements are ranked among as many as the others.
    `dataset_block`: so many images in a row are of one data set; 0: of any.
    `read_once`: a picture is read once for all its replies, where the model family allows it.
    """

    _logs: dict[str, Any]  # TRL's table of completions

    def __init__(
        self,
        *args: Any,
        dynamic_sampling_rounds: int = 0,
        rank_replacements: bool = True,
        dataset_block: int = 0,
        read_once: bool = True,
        **kwargs: Any,
    ) -> None:
        config = kwargs["model"].config
        own = config._attn_implementation
        # TRL loads the reference with it; a convolutional tower has no sdpa, and None is transformers' default
        config._attn_implementation_internal = ATTENTION.get(own, own)
        super().__init__(*args, **kwargs)
        config._attn_implementation_internal = own
        self.dynamic_sampling_rounds, self.read_once = dynamic_sampling_rounds, read_once
        self.rank_replacements, self.dataset_block = rank_replacements, dataset_block
        grid = getattr(self.accelerator.unwrap_model(self.model).config, "image_grid_pinpoints", None)
        if grid is not None and self.ref_model is not None:
            # TRL reads the reference's config from disk; the number of tiles must be our processor's
            self.accelerator.unwrap_model(self.ref_model).config.image_grid_pinpoints = grid
        self._rounds: Counter[int] = Counter()  # of dynamic sampling, by step

    def _get_train_sampler(self, dataset: Any = None) -> ImageOrder:
        trl = super()._get_train_sampler(dataset)
        return ImageOrder(
            trl.data_source,
            trl.mini_repeat_count,
            trl.batch_size,
            trl.repeat_count,
            trl.shuffle,
            trl.seed,
            domains=self._domains(),
            block=self.dataset_block,
        )

    def _domains(self) -> list[str]:
        """The data set of each training image; "" where images of any are compared, so that no file is read."""
        if not self.dataset_block:
            return [""] * len(self.train_dataset)
        return list(self.train_dataset.with_format(None)["domain"])

    def _generate_single_turn(self, prompt_ids: Any, images: Any, fields: Any, *args: Any, **kwargs: Any) -> Any:
        if self.read_once and (replies := shared_prefix_rollout(self, prompt_ids, images, fields)) is not None:
            return replies, None
        if images is not None and self.use_vllm and self.vllm_mode == "colocate":
            # vLLM expands the first picture token of a prompt, but TRL has already expanded it (TRL#6294)
            prompt_ids = [collapse_picture_tokens(ids, self._image_pad_token_id) for ids in prompt_ids]
        return super()._generate_single_turn(prompt_ids, images, fields, *args, **kwargs)

    def _calculate_rewards(self, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        parts: torch.Tensor = super()._calculate_rewards(inputs, *args, **kwargs)
        rewards = (parts * self.reward_weights.to(parts.device)).nansum(dim=1)
        start = self.accelerator.process_index * len(inputs)
        self._local_rewards = rewards[start : start + len(inputs)]
        return parts

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        batch: Batch = super()._generate_and_score_completions(inputs)
        if self.model.training and self.max_completion_length:
            self._metrics["train"]["completions/cap"].append(float(self.max_completion_length))  # for the alarms
        return self._replace_zero_groups(batch) if self.dynamic_sampling_rounds and self.model.training else batch

    def _replace_zero_groups(self, batch: Batch) -> Batch:
        """The batch with zero-advantage groups replaced by groups of other images."""
        replies = self.num_generations
        groups = len(batch["advantages"]) // replies
        least = groups if self.rank_replacements else 2
        zero_groups = zero_advantage_groups(self._local_rewards, replies)
        before = len(zero_groups)
        for _ in range(self.dynamic_sampling_rounds):
            needed = max(gather_object([len(zero_groups)]))  # all processes replace the same number, or none
            if not needed:
                break
            with self._without_logging():
                other = super()._generate_and_score_completions(self._replacement_inputs(max(least, needed)))
            zero_again = set(zero_advantage_groups(self._local_rewards, replies))
            new_groups = [group for group in range(len(other["advantages"]) // replies) if group not in zero_again]
            old_rows = _rows_of_groups(zero_groups[: len(new_groups)], replies)
            new_rows = _rows_of_groups(new_groups[: len(zero_groups)], replies)
            problem = ""
            try:
                pad = self._tokenizer.pad_token_id
                batch = replace_groups(batch, other, old_rows=old_rows, new_rows=new_rows, pad=pad)
            except AesError as error:
                problem = error.problem
            if problems := [text for text in gather_object([problem]) if text]:
                # Raised by every process: after an error on one process the others would wait forever.
                raise AesError(problems[0], fix="set dynamic_sampling_rounds: 0")
            zero_groups = zero_groups[len(new_groups) :]
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        shares = gather_object([(before - len(zero_groups)) / groups])
        self._metrics["train"]["resampled"].append(sum(shares) / len(shares))
        return batch

    @contextmanager
    def _without_logging(self) -> Iterator[None]:
        """Generate without changing the figures and the table of completions, except for the number of tokens.

        They describe the first replies, as without dynamic sampling, so that runs with and without it can be compared.
        Loss, KL and entropy are those of the replies that are trained on.
        """
        metrics, logs = self._metrics["train"], self._logs
        self._metrics["train"] = defaultdict(list)
        self._logs = {name: defaultdict(deque) if isinstance(part, dict) else deque() for name, part in logs.items()}
        try:
            yield
        finally:
            metrics["num_tokens"] = [self.state.num_input_tokens_seen]
            self._metrics["train"], self._logs = metrics, logs

    def _replacement_inputs(self, images: int) -> list[dict[str, Any]]:
        """Other images of the training set, one row for each reply."""
        step = self.state.global_step
        self._rounds[step] += 1
        seed = (self.args.seed, step, self._rounds[step])
        process = self.accelerator.process_index
        rows = replacement_rows(images, self._domains(), seed=seed, process=process)
        return [self.train_dataset[row] for row in rows for _ in range(self.num_generations)]


def _rows_of_groups(groups: Sequence[int], replies: int) -> list[int]:
    return [group * replies + reply for group in groups for reply in range(replies)]


def collapse_picture_tokens(ids: Sequence[int], token: int | None) -> list[int]:
    """Token ids with every run of the picture token joined into one, for an engine that expands it itself."""
    return [id_ for index, id_ in enumerate(ids) if id_ != token or index == 0 or ids[index - 1] != token]
