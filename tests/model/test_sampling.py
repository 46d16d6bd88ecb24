"""Replies sampled from one prefill equal those of transformers' `generate`, token for token or in distribution."""

from __future__ import annotations

import copy

import pytest
import torch
from families import BUILDERS
from transformers import GenerationConfig
from transformers.cache_utils import DynamicLayer

from aesr1.contract import reply_until_score
from aesr1.images.load import open_image
from aesr1.model.generate import generate_replies, model_inputs, picture_tokens, prefill_pictures
from aesr1.model.kv_cache import SPARE_COLUMNS, PreallocatedLayer, can_repeat_cache, prefill
from aesr1.model.load import load
from aesr1.model.sampling import SamplingSettings, sample_replies, sampling_settings
from aesr1.model.score_expectation import expect_scores, expect_scores_after

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # GLM's processor, of numpy from lists of tensors
)

PIXELS = 4096
PROMPT = "Describe it."


@pytest.fixture(scope="module")
def pictures(scene_folder):
    """Square, wide and tall: rows of unequal length, so that two of them are padded."""
    square, wide, tall = (open_image(scene_folder / f"{number:02d}.png") for number in range(3))
    return [square.resize((64, 64)), wide.resize((90, 40)), tall.resize((30, 90))]


@pytest.fixture(scope="module", params=BUILDERS)
def family(request, tmp_path_factory):
    folder = BUILDERS[request.param](tmp_path_factory.mktemp(request.param))
    return load(str(folder), device="cpu", max_pixels=PIXELS)


@pytest.fixture(scope="module")
def vlm(random_model):
    return load(str(random_model), device="cpu", max_pixels=PIXELS)


@torch.inference_mode()
def both(vlm, pictures, *, eos, **settings):
    """Token lists by `generate`, cut after their first end token, and ours; greedy."""
    inputs = model_inputs(vlm, pictures, [""] * len(pictures), PROMPT)
    settings = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, **settings}
    config = GenerationConfig(max_new_tokens=24, eos_token_id=eos, pad_token_id=0, **settings)
    theirs = vlm.model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :].tolist()
    cut = [row[: 1 + next((place for place, id_ in enumerate(row) if id_ in eos), len(row))] for row in theirs]
    sampling = sampling_settings(config, vlm.model)
    ours = sample_replies(
        vlm.model, prefill(vlm.model, inputs), replies=1, sampling=sampling, max_new_tokens=24, eos=eos
    )
    return cut, ours


def test_greedy_replies_equal_those_of_generate_in_every_family(family, pictures):
    """With end tokens that the replies meet at different places, so that rows leave the batch early and late."""
    assert can_repeat_cache(family.model)
    whole, ours = both(family, pictures, eos=[family.processor.tokenizer.eos_token_id])
    assert ours == whole
    ends = sorted({whole[0][3], whole[1][9], whole[2][17]})
    theirs, ours = both(family, pictures, eos=ends)
    assert ours == theirs and any(len(row) < 24 for row in ours)


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 1.7}, {"min_new_tokens": 6}, {"suppress_tokens": [3, 4, 5, 6]}], ids=str
)
def test_sampling_settings_give_the_replies_that_generate_gives(family, pictures, settings):
    whole, _ = both(family, pictures, eos=[family.processor.tokenizer.eos_token_id])
    theirs, ours = both(family, pictures, eos=sorted({row[2] for row in whole}), **settings)
    assert ours == theirs


def test_scores_from_a_shared_prefill_equal_those_from_a_new_one(family, pictures):
    """Unequal prefixes, two a picture; also where a layer sees a window alone, which padding would narrow."""
    reading = prefill_pictures(family, pictures)
    prefixes = [reply_until_score("x " * length) for length in (1, 9, 3, 3, 14, 0)]
    generate_replies(family, reading, max_new_tokens=5)
    twice = [picture for picture in pictures for _ in range(2)]
    again = [expect_scores(family, [picture], [text])[0] for picture, text in zip(twice, prefixes, strict=True)]
    for found, expected in zip(expect_scores_after(family, reading, prefixes), again, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0, "top_k": 0},
        {"temperature": 0.6, "top_k": 0},
        {"temperature": 1.3, "top_k": 7},
        {"temperature": 1.0, "top_k": 0, "top_p": 0.5},
        {"temperature": 0.8, "top_k": 0, "min_p": 0.05},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.4},
    ],
    ids=str,
)
@torch.inference_mode()
def test_samples_have_the_distribution_of_generate(vlm, pictures, settings):
    """First and second tokens of 4,000 draws a picture, their counts against generate's own scores.

    A χ² of d degrees of freedom exceeds d + 5 √2d less than once in a million times.
    """
    inputs = model_inputs(vlm, pictures[:2], [""] * 2, PROMPT)
    config = GenerationConfig(do_sample=True, max_new_tokens=2, suppress_tokens=[3, 4], eos_token_id=[2], **settings)
    config.update(pad_token_id=0, output_scores=True, return_dict_in_generate=True)
    torch.manual_seed(0)
    made = vlm.model.generate(**inputs, generation_config=config)
    exact = torch.softmax(made.scores[0], dim=-1)
    config.update(output_scores=False, return_dict_in_generate=False)
    sampling = sampling_settings(config, vlm.model)
    source = torch.Generator().manual_seed(1)
    start = prefill(vlm.model, inputs)
    rows = sample_replies(
        vlm.model, start, replies=4000, sampling=sampling, max_new_tokens=2, eos=[2], generator=source
    )
    for picture, expected in enumerate(exact):
        drawn = rows[4000 * picture : 4000 * (picture + 1)]
        agrees(torch.tensor([row[0] for row in drawn]), expected)
    likeliest = int(exact[0].argmax())
    forced = {name: tensor[:1] for name, tensor in inputs.items() if name != "pixel_values"}
    forced["pixel_values"] = inputs["pixel_values"][: int(inputs["image_grid_thw"][0].prod())]
    second = torch.softmax(after(vlm, forced, likeliest, config), dim=-1)
    agrees(torch.tensor([row[1] for row in rows[:4000] if row[0] == likeliest]), second)


