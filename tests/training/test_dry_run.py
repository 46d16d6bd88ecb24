"""A plan before a run: what it counts is what the run then does."""

import json
from dataclasses import replace

import pytest
import torch
from test_runs import RECIPES

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.json_lines import read_rows, write_rows
from aesr1.rapo import train
from aesr1.records import Rating, Rationale
from aesr1.training.compute_estimate import PassShape
from aesr1.training.dry_run import checkpoint_bytes
from aesr1.training.launch import SHARD_ALL, SHARD_OPTIMIZER, Launch
from aesr1.training.memory_estimate import ModelShape, StepWork, estimate_memory
from aesr1.training.model_summary import ModelSummary, PromptTokens
from conftest import CPU

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

SHAPE = ModelShape(
    parameters=1000, trained=800, weight_bytes=4, hidden=4, intermediate=8, layers=2, cache_width=2, largest_layer=100
)
WORK = StepWork(at_once=20, tokens=10, rollout=8, reference=True, checkpointing=False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rewards", "beauty"], "unknown reward"),
        (["--validate_every", "1", "--validate_on", "holiday"], "holiday"),
        (["--report_to", "diary"], "not a logger"),
        (["--images_per_comparison", "3"], "cannot be divided"),
    ],
)
def test_a_plan_refuses_what_the_run_would(scene_folder, random_model, tmp_path, more, message):
    with pytest.raises(AesError, match=message):
        train.main([*flags(scene_folder, random_model, tmp_path / "x"), *more, "--dry_run"])


def test_a_plan_needs_no_gpu_and_its_launch_file_is_for_it_alone(scene_folder, random_model, tmp_path):
    ratings = ["--ratings", str(scene_folder / "ratings.jsonl"), "--output_dir", str(tmp_path / "x")]
    recipe = ["--config", str(RECIPES / "lora-3b-24gb-rapo.yaml"), "--model", str(random_model)]
    assert "8 are compared" in train.main([*recipe, *ratings, "--dry_run"])
    with pytest.raises(AesError, match="only for a dry run"):
        train.main([*recipe, *ratings, "--accelerate_config", "zero3.yaml", "--use_cpu", "true", "--bf16", "false"])


def test_memory_by_hand():
    need = estimate_memory(SHAPE, WORK, Launch())
    assert (need.weights, need.gradients, need.optimizer, need.reference) == (4000, 3200, 6400, 4000)
    assert need.activations == 2 * (2 * 10) * (10 * 4 + 4 * 8) * 2
    assert need.rollout == 8 * 10 * 2 * 2 * 2 * 2 + 8 * 10 * (4 * 4 + 2 * 8) * 2
    assert need.peak == 4000 + 3200 + 6400 + 4000 + max(need.activations, need.rollout)


def test_memory_of_a_validation_by_hand():
    need = estimate_memory(SHAPE, replace(WORK, validation=32), Launch())
    assert need.validation == 32 * 10 * 2 * 2 * 2 * 2 + 32 * 10 * (4 * 4 + 2 * 8) * 2
    assert need.peak == 4000 + 3200 + 6400 + 4000 + need.validation  # more than a rollout's 8 replies need
    assert estimate_memory(SHAPE, WORK, Launch()).validation == 0


def test_memory_of_divided_models_by_hand():
    divided = estimate_memory(SHAPE, WORK, Launch(4, SHARD_ALL))
    assert divided.weights == 4000 / 4 + 2 * 100 * 4  # and two layers gathered
    assert (divided.gradients, divided.optimizer, divided.reference) == (800, 1600, 1000)
    zero2 = estimate_memory(SHAPE, WORK, Launch(4, SHARD_OPTIMIZER, deepspeed=True))
    assert (zero2.weights, zero2.gradients, zero2.optimizer, zero2.reference) == (4000, 800, 1600, 4000)
    offloaded = estimate_memory(SHAPE, WORK, Launch(4, SHARD_ALL, offload=True, deepspeed=True))
    assert (offloaded.weights, offloaded.optimizer) == (800, 0)
    assert offloaded.rollout == divided.rollout + 4000  # ZeRO-3 gathers the weights to generate


def test_checkpointing_keeps_one_vector_a_layer():
    kept = estimate_memory(SHAPE, StepWork(20, 10, 0, False, True), Launch())
    assert kept.activations == 2 * 20 * 4 * 2 + 20 * (10 * 4 + 4 * 8) * 2
    assert kept.reference == kept.rollout == 0


def flags(scene_folder, model, output, *more):
    sizes = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "24"]
    where = ["--ratings", str(scene_folder / "ratings.jsonl"), "--model", str(model), "--output_dir", str(output)]
    return [*where, *sizes, "--validate_every", "0", "--save_steps", "100", *CPU, *more]


