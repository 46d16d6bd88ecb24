"""Other images for groups without spread: whole groups change places, padding and pictures with them."""

import pytest
import torch

from aesr1.errors import AesError
from aesr1.rapo.resample import exchange, other_rows, without_spread
from aesr1.rapo.trainer import collapsed

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


def test_groups_are_flat_where_all_replies_earned_the_same():
    rewards = torch.tensor([1.0, 1.0, 0.5, 0.7, 0.3, 0.3 + 1e-7])
    assert without_spread(rewards, 2) == [0, 2]
    assert without_spread(rewards, 3) == []


def test_rows_change_places_with_their_padding_and_pictures():
    mine = batch(0, prompt=2, reply=3, grids=[(2, 2), (2, 2), (4, 2), (4, 2)])
    other = batch(10, prompt=4, reply=1, grids=[(2, 4), (2, 4)])
    mixed = exchange(mine, other, leave=[0, 1], enter=[0, 1], pad=PAD)
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


def test_pictures_that_are_padded_to_one_size_are_not_mixed_with_another():
    mine, other = ({"prompt_ids": torch.ones(2, 1), "completion_ids": torch.ones(2, 1)} for _ in range(2))
    mine["pixel_values"], other["pixel_values"] = torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)
    with pytest.raises(AesError, match="cannot be exchanged") as error:
        exchange(mine, other, leave=[0], enter=[0], pad=PAD)
    assert "resample: 0" in error.value.fix


def test_other_rows_are_the_same_for_the_same_step_and_others_for_the_next():
    assert other_rows(4, size=100, seed=(0, 5, 0)) == other_rows(4, size=100, seed=(0, 5, 0))
    assert other_rows(4, size=100, seed=(0, 5, 0)) != other_rows(4, size=100, seed=(0, 6, 0))
    assert len(other_rows(4, size=2, seed=(0,))) == 4


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
def test_a_run_of_picture_tokens_becomes_one(ids, once):
    assert collapsed(ids, 7) == once
    assert collapsed(ids, None) == ids
