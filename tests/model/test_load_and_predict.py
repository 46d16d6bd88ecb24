import json
import shutil
from contextlib import suppress
from hashlib import sha256
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from aesr1.contract import SCORE_TEXTS, VERSION, reply_until_score
from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.model.checkpoint import weights_hash
from aesr1.model.generate import generate, model_inputs
from aesr1.model.load import load
from aesr1.model.predict import PredictSettings, predict
from aesr1.model.processor import limit_picture_tokens
from aesr1.model.score_expectation import expect_scores


@pytest.fixture(scope="module")
def vlm(random_model):
    return load(str(random_model), device="cpu")


def copied(model, tmp_path):
    return Path(shutil.copytree(model, tmp_path / "copy"))


@pytest.fixture(scope="module")
def pictures(scene_folder):
    return [open_image(scene_folder / f"{number:02d}.png") for number in range(6)]


def test_the_expectation_equals_a_sum_over_all_answers_one_by_one(vlm, pictures):
    """Brute force: the log-probability of each of the 101 answers by its own full forward pass."""
    prefix = reply_until_score("Light and shadow are soft.")
    log_p = []
    start = model_inputs(vlm, pictures[:1], [prefix], "Describe this picture.")["input_ids"].shape[1]
    for text in SCORE_TEXTS:
        inputs = model_inputs(vlm, pictures[:1], [prefix + text], "Describe this picture.")
        with torch.inference_mode():
            logits = torch.log_softmax(vlm.model(**inputs).logits[0], dim=-1)
        ids = inputs["input_ids"][0]
        log_p.append(sum(logits[place - 1, ids[place]].item() for place in range(start, len(ids))))
    weights = np.exp(log_p) / np.exp(log_p).sum()
    values = np.linspace(0, 1, 101)
    mean = float(weights @ values)
    (expected,) = expect_scores(vlm, pictures[:1], [prefix], prompt="Describe this picture.")
    assert expected.score == pytest.approx(mean, abs=1e-5)
    assert expected.score_std == pytest.approx(float(np.sqrt(weights @ values**2 - mean**2)), abs=1e-5)


