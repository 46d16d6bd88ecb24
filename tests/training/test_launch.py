"""How a run is launched is read as accelerate reads it: from its file, from what it exports, from a flag."""

import json
from types import SimpleNamespace

import pytest
from test_runs import RECIPES

from aesr1.errors import AesError
from aesr1.training.launch import (
    SHARD_ALL,
    SHARD_OPTIMIZER,
    Launch,
    launch_from_environment,
    launch_from_file,
    launch_with_flags,
)


@pytest.mark.parametrize(
    ("file", "launch"),
    [
        ("ddp", Launch(8)),
        ("zero2", Launch(8, SHARD_OPTIMIZER, deepspeed=True)),
        ("zero3", Launch(8, SHARD_ALL, deepspeed=True)),
        ("zero3-offload", Launch(8, SHARD_ALL, offload=True, deepspeed=True)),
        ("fsdp2", Launch(8, SHARD_ALL, fsdp=True)),
    ],
)
def test_the_files_of_accelerate_say_what_is_divided(file, launch):
    assert launch_from_file(RECIPES / "accelerate" / f"{file}.yaml") == launch


def started(processes=2, deepspeed=None, fsdp=False, fsdp_config=None):
    """What `launch_from_environment` reads of TRL's settings."""
    return SimpleNamespace(world_size=processes, deepspeed=deepspeed, fsdp=fsdp, fsdp_config=fsdp_config)


ZERO = {"stage": 3, "offload_optimizer": {"device": "cpu"}}
AUTO = {"stage": "auto", "offload_optimizer": {"device": "auto"}}


