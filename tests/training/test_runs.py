"""Cold start and RAPO with a small real model: two steps each, an overfit, a resume after kill -9."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.json_lines import read_rows, write_rows
from aesr1.rapo import train
from aesr1.records import Rationale, SampledReply
from aesr1.training.launch import Launch, launch_from_file
from aesr1.training.recipe import parse_recipe
from conftest import CPU

RECIPES = Path(__file__).parents[2] / "recipes"

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names


def rapo_arguments(scene_folder, model, output, *more):
    sizes = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "24"]
    pace = [
        "--max_steps",
        "4",
        "--learning_rate",
        "1e-3",
        "--save_steps",
        "1",
        "--logging_steps",
        "1",
        "--validate_every",
        "2",
        "--validate_images",
        "4",
    ]
    return [
        "--ratings",
        str(scene_folder / "ratings.jsonl"),
        "--model",
        str(model),
        "--output_dir",
        str(output),
        *sizes,
        *pace,
        *CPU,
        *more,
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_cold_start_overfits_and_leaves_the_eyes_alone(fluent_model, random_model):
    losses = [row["loss"] for row in map(json.loads, (fluent_model / "figures.jsonl").open()) if "loss" in row]
    assert losses[-1] < 0.5 < losses[0]
    before, after = weights(random_model), weights(fluent_model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name for name in changed)
    assert json.loads((fluent_model / "run.json").read_text())["config"]["freeze_vision"]


def test_the_cold_start_teaches_the_form(fluent_model, scene_folder):
    from aesr1.model.load import load
    from aesr1.model.predict import PredictSettings, predict

    vlm = load(str(fluent_model), device="cpu", max_pixels=4096)
    rows = list(predict(vlm, [scene_folder / f"{n:02d}.png" for n in range(4)], PredictSettings(max_new_tokens=24)))
    assert all(row.readable for row in rows)


def test_the_score_has_the_weight_that_was_asked_for(random_model, rationales, tmp_path):
    """The first loss by TRL and by hand: Σ weight · −log p over tokens / number of tokens."""
    from aesr1.contract import PROMPT, Judgement, render_reply
    from aesr1.images.load import open_image
    from aesr1.model.load import load

    rows = read_rows(rationales, Rationale)[:2]
    write_rows(tmp_path / "r.jsonl", rows)
    losses = {}
    for weight in (1.0, 5.0):
        data = ["--rationales", str(tmp_path / "r.jsonl"), "--model", str(random_model), "--max_steps", "1"]
        more = ["--score_weight", str(weight), "--logging_steps", "1", "--per_device_train_batch_size", "2"]
        folder = cold_start.main([*data, *more, "--output_dir", str(tmp_path / str(weight)), *CPU])
        figures = map(json.loads, (folder / "figures.jsonl").open())
        losses[weight] = next(row["loss"] for row in figures if "loss" in row)

    vlm = load(str(random_model), device="cpu", max_pixels=4096)
    text, answer, tokens = 0.0, 0.0, 0
    for row in rows:
        before = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
        prompt = vlm.processor.apply_chat_template(before, add_generation_prompt=True, tokenize=False)
        written = render_reply(Judgement(row.score, row.reasoning))
        head = prompt + written[: written.index("<answer>") + len("<answer>")]
        picture = open_image(row.image, max_pixels=4096)
        sizes = [
            vlm.processor(text=[each], images=[picture], return_tensors="pt")["input_ids"].shape[1]
            for each in (prompt, head)
        ]
        whole = vlm.processor(text=[prompt + written + "<|im_end|>\n"], images=[picture], return_tensors="pt")
        with torch.no_grad():
            log_probs = vlm.model(**whole).logits[0, :-1].log_softmax(-1)
        loss = -log_probs.gather(1, whole["input_ids"][0, 1:, None])[:, 0]
        text, answer = text + loss[sizes[0] - 1 : sizes[1] - 1].sum(), answer + loss[sizes[1] - 1 :].sum()
        tokens += len(loss) - sizes[0] + 1
    for weight, loss in losses.items():
        assert loss == pytest.approx(float((text + weight * answer) / tokens), rel=1e-4)


@pytest.fixture(scope="module")
def uninterrupted(fluent_model, scene_folder, tmp_path_factory):
    return train.main(rapo_arguments(scene_folder, fluent_model, tmp_path_factory.mktemp("runs") / "rapo"))


def test_rapo_trains_everything_and_logs_each_part(uninterrupted, fluent_model):
    rows = [json.loads(line) for line in (uninterrupted / "figures.jsonl").open()]
    steps = [row for row in rows if "reward" in row]
    for name in ("relative", "absolute", "format"):
        assert f"rewards/{name}/mean" in steps[0]
    assert {"readable", "score/std", "kl", "entropy", "frac_reward_zero_std"} <= set(steps[0])
    assert [row["step"] for row in rows if "validation/srcc" in row] == [2, 4]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]  # a validation takes no step's row away
    replies = read_rows(uninterrupted / "replies.jsonl", SampledReply)
    assert [reply.step for reply in replies] == [2] * 4 + [4] * 4
    assert len({reply.image for reply in replies}) == 4 and all(reply.reply for reply in replies)
    before, after = weights(fluent_model), weights(uninterrupted)
    assert any("visual" in name for name in before if not torch.equal(before[name], after[name]))


def test_rapo_leaves_the_eyes_alone_when_asked(fluent_model, scene_folder, tmp_path):
    frozen = train.main(rapo_arguments(scene_folder, fluent_model, tmp_path / "rapo", "--freeze_vision", "true"))
    before, after = weights(fluent_model), weights(frozen)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name for name in changed)


def test_rapo_does_not_start_where_replies_cannot_be_read(random_model, scene_folder, tmp_path):
    ask = ["--min_readable", "0.3"]
    with pytest.raises(AesError, match=r"0 of the model's replies about 4 images can be read, and RAPO needs 30%") as e:
        train.main(rapo_arguments(scene_folder, random_model, tmp_path / "rapo", *ask))
    assert "min_readable: 0 trains all the same" in e.value.fix
    assert not list((tmp_path / "rapo").glob("checkpoint-*"))


def test_counting_readable_replies_changes_no_weight(uninterrupted, fluent_model, scene_folder, tmp_path):
    checked = train.main(rapo_arguments(scene_folder, fluent_model, tmp_path / "rapo", "--min_readable", "1"))
    before, after = weights(uninterrupted), weights(checked)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("random", [], "replies that can be read: 0 of 8\n  → RAPO needs more: train longer"),
        ("fluent", ["--ratings", "{ratings}", "--validate_every", "1"], "replies that can be read: 5 of 5\n"),
    ],
)
def test_the_cold_start_says_how_many_replies_can_be_read(
    name, more, said, rationales, random_model, fluent_model, scene_folder, tmp_path, capsys
):
    model = {"random": random_model, "fluent": fluent_model}[name]
    more = [text.format(ratings=scene_folder / "ratings.jsonl") for text in more]
    given = ["--rationales", str(rationales), "--model", str(model), "--output_dir", str(tmp_path), "--max_steps", "1"]
    rest = ["--learning_rate", "1e-9", "--min_readable", "0.5", "--validate_images", "5"]
    cold_start.main([*given, *CPU, *rest, *more])
    errors = capsys.readouterr().err
    assert said in errors and ("train longer" in errors) == (name == "random")
    figures = [json.loads(line) for line in (tmp_path / "figures.jsonl").open()]
    assert [row["validation/readable"] for row in figures if "validation/readable" in row] == [1.0] * bool(more)


def test_a_loss_that_is_no_number_ends_the_run(rationales, random_model, tmp_path):
    arguments = ["--rationales", str(rationales), "--model", str(random_model), "--output_dir", str(tmp_path)]
    wild = ["--learning_rate", "1e30", "--logging_steps", "1", "--save_steps", "1", "--max_steps", "4"]
    with pytest.raises(AesError, match="the loss is nan at step") as caught:
        cold_start.main([*arguments, *wild, *CPU])
    step = json.loads((tmp_path / "figures.jsonl").read_text().splitlines()[-1])["step"]
    assert f"checkpoint-{step - 1}" in caught.value.fix and not (tmp_path / f"checkpoint-{step}").exists()


@pytest.mark.parametrize("stage", [cold_start.main, train.main])
def test_a_logger_that_is_not_installed_is_refused_before_a_model_loads(
    stage, rationales, scene_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = rapo_arguments(scene_folder, tmp_path / "no-model", tmp_path / "out")
    if stage is cold_start.main:
        arguments = ["--rationales", str(rationales), "--model", "no-model", "--output_dir", str(tmp_path), *CPU]
    with pytest.raises(AesError, match="report_to: wandb needs a package"):
        stage([*arguments, "--report_to", "wandb"])


def test_a_run_begun_with_other_settings_is_not_resumed(uninterrupted, fluent_model, scene_folder, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "rapo")
    (tmp_path / "rapo" / "aesr1.json").unlink()
    with pytest.raises(AesError, match=r"started with sigma = 0\.1"):
        train.main(rapo_arguments(scene_folder, fluent_model, tmp_path / "rapo", "--sigma", "0.2"))


def test_a_run_that_was_killed_after_its_last_step_takes_no_further_step(
    uninterrupted, fluent_model, scene_folder, tmp_path
):
    """Here the last step lies within a pass over the data, so that there are pictures left."""
    shutil.copytree(uninterrupted, tmp_path / "rapo")
    for name in ("aesr1.json", "model.safetensors"):
        (tmp_path / "rapo" / name).unlink()
    resumed = train.main(rapo_arguments(scene_folder, fluent_model, tmp_path / "rapo"))
    assert not (resumed / "checkpoint-5").exists()
    before, after = weights(uninterrupted), weights(resumed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    steps = [json.loads(line)["step"] for line in (resumed / "figures.jsonl").open() if '"loss"' in line]
    assert steps == [1, 2, 3, 4]


def test_a_finished_run_is_not_overwritten(uninterrupted, fluent_model, scene_folder):
    with pytest.raises(AesError, match="finished run"):
        train.main(rapo_arguments(scene_folder, fluent_model, uninterrupted))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--per_device_train_batch_size", "4"], "only one image"),
        (["--comparison_scope", "galaxy"], "comparison_scope is"),
        (["--reward_weights", "1", "1"], "2 reward_weights for 3"),
        (["--rewards", "beauty"], "unknown reward"),
        (["--split", "holiday"], "no ratings of split"),
        (["--nonsense", "1"], "unknown settings: --nonsense"),
        (["--num_generations", "3"], "settings"),
        (["--config", "nowhere.yaml"], "no such recipe"),
        (["--validate_on", "holiday"], "no ratings of split 'holiday' to validate on"),
        (["--sigma", "0"], "sigma is"),
        (["--tie_target", "2"], "tie_target is"),
        (["--max_steps", "many"], "invalid"),
        (["--sigma_end", "-1"], "sigma_end is"),
        (["--dynamic_sampling_rounds", "-1"], "dynamic_sampling_rounds is"),
        (["--lora_rank", "-1"], "lora_rank is"),
        (["--images_per_comparison", "3"], "3 images × 4 replies cannot be divided by a micro-batch of 8"),
        (["--images_per_comparison", "4", "--steps_per_generation", "1"], "means steps_per_generation 2"),
        (["--images_per_comparison", "1", "--per_device_train_batch_size", "4"], "only one image"),
        (["--rewards", "absolute", "--soft_preferences", "true"], "it only changes the relative reward"),
        (["--rewards", "relative", "--sigma_end", "0.05"], "it only changes the absolute reward"),
        (["--per_device_train_batch_size", "6", "--steps_per_generation", "2", "--num_generations", "5"], "settings"),
        (
            ["--steps_per_generation", "2", "--gradient_accumulation_steps", "3"],
            "would fall between the passes",
        ),
        (["--per_device_train_batch_size", "128"], "24 images to train on, but one batch has 32"),
        (["--dtype", "bfloat16"], "nothing keeps a float32 copy"),
        (["--report_to", "diary"], "not a logger"),
        (["--validate_batch", "0"], "validate_batch is 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_model_loads(scene_folder, tmp_path, more, message):
    with pytest.raises(AesError, match=message):
        train.main(rapo_arguments(scene_folder, tmp_path / "no-model", tmp_path / "out", *more))


@pytest.mark.parametrize(
    "recipe", sorted({*RECIPES.glob("*.yaml")} - {RECIPES / "aescot.yaml"}), ids=lambda path: path.name
)
def test_every_recipe_can_be_read_and_trained(recipe, tmp_path):
    run = ["--config", str(recipe), "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    launch = Launch() if "lora" in recipe.name else launch_from_file(RECIPES / "accelerate" / "zero3-offload.yaml")
    if "rapo" in recipe.name:
        kinds = train.SETTINGS
        *settings, training = parse_recipe(
            kinds, [*run, "--ratings", "r.jsonl"], derive=train.derive_settings, **train.PAPER
        )
        train.check_config(*settings, training, launch)
        assert training.loss_type == "grpo" and training.epsilon_high == 0.28
        assert training.beta == (0.1 if "photos" in recipe.name else 0.01)
        assert not training.use_bias_correction_kl and training.num_generations == 4
    else:
        kinds = cold_start.SETTINGS
        _, model, training = parse_recipe(kinds, [*run, "--rationales", "r.jsonl"], **cold_start.PAPER)
        assert training.max_length is None and model.freeze_vision
    if "paper" in recipe.name:
        images = training.per_device_train_batch_size * training.gradient_accumulation_steps * launch.processes
        assert images == (512 if "rapo" in recipe.name else 64)


def test_a_name_that_is_no_model_does_not_bind_the_folder(fluent_model, scene_folder, tmp_path):
    with pytest.raises(AesError, match="no folder"):
        train.main(rapo_arguments(scene_folder, tmp_path / "nowhere", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert train.main(rapo_arguments(scene_folder, fluent_model, tmp_path / "out", "--max_steps", "1")).is_dir()


def test_replies_that_cannot_be_drawn_any_more_are_one_clear_error(fluent_model, scene_folder, tmp_path):
    wild = ["--learning_rate", "1e30", "--max_grad_norm", "0", "--validate_every", "0"]
    with pytest.raises(AesError, match=r"NaN|nan") as caught:
        train.main(rapo_arguments(scene_folder, fluent_model, tmp_path / "out", *wild))
    assert "learning_rate" in caught.value.fix


def test_a_recipe_that_says_a_thing_twice_is_refused(tmp_path, scene_folder):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sigma: 0.1\nbeta: 0.1\nsigma: 0.2\n")
    with pytest.raises(AesError, match="has sigma twice"):
        train.main(["--config", str(recipe), *rapo_arguments(scene_folder, "no-model", tmp_path / "out")])


def test_which_images_meet_and_the_micro_batch_are_separate_settings(tmp_path):
    for micro_batch, passes in (("4", 8), ("2", 16), ("32", 1)):
        flags = ["--images_per_comparison", "8", "--per_device_train_batch_size", micro_batch, "--num_generations", "4"]
        run = ["--gradient_accumulation_steps", "16", "--output_dir", str(tmp_path), "--use_cpu", "--bf16", "false"]
        *_, training = parse_recipe(
            train.SETTINGS,
            ["--ratings", "r", *flags, *run],
            derive=train.derive_settings,
            **train.PAPER,
        )
        assert training.steps_per_generation == passes
        assert training.generation_batch_size == 32


def test_a_checkpoint_of_another_number_of_processes_is_refused(fluent_model, scene_folder, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(fluent_model, output / "checkpoint-2")
    for rank in range(4):
        (output / "checkpoint-2" / f"rng_state_{rank}.pth").touch()
    with pytest.raises(AesError, match="written by 4 processes, and now there are 1") as error:
        train.main(rapo_arguments(scene_folder, fluent_model, output))
    assert "--num_processes 4" in error.value.fix


SMALLEST = ["--images_per_comparison", "2", "--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "8"]


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ([], "gradient_checkpointing: true"),
        (
            ["--gradient_checkpointing", "true"],
            "per_device_train_batch_size from 8 to 4 and raise gradient_accumulation_steps from 1 to 2",
        ),
        (
            ["--gradient_checkpointing", "true", "--steps_per_generation", "2", "--gradient_accumulation_steps", "4"],
            "from 8 to 4 and raise gradient_accumulation_steps from 4 to 8 and steps_per_generation from 2 to 4",
        ),
        (["--gradient_checkpointing", "true", *SMALLEST], "LoRA"),
    ],
)
def test_a_full_memory_says_what_to_lower(monkeypatch, scene_folder, random_model, tmp_path, more, advice):
    monkeypatch.setattr(train.RapoTrainer, "training_step", full)
    more = [*more, "--validate_every", "0", "--save_steps", "100"]
    with pytest.raises(
        AesError, match=r"the GPU's memory is full while training: tried to allocate 2\.00 GiB"
    ) as error:
        train.main(rapo_arguments(scene_folder, random_model, tmp_path / "out", *more))
    assert advice in error.value.fix


LORA = ["--lora_rank", "4"]


@pytest.mark.parametrize(
    ("place", "more", "doing", "advice"),
    [
        ("aesr1.model.load.AutoModelForImageTextToText.from_pretrained", [], "loading the model", "lora_rank: 32"),
        ("torch.nn.Module.to", LORA, "loading the model", "dtype: bfloat16, which halves the weights"),
        ("trl.trainer.grpo_trainer.create_model_from_path", [], "setting up the training", "set beta: 0"),
        ("aesr1.training.validation.predict", [], "validating", "lower validate_batch from 32 to 16"),
        ("aesr1.training.validation.predict", ["--validate_batch", "1"], "validating", "set validate_every: 0"),
        ("aesr1.training.run.save_merged", LORA, "writing the model", "GiB of the computer's memory; the same command"),
        ("transformers.Trainer.save_model", ["--save_strategy", "no"], "writing the model", "free 0.0 GiB"),
    ],
)
def test_a_memory_that_is_full_elsewhere_says_where(
    monkeypatch, scene_folder, random_model, tmp_path, place, more, doing, advice
):
    monkeypatch.setattr(place, full)
    with pytest.raises(AesError, match=f"memory is full while {doing}") as error:
        train.main(rapo_arguments(scene_folder, random_model, tmp_path / "out", "--max_steps", "2", *more))
    assert advice in error.value.fix


def full(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")


@pytest.mark.parametrize(
    ("fill", "wanted"),
    [
        (lambda *_, **__: torch.empty(2**50), "tried to allocate 4503599627370496 bytes"),
        (lambda *_, **__: np.empty(2**50, np.float32), "unable to allocate 4.00 PiB"),
    ],
    ids=["torch", "numpy"],
)
def test_the_computers_own_memory_can_be_full_too(monkeypatch, rationales, random_model, tmp_path, fill, wanted):
    monkeypatch.setattr(cold_start.ColdStartTrainer, "training_step", fill)
    arguments = ["--rationales", str(rationales), "--model", str(random_model), "--output_dir", str(tmp_path)]
    with pytest.raises(AesError, match="the computer's memory is full while training") as error:
        cold_start.main([*arguments, *CPU])
    assert wanted in error.value.problem and "gradient_checkpointing: true" in error.value.fix


def test_a_memory_that_is_full_while_reading_weights_is_no_broken_model(
    scene_folder, random_model, tmp_path, monkeypatch
):
    def unmapped(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("aesr1.model.load.AutoModelForImageTextToText.from_pretrained", unmapped)
    with pytest.raises(AesError, match="the computer's memory is full while loading the model") as error:
        train.main(rapo_arguments(scene_folder, random_model, tmp_path / "out"))
    assert "dtype" in error.value.fix


@pytest.mark.parametrize("more", [[], LORA], ids=["full", "LoRA"])
def test_no_model_card_speaks_in_our_place(scene_folder, random_model, tmp_path, more):
    output = train.main(rapo_arguments(scene_folder, random_model, tmp_path / "out", "--max_steps", "1", *more))
    assert (output / "checkpoint-1").is_dir() and not [*output.rglob("README.md")]


def test_a_checkpoint_of_weights_alone_is_not_resumed(scene_folder, random_model, tmp_path):
    arguments = rapo_arguments(
        scene_folder, random_model, tmp_path / "out", "--validate_every", "0", "--max_steps", "2"
    )
    output = train.main([*arguments, "--save_only_model", "true"])
    (output / "aesr1.json").unlink()
    with pytest.raises(AesError, match="checkpoint-2 holds weights alone") as error:
        train.main(arguments)
    assert f"--model {output / 'checkpoint-2'}" in error.value.fix


def test_missing_pictures_and_empty_rationales_are_clear_errors(random_model, tmp_path):
    write_rows(tmp_path / "r.jsonl", [Rationale("gone.png", 0.5, "d", "x", "test")])
    (tmp_path / "empty.jsonl").touch()
    for name, message in (
        ("r.jsonl", r"1 of 1 images cannot be used, first: .*gone\.png does not exist"),
        ("empty.jsonl", "no rationales"),
    ):
        with pytest.raises(AesError, match=message):
            cold_start.main(
                [
                    "--rationales",
                    str(tmp_path / name),
                    "--model",
                    str(random_model),
                    "--output_dir",
                    str(tmp_path / "out"),
                    *CPU,
                ]
            )
