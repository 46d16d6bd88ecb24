"""RAPO in as many processes as torchrun starts, with replies that do not depend on how many: for test_distributed.py.

torchrun --nproc_per_node 2 tests/two_processes.py REPORT.json [any setting of `aesr1 rapo`]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from aesr1.contract import Judgement, render_reply
from aesr1.rapo import train
from aesr1.rapo.trainer import RapoTrainer

SEEN: list[dict[str, Any]] = []


class Scripted(RapoTrainer):
    """The real trainer, whose replies are a function of picture and place in the group instead of drawn."""

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        rank = self.accelerator.process_index
        replies = []
        for row, (picture,) in enumerate(images):
            place = (rank * len(images) + row) % self.num_generations
            number = sum(picture.resize((4, 4)).convert("L").tobytes()) + 37 * place
            text = render_reply(Judgement(number % 101 / 100, "Soft light."))
            text = text if number % 7 else text[:-3]  # one in seven is unreadable
            replies.append(self._tokenizer(text, add_special_tokens=False)["input_ids"] + [self.eos_token_ids[0]])
        return replies, None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        rows = [
            (row["sample"], reward, advantage)
            for row, reward, advantage in zip(
                inputs, self._own_rewards.tolist(), batch["advantages"].tolist(), strict=True
            )
        ]
        SEEN.append({"rows": gather_object(rows), "images": len({row["sample"] for row in inputs})})
        return batch


def main() -> None:
    report, *arguments = sys.argv[1:]
    train.RapoTrainer = Scripted  # type: ignore[misc]
    output = Path(train.main(arguments))
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        Path(report).write_text(json.dumps({"processes": state.num_processes, "steps": SEEN, "output": str(output)}))
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
