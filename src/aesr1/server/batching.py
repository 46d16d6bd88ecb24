"""The queue of the server's model: requests of one kind that wait at the same time form one batch."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from aesr1.errors import AesError
from aesr1.model.model_thread import ModelThread, settle
from aesr1.records import Prediction
from aesr1.server.chat_request import GeneratedReply, ReplyRequest
from aesr1.server.errors import HttpRefusal, stopping_refusal
from aesr1.server.score_request import ScoreRequest, score_settings
from aesr1.server.settings import ServeConfig

if TYPE_CHECKING:
    import torch

    from aesr1.model.load import Vlm


MOST_SECONDS = 60
"""Longest time after which a client that was turned away is told to try again."""


class BatchFuture(Future[Any]):
    """A `GeneratedReply` or a `Prediction` to come. `left` tells a running batch that its client has gone."""

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


Job = tuple[ReplyRequest | ScoreRequest, BatchFuture]


def _kind(job: Job) -> object:
    """Requests of one kind can share a batch."""
    request, _ = job
    return request.reasons if isinstance(request, ScoreRequest) else "chat"


class Batcher:
    """The queue of a model that runs in its thread. Requests of one kind that wait at the same time form one batch."""

    def __init__(
        self,
        vlm: Vlm,
        config: ServeConfig,
        thread: ModelThread,
        *,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`thread`: the one that loaded the model. `on_batch` hears the size of each batch."""
        self._vlm, self._config, self._thread, self._on_batch = vlm, config, thread, on_batch
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._seconds_each: dict[object, float] = {}  # of the model for a request of each kind, in its last batch

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def require_room(self, requests: int) -> None:
        """HttpRefusal where so many more requests may not wait; it says when to try again."""
        if self._closing.is_set():
            raise stopping_refusal()
        most = self._config.max_waiting
        if requests > most:
            raise AesError(f"{requests} at a time are more than may wait", fix=f"send at most {most}")
        with self._changed:
            if len(self._waiting) + requests <= most:
                return
            going = [job for job in self._waiting if not job[1].cancelled()]
            self._waiting = deque(going)
        if len(going) + requests > most:
            seconds = min(MOST_SECONDS, 1 + math.ceil(sum(self._seconds_each.get(_kind(job), 0.0) for job in going)))
            raise HttpRefusal(
                f"{most} replies are waiting already",
                fix=f"try again in {seconds} s",
                status=503,
                code="overloaded",
                retry_after=seconds,
            )

    def submit(self, requests: Sequence[ReplyRequest | ScoreRequest]) -> list[BatchFuture]:
        """A future for each request, of a `GeneratedReply` or a `Prediction`; cancelling a reply ends its generation.

        HttpRefusal when the queue is full.
        """
        jobs = [(request, BatchFuture()) for request in requests]
        with self._changed:
            self.require_room(len(jobs))
            self._waiting.extend(jobs)
            self._changed.notify()
        for _ in jobs:
            self._thread.submit(self._run)
        return [future for _, future in jobs]

    def close(self) -> None:
        """Refuse the requests that wait, and wait for the end of the current token or batch."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
            refused, self._waiting = self._waiting, deque()
        for _, future in refused:
            if future.set_running_or_notify_cancel():
                future.set_exception(stopping_refusal())
        self._thread.run(lambda: None)

    def _run(self) -> None:
        """Answer the next batch. It is submitted once for each request: where all have been joined, none may wait."""
        jobs = [job for job in self._gathered() if job[1].set_running_or_notify_cancel()]
        if jobs:
            begun = time.monotonic()
            settle(jobs, self._results)
            self._seconds_each[_kind(jobs[0])] = (time.monotonic() - begun) / len(jobs)
            self._on_batch(len(jobs))

    def _gathered(self) -> list[Job]:
        """The oldest request, and those of its kind that come within a moment and fit; none where none waits."""
        with self._changed:
            if not self._waiting:
                return []
            batch, deadline = [self._waiting.popleft()], time.monotonic() + self._config.gather
            while len(batch) < self._config.max_batch and not self._closing.is_set():
                place = next((i for i, job in enumerate(self._waiting) if _kind(job) == _kind(batch[0])), None)
                if place is None:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        break
                elif self._fits(batch, self._waiting[place]):
                    batch.append(self._waiting[place])
                    del self._waiting[place]
                else:
                    break
            return batch

    def _fits(self, batch: Sequence[Job], job: Job) -> bool:
        """Whether the batch stays within its limit of tokens: replies × the longest prompt and reply."""
        lengths = [each.prompt_tokens + each.max_tokens for each, _ in (*batch, job) if isinstance(each, ReplyRequest)]
        return len(lengths) * max(lengths, default=0) <= self._config.max_batch_tokens

    def _results(self, jobs: Sequence[Job]) -> Sequence[GeneratedReply | Prediction]:
        from aesr1.model.predict import predict

        if self._closing.is_set():
            raise stopping_refusal()
        requests, futures = zip(*jobs, strict=True)
        if isinstance(requests[0], ReplyRequest):
            return generate_batch(self._vlm, requests, self._closing.is_set, lambda place: futures[place].left)
        settings = score_settings(self._config, reasons=requests[0].reasons)
        return list(predict(self._vlm, [each.image for each in requests], settings))
