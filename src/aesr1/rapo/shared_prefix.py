"""Log-probabilities of K replies from one forward pass of picture and prompt, checked against TRL's own."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from aesr1.rapo.shared_prefix_batch import COUNTS, PICTURES, group_inputs, pack_groups, prompt_positions, rows_of_groups
from aesr1.training.parameters import unwrap_lora

EXACT, ROUNDED = 1e-3, 5e-2
"""Largest difference of log-probabilities from TRL's: the maximum in float32, the mean in 16 bits."""

Batch = dict[str, Any]


class LogProbs(NamedTuple):
    """The values that TRL returns."""

    log_probs: torch.Tensor  # (rows, R)
    entropies: torch.Tensor | None
    aux_loss: torch.Tensor | None


class SharedPrefix:
    """For a GRPOTrainer: reads picture and prompt once for the K replies of a group.

    Used where micro-batches are whole groups and the model family allows it. The first batch is computed in both ways;
    if they differ, or the model fails, TRL's way is used for the whole run, with a warning.
    """

    read_once: bool
    accelerator: Any
    args: Any
    num_generations: int
    _buffered_inputs: Any
    _agrees: bool | None = None  # unknown before the first batch

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        """As TRL's, but groups are shuffled as a whole, so that a micro-batch holds all replies to its pictures."""
        if not self._whole_groups(self.args.per_device_train_batch_size):
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc, no-any-return]
        passes = self.args.steps_per_generation
        if self._step % (passes * self.num_iterations) == 0 or self._buffered_inputs is None:  # type: ignore[attr-defined]
            batch = self._generate_and_score_completions(generation_batch)  # type: ignore[attr-defined]
            self._buffered_inputs = shuffle_groups(batch, self.num_generations, passes)
        micro_batch: Batch = self._buffered_inputs[self._step % passes]  # type: ignore[attr-defined]
        return micro_batch

    def _whole_groups(self, rows: int) -> bool:
        """Whether this many rows, and a process's share of a generation batch, are whole groups."""
        local = self.args.per_device_train_batch_size * self.args.steps_per_generation
        training = self.model.training  # type: ignore[attr-defined]
        whole = rows % self.num_generations == 0 and local % self.num_generations == 0
        return bool(self.read_once and self._agrees is not False and training and whole)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **more: Any
    ) -> tuple[Any, Any, Any]:
        arguments = (model, input_ids, attention_mask, logits_to_keep)
        if not self._whole_groups(len(input_ids)) or more.get("compute_aux_loss"):
            return super()._get_per_token_logps_and_entropies(*arguments, **more)  # type: ignore[misc, no-any-return]
        if self._agrees is None:
            self._agrees = self._compare(*arguments, **more)
        if not self._agrees:
            return super()._get_per_token_logps_and_entropies(*arguments, **more)  # type: ignore[misc, no-any-return]
        return self._once(*arguments, **more)

    def _once(self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **more: Any) -> LogProbs:
        """Log-probabilities and entropies (rows, R) of whole groups, in chunks of TRL's batch size."""
        replies = self.num_generations
        groups = len(input_ids) // replies
        at_once = max(1, (more.get("batch_size") or len(input_ids)) // replies)
        pictures = rows_of_groups({name: more.get(name) for name in (*PICTURES, *COUNTS)}, replies)
        types, parts = more.get("mm_token_type_ids"), []
        for start in range(0, groups, at_once):
            chunk = slice(start, min(start + at_once, groups))
            rows = slice(chunk.start * replies, chunk.stop * replies)
            seen, kinds = group_inputs(pictures, chunk), None if types is None else types[rows]
            parts.append(self._of_groups(model, input_ids[rows], attention_mask[rows], logits_to_keep, seen, kinds))
        log_probs, entropies = zip(*parts, strict=True)
        return LogProbs(torch.cat(log_probs), torch.cat(entropies) if more.get("compute_entropy") else None, None)

    def _of_groups(
        self, model: Any, ids: Any, mask: Any, logits_to_keep: int, seen: dict[str, Any], types: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies (rows, R) from one forward pass; `seen` are the picture inputs."""
        replies, prompt = self.num_generations, ids.shape[1] - logits_to_keep
        asked, there = ids[::replies, :prompt], mask[::replies, :prompt]
        positions = prompt_positions(
            unwrap_lora(self.accelerator.unwrap_model(model)),
            asked,
            there,
            image_grid_thw=seen.get("image_grid_thw"),
            mm_token_type_ids=None if types is None else types[::replies, :prompt],
        )
        over = mask[:, prompt:]
        pad = self._tokenizer.pad_token_id  # type: ignore[attr-defined]
        packed = pack_groups(asked, there, positions, ids[:, prompt:], over, pad=pad)
        with self.accelerator.autocast():
            outputs = model(
                input_ids=packed.input_ids,
                attention_mask=packed.attention_mask,
                position_ids=packed.position_ids,
                labels=packed.labels,
                fused_lm_head=True,
                **seen,
            )
        entropy = outputs.log_probs if outputs.entropy is None else outputs.entropy  # the reference model has none
        return packed.of_replies(outputs.log_probs, over), packed.of_replies(entropy, over)

    def _compare(self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **more: Any) -> bool:
        """Whether both ways agree on this batch; all processes get the same result."""
        arguments = (model, input_ids, attention_mask, logits_to_keep)
        mask = attention_mask[:, -logits_to_keep:].bool()
        problem = ""
        with torch.no_grad():
            plain, _, _ = super()._get_per_token_logps_and_entropies(*arguments, **more)  # type: ignore[misc]
            try:
                once, _, _ = self._once(*arguments, **more)
            except (RuntimeError, TypeError, ValueError, KeyError, IndexError, NotImplementedError) as error:
                problem = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
            else:
                gap = (once - plain)[mask].abs().float()
                exact = plain.dtype == torch.float32 and not self.args.bf16 and not self.args.fp16
                far = gap.max().item() > EXACT if exact else gap.mean().item() > ROUNDED
                problem = f"log-probabilities differ by up to {gap.max().item():.3g}" if far else ""
        problems = [found for found in gather_object([problem]) if found]
        if problems and self.accelerator.is_main_process:
            print(
                f"this model cannot read the picture once for all replies ({problems[0]}): it is read for each of them",
                file=sys.stderr,
            )
        return not problems


def shuffle_groups(batch: Batch, replies: int, passes: int) -> list[Batch]:
    """Divide a generation batch into micro-batches, with whole groups in random order."""
    rows = split_pixel_values_by_grid(batch)
    count = len(batch["advantages"]) // replies
    order = (torch.randperm(count)[:, None] * replies + torch.arange(replies)).flatten()
    mixed = {name: _ordered(value, order) for name, value in rows.items()}
    return [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(mixed, passes)]


def _ordered(value: Any, order: torch.Tensor) -> Any:
    if value is None or (isinstance(value, torch.Tensor) and value.ndim == 0):
        return value
    return value[order.to(value.device)] if isinstance(value, torch.Tensor) else [value[i] for i in order.tolist()]
