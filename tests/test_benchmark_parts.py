"""The parts of benchmarks that decide figures: criteria of sanity checks, true losses, resuming."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "benchmarks")]

from kept_results import KeptResults  # noqa: E402
from sanity_checks import all_checks  # noqa: E402
from sanity_criteria import (  # noqa: E402
    Criterion,
    Curve,
    all_pass,
    bell,
    close_to,
    falling,
    falling_early,
    level,
    level_from,
    low_or_high,
    rising,
    wide,
)
from trained_mixtures import mode_width, true_loss  # noqa: E402

from gandiag.trainer.toy_data import GaussianMixture  # noqa: E402

DOWN: Curve = {0.0: 1.0, 1.0: 0.6, 2.0: 0.1}
PEAK: Curve = {-1.0: 0.0, 0.0: 1.0, 1.0: 0.05}


@pytest.mark.parametrize(
    ("criterion", "curve", "expected"),
    [
        (close_to(1, "min"), DOWN, True),
        (close_to(0, "max"), DOWN, False),
        (falling, DOWN, True),
        (rising, DOWN, False),
        (falling, {0.0: 0.7, 1.0: 0.9, 2.0: 0.1}, False),
        (falling_early(1.0), DOWN, True),
        (falling_early(1.0), {0.0: 1.0, 1.0: 0.95, 2.0: 0.1}, False),
        (bell(0.0), PEAK, True),
        (bell(0.0), DOWN, False),
        (level, {0.0: 0.50, 1.0: 0.54}, True),
        (level, {0.0: 0.50, 1.0: 0.56}, False),
        (level_from(1.0), {0.0: 0.9, 1.0: 0.50, 2.0: 0.54}, True),
        (wide("max"), DOWN, False),
        (wide("min"), DOWN, "high"),
        (low_or_high(bell(0.0), rising), PEAK, "low"),
        (low_or_high(bell(0.0), rising), {-1.0: 0.0, 0.0: 1.0, 1.0: 1.0}, "high"),
    ],
)
def test_criteria(criterion: Criterion, curve: Curve, expected: bool | str) -> None:
    assert criterion(curve) == expected


def test_a_metric_is_low_or_high_throughout_a_check() -> None:
    assert all_pass(["low", "low", True]) and all_pass(["high", True])
    assert not all_pass(["low", "high"]) and not all_pass([True, False])


def test_thirty_groups_that_look_only_at_points_of_their_curves() -> None:
    n_groups = 0
    for check in all_checks():
        groups = {group for variant in check.points for group in check.fidelity(variant)}
        n_groups += len(groups)
        for variant, points in check.points.items():
            curve = dict.fromkeys(points, 0.5)
            for criteria in (check.fidelity(variant), check.diversity(variant)):
                assert set(criteria) == groups
                all_pass(criterion(curve) for group in criteria.values() for criterion in group)
    assert n_groups == 30


@pytest.mark.parametrize(("n_kept", "width", "repeats"), [(8, 1.0, 1), (4, 1.0, 1), (8, 0.5, 1), (4, 0.5, 2)])
def test_the_true_loss_of_a_ring(n_kept: int, width: float, repeats: int) -> None:
    angle = 2 * torch.pi * torch.arange(8) / 8
    mixture = GaussianMixture(torch.stack([angle.cos(), angle.sin()], 1), 0.03)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(4000 // repeats, 2, generator=random) * 0.03 * width
    samples = mixture.centers[torch.arange(4000 // repeats) % n_kept] + noise
    loss, variation, kept_width, far = true_loss(mixture, samples.repeat(repeats, 1))
    assert variation == pytest.approx(1 - n_kept / 8, abs=0.01) and far == 0
    assert kept_width == pytest.approx(width, abs=0.04)
    assert loss == pytest.approx(1 - n_kept / 8 * width / repeats, abs=0.04)


def test_a_few_bridges_do_not_widen_a_mode() -> None:
    rows = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
    bridged = torch.cat([rows, torch.linspace(5, 50, 50)[:, None].expand(50, 2)])
    assert mode_width(bridged) == pytest.approx(mode_width(rows), rel=0.1)


def test_results_are_kept_and_a_torn_line_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = KeptResults(str(path))
    assert first.get("a", lambda: 1) == 1 and first.get("b", lambda: 2) == 2
    path.write_text(path.read_text(encoding="utf-8")[:-3], encoding="utf-8")  # torn while "b" was written
    again = KeptResults(str(path))
    assert again.get("a", lambda: 10) == 1 and again.get("b", lambda: 20) == 20
    assert KeptResults(str(path)).known == {"a": 1, "b": 20}
