"""Dynamic sampling replaces zero-advantage groups by groups of other images, with padding and pictures."""

import json

import pandas
import pytest
import torch
from families import BUILDERS
from PIL import Image

from aesr1.errors import AesError
from aesr1.json_lines import write_rows
from aesr1.model.generate import model_inputs
from aesr1.model.load import load
from aesr1.rapo import train, trainer
from aesr1.rapo.dynamic_sampling import replace_groups, replacement_rows, zero_advantage_groups
from aesr1.rapo.shared_prefix_batch import PICTURE_INPUTS
from aesr1.rapo.trainer import collapse_picture_tokens
from aesr1.records import Rating
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

PAD = 9


def batch(first, prompt, reply, grids):
    """A generation batch of TRL's whose rows can be told apart: row n holds first + n in every place."""
    rows = len(grids)
    number = torch.arange(first, first + rows)[:, None]
    patches = [h * w for h, w in grids]
    return {
        "prompt_ids": number.repeat(1, prompt),
        "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
        "completion_ids": number.repeat(1, reply),
        "completion_mask": torch.ones(rows, reply, dtype=torch.long),
        "mm_token_type_ids": torch.cat([torch.ones(rows, prompt), torch.zeros(rows, reply)], dim=1).long(),
        "ref_per_token_logps": -number.repeat(1, reply).float(),
        "advantages": number[:, 0].float(),
        "num_items_in_batch": torch.tensor(rows * reply),
        "pixel_values": torch.cat([torch.full((count, 2), float(first + n)) for n, count in enumerate(patches)]),
        "image_grid_thw": torch.tensor([[1, h, w] for h, w in grids]),
        "num_images": [1] * rows,
    }


def test_groups_with_equal_rewards_have_zero_advantage():
    rewards = torch.tensor([1.0, 1.0, 0.5, 0.7, 0.3, 0.3 + 1e-7])
    assert zero_advantage_groups(rewards, 2) == [0, 2]
    assert zero_advantage_groups(rewards, 3) == []


def test_rows_are_replaced_with_their_padding_and_pictures():
    mine = batch(0, prompt=2, reply=3, grids=[(2, 2), (2, 2), (4, 2), (4, 2)])
    other = batch(10, prompt=4, reply=1, grids=[(2, 4), (2, 4)])
    mixed = replace_groups(mine, other, old_rows=[0, 1], new_rows=[0, 1], pad=PAD)
    assert mixed["prompt_ids"].tolist() == [[10] * 4, [11] * 4, [PAD, PAD, 2, 2], [PAD, PAD, 3, 3]]
    assert mixed["prompt_mask"].tolist() == [[1] * 4, [1] * 4, [0, 0, 1, 1], [0, 0, 1, 1]]
    assert mixed["completion_ids"].tolist() == [[10, PAD, PAD], [11, PAD, PAD], [2] * 3, [3] * 3]
    assert mixed["completion_mask"].tolist() == [[1, 0, 0], [1, 0, 0], [1] * 3, [1] * 3]
    assert mixed["ref_per_token_logps"].tolist() == [[-10, 0, 0], [-11, 0, 0], [-2] * 3, [-3] * 3]
    assert mixed["mm_token_type_ids"].tolist() == [[1, 1, 1, 1, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 0, 0, 0]] * 2
    assert mixed["advantages"].tolist() == [10, 11, 2, 3]
    assert mixed["image_grid_thw"].tolist() == [[1, 2, 4], [1, 2, 4], [1, 4, 2], [1, 4, 2]]
    assert mixed["pixel_values"][:, 0].tolist() == [10] * 8 + [11] * 8 + [2] * 8 + [3] * 8
    assert mixed["num_images"] == [1] * 4
    assert mine["prompt_ids"].shape == (4, 2)  # what came in is left as it was


TILED = ["smolvlm", "idefics3", "llava-onevision", "llava-next"]
"""Families that fill a batch's pictures up to as many tiles as its largest has."""