def test_the_plan_of_rapo_is_what_the_run_does(scene_folder, random_model, tmp_path):
    more = ["--num_train_epochs", "1.5", "--gradient_accumulation_steps", "3", "--steps_per_generation", "3"]
    settings = flags(scene_folder, random_model, tmp_path / "run", *more, "--logging_steps", "1")
    text = train.main([*settings, "--dry-run"])
    assert not (tmp_path / "run").exists()
    assert (
        "24 to train on; 6 at a time with 4 replies each, of which 6 are compared (comparison_scope: local); 6 a step"
        in text
    )
    run = train.main(settings)
    last = [json.loads(line) for line in (run / "figures.jsonl").open()][-1]
    assert f"steps: {last['step']};" in text
    model = torch.load(run / "training_args.bin", weights_only=False)
    assert model.gradient_accumulation_steps == 3


@pytest.mark.parametrize(
    ("more", "trained", "frozen"), [([], "all", 0), (["--freeze_vision", "true"], "language", "eyes")]
)
def test_parameters_are_those_of_the_model(scene_folder, random_model, tmp_path, more, trained, frozen):
    from aesr1.model.load import load

    model = load(str(random_model), device="cpu").model
    eyes = sum(p.numel() for name, p in model.named_parameters() if "visual" in name)
    whole = sum(p.numel() for p in model.parameters())
    language = whole if trained == "all" else whole - eyes
    text = train.main([*flags(scene_folder, random_model, tmp_path, *more), "--dry_run"])
    parts = (
        f"{whole / 1e6:,.1f} M parameters: {language / 1e6:,.1f} M trained, {(whole - language) / 1e6:,.1f} M frozen"
    )
    assert parts in text


def test_picture_tokens_are_those_of_the_processor(scene_folder, random_model, tmp_path):
    text = train.main([*flags(scene_folder, random_model, tmp_path), "--dry_run"])
    assert "tokens: 16 for a picture of max_pixels" in text  # 64 × 64 pixels in squares of 16 × 16


def test_the_plan_of_a_cold_start(random_model, scene_folder, tmp_path):
    rows = [
        Rationale(rating.image, rating.score, rating.domain, "Light and shadow are soft.", "test")
        for rating in read_rows(scene_folder / "ratings.jsonl", Rating)[:20]
    ]
    write_rows(tmp_path / "r.jsonl", rows)
    settings = ["--rationales", str(tmp_path / "r.jsonl"), "--model", str(random_model), "--output_dir"]
    sizes = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2", "--num_train_epochs", "2"]
    sizes += ["--save_steps", "3"]
    text = cold_start.main([*settings, str(tmp_path / "run"), *sizes, *CPU, "--dry_run"])
    assert "rationales: 20, 16 a step; micro-batch: 8" in text
    assert "steps: 4; checkpoints: 2, of which 2 are kept" in text
    run = cold_start.main([*settings, str(tmp_path / "run"), *sizes, *CPU, "--logging_steps", "1"])
    assert [json.loads(line) for line in (run / "figures.jsonl").open()][-1]["step"] == 4
    assert {path.name for path in run.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}


@pytest.mark.parametrize(
    ("more", "launch", "message"),
    [
        ([], {"num_processes": 13}, "24 images to train on, but one batch has 26"),
        (["--lora_rank", "8"], {"distributed_type": "FSDP"}, "divided among the processes"),
        (
            ["--lora_rank", "8"],
            {"distributed_type": "FSDP", "fsdp_config": {"fsdp_sharding_strategy": "NO_SHARD"}},
            "wrapped to be",
        ),
        (
            ["--generation_batch_size", "8"],
            {},
            r"generation_batch_size \(8\) must be divisible by the global batch size \(16\)",
        ),
        (
            ["--comparison_scope", "global", "--per_device_train_batch_size", "6", "--num_generations", "8"],
            {},
            r"\(12\) must be",
        ),
        (["--dtype", "bfloat16"], {}, "nothing keeps a float32 copy"),
    ],
)
def test_what_cannot_be_on_those_machines_is_refused(scene_folder, random_model, tmp_path, more, launch, message):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"num_processes": 2, "distributed_type": "MULTI_GPU", **launch}))
    with pytest.raises(AesError, match=message):
        train.main(
            [*flags(scene_folder, random_model, tmp_path / "x", *more), "--dry_run", "--accelerate_config", str(file)]
        )


def test_batches_are_judged_for_the_processes_there_will_be(scene_folder, random_model, tmp_path):
    """Six replies a process are no groups of four; twelve of two processes are."""
    file = tmp_path / "a.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_processes: 2")
    more = ["--comparison_scope", "global", "--per_device_train_batch_size", "6", "--dry_run"]
    settings = flags(scene_folder, random_model, tmp_path / "x", *more)
    text = train.main([*settings, "--accelerate_config", str(file)])
    assert "3 at a time with 4 replies each, of which 3 are compared (comparison_scope: global)" in text
    with pytest.raises(AesError, match=r"\(6\) must be divisible by num_generations \(4\)"):
        train.main(settings)