def test_batched_and_single_scores_agree(vlm, pictures):
    """Unequal pictures and unequal prefixes: left padding must not show."""
    prefixes = [reply_until_score("x " * length) for length in (1, 9, 3, 20, 5, 2)]
    together = expect_scores(vlm, pictures, prefixes)
    alone = [expect_scores(vlm, [picture], [prefix])[0] for picture, prefix in zip(pictures, prefixes, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    replies = generate(vlm, pictures, max_new_tokens=12)
    assert replies == [generate(vlm, [picture], max_new_tokens=12)[0] for picture in pictures]


def test_samples_are_seeded_and_differ(vlm, pictures):
    first, again, other = (
        generate(vlm, pictures[:2], samples=3, temperature=1.0, max_new_tokens=8, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert [len(replies) for replies in first] == [3, 3]
    with pytest.raises(AesError, match="temperature 0"):
        generate(vlm, pictures[:1], samples=2)


def test_a_prediction_of_an_unreadable_reply_is_marked_unreadable(vlm, scene_folder):
    row, gone = predict(vlm, [scene_folder / "00.png", scene_folder / "none.png"], PredictSettings(max_new_tokens=8))
    assert not row.readable and row.reasoning is None and 0 <= row.score <= 1 and row.reply
    assert gone.score is None and "does not exist" in gone.error
    (sampled,) = predict(vlm, [scene_folder / "00.png"], PredictSettings(samples=2, max_new_tokens=8))
    assert sampled.score is None and "none of 2 replies" in sampled.error


def test_every_prediction_names_model_revision_and_decoding(vlm, scene_folder, random_model):
    (row,) = predict(vlm, [scene_folder / "00.png"], PredictSettings(max_new_tokens=4))
    assert (row.model, row.contract, len(row.revision)) == (str(random_model), VERSION, 12)
    again = load(str(random_model), device="cpu")
    assert again.revision == row.revision


def test_pictures_are_capped(random_model):
    small = load(str(random_model), device="cpu", max_pixels=64 * 64)
    picture = Image.new("RGB", (200, 200))
    assert small.processor.image_processor(picture, return_tensors="pt")["image_grid_thw"].prod() == (64 // 8) ** 2


@pytest.mark.parametrize(
    ("family", "published", "views"),
    [
        (
            "SmolVLM",
            {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
            {262_144: 1, 1_048_576: 5},
        ),
        ("Idefics3", {}, {262_144: 1, 1_048_576: 5}),  # tiles of 364
        ("GotOcr2", {"size": {"height": 448, "width": 448}, "crop_to_patches": True}, {262_144: 1, 1_048_576: 5}),
        ("LlavaOnevision", {}, {262_144: 2, 1_048_576: 5}),
        (
            "LlavaNext",
            {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
            {200_000: 3, 262_144: 3, 1_048_576: 5},
        ),
        ("Gemma3", {"size": {"height": 896, "width": 896}}, {262_144: 1, 1_048_576: 1}),
    ],
)
def test_no_family_cuts_a_picture_into_more_tiles_than_max_pixels_allow(family, published, views):
    """Tiles and overview of a square picture, by the pixels allowed; LLaVA-NeXT's smallest grid is two tiles."""
    for pixels, count in views.items():
        image_processor = getattr(transformers, f"{family}ImageProcessorPil")(**published)
        limit_picture_tokens(image_processor, max_pixels=pixels)
        seen = image_processor([[Image.new("RGB", (isqrt(pixels),) * 2)]], return_tensors="pt")["pixel_values"]
        assert seen.reshape(-1, *seen.shape[-3:]).shape[0] == count


def test_equal_pictures_of_a_batch_are_processed_once(vlm, pictures, monkeypatch):
    sizes, kind = [], type(vlm.processor.image_processor)
    real = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, images, **more: (sizes.append(len(images)), real(self, images, **more))[1]
    )
    wide = Image.new("RGB", (120, 40), "red")
    rows = [pictures[0], pictures[0].copy(), wide, pictures[1], wide, pictures[0]]
    together = model_inputs(vlm, rows, [""] * 6, "how?")
    assert sizes == [3]
    alone = [model_inputs(vlm, [picture], [""], "how?") for picture in rows]
    for name in ("pixel_values", "image_grid_thw"):
        assert torch.equal(together[name], torch.cat([one[name] for one in alone]))
    for row, mask, one in zip(together["input_ids"], together["attention_mask"], alone, strict=True):
        assert row[mask.bool()].tolist() == one["input_ids"][0].tolist()


def test_a_text_model_is_refused_before_its_weights_load(tmp_path):
    transformers.Qwen2Config(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(AesError, match="not a vision-language model: qwen2 does not take a picture"):
        load(str(tmp_path))


def test_a_checkpoint_with_right_padding_is_padded_left(random_model, tmp_path):
    folder = copied(random_model, tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"padding_side": "right"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load(str(folder), device="cpu").processor.tokenizer
    assert tokenizer(["a", "a b c"], padding=True)["attention_mask"][0][0] == 0


def test_a_tokenizer_that_cannot_pad_left_is_refused(random_model, monkeypatch):
    stubborn = property(lambda _: "right", lambda *_: None)
    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "padding_side", stubborn, raising=False)
    with pytest.raises(AesError, match="pads right"):
        load(str(random_model), device="cpu")


def test_video_settings_are_saved_with_the_processor(random_model, tmp_path):
    """transformers' own processor asks for them where torchvision is."""
    folder = copied(random_model, tmp_path)
    settings = json.loads((folder / "processor_config.json").read_text())
    assert settings["video_processor"] == {} and settings["processor_class"] == "Qwen2_5_VLProcessor"
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 8}
    (folder / "processor_config.json").write_text(json.dumps({**settings, "video_processor": video}))
    load(str(folder), device="cpu").processor.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "processor_config.json").read_text())["video_processor"] == video


def test_processor_settings_of_a_hub_folder_load_without_video(random_model, tmp_path):
    """As Qwen's repository has it: the image processor's file alone, in its published name."""
    folder = copied(random_model, tmp_path)
    settings = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    settings["image_processor_type"] = "Qwen2VLImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "processor_class": "Qwen2_5_VLProcessor"}))
    vlm = load(str(folder), device="cpu")
    assert vlm.processor.tokenizer.padding_side == "left"
    assert generate(vlm, [Image.new("RGB", (64, 64))], max_new_tokens=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [("./nowhere", "no folder"), ("nowhere", "no folder"), ("a/b/c", "no folder")],
)
def test_a_missing_model_is_a_clear_error(name, message):
    with pytest.raises(AesError, match=message):
        load(name)


def test_a_folder_without_a_checkpoint_is_a_clear_error(tmp_path):
    with pytest.raises(AesError, match="not a checkpoint"):
        load(str(tmp_path))


def test_a_checkpoint_of_another_contract_is_refused(random_model, tmp_path):
    folder = copied(random_model, tmp_path)
    (folder / "aesr1.json").write_text('{"contract": "0", "stage": "rapo"}')
    with pytest.raises(AesError, match="contract version 0"):
        load(str(folder))


def test_a_checkpoint_in_bin_files_has_a_revision_of_its_weights(vlm, random_model, tmp_path):
    revisions = []
    for scale in (1.0, 2.0):
        folder = Path(shutil.copytree(random_model, tmp_path / str(scale)))
        weights = {name: value * scale for name, value in vlm.model.state_dict().items()}
        for file in folder.glob("*.safetensors"):
            file.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        revisions.append(load(str(folder), device="cpu").revision)
    assert len({*revisions, sha256(b"").hexdigest()[:12]}) == 3


class Hostile:
    """Pickled as a call that writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("config.json", '"vocab_size": ', '"vocab_size": {}, "was": '),  # a wrong type
        ("config.json", '"full_attention"', '"-5"'),  # a word that transformers does not know
        ("tokenizer.json", '"merges": [', '"merges": [5, '),
    ],
)
def test_a_broken_file_of_a_checkpoint_is_a_clear_error(random_model, tmp_path, file, before, after):
    folder = copied(random_model, tmp_path)
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after, 1))
    with pytest.raises(AesError, match="no vision-language model could be loaded"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("content", ["hostile", "empty", "text"])
def test_weights_that_are_a_hostile_pickle_are_a_clear_error_and_run_nothing(random_model, tmp_path, content):
    folder, mark = copied(random_model, tmp_path), tmp_path / "mark"
    for file in folder.glob("*.safetensors"):
        file.unlink()
    if content == "hostile":
        torch.save({"weight": Hostile(str(mark))}, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(b"" if content == "empty" else b"hello")
    with pytest.raises(AesError, match="no vision-language model could be loaded"):
        load(str(folder), device="cpu")
    assert not mark.exists()


def test_a_folder_without_weights_is_a_clear_error(tmp_path):
    with pytest.raises(AesError, match="holds no weights"):
        weights_hash(tmp_path)


@pytest.mark.parametrize("part", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_the_code_of_a_checkpoint_is_never_run(random_model, tmp_path, part, monkeypatch):
    """On "y" at the terminal transformers would run it."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = Path(shutil.copytree(random_model, tmp_path / "model"))
    mark = tmp_path / "mark"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    classes = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoImageProcessor")
    auto = dict.fromkeys(classes, "own.Own") | {"AutoTokenizer": ["own.Own", "own.Own"]}
    file = folder / part
    values = json.loads(file.read_text()) if file.exists() else {}
    values |= {"auto_map": auto}
    if part == "config.json":
        values |= {"model_type": "own"}
    file.write_text(json.dumps(values))
    with suppress(AesError):
        load(str(folder), device="cpu")
    assert not mark.exists()