@pytest.mark.parametrize("family", TILED)
def test_groups_with_other_numbers_of_tiles_are_replaced(family, tmp_path):
    vlm = load(str(BUILDERS[family](tmp_path)), device="cpu", max_pixels=10_000)
    wide, wider, square, large = (
        Image.effect_noise(size, 90).convert("RGB") for size in ((64, 20), (60, 20), (40, 40), (96, 96))
    )

    def read(*pictures):
        inputs = model_inputs(vlm, pictures, [""] * len(pictures), "Rate it.")
        rows = torch.ones(len(pictures), 1, dtype=torch.long)
        return {
            "prompt_ids": inputs["input_ids"],
            "prompt_mask": inputs["attention_mask"],
            "completion_ids": rows,
            "completion_mask": rows,
            "num_images": [1] * len(pictures),
            **{name: inputs[name] for name in PICTURE_INPUTS if name in inputs},
        }

    def logits(batch):
        pictures = {name: batch[name] for name in PICTURE_INPUTS if name in batch}
        with torch.no_grad():
            return vlm.model(input_ids=batch["prompt_ids"], attention_mask=batch["prompt_mask"], **pictures).logits

    pad = vlm.processor.tokenizer.pad_token_id
    few, many = read(wide, wider), read(square, large)
    assert few["pixel_values"].shape != many["pixel_values"].shape
    for mine, other, wanted in ((few, many, (large, wider)), (many, few, (wider, large))):
        mixed = replace_groups(mine, other, old_rows=[0], new_rows=[1], pad=pad)
        torch.testing.assert_close(logits(mixed)[:, -1], logits(read(*wanted))[:, -1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_values": torch.zeros(2, 3)}, "pixel_values have"),
        ({"pixel_values": None}, "pixel_values is in one"),
        ({"advantages": torch.zeros(2, 4)}, "advantages have shapes (2,) and (2, 4)"),
    ],
)
def test_batches_that_do_not_fit_each_other_are_refused(change, words):
    mine = batch(0, prompt=1, reply=1, grids=[(2, 2), (2, 2)])
    del mine["image_grid_thw"]
    mine["pixel_values"] = torch.zeros(2, 3, 4)
    other = {name: value for name, value in {**mine, **change}.items() if value is not None}
    with pytest.raises(AesError, match="cannot be replaced") as error:
        replace_groups(mine, other, old_rows=[0], new_rows=[0], pad=PAD)
    assert words in error.value.problem and "dynamic_sampling_rounds: 0" in error.value.fix


def test_replacement_rows_depend_on_the_step_and_are_others_in_each_process():
    domains = ["d"] * 100
    rows = replacement_rows(4, domains, seed=(0, 5, 0), process=0)
    assert rows == replacement_rows(4, domains, seed=(0, 5, 0), process=0)
    assert rows != replacement_rows(4, domains, seed=(0, 6, 0), process=0)
    assert rows != replacement_rows(4, domains, seed=(0, 5, 0), process=1)
    assert len(replacement_rows(4, ["d"] * 2, seed=(0,), process=0)) == 4


def test_replacement_rows_are_of_one_data_set_in_all_processes():
    domains, chosen = ["a"] * 30 + ["b"] * 10, []
    for step in range(200):
        rows = [row for process in (0, 1) for row in replacement_rows(4, domains, seed=(0, step), process=process)]
        assert len({domains[row] for row in rows}) == 1
        chosen.append(domains[rows[0]])
    assert 120 < chosen.count("a") < 180  # as often as its images are met


def test_replacements_are_ranked_among_as_many_images_as_the_others(monkeypatch, scene_folder, random_model, tmp_path):
    """One flat group of four: with a ranking four images are read to replace it, else two."""
    counts = []
    monkeypatch.setattr(trainer, "zero_advantage_groups", lambda *_: [0])
    monkeypatch.setattr(trainer, "replacement_rows", lambda count, *_, **__: counts.append(count) or [*range(count)])
    more = {"per_device_train_batch_size": 16, "dynamic_sampling_rounds": 1, "max_steps": 1}
    rapo(scene_folder / "ratings.jsonl", random_model, tmp_path / "ranked", **more)
    rapo(scene_folder / "ratings.jsonl", random_model, tmp_path / "not", rewards=("absolute", "format"), **more)
    assert counts == [4, 2]


@pytest.mark.parametrize(
    ("ids", "once"),
    [
        ([1, 7, 7, 7, 2], [1, 7, 2]),
        ([7, 7, 1, 7, 7], [7, 1, 7]),
        ([1, 1, 2, 2], [1, 1, 2, 2]),
        ([5, 7, 6, 5, 7, 6], [5, 7, 6, 5, 7, 6]),
        ([], []),
    ],
)
def test_consecutive_picture_tokens_become_one(ids, once):
    assert collapse_picture_tokens(ids, 7) == once
    assert collapse_picture_tokens(ids, None) == ids


