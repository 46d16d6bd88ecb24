"""The server's generating thread: requests that wait at the same time form one batch."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from aesr1.app.chat_request import GeneratedReply, HttpRefusal, ReplyRequest, ServeConfig, stopping_refusal

if TYPE_CHECKING:
    import torch

    from aesr1.model.load import Vlm


class ReplyFuture(Future[GeneratedReply]):
    """A reply to come. `left` tells a running batch that its client has gone."""

    left = False

    def cancel(self) -> bool:
        self.left = True
        return super().cancel()


def generate_batch(
    vlm: Vlm,
    requests: Sequence[ReplyRequest],
    stopping: Callable[[], bool],
    has_left: Callable[[int], bool] = lambda _: False,
) -> list[GeneratedReply]:
    """One reply for each request, generated in one batch, each with its own temperature, length, stops and seed.

    A picture and prompt that several requests share are read once. A seeded reply does not depend on the rest of the
    batch. HttpRefusal where `stopping` becomes true. The reply of a place for which `has_left` is true ends at once.
    """
    import torch

    from aesr1.model.generate import picture_tokens
    from aesr1.model.kv_cache import can_repeat_cache, extend, prefill
    from aesr1.model.sampling import end_tokens

    processor, model, shared = vlm.processor, vlm.model, can_repeat_cache(vlm.model)
    keys = [(id(request.image), request.prompt) if shared else place for place, request in enumerate(requests)]
    distinct = dict(zip(keys, requests, strict=True))
    order = {key: row for row, key in enumerate(distinct)}
    rows = [order[key] for key in keys]
    prompts, images = zip(*((request.prompt, [request.image]) for request in distinct.values()), strict=True)
    inputs = processor(text=[*prompts], images=[*images], return_tensors="pt", padding=True)
    inputs = inputs.to(model.device, dtype=model.dtype)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    ends, unwanted = frozenset(end_tokens(model.generation_config)), picture_tokens(model.config) or []
    replies = [
        _ReplyInProgress(request, processor.tokenizer, ends, torch.Generator(model.device).manual_seed(request.seed))
        for request in requests
    ]
    with torch.inference_mode():
        now = prefill(model, inputs)
        if shared:
            now = now.repeat(1, torch.tensor(rows, device=model.device))
        going = replies  # by the rows of `now`
        while True:
            scores = now.logits.float()
            scores[:, unwanted] = -torch.inf
            chosen = torch.stack([reply.draw(row) for reply, row in zip(going, scores, strict=True)])
            for reply, token in zip(going, chosen.tolist(), strict=True):
                reply.read(token)
            for place, reply in enumerate(replies):
                if has_left(place):
                    reply.finish = "left"
            if stopping():
                raise stopping_refusal()
            left = [row for row, reply in enumerate(going) if not reply.finish]
            if not left:
                return [reply.reply(lengths[row]) for reply, row in zip(replies, rows, strict=True)]
            if shared and len(left) < len(going):
                kept = torch.tensor(left, device=model.device)
                going, chosen, now = [going[row] for row in left], chosen[kept], now.repeat(1, kept)
            now = extend(model, now, chosen[:, None], keep=1).after


class _ReplyInProgress:
    """A reply while it is generated."""

    def __init__(self, request: ReplyRequest, tokenizer: Any, ends: frozenset[int], source: torch.Generator) -> None:
        self.request, self.finish, self.text = request, "", ""
        self._tokenizer, self._ends, self._source = tokenizer, ends, source
        self._tokens: list[int] = []

    def draw(self, scores: torch.Tensor) -> torch.Tensor:
        """The next token by its scores (V,): argmax(scores + temperature · Gumbel noise); temperature 0 is greedy.

        The noise comes from the request's own generator.
        """
        if not self.request.temperature:
            return scores.argmax()
        noise = scores.new_empty(scores.shape).exponential_(generator=self._source).clamp_min_(1e-30).log_()
        return (scores - self.request.temperature * noise).argmax()

    def read(self, token: int) -> None:
        """Append the next token, unless the reply has ended."""
        if self.finish:
            return
        self._tokens.append(token)
        ended = token in self._ends
        over = ended or len(self._tokens) >= self.request.max_tokens
        if over or self.request.stop:
            self.text, stopped = _cut(self._tokenizer.decode(self._tokens, skip_special_tokens=True), self.request.stop)
            self.finish = "stop" if ended or stopped else "length" if over else ""

    def reply(self, prompt_tokens: int) -> GeneratedReply:
        return GeneratedReply(self.text, self.finish, prompt_tokens, len(self._tokens))


def _cut(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """A text up to the first of its stops, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


Job = tuple[ReplyRequest, ReplyFuture]


def _tokens(job: Job) -> int:
    return job[0].prompt_tokens + job[0].max_tokens


class Batcher:
    """The generating thread and its queue. Requests that wait at the same time form one batch."""

    def __init__(self, vlm: Vlm, config: ServeConfig) -> None:
        self._vlm, self._config = vlm, config
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._next: Job | None = None  # did not fit into the last batch
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aesr1-generate", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[ReplyRequest]) -> list[ReplyFuture]:
        """A future reply for each request; cancelling it ends its generation. HttpRefusal when the queue is full."""
        most = self._config.max_waiting
        if self._closing.is_set() or self._waiting.qsize() + len(requests) > most:
            raise HttpRefusal(
                f"{most} replies are waiting already", fix="try again later", status=503, code="overloaded"
            )
        jobs = [(request, ReplyFuture()) for request in requests]
        for job in jobs:
            self._waiting.put(job)
        return [future for _, future in jobs]

    def close(self, timeout: float | None = None) -> bool:
        """End the thread after the current token; waiting requests are refused. Whether it ended within `timeout`."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set() and (first := self._next or self._waiting.get()) is not None:
            self._next = None
            self._settle([job for job in self._gathered(first) if job[1].set_running_or_notify_cancel()])
        while self._next or not self._waiting.empty():
            job, self._next = self._next or self._waiting.get(), None
            if job is not None and job[1].set_running_or_notify_cancel():
                job[1].set_exception(stopping_refusal())

    def _gathered(self, first: Job) -> list[Job]:
        """A batch: `first`, and what comes within a moment and fits in number and tokens."""
        batch, deadline = [first], time.monotonic() + self._config.gather
        longest = _tokens(first)
        while len(batch) < self._config.max_batch:
            try:
                job = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                break
            longest = max(longest, _tokens(job))
            if (len(batch) + 1) * longest > self._config.max_batch_tokens:
                self._next = job
                break
            batch.append(job)
        return batch

    def _settle(self, jobs: list[Job]) -> None:
        """Set every future to its reply or its error.

        A batch that fails is tried in halves, so that one bad request fails alone.
        """
        try:
            requests, futures = [request for request, _ in jobs], [future for _, future in jobs]
            replies = (
                generate_batch(self._vlm, requests, self._closing.is_set, lambda place: futures[place].left)
                if jobs
                else []
            )
        except Exception as error:  # an error of one request must not end the thread
            if len(jobs) == 1 or self._closing.is_set():
                for _, future in jobs:
                    future.set_exception(error)
                return
            self._settle(jobs[: len(jobs) // 2])
            self._settle(jobs[len(jobs) // 2 :])
            return
        for (_, future), reply in zip(jobs, replies, strict=True):
            future.set_result(reply)
