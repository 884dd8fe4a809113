"""What stands beside the losses is judged and said, and a drop of the learning rate splits the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gandiag
from gandiag.report.log_text import describe_side_columns, render_losses

N = 200
AT = np.arange(N) / N


def judge(folder: Path, **columns: Any) -> Any:
    rng = np.random.default_rng(3)
    table = {"step": 100 * np.arange(N), "d_loss": 1 + 0.05 * rng.standard_normal(N)}
    table |= {"g_loss": 1.5 + 0.05 * rng.standard_normal(N), **columns}
    rows = (",".join(map(str, row)) for row in zip(*table.values(), strict=True))
    (folder / "log.csv").write_text("\n".join([",".join(table), *rows]))
    return gandiag.losses(folder / "log.csv")


@pytest.mark.parametrize(
    ("name", "values", "says", "alarm"),
    [
        ("Loss/signs/real", 0.3 + 0.67 * AT, "97 % of real samples", "D knows its training samples by heart"),
        ("Loss/signs/real", 0.6 + 0 * AT, "80 % of real samples", ""),
        ("Loss/signs/fake", -0.6 + 0 * AT, "80 % of generated samples", ""),
        ("Progress/augment", 0.9 * AT, "near its limit", "D overfits even so"),
        ("Progress/augment", 0.3 + 0 * AT, "usual range", ""),
        ("Loss/r1_penalty", 0.01 * np.exp(4 * AT), "grows", "D becomes ever steeper"),
        ("gp", 0.1 + 0 * AT, "steady", ""),
        ("grad_norm_G", np.exp(-12 * AT), "vanishes", "its gradients vanish"),
        ("grad_norm_D", np.exp(5 * AT), "grows", "clip gradients"),
        ("fid", 20 + 100 * np.abs(AT - 0.4), "worse than it was", "take that checkpoint"),
        ("fid", 80 - 60 * AT, "", ""),
        ("d_acc", 0.5 + 0 * AT, "D guesses", ""),
        ("lr", 0.0002 + 0 * AT, "constant", ""),
        ("lr", 0.0002 * (AT < 0.9), "drops at 18,000", ""),
    ],
)
def test_a_side_column_is_judged(tmp_path: Path, name: str, values: Any, says: str, alarm: str) -> None:
    result = judge(tmp_path, **{name: values})
    (row,) = result.document["beside"]
    assert row["name"] == name and says in row["says"]
    assert alarm in row["alarm"] and bool(alarm) == bool(row["alarm"])
    assert row["alarm"] in result.document["summary"]
    assert result.verdict in ("settled", "no_instability_found")  # beside the verdict, never merged
    assert says in describe_side_columns(result.document)[0]


def test_an_accuracy_near_one_is_a_win(tmp_path: Path) -> None:
    result = judge(tmp_path, d_acc=np.where(AT < 0.4, 60.0, 99.5))
    assert result.verdict == "discriminator_wins" and "since step 8,000" in result.document["summary"]


def test_probabilities_of_d_are_named_and_other_scores_are_not(tmp_path: Path) -> None:
    result = judge(tmp_path, **{"D(x)": 0.97 + 0 * AT, "D(G(z))": 0.3 + 0 * AT})
    assert [row["role"] for row in result.document["beside"]] == ["score_real", "score_fake"]
    assert "nearly sure" in result.document["beside"][0]["says"] and "D(x) = D(x)" in render_losses(result.document)
    result = judge(tmp_path, **{"Loss/scores/real": 2 + AT, "Loss/scores/fake": -2 - AT})
    assert not result.document["beside"] and "D real = Loss/scores/real" in render_losses(result.document)


def test_a_drop_of_the_learning_rate_splits_the_tests(tmp_path: Path) -> None:
    """A cycle that ends where the rate drops, and a step there, are of the earlier game."""
    rng, rows = np.random.default_rng(5), np.arange(N)
    before = rows < 0.5 * N
    cycle = 1.5 + 0.3 * np.sin(rows / 2) * before + 0.3 * ~before + 0.05 * rng.standard_normal(N)
    result = judge(tmp_path, g_loss=cycle, lr=np.where(before, 2e-4, 2e-5))
    assert result.verdict in ("settled", "no_instability_found") and result.document["rate_drops"] == [10_000]
    assert any(
        "drops at 10,000: trends and cycles are tested on the rows after it" in n for n in result.document["notes"]
    )
    assert any("where the learning rate drops" in note for note in result.document["notes"])
    assert judge(tmp_path, g_loss=cycle).verdict != result.verdict
