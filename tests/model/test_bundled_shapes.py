"""A dry run of the published models counts them without the hub."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from aesr1.contract import MAX_PIXELS, PROMPT
from aesr1.errors import AesError
from aesr1.model.bundled_shapes import SHAPES, is_bundled, load_shape

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of its own deprecated names
SMALL, LARGE = SHAPES


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    """No file of a hub: neither in the cache, nor in the working folder, nor by the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "parameters", "vision"), [(SMALL, 3_754_622_976, 668_684_288), (LARGE, 8_292_166_656, 676_550_144)]
)
def test_the_shapes_have_the_published_numbers_of_parameters(name, parameters, vision):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(load_shape(name, max_pixels=MAX_PIXELS).config)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert sum(weight.numel() for weight in model.model.visual.parameters()) == vision


@pytest.mark.parametrize(("pixels", "side"), [(MAX_PIXELS, 18), (56 * 56, 2)])
def test_picture_tokens_are_squares_of_28_pixels(pixels, side):
    from aesr1.training.model_summary import count_prompt_tokens

    config, processor = load_shape(SMALL, max_pixels=pixels)
    tokens = count_prompt_tokens(config, processor, max_pixels=pixels)
    assert tokens == (side**2, 102)  # the published tokenizer makes 103 of prompt and chat template
    assert len(processor.tokenizer(PROMPT)["input_ids"]) == 81  # 82


def test_the_bundled_shape_is_for_names_whose_files_are_not_here(random_model, tmp_path):
    assert is_bundled(SMALL) and not is_bundled(str(random_model)) and not is_bundled("tiny")
    (tmp_path / LARGE).mkdir(parents=True)
    (tmp_path / LARGE / "config.json").write_text("{}")
    assert not is_bundled(LARGE)  # a folder of that name is the user's model


def test_a_cap_that_leaves_nothing_to_judge_is_refused():
    with pytest.raises(AesError, match="max_pixels is 100"):
        load_shape(SMALL, max_pixels=100)
