"""The recipe of an experiment: fields, cells, grids, and what cannot be used."""

import pytest
import yaml

from aesr1.errors import AesError
from aesr1.experiment.recipe import read_experiment

STAGES = {"sft": {"command": "sft", "output_dir": "{here}"}, "rapo": {"command": "rapo", "model": "{sft}"}}
TESTS = {"val": {"command": "eval R", "model": "{cell}={model}", "output": "{here}"}}
BASE = {"stages": STAGES, "tests": TESTS, "model": "{rapo}"}


@pytest.fixture
def read(tmp_path):
    """Read a recipe of these fields."""

    def write(given=None, **fields):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(BASE | fields))
        return read_experiment(path, given=given)

    return write


def test_without_cells_there_is_one_and_seed_0(read):
    experiment = read()
    assert [cell.name for cell in experiment.cells] == ["all"]
    assert experiment.seeds == (0,)
    assert experiment.title == "recipe"
    assert experiment.compare_with == "all"


def test_a_cell_changes_stages_and_what_is_judged(read):
    cold, wide = read(cells={"cold start": {"model": "{sft}"}, "wide": {"rapo": {"sigma": 0.2}}}).cells
    assert (cold.model, cold.changes, cold.folder) == ("{sft}", {}, "cold-start")
    assert (wide.model, wide.changes) == ("{rapo}", {"rapo": {"sigma": 0.2}})


def test_a_grid_gives_all_combinations_of_each_cell(read):
    grid = {"rapo.num_generations": [4, 8], "rapo.sigma": [0.05, 0.1]}
    cells = read(cells={"a": {"rapo": {"beta": 0.1}}, "b": {}}, grid=grid).cells
    assert len(cells) == 8
    assert cells[1].name == "a, num_generations 4, sigma 0.1"
    assert cells[1].changes == {"rapo": {"beta": 0.1, "num_generations": 4, "sigma": 0.1}}


def test_a_recipe_extends_another(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"cells": {"a": {}}, "seeds": [1, 2]}))
    own = {"extends": "base.yaml", "cells": {"b": {}}, "stages": {"rapo": {"sigma": 0.2}, "new": {"command": "rapo"}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    experiment = read_experiment(tmp_path / "own.yaml")
    assert [cell.name for cell in experiment.cells] == ["b"]
    assert experiment.seeds == (1, 2)
    assert set(experiment.stages) == {"sft", "rapo", "new"}
    assert experiment.stages["rapo"] == {"command": "rapo", "model": "{sft}", "sigma": 0.2}


def test_a_variable_has_a_default_and_is_given(read):
    assert read(variables={"photos": "here"}).variables == {"photos": "here"}
    assert read({"photos": "there"}, variables={"photos": None}).variables == {"photos": "there"}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"stage": {}}, "unknown field stage"),
        ({"stages": None}, "no stages"),
        ({"stages": {"sft": {"config": "a"}}}, "stages sft has no command"),
        ({"stages": {"sft": {"command": "sft", "x": {"y": 1}}}}, "has x"),
        ({"stages": {"seed": {"command": "sft"}}}, "the name seed for two things"),
        ({"tests": {"sft": {"command": "eval R"}}}, "the name sft for two things"),
        ({"tests": {"val": {"command": "score R"}}}, "test val does not call eval"),
        ({"model": None}, "does not say which model is judged"),
        ({"cells": {"a": {"rappo": {"sigma": 1}}}}, "cell a changes rappo, which is no stage"),
        ({"cells": {"a": {"rapo": 3}}}, "cell a, rapo is 3"),
        ({"cells": {"A b": {}, "a-b": {}}}, "the cell 'A b' has no name of its own"),
        ({"cells": {"…": {}}}, "the cell '…' has no name of its own"),
        ({"grid": {"sigma": [1]}}, "grid has sigma"),
        ({"grid": {"rapo.sigma": []}}, "grid has rapo.sigma"),
        ({"seeds": []}, r"seeds: \[\]"),
        ({"seeds": [1, 1]}, r"seeds: \[1, 1\]"),
        ({"seeds": ["a"]}, r"seeds: \['a'\]"),
        ({"compare_with": "b", "cells": {"a": {}}}, "compares with 'b', which is no cell"),
        ({"variables": {"photos": None}}, "needs photos"),
        ({"extends": "recipe.yaml"}, "extends itself"),
        ({"extends": "none.yaml"}, "none.yaml cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(read, fields, problem):
    with pytest.raises(AesError, match=problem):
        read(**fields)


@pytest.mark.parametrize(
    ("text", "problem"), [("a: [", "is not YAML"), ("- a", "has no fields"), ("", "has no fields")]
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, problem):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(AesError, match=problem):
        read_experiment(tmp_path / "r.yaml")


def test_an_unknown_variable_is_refused(read):
    with pytest.raises(AesError, match="no variable place"):
        read({"place": "x"})
