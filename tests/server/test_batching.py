"""Replies that the server writes together: drawn by the model's probabilities, each picture read once."""

from itertools import count

import pytest
import torch

from aesr1.contract import PROMPT, THINK_OPEN
from aesr1.images.load import open_image
from aesr1.model.generate import chat_prompt
from aesr1.model.load import load
from aesr1.server.batching import generate_batch
from aesr1.server.chat_request import ReplyRequest


@pytest.fixture(scope="module")
def tiny():
    return load("tiny", device="cpu")


@pytest.fixture(scope="module")
def pictures(tiny, scene_folder):
    return [open_image(scene_folder / f"{number:02d}.png", max_pixels=tiny.max_pixels) for number in range(3)]


def test_the_draw_follows_the_models_probabilities(tiny, pictures):
    picture, prompt = pictures[0], chat_prompt(tiny, PROMPT) + THINK_OPEN
    with torch.inference_mode():
        inputs = tiny.processor(text=[prompt], images=[[picture]], return_tensors="pt")
        chances = torch.softmax(tiny.model(**inputs, logits_to_keep=1).logits[0, -1] / 1.5, -1).sort(descending=True)
    half = int((chances.values.cumsum(0) < 0.5).sum()) + 1
    likely = {tiny.processor.decode([token]) for token in chances.indices[:half].tolist()}
    asks = [ReplyRequest(prompt, picture, temperature=1.5, max_tokens=1, seed=seed) for seed in range(64)]
    replies = generate_batch(tiny, asks, lambda: False)
    share = sum(reply.text in likely for reply in replies) / len(replies)
    assert share == pytest.approx(float(chances.values[:half].sum()), abs=0.12)


def test_a_picture_is_read_once_for_all_replies_about_it(tiny, pictures):
    prompt, seeds = chat_prompt(tiny, PROMPT), count(5)
    asks = [ReplyRequest(prompt, pictures[place], 1.0, 12, seed=next(seeds)) for place in (0, 0, 1, 0, 2, 1)]
    alone = [generate_batch(tiny, [ask], lambda: False)[0] for ask in asks]
    seen = []
    watch = tiny.model.model.visual.register_forward_hook(
        lambda *call: seen.append(len(call[2]["grid_thw"])), with_kwargs=True
    )
    try:
        together = generate_batch(tiny, asks, lambda: False)
    finally:
        watch.remove()
    assert together == alone and len({reply.text for reply in together}) == 6
    assert seen == [3]


def test_a_family_whose_cache_cannot_be_shared_reads_for_every_reply(tiny, pictures, monkeypatch):
    prompt = chat_prompt(tiny, PROMPT)
    asks = [ReplyRequest(prompt, pictures[0], 1.0, 8 + 20 * number, seed=number) for number in range(3)]
    expected = generate_batch(tiny, asks, lambda: False)
    monkeypatch.setattr("aesr1.model.kv_cache.can_repeat_cache", lambda model: False)
    assert generate_batch(tiny, asks, lambda: False) == expected
