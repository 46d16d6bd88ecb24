"""The one thread that generates: asks that wait together are answered together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from aesr1.app.asks import Ask, Refusal, Reply, ServeConfig, stopping_refusal

if TYPE_CHECKING:
    import torch

    from aesr1.vlm import Vlm


def reply_batch(vlm: Vlm, asks: Sequence[Ask], stopping: Callable[[], bool]) -> list[Reply]:
    """One reply an ask, generated together, each with its own temperature, length, stops and seed.

    A draw is argmax(logits + temperature · Gumbel noise), the noise from the ask's own generator: so a seeded reply
    does not depend on its company, and temperature 0 is greedy. Refusal where `stopping` turns true meanwhile.
    """
    import torch

    from aesr1.vlm import picture_tokens

    processor, model = vlm.processor, vlm.model
    prompts, images = [ask.prompt for ask in asks], [[ask.image] for ask in asks]
    inputs = processor(text=prompts, images=images, return_tensors="pt", padding=True)
    inputs = inputs.to(model.device, dtype=model.dtype)
    start = inputs["input_ids"].shape[1]
    given = model.generation_config.eos_token_id
    ends = set(given) if isinstance(given, list) else {given}
    sources = [torch.Generator(model.device).manual_seed(ask.seed) for ask in asks]
    ended: dict[int, int] = {}

    def draw(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.zeros_like(scores)
        for row, (ask, source) in enumerate(zip(asks, sources, strict=True)):
            if ask.temperature > 0 and row not in ended:
                noise[row].exponential_(generator=source).clamp_min_(1e-30).log_().mul_(-ask.temperature)
        return scores + noise

    def finished(tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        done, last = tokens.shape[1] - start, tokens[:, -1].tolist()
        for row, ask in enumerate(asks):
            over = row in ended or last[row] in ends or done >= ask.max_tokens
            if over or (
                ask.stop and _cut(processor.decode(tokens[row, start:], skip_special_tokens=True), ask.stop)[1]
            ):
                ended.setdefault(row, done)
        return torch.tensor([row in ended or stopping() for row in range(len(asks))], device=tokens.device)

    with torch.inference_mode():
        tokens = model.generate(
            **inputs,
            **{"do_sample": False, "temperature": None, "top_p": None, "top_k": None},
            repetition_penalty=1.0,
            max_new_tokens=max(ask.max_tokens for ask in asks),
            suppress_tokens=picture_tokens(model.config),
            pad_token_id=processor.tokenizer.pad_token_id,
            logits_processor=[draw] if any(ask.temperature > 0 for ask in asks) else [],
            stopping_criteria=[finished],
        )[:, start:]
    if stopping():
        raise stopping_refusal()
    replies = []
    for row, ask in enumerate(asks):
        mine = tokens[row, : ended[row]]
        text, stopped = _cut(processor.decode(mine, skip_special_tokens=True), ask.stop)
        finish = "stop" if stopped or int(mine[-1]) in ends else "length"
        replies.append(Reply(text, finish, int(inputs["attention_mask"][row].sum()), len(mine)))
    return replies


def _cut(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """A text up to the first of its stops, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


class Batcher:
    """The one thread that generates, and the queue before it. Asks that wait together are answered together."""

    def __init__(self, vlm: Vlm, config: ServeConfig) -> None:
        self._vlm, self._config = vlm, config
        self._waiting: queue.SimpleQueue[tuple[Ask, Future[Reply]] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aesr1-generate", daemon=True)
        self._thread.start()

    def submit(self, asks: Sequence[Ask]) -> list[Future[Reply]]:
        """A future reply to each ask; one that is cancelled while it waits is never generated. Refusal when full."""
        most = self._config.max_waiting
        if self._closing.is_set() or self._waiting.qsize() + len(asks) > most:
            raise Refusal(f"{most} replies are waiting already", fix="ask again later", status=503, code="overloaded")
        jobs = [(ask, Future[Reply]()) for ask in asks]
        for job in jobs:
            self._waiting.put(job)
        return [future for _, future in jobs]

    def close(self) -> None:
        """End the thread after the token it is at; what waits is refused."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set() and (first := self._waiting.get()) is not None:
            batch, deadline = [first], time.monotonic() + self._config.gather
            while len(batch) < self._config.max_batch:
                try:
                    job = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if job is None:
                    break
                batch.append(job)
            self._settle([job for job in batch if job[1].set_running_or_notify_cancel()])
        while not self._waiting.empty():
            if (left := self._waiting.get()) is not None and left[1].set_running_or_notify_cancel():
                left[1].set_exception(stopping_refusal())

    def _settle(self, jobs: list[tuple[Ask, Future[Reply]]]) -> None:
        """Every future gets its reply or its error. A batch that fails is tried in halves, to spare the innocent."""
        try:
            replies = reply_batch(self._vlm, [ask for ask, _ in jobs], self._closing.is_set) if jobs else []
        except Exception as error:  # nothing that one request does may end the thread
            if len(jobs) == 1 or self._closing.is_set():
                for _, future in jobs:
                    future.set_exception(error)
                return
            self._settle(jobs[: len(jobs) // 2])
            self._settle(jobs[len(jobs) // 2 :])
            return
        for (_, future), reply in zip(jobs, replies, strict=True):
            future.set_result(reply)
