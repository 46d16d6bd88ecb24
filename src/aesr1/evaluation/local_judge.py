"""Asks a loaded model by a profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
from PIL import Image

from aesr1.endpoint.profile import Profile
from aesr1.endpoint.read_reply import row_of_reply
from aesr1.model.generate import generate_replies, prefill_question
from aesr1.model.load import Vlm
from aesr1.model.predict import Origin, empty_row, predict_batches
from aesr1.model.word_probabilities import word_probabilities
from aesr1.records import Prediction


def judge_locally(
    vlm: Vlm, images: Sequence[str], profile: Profile, *, batch_size: int, seed: int, pool: Executor | None
) -> Iterator[Prediction]:
    """One row an image, in order. A picture or a reply that cannot be read gives a row without a score.

    Sampled replies also depend on the other pictures of a batch.
    """
    origin = Origin(vlm.name, vlm.revision, profile.describe(seed))
    empty = empty_row(origin)
    rendered = vlm.processor.apply_chat_template(
        profile.messages({"type": "image"}), add_generation_prompt=True, tokenize=False
    )
    question = f"{rendered}{profile.stem}"

    def by_words(pictures: Sequence[Image.Image]) -> list[Prediction]:
        values = np.array([profile.normalised(value) for value in profile.words.values()])
        weights = word_probabilities(vlm, pictures, question, profile.spaced_words())
        means = weights @ values
        stds = np.sqrt(np.maximum(0.0, weights @ values**2 - means**2))
        return [
            replace(empty, score=float(mean), score_std=float(std))
            if np.isfinite(mean)
            else replace(empty, error="the model gives no probabilities (NaN): its weights are broken")
            for mean, std in zip(means, stds, strict=True)
        ]

    def by_reply(pictures: Sequence[Image.Image]) -> list[Prediction]:
        replies = generate_replies(
            vlm,
            prefill_question(vlm, pictures, question),
            temperature=profile.temperature,
            top_p=profile.top_p,
            top_k=profile.top_k,
            max_new_tokens=profile.max_new_tokens,
            seed=seed,
        )
        return [row_of_reply(empty, profile, reply) for (reply,) in replies]

    return predict_batches(
        vlm,
        images,
        by_words if profile.reading == "words" else by_reply,
        lambda error: replace(empty, error=error),
        batch_size=batch_size,
        pool=pool,
    )
