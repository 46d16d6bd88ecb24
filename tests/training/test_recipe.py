"""A recipe's values are looked at before TRL takes them, and what is wrong is said by name."""

import pytest
import yaml

from aesr1 import cold_start
from aesr1.errors import AesError
from aesr1.rapo import train
from aesr1.training.recipe import RENAMED_SETTINGS, parse_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL and transformers warn of each other's deprecated names

CPU = "use_cpu: true\nbf16: false\nratings: r.jsonl\n"


def read(tmp_path, text, *flags, spelled="--config {}"):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    arguments = [*spelled.format(path).split(), "--output_dir", str(tmp_path / "out"), *flags]
    return parse_recipe(
        train.SETTINGS,
        arguments,
        derive=train.derive_settings,
        **train.PAPER,
    )


@pytest.mark.parametrize(
    ("line", "problem", "fix"),
    [
        ("learning_rate: [1]", r"learning_rate: \[1\], but learning_rate is a number", "give a number"),
        ("learning_rate: fast", 'learning_rate: "fast", but learning_rate is a number', "give a number"),
        ("lora_rank: 1.5", r"lora_rank: 1\.5, but lora_rank is a whole number", "give a whole number"),
        ("lora_rank: true", "lora_rank: true, but lora_rank is a whole number", "give a whole number"),
        ('lora_rank: "8"', 'lora_rank: "8", but lora_rank is a whole number', "give a whole number"),
        ("model:", "model: null, but model is text", "give text, or remove the line"),
        ("model: 7", "model: 7, but model is text", 'put it in quotes: model: "7"'),
        ("output_dir: 2026-11-24", 'output_dir: "2026-11-24", but output_dir is text', "put it in quotes"),
        ("sigma: null", "sigma: null, but sigma is a number", "or remove the line"),
        ("sigma: true", "sigma: true, but sigma is a number", "give a number"),
        ("sigma_end: wide", 'sigma_end: "wide", but sigma_end is a number or null', "give a number or null"),
        ('freeze_vision: "true"', 'freeze_vision: "true", but freeze_vision is true or false', "without quotes"),
        ("freeze_vision: 1", "freeze_vision: 1, but freeze_vision is true or false", "without quotes"),
        ("freeze_vision:", "freeze_vision: null, but freeze_vision is true or false", "or remove the line"),
        ("rewards: {relative: 1}", 'rewards: {"relative": 1}, but rewards is a list of texts', "give a list"),
        ("rewards: [relative, 1]", r'rewards: \["relative", 1\], but rewards is a list of texts', "give a list"),
        ("reward_weights: [1, heavy]", "reward_weights is a list of numbers or null", "give a list of numbers"),
        ("num_generations: 4.0", r"num_generations: 4\.0, but num_generations is a whole number", "whole number"),
        ("generation_kwargs: [1]", "generation_kwargs is a mapping or text or null", "give a mapping"),
        ("scale_rewards: false", "scale_rewards: false, but scale_rewards is text", "in quotes: YAML reads"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(tmp_path, line, problem, fix):
    with pytest.raises(AesError, match=problem) as error:
        read(tmp_path, f"{CPU}{line}\n")
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("learning_rate: 1e-6", "learning_rate", 1e-6),  # text to YAML 1.1, which wants a point in a number
        ("sigma: 1", "sigma", 1.0),
        ("sigma_end: null", "sigma_end", None),
        ("sigma_end: 5e-2", "sigma_end", 0.05),
        ("rewards: absolute", "rewards", ["absolute"]),
        ("rewards: [absolute, format]", "rewards", ["absolute", "format"]),
        ("reward_weights: [1, 2, 1e-1]", "reward_weights", [1.0, 2.0, 0.1]),
        ("report_to: none", "report_to", []),
        ("report_to: [tensorboard]", "report_to", ["tensorboard"]),
        ("save_strategy: no", "save_strategy", "no"),  # false to YAML 1.1
        ("save_strategy: epoch", "save_strategy", "epoch"),
        ("lr_scheduler_type: cosine", "lr_scheduler_type", "cosine"),
        ("freeze_vision: yes", "freeze_vision", True),
        ("generation_kwargs: {top_k: 4}", "generation_kwargs", {"top_k": 4}),
        ("seed: 7", "seed", 7),
    ],
)
def test_what_can_stand_for_a_value_is_taken(tmp_path, line, name, value):
    found = next(getattr(part, name) for part in read(tmp_path, CPU + line) if hasattr(part, name))
    assert found == value and isinstance(found, type(value))


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("", "is empty", "one `setting: value` a line"),
        ("# only a remark\n", "is empty", "one `setting: value` a line"),
        ("- sigma: 0.1\n", "is a list", "one `setting: value` a line"),
        ("sigma 0.1", "is a single value", "one `setting: value` a line"),
        ("sigma: [", "not YAML", "correct the line"),
        ("sigma: 0.1\nsigma: 0.2\n", "has sigma twice", "remove one"),
        ("1: 2\n", "has '1' where a setting's name belongs", "every name"),
        ("sigmo: 0.1\n", "unknown settings: --sigmo", "see `--help`"),
    ],
)
@pytest.mark.parametrize("spelled", ["--config {}", "--config={}"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, problem, fix, spelled):
    with pytest.raises(AesError, match=problem) as error:
        read(tmp_path, text, "--ratings", "r.jsonl", "--use_cpu", "--bf16", "false", spelled=spelled)
    assert fix in error.value.fix


def test_a_recipe_may_be_named_with_an_equals_sign(tmp_path):
    _, rewards, _, training = read(tmp_path, f"{CPU}sigma: 0.2\nseed: 3\n", "--seed", "4", spelled="--config={}")
    assert rewards.sigma == 0.2 and training.seed == 4


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--config=nowhere.yaml"], "no such recipe: nowhere.yaml"),
        (["--config", "nowhere.yaml"], "no such recipe: nowhere.yaml"),
        (["--config", "."], r"no such recipe: \. \(Is a directory\)"),
        (["--config="], "--config names no recipe"),
        (["--config"], "--config names no recipe"),
        (["--config", "a.yaml", "--config=b.yaml"], "--config is given twice"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused(arguments, problem):
    with pytest.raises(AesError, match=problem):
        parse_recipe(train.SETTINGS, arguments, **train.PAPER)


def test_a_recipe_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: \xff\xfe\n")
    with pytest.raises(AesError, match="not YAML"):
        parse_recipe(
            train.SETTINGS,
            ["--config", str(path)],
            **train.PAPER,
        )


@pytest.mark.parametrize(
    ("kinds", "needed", "paper"),
    [
        (train.SETTINGS, "ratings", train.PAPER),
        (cold_start.SETTINGS, "rationales", cold_start.PAPER),
    ],
)
def test_all_of_a_run_s_settings_may_come_back_as_a_recipe(tmp_path, kinds, needed, paper):
    flags = [f"--{needed}", "r.jsonl", "--output_dir", str(tmp_path), "--use_cpu", "--bf16", "false"]
    *ours, training = parse_recipe(kinds, flags, **paper)
    values = {name: value for settings in ours for name, value in vars(settings).items()}
    values |= {name: value for name, value in training.to_dict().items() if name in vars(training)}
    values.pop("generation_batch_size", None)  # TRL derives it from the rest and takes one of the two
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if not name.startswith("_")}))
    *again, trainer = parse_recipe(kinds, ["--config", str(path)], **paper)
    assert again == ours and trainer.to_dict() == training.to_dict()


