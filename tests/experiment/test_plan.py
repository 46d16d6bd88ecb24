"""The steps of an experiment: which there are, in which order, and which cells share them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer

from aesr1 import cold_start
from aesr1.cli.main import app
from aesr1.errors import AesError
from aesr1.experiment.plan import make_plan
from aesr1.experiment.recipe import Cell, Experiment, read_experiment
from aesr1.rapo import train

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "experiments").glob("*.yaml"))
STAGES = {
    "data": {"command": "ratings scenes", "n": 10, "output": "{here}"},
    "sft": {"command": "sft", "ratings": "{data}/ratings.jsonl", "seed": "{seed}", "output_dir": "{here}"},
    "rapo": {"command": "rapo", "model": "{sft}", "rewards": ["relative", "format"], "output_dir": "{here}"},
}
TESTS = {"Val set": {"command": "eval {data}", "model": "{cell}={model}", "fast": [], "output": "{here}"}}


def experiment(*cells: Cell, stages=STAGES, seeds=(0,), variables=None) -> Experiment:
    cells = cells or (Cell("all", "{rapo}", {}),)
    return Experiment("t", seeds, variables or {}, stages, TESTS, cells, cells[0].name)


def words(plan) -> list[str]:
    return [" ".join(step.words) for step in plan.steps]


def test_a_step_comes_after_those_that_it_needs_and_places_become_folders(tmp_path):
    plan = make_plan(experiment(), tmp_path)
    assert [step.name for step in plan.steps] == ["data", "sft", "rapo", "Val set"]
    data, sft, rapo, val = (step.output for step in plan.steps)
    assert words(plan) == [
        f"ratings scenes --n 10 --output {data}",
        f"sft --ratings {data}/ratings.jsonl --seed 0 --output_dir {sft}",
        f"rapo --model {sft} --rewards relative format --output_dir {rapo}",
        f"eval {data} --model all={rapo} --fast --output {val}",
    ]
    assert val.parent.parent == tmp_path / "cells" / "all" / "seed-0"
    assert val.parent.name.startswith("val-set-")
    assert plan.evaluations == {("all", "Val set", 0): val}


def test_cells_and_seeds_share_what_is_the_same(tmp_path):
    cells = Cell("cold", "{sft}", {}), Cell("a", "{rapo}", {}), Cell("b", "{rapo}", {"rapo": {"sigma": 0.2}})
    plan = make_plan(experiment(*cells, seeds=(0, 1)), tmp_path)
    assert [step.name for step in plan.steps].count("data") == 1
    assert [step.name for step in plan.steps].count("sft") == 2
    assert [step.name for step in plan.steps].count("rapo") == 4
    assert plan.steps[0].users == ["cold, seed 0", "a, seed 0", "b, seed 0", "cold, seed 1", "a, seed 1", "b, seed 1"]
    assert plan.steps[0].used_by == "cold, seed 0; a, seed 0; 4 more"


def test_a_cell_replaces_adds_and_takes_away_flags_and_skips_what_it_does_not_need(tmp_path):
    changes = {"rapo": {"model": "tiny-backbone", "rewards": None, "bf16": True}}
    plan = make_plan(experiment(Cell("zero", "{rapo}", changes)), tmp_path)
    assert [step.name for step in plan.steps] == ["data", "rapo", "Val set"]
    assert words(plan)[1] == f"rapo --model tiny-backbone --output_dir {plan.steps[1].output} --bf16 true"


def test_flags_of_other_commands_are_repeated(tmp_path):
    stages = {**STAGES, "data": {"command": "ratings scenes", "style": ["night", "sketch"], "output": "{here}"}}
    assert words(make_plan(experiment(stages=stages), tmp_path))[0].startswith(
        "ratings scenes --style night --style sketch --output "
    )


def test_launch_comes_before_aesr1(tmp_path):
    stages = {**STAGES, "rapo": {**STAGES["rapo"], "launch": "{how} -m"}}
    plan = make_plan(experiment(stages=stages, variables={"how": "accelerate launch"}), tmp_path)
    assert plan.steps[2].launch == ("accelerate", "launch", "-m")


def test_a_changed_recipe_file_and_all_after_it_get_new_folders(tmp_path):
    recipe = tmp_path / "sft.yaml"
    stages = {**STAGES, "sft": {**STAGES["sft"], "config": str(recipe)}}
    folders = []
    for text in ("max_steps: 1", "max_steps: 2"):
        recipe.write_text(text)
        folders.append([step.folder for step in make_plan(experiment(stages=stages), tmp_path).steps])
    assert [one == two for one, two in zip(*folders, strict=True)] == [True, False, False, False]


def test_a_changed_setting_judges_anew(tmp_path):
    plans = [make_plan(experiment(Cell("a", "{rapo}", {"rapo": {"sigma": value}})), tmp_path) for value in (0.1, 0.2)]
    first, second = (plan.evaluations["a", "Val set", 0] for plan in plans)
    assert first != second


def test_a_path_with_spaces_is_one_word(tmp_path):
    stages = {**STAGES, "data": {"command": "ratings import csv {photos}/ratings.csv", "output": "{here}"}}
    plan = make_plan(experiment(stages=stages, variables={"photos": "/my photos"}), tmp_path)
    assert plan.steps[0].words[:4] == ("ratings", "import", "csv", "/my photos/ratings.csv")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rapo": {"model": "{stf}"}}, "rapo names {stf}, which is nothing"),
        ({"sft": {"model": "{rapo}"}}, "need each other: Val set → rapo → sft → rapo"),
        ({"sft": {"config": "none.yaml"}}, "none.yaml cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(tmp_path, changes, problem):
    with pytest.raises(AesError, match=problem):
        make_plan(experiment(Cell("all", "{rapo}", changes)), tmp_path)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_command_of_our_recipes_is_one_that_aesr1_takes(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    variables = {"photos": "folder"} if "photos" in recipe.read_text() else {}
    variables |= {"data": "folder"} if recipe.stem.startswith("paper") else {}
    one_seed = replace(read_experiment(recipe, given=variables), seeds=(0,))
    settings = {"sft": cold_start.SETTINGS, "rapo": train.SETTINGS}
    for step in make_plan(one_seed, tmp_path).steps:
        if step.words[0] in settings:
            known = {name for kind in settings[step.words[0]] for name in kind.__dataclass_fields__} | {"config"}
            assert {word[2:] for word in step.words if word.startswith("--")} <= known
        else:
            command = typer.main.get_command(app)
            rest = list(step.words)
            while hasattr(command, "commands"):
                command = command.commands[rest.pop(0)]
            command.make_context(command.name, rest)
