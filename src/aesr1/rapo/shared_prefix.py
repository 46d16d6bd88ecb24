"""Log-probabilities of K replies after one pass over picture and prompt, checked against TRL's own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from aesr1.model.prefix_cache import checkpointing_keeps_cache, recording_cache, repeated
from aesr1.rapo.shared_prefix_batch import (
    PICTURE_COUNTS,
    PICTURE_INPUTS,
    picture_inputs,
    picture_rows,
    prompt_positions,
    reply_inputs,
)
from aesr1.terminal import say
from aesr1.training.parameters import unwrap_lora

TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
"""Inputs that tell a picture's tokens from those of words; families have one or the other."""
FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-3, 5e-2
"""Largest difference of log-probabilities from TRL's: the maximum in float32, the mean in 16 bits."""

Batch = dict[str, Any]


class LogProbs(NamedTuple):
    """The values that TRL returns."""

    log_probs: torch.Tensor  # (rows, R)
    entropies: torch.Tensor | None
    aux_loss: torch.Tensor | None


class SharedPrefix:
    """For a GRPOTrainer: reads picture and prompt once for the K replies of a group.

    Used where micro-batches are whole groups and the model family allows it, for the policy, the reference and the
    rollout's log-probabilities alike. The first batch, and each that is longer or has more pictures than all before,
    is computed in both ways; if they differ, or the model fails, TRL's way is used from then on, with a warning.
    """

    read_once: bool
    accelerator: Any
    args: Any
    num_generations: int
    _buffered_inputs: Any
    _agrees: bool | None = None  # unknown before the first batch
    _checked: tuple[int, ...] = (0, 0, 0)  # the largest lengths of prompt and reply, and pictures, that were compared

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        """As TRL's, but groups are shuffled as a whole, so that a micro-batch holds all replies to its pictures."""
        if not self._has_whole_groups(self.args.per_device_train_batch_size):
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc, no-any-return]
        passes = self.args.steps_per_generation
        if self._step % (passes * self.num_iterations) == 0 or self._buffered_inputs is None:  # type: ignore[attr-defined]
            batch = self._generate_and_score_completions(generation_batch)  # type: ignore[attr-defined]
            self._buffered_inputs = shuffle_groups(batch, self.num_generations, passes)
        micro_batch: Batch = self._buffered_inputs[self._step % passes]  # type: ignore[attr-defined]
        return micro_batch

    def _has_whole_groups(self, rows: int) -> bool:
        """Whether this many rows and a micro-batch are whole groups, so that all log-probabilities come one way."""
        micro_batch = self.args.per_device_train_batch_size
        training = self.model.training  # type: ignore[attr-defined]
        whole = rows % self.num_generations == 0 and micro_batch % self.num_generations == 0
        return bool(self.read_once and self._agrees is not False and training and whole)

    def _is_larger(self, input_ids: torch.Tensor, reply_length: int, pictures: list[int] | None) -> bool:
        """Whether a batch of any process is larger than those that were compared; it counts as compared then."""
        sizes = (input_ids.shape[1] - reply_length, reply_length, max(pictures or [1]))
        largest = tuple(map(max, zip(self._checked, *gather_object([sizes]), strict=True)))
        larger = largest != self._checked
        self._checked = largest
        return larger

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **kwargs: Any
    ) -> tuple[Any, Any, Any]:
        arguments = (model, input_ids, attention_mask, logits_to_keep)
        if not self._has_whole_groups(len(input_ids)) or kwargs.get("compute_aux_loss"):
            return super()._get_per_token_logps_and_entropies(*arguments, **kwargs)  # type: ignore[misc, no-any-return]
        if self._is_larger(input_ids, logits_to_keep, kwargs.get("num_images")):
            self._agrees = self._agrees_with_trl(*arguments, **kwargs)
        if not self._agrees:
            return super()._get_per_token_logps_and_entropies(*arguments, **kwargs)  # type: ignore[misc, no-any-return]
        return self._shared_log_probs(*arguments, **kwargs)

    def _shared_log_probs(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **kwargs: Any
    ) -> LogProbs:
        """Log-probabilities and entropies (rows, R) of whole groups, in chunks of TRL's batch size."""
        replies = self.num_generations
        groups = len(input_ids) // replies
        groups_per_chunk = max(1, (kwargs.get("batch_size") or len(input_ids)) // replies)
        pictures = picture_rows({name: kwargs.get(name) for name in (*PICTURE_INPUTS, *PICTURE_COUNTS)}, replies)
        token_types = {name: kwargs[name] for name in TOKEN_TYPES if kwargs.get(name) is not None}
        parts = []
        for start in range(0, groups, groups_per_chunk):
            chunk = slice(start, min(start + groups_per_chunk, groups))
            rows = slice(chunk.start * replies, chunk.stop * replies)
            parts.append(
                self._log_probs_of_groups(
                    model,
                    input_ids[rows],
                    attention_mask[rows],
                    logits_to_keep,
                    picture_inputs(pictures, chunk),
                    {name: values[rows] for name, values in token_types.items()},
                )
            )
        log_probs, entropies = zip(*parts, strict=True)
        return LogProbs(torch.cat(log_probs), torch.cat(entropies) if kwargs.get("compute_entropy") else None, None)

    def _log_probs_of_groups(
        self,
        model: Any,
        ids: Any,
        mask: Any,
        logits_to_keep: int,
        pictures: dict[str, Any],
        token_types: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies (rows, R) from a pass over prompts and pictures, and one over the replies."""
        replies, prompt_length = self.num_generations, ids.shape[1] - logits_to_keep
        prompts, prompt_mask = ids[::replies, :prompt_length], mask[::replies, :prompt_length]
        types = {name: values[::replies, :prompt_length] for name, values in token_types.items()}
        unwrapped = unwrap_lora(self.accelerator.unwrap_model(model))
        positions = prompt_positions(
            unwrapped,
            prompts,
            prompt_mask,
            image_grid_thw=pictures.get("image_grid_thw"),
            mm_token_type_ids=types.get("mm_token_type_ids"),
        )
        cache = recording_cache(unwrapped.config)
        inputs = reply_inputs(ids, mask, positions, prompt_length=prompt_length, replies=replies)
        with self.accelerator.autocast(), checkpointing_keeps_cache(model):
            prefix = model(
                input_ids=prompts[:, :-1],
                attention_mask=prompt_mask[:, :-1],
                position_ids=positions[..., :-1],
                past_key_values=cache,
                use_cache=False,
                logits_to_keep=1,
                **{name: values[:, :-1] for name, values in types.items()},
                **pictures,
            )
            outputs = model(**inputs._asdict(), past_key_values=repeated(cache, replies), fused_lm_head=True)
        entropy = outputs.log_probs if outputs.entropy is None else outputs.entropy  # the reference model has none
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # type: ignore[attr-defined]
            return outputs.log_probs, entropy
        # weights that are divided are gathered where a layer's output has a gradient; of the last one only keys have
        return outputs.log_probs + 0 * prefix.logits.sum(), entropy

    def _agrees_with_trl(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **kwargs: Any
    ) -> bool:
        """Whether both ways agree on this batch; all processes get the same result."""
        arguments = (model, input_ids, attention_mask, logits_to_keep)
        mask = attention_mask[:, -logits_to_keep:].bool()
        problem = ""
        with torch.no_grad():
            trl_log_probs, _, _ = super()._get_per_token_logps_and_entropies(*arguments, **kwargs)  # type: ignore[misc]
            try:
                log_probs, _, _ = self._shared_log_probs(*arguments, **kwargs)
            except (RuntimeError, TypeError, ValueError, KeyError, IndexError, NotImplementedError) as error:
                problem = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
            else:
                difference = (log_probs - trl_log_probs)[mask].abs().float()
                exact = trl_log_probs.dtype == torch.float32 and not self.args.bf16 and not self.args.fp16
                largest, mean = difference.max().item(), difference.mean().item()
                differs = largest > FLOAT32_TOLERANCE if exact else mean > HALF_TOLERANCE
                problem = f"log-probabilities differ by up to {largest:.3g}" if differs else ""
        problems = [text for text in gather_object([problem]) if text]
        if problems and self.accelerator.is_main_process:
            say(f"this model cannot read the picture once for all replies ({problems[0]}): it is read for each of them")
        return not problems


def shuffle_groups(batch: Batch, replies: int, passes: int) -> list[Batch]:
    """Divide a generation batch into micro-batches, with whole groups in random order."""
    rows = split_pixel_values_by_grid(batch)
    count = len(batch["advantages"]) // replies
    order = (torch.randperm(count)[:, None] * replies + torch.arange(replies)).flatten()
    mixed = {name: _reorder(value, order) for name, value in rows.items()}
    return [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(mixed, passes)]


def _reorder(value: Any, order: torch.Tensor) -> Any:
    if value is None or (isinstance(value, torch.Tensor) and value.ndim == 0):
        return value
    return value[order.to(value.device)] if isinstance(value, torch.Tensor) else [value[i] for i in order.tolist()]
