"""Profiles: data with source and licence, strict readings, a local model asked by them, bad files refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from aesr1.cli.main import app
from aesr1.contract import PROMPT
from aesr1.endpoint.profile import AESR1, PICTURE, Profile, load_profile, profile_names
from aesr1.endpoint.read_reply import read_reply
from aesr1.errors import AesError
from aesr1.evaluation.run import EvalConfig, evaluate_models
from aesr1.images.load import open_image
from aesr1.json_lines import read_rows
from aesr1.model.generate import text_inputs
from aesr1.model.load import load
from aesr1.model.predict import PredictSettings
from aesr1.model.word_probabilities import word_probabilities
from aesr1.records import Prediction

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"
ONE_TO_FIVE = Profile("p", PICTURE, "answer", (1.0, 5.0))
JSON = Profile("p", PICTURE, "json_rating", (1.0, 5.0))
PERCENT = Profile("p", PICTURE, "number", (0.0, 100.0))
WORDS = """
scale = [1, 5]
reading = "words"
prompt = "How good is this?<image>"
stem = "It is"
words = { excellent = 5, good = 4, fair = 3, poor = 2, bad = 1 }
max_pixels = 4096
"""


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_a_source_and_a_licence_and_stands_in_the_docs(name: str) -> None:
    profile = load_profile(name)
    assert profile.source and profile.measures in ("aesthetics", "quality")
    assert profile.licence or profile is AESR1
    (row,) = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    low, high = profile.scale
    assert f"{low:g}–{high:g}" in row and profile.licence in row and profile.measures in row


def test_our_own_profile_is_the_contract() -> None:
    (message,) = AESR1.messages({"type": "image"})
    assert message["content"] == [{"type": "image"}, {"type": "text", "text": PROMPT}]


def test_the_picture_stands_where_the_prompt_says_and_a_system_message_comes_first() -> None:
    profile = Profile("p", "this picture <image> ?", "answer", (0.0, 1.0), system="Be strict.")
    system, user = profile.messages({"type": "image"})
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be strict."}]}
    assert [part.get("text", "<>") for part in user["content"]] == ["this picture ", "<>", " ?"]


@pytest.mark.parametrize(
    ("profile", "reply", "score", "reasoning"),
    [
        (ONE_TO_FIVE, "<think>Dull.</think><answer>3</answer>", 0.5, "Dull."),
        (ONE_TO_FIVE, "<think>\nDull.\n</think>\n<answer>\n 4.20 \n</answer>\n", 0.8, "Dull."),
        (ONE_TO_FIVE, "<answer>1</answer>", 0.0, None),
        (ONE_TO_FIVE, "<answer>3/5</answer>", None, None),
        (ONE_TO_FIVE, "<answer>about 3</answer>", None, None),
        (ONE_TO_FIVE, "<answer>3</answer><answer>4</answer>", None, None),
        (ONE_TO_FIVE, "</answer>3<answer>", None, None),
        (ONE_TO_FIVE, "<answer>3", None, None),
        (ONE_TO_FIVE, "<answer>٣</answer>", None, None),
        (ONE_TO_FIVE, "3", None, None),
        (ONE_TO_FIVE, "", None, None),
        (JSON, '<think>x</think><answer>{"rating": 2}</answer>', 0.25, "x"),
        (JSON, '<answer>\n```json\n{"rating": 3.5, "note": "soft"}\n```\n</answer>', 0.625, None),
        (JSON, '<answer>{"rating": "3"}</answer>', None, None),
        (JSON, '<answer>{"rating": true}</answer>', None, None),
        (JSON, '<answer>{"score": 3}</answer>', None, None),
        (JSON, "<answer>[3]</answer>", None, None),
        (JSON, f'<answer>{{"rating": 1{"0" * 400}}}</answer>', None, None),
        (JSON, "<answer>3</answer>", None, None),
        (JSON, '{"rating": 3}', None, None),
        (PERCENT, "73", 0.73, None),
        (PERCENT, " 12.5\n", 0.125, None),
        (PERCENT, "73/100", None, None),
        (PERCENT, "73.", None, None),
        (PERCENT, "I give 73", None, None),
        (PERCENT, "1e1", None, None),
    ],
)
def test_a_reply_gives_the_score_that_it_says_or_none(
    profile: Profile, reply: str, score: float | None, reasoning: str | None
) -> None:
    read = read_reply(profile, reply)
    assert read.score == pytest.approx(score) and read.out_of_range is None
    assert score is None or read.reasoning == reasoning


@pytest.mark.parametrize(
    ("profile", "reply", "number"),
    [
        (ONE_TO_FIVE, "<answer>0.75</answer>", "0.75"),
        (ONE_TO_FIVE, "<answer>-2</answer>", "-2"),
        (JSON, '<answer>{"rating": 5.01}</answer>', "5.01"),
        (JSON, '<answer>{"rating": NaN}</answer>', "nan"),
        (PERCENT, "101", "101"),
    ],
)
def test_a_number_outside_the_scale_is_no_score_and_is_named(profile: Profile, reply: str, number: str) -> None:
    read = read_reply(profile, reply)
    low, high = profile.scale
    assert read.score is None and read.out_of_range == f"{number} is outside the scale {low:g} to {high:g}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("scale = [1, 5", "is not TOML"),
        ('prompt = "<image>"\nreading = "number"', "has no scale"),
        (WORDS + 'taste = "fine"', "unknown field 'taste'"),
        (WORDS.replace("[1, 5]", "[5, 1]"), "scale is 5.0 to 1.0"),
        (WORDS.replace("[1, 5]", "[1, 2, 5]"), "scale is two numbers"),
        (WORDS.replace("[1, 5]", '"1-5"'), "scale is '1-5', of a wrong type"),
        (WORDS.replace("<image>", ""), "prompt names <image> 0 times"),
        (WORDS.replace('"words"', '"taste"'), "reading is 'taste'"),
        (WORDS.replace('"words"', '"contract"'), "belongs to aesr1"),
        (WORDS.replace('"words"', '"number"'), "words and stem are for reading words alone"),
        (WORDS.replace("bad = 1", "bad = 0"), "a word's value is outside the scale 1 to 5"),
        (WORDS.replace("bad = 1", 'bad = "1"'), "each word has one"),
        (WORDS + "temperature = -1", "temperature and top_k begin at 0"),
        (WORDS + "temperature = true", "temperature is True, of a wrong type"),
        (WORDS.replace("4096", "7"), "max_pixels at"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_in_words(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(AesError, match=f"profile mine.*{reason}") as raised:
        load_profile(str(tmp_path / "mine.toml"))
    assert raised.value.fix


def test_a_profile_that_does_not_exist_is_named_with_those_that_do() -> None:
    for name in ("taste", "taste.toml"):
        with pytest.raises(AesError, match=r"(?s)there is no profile taste.*q-insight"):
            load_profile(name)


def test_every_change_of_what_decides_is_another_way_of_reading() -> None:
    assert ONE_TO_FIVE.describe(0) != Profile("p", PICTURE + "?", "answer", (1.0, 5.0)).describe(0)
    assert ONE_TO_FIVE.describe(0) == Profile("p", PICTURE, "answer", (1.0, 5.0), source="x").describe(1)


@pytest.fixture(scope="module")
def vlm(random_model: Path):
    return load(str(random_model), device="cpu", max_pixels=4096)


def evaluated(folder: Path, scenes: Path, model: Path, *profiles: tuple[str, str], **more) -> list[Prediction]:
    config = EvalConfig((scenes / "ratings.jsonl",), (("m", str(model)),), folder, profiles=profiles, **more)
    evaluate_models(config)
    return read_rows(folder / "predictions-m.jsonl", Prediction)


def test_words_are_read_from_one_forward_pass_of_question_and_stem(vlm, random_model, scene_folder, tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(WORDS)
    rows = evaluated(tmp_path / "out", scene_folder, random_model, ("m", str(tmp_path / "mine.toml")))
    assert len(rows) == 8
    text = (
        "<|im_start|>user\nHow good is this?<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\nIt is"
    )
    ids = vlm.processor.tokenizer([" excellent", " good", " fair", " poor", " bad"])["input_ids"]
    for row in rows:
        inputs = text_inputs(vlm, [open_image(row.image, max_pixels=4096)], [text])
        with torch.inference_mode():
            logits = vlm.model(**inputs).logits[0, -1]
        weights = torch.softmax(logits[[each[0] for each in ids]].double(), dim=0).numpy()
        values = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
        assert row.score == pytest.approx(weights @ values, abs=1e-5)
        assert row.score_std == pytest.approx(np.sqrt(weights @ (values - weights @ values) ** 2), abs=1e-5)
        assert (row.readable, row.reasoning, row.reply, row.error) == (None, None, "", None)
    assert len({row.score for row in rows}) == 8
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["m"]
    assert entry["n_scored"] == 8 and entry["parse_rate"] is None and "expectation over words" in entry["decoding"]


def test_words_with_one_first_token_and_stems_that_merge_with_them_are_refused(vlm, scene_folder) -> None:
    picture = [open_image(scene_folder / "00.png", max_pixels=4096)]
    with pytest.raises(AesError, match="do not begin with different tokens"):
        word_probabilities(vlm, picture, "<|vision_start|><|image_pad|><|vision_end|>It is", [" 15", " 12"])
    with pytest.raises(AesError, match="merges the words with the text before"):
        word_probabilities(vlm, picture, "<|vision_start|><|image_pad|><|vision_end|>the sky is bl", ["ue", "ack"])


def test_a_profile_that_never_parses_ends_with_its_first_reply_and_a_table(
    random_model, scene_folder, tmp_path, capsys
) -> None:
    (tmp_path / "mine.toml").write_text(
        'prompt = "<image>Rate it."\nreading = "number"\nscale = [1, 5]\nmax_new_tokens = 4\nmax_pixels = 4096'
    )
    rows = evaluated(tmp_path / "out", scene_folder, random_model, ("", str(tmp_path / "mine.toml")))
    assert all((row.score, row.readable, row.error) == (None, False, None) and row.reply for row in rows)
    said = capsys.readouterr().err
    assert "m: 0 of 8 pictures have a score by profile mine; the first reply: " in said
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| m | 0 of 8 | 0.000" in table and "fewer than three images have a score" in table


def test_the_same_command_asks_no_picture_twice_also_where_the_reply_was_of_no_use(
    random_model, scene_folder, tmp_path, monkeypatch
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('prompt = "<image>?"\nreading = "number"\nscale = [1, 5]\nmax_new_tokens = 2\nmax_pixels = 4096')
    first = evaluated(tmp_path / "out", scene_folder, random_model, ("", str(mine)))
    monkeypatch.setattr("aesr1.evaluation.local_judge.generate_replies", lambda *_, **__: pytest.fail("asked again"))
    assert evaluated(tmp_path / "out", scene_folder, random_model, ("", str(mine))) == first
    mine.write_text(mine.read_text().replace("<image>?", "<image>!"))
    with pytest.raises(AesError, match="was written by"):
        evaluated(tmp_path / "out", scene_folder, random_model, ("", str(mine)))


def test_sampled_replies_follow_the_profile_and_the_seed(random_model, scene_folder, tmp_path) -> None:
    text = 'prompt = "<image>?"\nreading = "number"\nscale = [1, 5]\nmax_new_tokens = 6\nmax_pixels = 4096\n'
    (tmp_path / "warm.toml").write_text(text + "temperature = 2.0\ntop_p = 0.99\ntop_k = 300")
    (tmp_path / "one.toml").write_text(text + "temperature = 2.0\ntop_k = 1")
    (tmp_path / "cold.toml").write_text(text)

    def replies(name: str, folder: str, seed: int) -> list[str]:
        profile = ("", str(tmp_path / f"{name}.toml"))
        settings = PredictSettings(seed=seed)
        rows = evaluated(tmp_path / folder, scene_folder, random_model, profile, predict_settings=settings)
        return [row.reply for row in rows]

    assert replies("warm", "a", 1) == replies("warm", "b", 1) != replies("warm", "c", 2)
    assert replies("one", "d", 1) == replies("cold", "e", 2)


def test_the_contract_is_the_default_and_its_profile_changes_nothing(fluent_model, scene_folder, tmp_path) -> None:
    plain = evaluated(tmp_path / "a", scene_folder, fluent_model, max_pixels=4096)
    named = evaluated(tmp_path / "b", scene_folder, fluent_model, ("m", "aesr1"), max_pixels=4096)
    assert [row.score for row in plain] == [row.score for row in named] and None not in {row.score for row in plain}
    assert {row.decoding for row in named} == {"expectation; at most 512 tokens, 4096 pixels"}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--profile", "q=q-insight"], "there is no model q to ask by profile q-insight"),
        (["--profile", "taste"], "there is no profile taste"),
        (["--profile", "q-insight", "--fast"], "m is asked by profile q-insight, which has no fast and no samples"),
        (["--profile", "m=q-align", "--samples", "2"], "m is asked by profile q-align"),
    ],
)
def test_what_cannot_be_asked_is_said_before_a_model_loads(scene_folder, tmp_path, flags, reason) -> None:
    command = ["eval", str(scene_folder / "ratings.jsonl"), "--model", "m=/nowhere", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, *flags])
    assert isinstance(done.exception, AesError) and reason in done.exception.problem
    assert not (tmp_path / "out").exists()