def after(vlm, inputs, token, config):
    """generate's scores of the token that follows a first one."""
    extra = {name: torch.tensor([[value]]) for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0))}
    longer = {name: torch.cat([inputs[name], value], dim=1) for name, value in extra.items()}
    longer["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], dim=1)
    config.update(output_scores=True, return_dict_in_generate=True, max_new_tokens=1)
    return vlm.model.generate(**{**inputs, **longer}, generation_config=config).scores[0][0]


def agrees(drawn, expected):
    """Pearson's χ² over the tokens that are expected five times or more, the others together."""
    counts, means = torch.bincount(drawn, minlength=len(expected)).double(), expected.double() * len(drawn)
    assert counts[means == 0].sum() == 0
    common = means >= 5
    counts = torch.cat([counts[common], counts[~common].sum()[None]])
    means = torch.cat([means[common], means[~common].sum()[None]])
    degrees = len(means) - 1
    assert ((counts - means) ** 2 / means.clamp(min=1e-9)).sum() < degrees + 5 * (2 * degrees) ** 0.5 + 10


def test_a_preallocated_cache_holds_the_same_keys_and_values_as_transformers_own():
    """Over several growths, with rows that are repeated and leave, and two that go on from one apart."""
    torch.manual_seed(0)
    ours, theirs = PreallocatedLayer(), DynamicLayer()

    def read(layer, other, rows, tokens):
        keys, values = torch.randn(2, rows, 2, tokens, 4)
        for mine, expected in zip(layer.update(keys, values), other.update(keys, values), strict=True):
            assert torch.equal(mine, expected)

    for tokens in (5, 1, SPARE_COLUMNS - 2, 1, 1, 3 * SPARE_COLUMNS, 1):
        read(ours, theirs, 2, tokens)
    apart, copied = ours.fork(), copy.copy(theirs)
    for _ in range(3):
        read(ours, theirs, 2, 1)
        read(apart, copied, 2, 1)
    for layer in (ours, theirs):
        layer.batch_repeat_interleave(3)
        layer.batch_select_indices(torch.tensor([0, 1, 4]))
    for _ in range(SPARE_COLUMNS + 2):
        read(ours, theirs, 3, 1)
    assert torch.equal(apart.keys, copied.keys) and ours.get_seq_length() == theirs.get_seq_length()


@torch.inference_mode()
def test_a_prefill_is_unchanged_by_sampling(vlm, pictures):
    start = prefill(vlm.model, model_inputs(vlm, pictures, [""] * 3, PROMPT))
    settings = {"sampling": SamplingSettings(temperature=1.0), "max_new_tokens": 6, "eos": [2]}
    first, again, other = (
        sample_replies(vlm.model, start, replies=3, generator=torch.Generator().manual_seed(seed), **settings)
        for seed in (0, 0, 1)
    )
    assert first == again != other and len(first) == 9


def test_settings_that_sampling_does_not_support_are_left_to_generate(vlm, pictures, monkeypatch):
    assert sampling_settings(GenerationConfig(no_repeat_ngram_size=2), vlm.model) is None
    assert sampling_settings(GenerationConfig(num_beams=3), vlm.model) is None
    reading = prefill_pictures(vlm, pictures)
    expected = generate_replies(vlm, reading, max_new_tokens=8)
    monkeypatch.setattr("aesr1.model.generate.can_repeat_cache", lambda model: False)
    unread = prefill_pictures(vlm, pictures)
    assert unread.start is None and generate_replies(vlm, unread, max_new_tokens=8) == expected
    prefixes = [reply_until_score("x")] * 3
    found = torch.tensor(expect_scores_after(vlm, unread, prefixes))
    assert found == pytest.approx(torch.tensor(expect_scores_after(vlm, reading, prefixes)), abs=1e-5)


@pytest.mark.parametrize("name", ["qwen3-vl-moe"])
def test_a_mixture_of_experts_that_was_trained_with_a_router_loss_scores_as_before(name, pictures, tmp_path):
    vlm = load(str(BUILDERS[name](tmp_path)), device="cpu", max_pixels=PIXELS)
    reading = prefill_pictures(vlm, pictures)
    expected = expect_scores_after(vlm, reading, [reply_until_score("x")] * 3)
    vlm.model.config.text_config.output_router_logits = True
    assert expect_scores_after(vlm, reading, [reply_until_score("x")] * 3) == expected
    assert generate_replies(vlm, prefill_pictures(vlm, pictures), max_new_tokens=4)


def test_a_reply_holds_no_picture_tokens(vlm, pictures):
    config = GenerationConfig(do_sample=True, suppress_tokens=picture_tokens(vlm.model.config))
    assert set(sampling_settings(config, vlm.model).suppress_tokens) == set(picture_tokens(vlm.model.config))
