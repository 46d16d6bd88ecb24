"""The order of training images: by seed and epoch, and in blocks of one data set."""

from dataclasses import replace

import pytest
from trl.trainer.utils import RepeatSampler

from aesr1.errors import AesError
from aesr1.json_lines import read_rows, write_rows
from aesr1.rapo import train, trainer
from aesr1.rapo.image_order import ImageOrder, blocks_of_one_dataset, images_in_blocks
from aesr1.records import Rating
from conftest import CPU

DOMAINS = [*"aababbaaa"]


def test_blocks_stand_where_their_last_image_stood():
    assert blocks_of_one_dataset([8, 3, 0, 5, 4, 1, 2, 7, 6], DOMAINS, 2) == [8, 3, 5, 4, 0, 1, 7, 6]
    assert blocks_of_one_dataset(range(9), DOMAINS, 3) == [0, 1, 3, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(("size", "kept"), [(1, 9), (2, 8), (3, 9), (4, 4), (7, 0)])
def test_as_many_images_are_kept_as_are_counted(size, kept):
    assert images_in_blocks(DOMAINS, size) == len(blocks_of_one_dataset(range(9), DOMAINS, size)) == kept


def order(*, block, epoch=0, shuffle=True, domains=None):
    """All rows of an epoch: 2 replies to an image, 4 images in a batch, each batch twice."""
    domains = domains or ["a"] * 13 + ["b"] * 7
    sampler = ImageOrder(range(len(domains)), 2, 4, 2, shuffle, 5, domains=domains, block=block)
    sampler.set_epoch(epoch)
    rows = list(sampler)
    assert len(rows) == len(sampler)
    return rows


def test_without_blocks_the_order_is_that_of_trl():
    assert order(block=0) == list(RepeatSampler(range(20), 2, 4, 2, True, 5))


@pytest.mark.parametrize("shuffle", [True, False])
def test_images_compared_are_of_one_data_set_and_no_image_comes_twice(shuffle):
    rows = order(block=2, shuffle=shuffle)
    assert len(rows) == (12 + 6) // 4 * 4 * 2 * 2  # a batch of two blocks that is not full is left out
    batches = [rows[start : start + 8] for start in range(0, len(rows), 8)]
    assert batches[::2] == batches[1::2]
    images = [image for batch in batches[::2] for image in batch[::2]]
    assert len(set(images)) == len(images) == 16
    for first, second in zip(images[::2], images[1::2], strict=True):
        assert (first < 13) == (second < 13)


def test_another_epoch_leaves_other_images_out_and_the_same_epoch_is_equal():
    assert order(block=2) == order(block=2) != order(block=2, epoch=1)
    assert {*range(20)} == {image for epoch in range(20) for image in order(block=2, epoch=epoch)}


@pytest.fixture
def two_sets(scene_folder, tmp_path):
    """Ratings whose odd rows are of another data set."""
    rows = read_rows(scene_folder / "ratings.jsonl", Rating)
    path = tmp_path / "ratings.jsonl"
    write_rows(path, [replace(row, domain=("even", "odd")[number % 2]) for number, row in enumerate(rows)])
    return path


def run(ratings, model, output, *more):
    flags = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "16"]
    flags += ["--max_steps", "4", "--validate_every", "0", "--save_strategy", "no"]
    return train.main(
        [*CPU, "--ratings", str(ratings), "--model", str(model), "--output_dir", str(output), *flags, *more]
    )


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_run_compares_images_of_one_data_set(scope, two_sets, random_model, monkeypatch, tmp_path):
    seen = []
    rewards = trainer.RapoTrainer._calculate_rewards

    def noted(self, inputs, *args, **kwargs):
        seen.append([row["domain"] for row in inputs])
        return rewards(self, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer.RapoTrainer, "_calculate_rewards", noted)
    run(two_sets, random_model, tmp_path / "run", "--group_by_dataset", "true", "--comparison_scope", scope)
    assert len(seen) == 4 and all(len({*domains}) == 1 for domains in seen)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--compare_across_datasets", "true"], "contradict"),
        (["--rewards", "absolute", "format"], "only changes the relative reward"),
        (["--per_device_train_batch_size", "2000"], "images to train on, but 500 are compared"),
    ],
)
def test_what_cannot_be_grouped_is_refused(flags, problem, two_sets, random_model, tmp_path):
    with pytest.raises(AesError, match=problem):
        run(two_sets, random_model, tmp_path / "run", "--group_by_dataset", "true", *flags)