def rapo(ratings, model, output, **settings):
    """Two steps of eight replies to two pictures; the rows that they logged."""
    given = {"ratings": ratings, "model": model, "output_dir": output, "max_steps": 2, "logging_steps": 1}
    given |= {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 16, "validate_every": 0}
    flags = [
        text
        for name, value in {**given, **settings}.items()
        for text in (f"--{name}", *map(str, value if isinstance(value, tuple) else (value,)))
    ]
    train.main([*CPU, "--save_strategy", "no", *flags])
    return [row for row in map(json.loads, (output / "figures.jsonl").open()) if "reward" in row]


@pytest.mark.parametrize("family", TILED[1:3])
def test_families_with_tiles_train_with_dynamic_sampling(family, monkeypatch, tmp_path):
    model, rows = BUILDERS[family](tmp_path / "model"), []
    for number, size in enumerate([(60, 20)] * 7 + [(64, 64)]):  # of 3 or 4 tiles, and one of 5 or 10
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"{number}.png")
        rows.append(Rating(f"{number}.png", number / 10, "noise", "train", 0.1, 50, None))
    write_rows(tmp_path / "ratings.jsonl", rows)
    asked = []

    def every_other_time(rewards, replies):
        asked.append(1)
        return [0] if len(asked) % 2 else []

    monkeypatch.setattr(trainer, "zero_advantage_groups", every_other_time)
    monkeypatch.setattr(trainer, "replacement_rows", lambda count, *_, **__: [7] * count)
    logged = rapo(tmp_path / "ratings.jsonl", model, tmp_path / "run", dynamic_sampling_rounds=1)
    assert [row["resampled"] for row in logged] == [0.5, 0.5] and len(asked) == 4


def test_logged_figures_describe_the_first_replies(scene_folder, random_model, tmp_path):
    """Random replies earn nothing, so that every group is flat and both rounds ask for other images."""
    more = {"beta": 0, "learning_rate": 0, "max_steps": 1, "log_completions": "true"}
    plain, resampled = (
        rapo(
            scene_folder / "ratings.jsonl", random_model, tmp_path / str(rounds), dynamic_sampling_rounds=rounds, **more
        )[0]
        for rounds in (0, 2)
    )
    assert resampled.pop("resampled") == 0 and plain.pop("completions/cap") == resampled.pop("completions/cap") == 16
    assert resampled.pop("num_tokens") > 2.5 * plain.pop("num_tokens")
    drawn = [name for name in plain if name.startswith(("completions/", "reward", "frac_", "score/", "readable"))]
    assert len(drawn) > 10 and {n: plain[n] for n in drawn} == {n: resampled[n] for n in drawn}
    assert plain.keys() == resampled.keys()
    tables = [pandas.read_parquet(tmp_path / f"{rounds}/completions/completions_00001.parquet") for rounds in (0, 2)]
    pandas.testing.assert_frame_equal(*tables)


def test_an_error_of_one_process_stops_all_processes(monkeypatch, scene_folder, random_model, tmp_path):
    """The others come to the same gather and raise as well, where they would have waited for ever."""
    gathered = []

    def refuse(*_, **__):
        raise AesError("no", fix="set dynamic_sampling_rounds: 0")

    monkeypatch.setattr(trainer, "replace_groups", refuse)
    monkeypatch.setattr(trainer, "gather_object", lambda rows: gathered.append(rows) or rows)
    with pytest.raises(AesError, match="no"):
        rapo(scene_folder / "ratings.jsonl", random_model, tmp_path / "run", dynamic_sampling_rounds=1)
    assert gathered[-1] == ["no"]
    monkeypatch.setattr(trainer, "replace_groups", lambda batch, *_, **__: batch)
    monkeypatch.setattr(trainer, "gather_object", lambda rows: ["theirs"] if isinstance(rows[0], str) else rows)
    with pytest.raises(AesError, match="theirs"):
        rapo(scene_folder / "ratings.jsonl", random_model, tmp_path / "other", dynamic_sampling_rounds=1)