@pytest.mark.parametrize(
    ("more", "written"),
    [
        ([], "steps: 8; checkpoints: 1, of which 1 are kept"),  # the last step is saved whatever save_steps says
        (["--save_steps", "3"], "steps: 8; checkpoints: 3, of which 2 are kept"),
        (["--save_steps", "4"], "steps: 8; checkpoints: 2, of which 2 are kept"),
        (["--save_steps", "0"], "steps: 8; checkpoints: 1, of which 1 are kept"),
        (["--save_steps", "0.25"], "steps: 8; checkpoints: 4, of which 2 are kept"),
        (["--save_steps", "0.3"], "steps: 8; checkpoints: 3, of which 2 are kept"),
        (["--save_strategy", "no"], "steps: 8; no checkpoints"),
        (["--save_strategy", "epoch"], "steps: 8; checkpoints: 1, of which 1 are kept"),
        (["--save_strategy", "epoch", "--num_train_epochs", "2.5"], "steps: 20; checkpoints: 3, of which 2 are kept"),
        (["--save_strategy", "epoch", "--max_steps", "9"], "steps: 9; checkpoints: 2, of which 2 are kept"),
        (["--save_steps", "4", "--save_total_limit", "5"], "checkpoints: 2, of which 2 are kept"),
    ],
)
def test_checkpoints_are_counted_as_transformers_writes_them(scene_folder, random_model, tmp_path, more, written):
    settings = flags(scene_folder, random_model, tmp_path / "x", "--num_train_epochs", "1")
    settings = [*settings, "--per_device_train_batch_size", "12", *more, "--dry_run"]
    assert written in train.main(settings)


@pytest.mark.parametrize("share", ["0.5", "1"])
def test_a_share_of_the_steps_is_saved_between_generations_alone(scene_folder, random_model, tmp_path, share):
    more = ["--steps_per_generation", "2", "--save_steps", share, "--dry_run", "--num_train_epochs", "1"]
    settings = flags(scene_folder, random_model, tmp_path / "x", *more)  # 12 steps of one micro-batch, two a generation
    if share == "0.5":
        assert "steps: 12; checkpoints: 2," in train.main(settings)
    else:
        with pytest.raises(AesError, match="a checkpoint every 1 steps would fall between") as error:
            train.main(settings)
        assert "a multiple of 2" in error.value.fix


@pytest.mark.parametrize(
    ("launch", "model_only", "size"),
    [
        (Launch(), False, 1000 * 4 + 800 * 8),
        (Launch(), True, 1000 * 4),
        (Launch(8, SHARD_ALL, fsdp=True), False, 1000 * 4 + 800 * 8),
        (Launch(8, SHARD_ALL, deepspeed=True), False, 1000 * 4 + 800 * (8 + 4)),
        (Launch(8, SHARD_OPTIMIZER, deepspeed=True), False, 1000 * 4 + 800 * (8 + 4) + 1000 * 4),
    ],
)
def test_the_size_of_a_checkpoint_by_hand(launch, model_only, size):
    compute = PassShape(800, 0, 100, 2, 4, 50.0, trains_language=True, trains_vision=False)
    model = ModelSummary("Model", SHAPE, compute, 1000, PromptTokens(16, 4))
    assert checkpoint_bytes(model, launch, model_only=model_only) == size


def test_the_plan_of_a_published_model_needs_no_hub(scene_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    text = train.main([*flags(scene_folder, name, tmp_path / "x"), "--dry_run"])
    assert f"(bundled shape of {name}), 3,754.6 M parameters" in text
    rationales = ["--rationales", str(scene_folder / "rationales.jsonl"), "--model", name, "--max_length", "400"]
    text = cold_start.main([*rationales, "--output_dir", str(tmp_path / "x"), *CPU, "--dry_run"])
    assert f"(bundled shape of {name}), 3,754.6 M parameters" in text


def test_a_refused_dtype_names_the_file_of_the_launch(scene_folder, random_model, tmp_path):
    with pytest.raises(AesError, match="float32 copy") as error:
        train.main([*flags(scene_folder, random_model, tmp_path / "x"), "--dtype", "bfloat16", "--dry_run"])
    assert "--accelerate_config" in error.value.fix


@pytest.mark.parametrize(
    ("more", "shares"),
    [
        ([], "prefill decoding training"),
        (["--beta", "0.1"], "prefill decoding log-probabilities training"),
        (["--gradient_accumulation_steps", "3"], "prefill decoding training"),
        (["--steps_per_generation", "2"], "prefill decoding log-probabilities training"),  # steps between rollouts
    ],
)
def test_the_passes_of_a_run_are_counted(scene_folder, random_model, tmp_path, more, shares):
    settings = [*flags(scene_folder, random_model, tmp_path / "x"), "--beta", "0", "--save_steps", "2"]
    text = train.main([*settings, *more, "--dry_run"])
    (line,) = (line for line in text.splitlines() if line.startswith("compute: "))
    parts = line.partition("PFLOP-days: ")[2].partition(")")[0].split(", ")
    assert " ".join(part.split()[0] for part in parts) == shares