@pytest.mark.parametrize(
    ("kind", "settings", "launch"),
    [
        ("DEEPSPEED", {}, Launch(2, SHARD_OPTIMIZER, deepspeed=True)),
        ("DEEPSPEED", {"zero_stage": 0}, Launch(2, deepspeed=True)),
        ("DEEPSPEED", {"zero_stage": 3}, Launch(2, SHARD_ALL, deepspeed=True)),
        (
            "DEEPSPEED",
            {"zero_stage": 3, "offload_optimizer_device": "cpu"},
            Launch(2, SHARD_ALL, offload=True, deepspeed=True),
        ),
        ("DEEPSPEED", {"deepspeed_config_file": ZERO}, Launch(2, SHARD_ALL, offload=True, deepspeed=True)),
        ("DEEPSPEED", {"deepspeed_config_file": {"stage": 1}}, Launch(2, SHARD_OPTIMIZER, deepspeed=True)),
        (
            "DEEPSPEED",
            {"deepspeed_config_file": {"stage": 1}, "zero_stage": 3},
            Launch(2, SHARD_OPTIMIZER, deepspeed=True),
        ),
        (
            "DEEPSPEED",
            {"deepspeed_config_file": AUTO, "zero_stage": 3, "offload_optimizer_device": "cpu"},
            Launch(2, SHARD_ALL, offload=True, deepspeed=True),
        ),
        ("FSDP", {}, Launch(2, SHARD_ALL, fsdp=True)),
        ("FSDP", {"fsdp_sharding_strategy": "FULL_SHARD"}, Launch(2, SHARD_ALL, fsdp=True)),
        ("FSDP", {"fsdp_sharding_strategy": "SHARD_GRAD_OP"}, Launch(2, SHARD_OPTIMIZER, fsdp=True)),
        ("FSDP", {"fsdp_sharding_strategy": "no_shard"}, Launch(2, fsdp=True)),
        ("FSDP", {"fsdp_sharding_strategy": 2}, Launch(2, SHARD_OPTIMIZER, fsdp=True)),
        ("FSDP", {"fsdp_version": 2}, Launch(2, SHARD_ALL, fsdp=True)),
        ("FSDP", {"fsdp_version": 2, "fsdp_reshard_after_forward": False}, Launch(2, SHARD_OPTIMIZER, fsdp=True)),
        ("FSDP", {"fsdp_version": 2, "fsdp_sharding_strategy": "NO_SHARD"}, Launch(2, SHARD_ALL, fsdp=True)),
        ("FSDP", {"fsdp_version": 2, "fsdp_offload_params": True}, Launch(2, SHARD_ALL, offload=True, fsdp=True)),
    ],
)
def test_a_launch_is_read_alike_from_a_file_and_from_what_accelerate_exports(
    tmp_path, monkeypatch, kind, settings, launch
):
    monkeypatch.chdir(tmp_path)  # where accelerate looks for DeepSpeed's file
    if zero := settings.get("deepspeed_config_file"):
        (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
        settings = {**settings, "deepspeed_config_file": "ds.json"}
    file = tmp_path / "a.yaml"
    part = "deepspeed_config" if kind == "DEEPSPEED" else "fsdp_config"
    file.write_text(json.dumps({"num_processes": 2, "distributed_type": kind, part: settings}))
    assert launch_from_file(file) == launch
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    for name, value in settings.items():
        short = name.removeprefix("deepspeed_").removeprefix("fsdp_").upper()
        prefix = "ACCELERATE_DEEPSPEED_" if kind == "DEEPSPEED" else "FSDP_"
        monkeypatch.setenv(prefix + short, str(value).lower() if isinstance(value, bool) else str(value))
    assert launch_from_environment(started()) == launch


def test_a_launch_of_nothing_and_one_by_the_flag(tmp_path):
    assert launch_from_environment(started()) == Launch(2)
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": ZERO}))
    by_flag = Launch(2, SHARD_ALL, offload=True, deepspeed=True)
    assert launch_from_environment(started(deepspeed=str(tmp_path / "ds.json"))) == by_flag
    assert launch_from_environment(started(deepspeed={"zero_optimization": ZERO})) == by_flag
    assert launch_with_flags(Launch(4), started(deepspeed={"zero_optimization": {"stage": 2}})).processes == 4
    assert launch_from_environment(started(fsdp=True)) == Launch(2, SHARD_ALL, fsdp=True)
    keeps = {"version": 2, "reshard_after_forward": False, "cpu_offload": True}
    assert launch_from_environment(started(fsdp=True, fsdp_config=keeps)) == Launch(
        2, SHARD_OPTIMIZER, offload=True, fsdp=True
    )


@pytest.mark.parametrize(
    ("text", "launch"),
    [
        ("distributed_type: NO", Launch()),
        ("distributed_type: 'NO'\nnum_processes: 8", Launch()),  # accelerate starts one all the same
        ("distributed_type: MULTI_GPU\nnum_processes: 8", Launch(8)),
        ("distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {sharding_strategy: NO_SHARD}", Launch(2, fsdp=True)),
    ],
)
def test_a_file_of_accelerates_is_read_as_accelerate_reads_it(tmp_path, text, launch):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert launch_from_file(path) == launch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {zero_stage: 7}", "ZeRO stage is 7"),
        ("distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {zero_stage: x}", "ZeRO stage is 'x'"),
        (
            "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {deepspeed_config_file: no.json}",
            "no.json does not set DeepSpeed's zero_optimization",
        ),
        (
            "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_sharding_strategy: SOME}",
            "fsdp_sharding_strategy is SOME",
        ),
        ("distributed_type: MULTI_GPU\nnum_processes: -1", "num_processes: -1"),
        ("distributed_type: FSDP\nnum_processes: 2\nfsdp_config: yes", "not one of accelerate's files"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(AesError, match=message) as error:
        launch_from_file(path)
    assert error.value.fix


def test_a_file_of_deepspeeds_without_its_part_is_refused(tmp_path):
    (tmp_path / "ds.json").write_text("{}")
    with pytest.raises(AesError, match="does not set DeepSpeed's zero_optimization") as error:
        launch_from_environment(started(deepspeed=str(tmp_path / "ds.json")))
    assert "zero_optimization.stage" in error.value.fix


@pytest.mark.parametrize("text", ["", "a: [", "num_processes: 2", "num_processes: many\ndistributed_type: FSDP"])
def test_a_file_that_is_not_accelerates_is_refused(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(AesError, match="not one of accelerate's files"):
        launch_from_file(path)
