"""The rollout that reads each picture once, compared with TRL's own."""

from __future__ import annotations

import copy

import pytest
import torch
from families import BUILDERS
from trl import GRPOConfig

from aesr1.contract import PROMPT
from aesr1.images.load import open_image
from aesr1.model.load import load
from aesr1.rapo.shared_prefix_rollout import find_groups, split_rows
from aesr1.rapo.trainer import RapoTrainer
from aesr1.training.parameters import lora_config
from aesr1.training.picture_dataset import picture_dataset

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

PIXELS = 4096
REPLIES = 3


def trainer_of(folder, scene_folder, output, *, lora=0, **settings):
    vlm = load(str(folder), device="cpu", max_pixels=PIXELS)
    vlm.model.train()
    rows = [{"image": str(scene_folder / f"{number:02d}.png")} for number in range(4)]
    arguments = GRPOConfig(
        **{"output_dir": str(output), "use_cpu": True, "bf16": False, "report_to": "none", "max_completion_length": 12},
        **{"num_generations": REPLIES, "per_device_train_batch_size": REPLIES, **settings},
    )
    return RapoTrainer(
        model=vlm.model,
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=arguments,
        train_dataset=picture_dataset(rows, max_pixels=PIXELS),
        processing_class=vlm.processor,
        peft_config=lora_config(vlm.model, rank=lora, alpha=lora),
    )


@pytest.fixture(scope="module", params=BUILDERS)
def trainer(request, scene_folder, tmp_path_factory):
    """Each draws the likeliest token alone, so that both ways must give the same tokens."""
    folder = BUILDERS[request.param](tmp_path_factory.mktemp(request.param))
    return trainer_of(folder, scene_folder, tmp_path_factory.mktemp("run"), top_k=1)


@pytest.fixture(scope="module")
def shapes(scene_folder):
    square, wide, tall = (open_image(scene_folder / f"{number:02d}.png") for number in range(3))
    return [square.resize((64, 64)), wide.resize((90, 40)), tall.resize((30, 90))]


def asked(trainer, pictures, replies=REPLIES):
    """What TRL's `_generate` would hand over of these pictures, `replies` rows each."""
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    prompts = [copy.deepcopy(message) for _ in pictures for _ in range(replies)]
    for number, prompt in enumerate(prompts):
        prompt[0]["content"][0]["image"] = pictures[number // replies].copy()
    return trainer._tokenize_prompts(prompts)


def generated(trainer, *, once, given):
    trainer.read_once = once
    return trainer._generate_single_turn(*given, REPLIES)


def test_the_rollout_of_every_family_equals_that_of_trl(trainer, shapes, monkeypatch):
    given = asked(trainer, shapes)
    theirs = generated(trainer, once=False, given=given)
    monkeypatch.setattr(trainer.model, "generate", lambda *_, **__: pytest.fail("TRL's own way was taken"))
    assert generated(trainer, once=True, given=given) == theirs
    assert len(theirs[0]) == len(shapes) * REPLIES and theirs[1] is None


def test_a_picture_is_read_once(trainer, shapes, monkeypatch):
    seen = []
    forward = trainer.model.forward
    monkeypatch.setattr(trainer.model, "forward", lambda *a, **k: seen.append(k["input_ids"].shape) or forward(*a, **k))
    generated(trainer, once=True, given=asked(trainer, shapes))
    assert seen[0][0] == len(shapes) and all(shape[1] == 1 for shape in seen[1:])


def test_replies_end_at_the_same_token_as_trls(trainer, shapes, monkeypatch):
    given = asked(trainer, shapes)
    (whole, _) = generated(trainer, once=False, given=given)
    ends = sorted({whole[0][2], whole[-1][7]})
    monkeypatch.setattr(trainer, "eos_token_ids", ends)
    monkeypatch.setattr(trainer.generation_config, "eos_token_id", ends)
    theirs, ours = (generated(trainer, once=once, given=given)[0] for once in (False, True))
    assert ours == theirs and min(map(len, ours)) < 12


def test_the_rollout_uses_the_lora_adapter(random_model, scene_folder, tmp_path, shapes):
    trainer = trainer_of(random_model, scene_folder, tmp_path, lora=4, top_k=1, gradient_checkpointing=True)
    before = generated(trainer, once=True, given=asked(trainer, shapes))
    torch.manual_seed(0)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    theirs, ours = (generated(trainer, once=once, given=asked(trainer, shapes)) for once in (False, True))
    assert ours == theirs != before


@pytest.mark.parametrize(
    ("settings", "images"),
    [({"generation_kwargs": {"no_repeat_ngram_size": 2}}, "kept"), ({}, None), ({}, "two in a row")],
    ids=["a setting that only generate knows", "no pictures", "two pictures"],
)
def test_trls_rollout_is_used_where_a_picture_cannot_be_read_once(
    random_model, scene_folder, tmp_path, shapes, monkeypatch, settings, images
):
    trainer = trainer_of(random_model, scene_folder, tmp_path, **settings)
    ids, pictures, fields = asked(trainer, shapes)
    if images is None:
        pictures = None
    elif images != "kept":
        pictures = [[*row, *row] for row in pictures]
    monkeypatch.setattr("trl.GRPOTrainer._generate_single_turn", lambda *_: "TRL's")
    assert generated(trainer, once=True, given=(ids, pictures, fields)) == "TRL's"


def test_rows_without_groups_of_equal_size_are_not_merged():
    def found(*groups):
        ids = [[group] * 2 for group in groups]
        return find_groups(ids, {"pixel_values": torch.tensor(groups)[:, None].float()}, picture_ids={9})

    assert found(1, 2, 3, 4) is None
    assert found(1, 1, 2, 3) is None
    assert found(1, 1, 1, 2, 2) is None
    assert [found(1, 1, 2, 2).replies, found(1, 1, 1, 1, 2, 2).replies, found(1, 1, 1).replies] == [2, 2, 3]
    assert found(1, 1, 1, 1, 2, 2).ids == [[1, 1], [1, 1], [2, 2]]
    same, other = [[1, 1]] * 4, torch.tensor([[0.0], [0.0], [0.0], [5.0]])
    assert find_groups(same, {"pixel_values": other}, picture_ids={9}) is None  # one prompt, two pictures


def test_tiles_and_patches_are_split_by_row():
    tiles = torch.arange(3.0)[:, None]
    first, second = split_rows([[9, 9, 1], [9, 9, 9, 9, 1]], {"pixel_values": tiles}, picture_ids={9})
    assert [first["pixel_values"].tolist(), second["pixel_values"].tolist()] == [[[0]], [[1], [2]]]
    assert split_rows([[9, 9, 9], [9, 9]], {"pixel_values": tiles}, picture_ids={9}) is None
    grids = {"image_grid_thw": torch.tensor([[1, 2, 2], [1, 1, 2]]), "pixel_values": torch.arange(6.0)[:, None]}
    first, second = split_rows([[1], [1]], grids, picture_ids={9})
    assert [len(first["pixel_values"]), second["image_grid_thw"].tolist()] == [4, [[1, 1, 2]]]
    assert split_rows([[1], [1]], {"other": torch.zeros(3)}, picture_ids={9}) is None