@pytest.mark.parametrize("stage", [train, cold_start])
def test_help_shows_our_settings_first_and_the_trainer_s_on_request(stage, capsys):
    shown = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            stage.main([flag])
        shown[flag] = capsys.readouterr().out
        assert ended.value.code == 0
        assert "--config RECIPE.yaml" in shown[flag] and "--no_" not in shown[flag] and "--dry_run" in shown[flag]
        for kind in stage.SETTINGS[:-1]:
            for name, setting in kind.__dataclass_fields__.items():
                assert f"--{name} " in shown[flag] and setting.metadata["help"]
    assert len(shown["--help"].splitlines()) < 120
    assert "--learning_rate " not in shown["--help"] and "--help-all" in shown["--help"].splitlines()[-1]
    assert shown["--help-all"].index("--lora_rank ") < shown["--help-all"].index("--learning_rate ")


@pytest.mark.parametrize(("old", "new"), RENAMED_SETTINGS.items())
def test_an_old_setting_name_is_one_error_that_names_the_new_one(tmp_path, old, new):
    for text, flags in ((f"{CPU}{old}: 1\n", ()), (CPU, (f"--{old}", "1")), (CPU, (f"--{old}=1",))):
        with pytest.raises(AesError, match=f"{old} has a new name") as error:
            read(tmp_path, text, *flags)
        assert new in error.value.fix
