"""Reading a picture once for all replies gives the log-probabilities, loss and gradients of TRL."""

import json

import pytest
import torch
from datasets import Dataset
from families import BUILDERS
from trl import GRPOConfig

from aesr1.images.load import open_image
from aesr1.model.load import load
from aesr1.rapo import train
from aesr1.rapo.settings import PAPER
from aesr1.rapo.shared_prefix import SharedPrefix
from aesr1.rapo.shared_prefix_batch import reply_inputs
from aesr1.rapo.trainer import RapoTrainer
from aesr1.training.parameters import freeze_vision, lora_config
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names


def test_the_rows_of_replies_are_as_computed_by_hand():
    ids = torch.tensor([[9, 1, 2, 3, 4], [9, 1, 2, 5, 9]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 1, 0]])
    rows = reply_inputs(ids, mask, torch.tensor([[0, 0, 1]]), prompt_length=3, replies=2)
    assert rows.input_ids.tolist() == [[2, 3, 4], [2, 5, 9]]
    assert rows.labels.tolist() == [[-100, 3, 4], [-100, 5, -100]]
    assert rows.attention_mask.tolist() == mask.tolist()
    assert rows.position_ids.tolist() == [[1, 2, 3], [1, 2, 3]]


def test_replies_begin_one_past_the_furthest_axis():
    positions = torch.tensor([[[0, 5], [0, 0]], [[0, 3], [0, 0]], [[0, 4], [0, 0]]])
    ids = torch.tensor([[1, 2, 3, 3], [9, 2, 4, 4]])
    rows = reply_inputs(ids, torch.ones_like(ids), positions, prompt_length=2, replies=1)
    assert rows.position_ids[:, 0].tolist() == [[5, 6, 7], [3, 6, 7], [4, 6, 7]]
    assert rows.position_ids[:, 1].tolist() == [[0, 1, 2]] * 3


@pytest.fixture(scope="module", params=["Tiny", *BUILDERS])
def family(request, random_model, tmp_path_factory):
    return random_model if request.param == "Tiny" else BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


def some_reward(completions, **_):
    """Another one for every reply, so that there is something to learn."""
    return [float(number % 3) - len(text[0]["content"]) % 5 for number, text in enumerate(completions)]


def trainer_of(folder, output, *, rank=0, frozen=False, **more):
    vlm = load(str(folder), device="cpu", max_pixels=4096)
    if frozen or rank:
        freeze_vision(vlm.model)
    settings = {
        **PAPER,
        "output_dir": str(output),
        "per_device_train_batch_size": 8,
        "max_completion_length": 9,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "generation_kwargs": {"min_new_tokens": 1},
        **more,
    }
    trainer = RapoTrainer(
        model=vlm.model.train(),
        reward_funcs=[some_reward],
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "x"}]}] * 8),
        processing_class=vlm.processor,
        peft_config=lora_config(vlm.model, rank=rank, alpha=4),
    )
    trainer.current_gradient_accumulation_steps = 1  # what `train` sets
    if settings["gradient_checkpointing"]:
        trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
    return trainer


def batch_of(trainer, scene_folder):
    """Two groups of four replies: unequal pictures, prompts and replies."""
    pictures = [open_image(scene_folder / "00.png").resize(size) for size in ((64, 64), (90, 40))]
    texts = ("How beautiful is it?", "Judge it.")
    rows = [
        {"prompt": [{"role": "user", "content": text}], "image": picture}
        for text, picture in zip(texts, pictures, strict=True)
        for _ in range(4)
    ]
    torch.manual_seed(0)
    batch = trainer._generate_and_score_completions(rows)
    lengths = torch.tensor([9, 3, 5, 1, 2, 9, 4, 7])  # random models seldom end a reply
    batch["completion_mask"] = (torch.arange(batch["completion_ids"].shape[1])[None] < lengths[:, None]).long()
    return batch


def loss_and_gradients(trainer, batch, *, once):
    trainer._agrees = once
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, {**batch})
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def same(trainer, batch):
    """Loss and every gradient agree to 1e-4 of their size."""
    plain_loss, plain = loss_and_gradients(trainer, batch, once=False)
    loss, gradients = loss_and_gradients(trainer, batch, once=True)
    torch.testing.assert_close(loss, plain_loss, atol=1e-5, rtol=1e-4)
    assert gradients.keys() == plain.keys() and gradients
    norm = torch.sqrt(sum((value**2).sum() for value in plain.values()))
    gap = torch.sqrt(sum(((gradients[name] - plain[name]) ** 2).sum() for name in plain))
    assert norm > 1e-3 and gap / norm < 1e-4
    return gradients


def test_loss_and_gradients_equal_those_of_trl(family, scene_folder, tmp_path, capsys):
    trainer = trainer_of(family, tmp_path)
    batch = batch_of(trainer, scene_folder)
    assert trainer._agrees, capsys.readouterr().err
    same(trainer, batch)


