"""The paper's tables: every row against the mean that the paper prints, and a run beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aesr1.errors import AesError
from aesr1.evaluation.join_results import join_results
from aesr1.evaluation.published import published_table

PRINTED = {
    "1": {
        "Qwen2.5-VL-7B": (0.4285, 0.4589),
        "Qwen2.5-VL-32B": (0.4846, 0.5134),
        "Seed1.5-VL-thinking": (0.4938, 0.5232),
        "GPT-4o-2024-08-06": (0.4993, 0.5092),
        "GPT-4.1-2025-04-14": (0.5171, 0.5491),
        "NIQE": (0.1565, 0.0958),
        "BRISQUE": (0.0657, 0.0571),
        "NIMA": (0.4978, 0.4885),
        "Q-Align*": (0.5120, 0.5255),
        "DeQA-Score*": (0.5771, 0.5683),
        "Q-Insight*": (0.5954, 0.5833),
        "VisualQuality-R1*": (0.4429, 0.5950),
        "Aes-R1": (0.6337, 0.6186),
    },
    "2": {
        "binary": (0.4255, 0.4433),
        "error": (0.5655, 0.5600),
        "rank": (0.4542, 0.5908),
        "binary + rank": (0.5964, 0.5825),
        "error + rank": (0.6297, 0.6102),
    },
    "3": {
        "backbone": (0.4285, 0.4589),
        "RAPO alone": (0.6297, 0.6102),
        "1 epoch": (0.4097, 0.4084),
        "1 epoch, RAPO": (0.6337, 0.6186),
        "2 epochs": (0.4624, 0.4705),
        "2 epochs, RAPO": (0.6027, 0.5903),
        "10 epochs": (0.4847, 0.4903),
    },
    "4": {
        "LAION": (0.5457, 0.5234),
        "MUSIQ": (0.5163, 0.5074),
        "Q-Align": (0.6217, 0.6035),
        "VILA": (0.5879, 0.5748),
        "ArtiMuse": (0.6316, 0.6073),
        "Aes-R1": (0.6275, 0.6079),
    },
}
"""The means that the paper prints. Four that do not follow from its own columns stand here as the columns give them:
SRCC of DeQA-Score (.5663 printed), Q-Insight (.5813), VisualQuality-R1 (.5930), and the backbone in table 3 (.5490)."""


@pytest.mark.parametrize("number", PRINTED)
def test_each_row_has_the_mean_that_the_paper_prints(number):
    table = published_table(number)
    means = {name: np.mean(list(pairs.values()), axis=0) for name, pairs in table.rows.items()}
    assert means.keys() == PRINTED[number].keys() and table.best in means
    for name, printed in PRINTED[number].items():
        assert means[name] == pytest.approx(printed, abs=1.01e-4), name


@pytest.fixture
def run(tmp_path):
    """Two models on AVA and PARA; the second gave PARA no order."""
    values = {"a": {"ava": (0.7, 0.6), "para": (0.8, 0.7)}, "b": {"ava": (0.5, 0.4), "para": None}}
    results = {
        model: {
            "datasets": {
                name: {
                    key: None if pair is None else {"value": value, "low": value, "high": value}
                    for key, value in zip(("plcc", "srcc"), pair or (0, 0), strict=True)
                }
                for name, pair in sets.items()
            }
        }
        for model, sets in values.items()
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    return tmp_path / "run"


def test_a_run_stands_beside_the_paper_with_the_differences(run):
    table, _, differences, note = join_results([run], published="4").split("\n\n")
    rows = table.splitlines()
    assert rows[0] == "| run | model | ava | para | mean |"
    assert rows[2].endswith("| a | 0.700/0.600 | 0.800/0.700 | 0.750/0.650 |")
    assert rows[3].endswith("| b | 0.500/0.400 | — | — |")
    assert rows[-1] == "| paper, table 4 | Aes-R1 | 0.810/0.813 | 0.741/0.706 | 0.776/0.760 |"
    first, second = differences.splitlines()[2:]
    assert first.endswith("| a − Aes-R1 | -0.110/-0.213 | +0.059/-0.006 | -0.026/-0.110 |")
    assert second.endswith("| b − Aes-R1 | -0.310/-0.413 | — | — |")
    assert "temperature 0.6" in note


@pytest.mark.parametrize(
    ("number", "domain", "problem"),
    [("5", "ava", "no table 5 of the paper"), ("1", "oasis", "the paper has no scores on oasis")],
)
def test_what_the_paper_does_not_have_is_said(run, number, domain, problem):
    text = (run / "results.json").read_text().replace('"ava"', f'"{domain}"').replace('"para"', f'"{domain}-2"')
    (run / "results.json").write_text(text)
    with pytest.raises(AesError, match=problem) as error:
        join_results([run], published=number)
    assert error.value.fix