@pytest.mark.parametrize(
    "more",
    [
        {"gradient_checkpointing": True},
        {"rank": 2},
        {"rank": 2, "gradient_checkpointing": True},
        {"frozen": True, "gradient_checkpointing": True},
        {"temperature": 0.7, "beta": 0.0},
        {"loss_type": "dapo", "num_iterations": 2},
    ],
    ids=lambda more: ", ".join(map(str, more)),
)
def test_loss_and_gradients_equal_those_of_trl_under_other_settings(random_model, scene_folder, tmp_path, more):
    trainer = trainer_of(random_model, tmp_path, **more)
    gradients = same(trainer, batch_of(trainer, scene_folder))
    assert any("visual" in name for name in gradients) == ("rank" not in more and "frozen" not in more)


@pytest.mark.parametrize("name", ["qwen3.5"])
@pytest.mark.parametrize("more", [{}, {"rank": 2}, {"frozen": True}], ids=str)
def test_recurrent_states_are_computed_again_under_gradient_checkpointing(name, more, scene_folder, tmp_path, capsys):
    trainer = trainer_of(BUILDERS[name](tmp_path / "model"), tmp_path / "run", gradient_checkpointing=True, **more)
    batch = batch_of(trainer, scene_folder)
    assert trainer._agrees, capsys.readouterr().err
    gradients = same(trainer, batch)
    assert any("linear_attn" in parameter for parameter in gradients)


def test_a_picture_passes_the_vision_tower_once(random_model, scene_folder, tmp_path):
    trainer = trainer_of(random_model, tmp_path)
    batch = batch_of(trainer, scene_folder)
    seen = []
    trainer.model.model.visual.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    for once in (False, True):
        loss_and_gradients(trainer, batch, once=once)
    assert seen[0] == 4 * seen[1] == len(batch["pixel_values"])


def test_trls_way_is_used_where_log_probabilities_differ(random_model, scene_folder, tmp_path, monkeypatch, capsys):
    def other(self, *arguments, **more):
        found = original(self, *arguments, **more)
        return found._replace(log_probs=found.log_probs + 0.01)

    original = SharedPrefix._shared_log_probs
    monkeypatch.setattr(SharedPrefix, "_shared_log_probs", other)
    trainer = trainer_of(random_model, tmp_path)
    batch_of(trainer, scene_folder)
    assert trainer._agrees is False
    assert "read for each of them" in capsys.readouterr().err


def test_a_longer_batch_is_compared_again_and_a_shorter_one_is_not(random_model, scene_folder, tmp_path, monkeypatch):
    trainer = trainer_of(random_model, tmp_path)
    batch = batch_of(trainer, scene_folder)
    compared = []
    monkeypatch.setattr(trainer, "_agrees_with_trl", lambda *_, **__: compared.append(1) or True)
    prompts, replies = batch["prompt_ids"], batch["completion_ids"]

    def sizes_after(length):
        trainer._is_larger(torch.cat([prompts, replies[:, :length]], dim=1), length, None)
        return trainer._checked

    first = trainer._checked
    assert first == (prompts.shape[1], replies.shape[1], 1)
    trainer.compute_loss(trainer.model, {**batch})
    assert compared == []
    trainer._checked = (first[0], first[1] - 1, 1)
    trainer.compute_loss(trainer.model, {**batch})
    assert compared == [1] and sizes_after(2) == first


@pytest.mark.parametrize("micro_batch", [4, 8, 2])
def test_micro_batches_hold_whole_groups_where_their_size_allows(scene_folder, fluent_model, tmp_path, micro_batch):
    shapes = []

    class Spy(RapoTrainer):
        def _shared_log_probs(self, model, input_ids, *rest, **more):
            shapes.append(len(input_ids))
            return super()._shared_log_probs(model, input_ids, *rest, **more)

    train.RapoTrainer, kept = Spy, train.RapoTrainer
    try:
        sizes = [
            "--per_device_train_batch_size",
            str(micro_batch),
            "--images_per_comparison",
            "4",
            "--num_generations",
            "4",
        ]
        pace = ["--gradient_accumulation_steps", str(16 // micro_batch), "--max_steps", "2", "--save_steps", "10"]
        data = ["--ratings", str(scene_folder / "ratings.jsonl"), "--model", str(fluent_model), "--validate_every", "0"]
        short = ["--max_completion_length", "16", "--output_dir", str(tmp_path / "run")]
        run = train.main([*data, *sizes, *pace, *short, *CPU])
    finally:
        train.RapoTrainer = kept
    assert json.loads((run / "figures.jsonl").read_text().splitlines()[-1])["step"] == 2
    # the reference's pass is over all 16; where a micro-batch is no whole group, it is TRL's as well
    assert set(shapes) == (set() if micro_batch == 2 else {16, micro_batch})
