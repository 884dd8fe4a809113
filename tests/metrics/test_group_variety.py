"""Variety within groups against a reference: what is found, what is left out, and what is a fact only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from gandiag.errors import SourceError
from gandiag.metrics.group_variety import GroupedFeatures, compare_groups, describe_groups
from gandiag.metrics.kernel_entropy import conditional_vendi
from gandiag.stats.group_distances import measure_groups

G, N, D = 50, 4, 8
NAMES = [f"p{group}" for group in range(G) for _ in range(N)]
WIDTHS = np.exp(np.random.default_rng(7).standard_normal(G) * 0.5)
CENTERS = np.random.default_rng(8).standard_normal((G, 1, D)) * 5


def draw_groups(widths: np.ndarray, seed: int, n: int = N, centers: np.ndarray = CENTERS) -> GroupedFeatures:
    noise = np.random.default_rng(seed).standard_normal((G, n, D)) * widths[:, None, None]
    names = [f"p{group}" for group in range(G) for _ in range(n)]
    return GroupedFeatures(torch.from_numpy((centers + noise).reshape(-1, D)).float(), names)


def test_equal_variety_is_healthy() -> None:
    found = compare_groups(draw_groups(WIDTHS, 0), draw_groups(WIDTHS, 1))
    within = found.document["within"]
    assert within["low"] < 1 < within["high"] and not found.document["collapsed"]
    assert found.score.high is not None and found.score.high < 0.15 and found.score.basis == "groups"


@pytest.mark.parametrize("factor", [0.5, 0.02])
def test_a_narrower_student_is_measured(factor: float) -> None:
    found = compare_groups(draw_groups(WIDTHS * factor, 2), draw_groups(WIDTHS, 1))
    within = found.document["within"]
    assert within["value"] == pytest.approx(factor, rel=0.1) and within["low"] < factor < within["high"]
    assert found.document["between"]["value"] == pytest.approx(1, abs=0.05)


def test_unequal_sample_counts_do_not_bias_the_ratio() -> None:
    values = [
        compare_groups(draw_groups(WIDTHS, seed, n=2), draw_groups(WIDTHS, 100 + seed, n=8)).document["within"]["value"]
        for seed in range(8)
    ]
    assert np.mean(values) == pytest.approx(1, abs=0.05)


def test_collapsed_groups_are_named_worst_first() -> None:
    widths = WIDTHS.copy()
    widths[[3, 11, 20, 33, 41]] *= 0.03
    found = compare_groups(draw_groups(widths, 4, n=8), draw_groups(WIDTHS, 5, n=8))
    named = [row["group"] for row in found.document["collapsed"]]
    assert set(named) == {"p3", "p11", "p20", "p33", "p41"}
    assert [row["group"] for row in found.document["rows"]][: len(named)] == named
    quantile = found.document["low_quantile"]
    assert quantile["value"] < 0.2 < quantile["floor"]  # although most groups are lively


def test_a_deterministic_subject_of_a_deterministic_reference_has_lost_nothing() -> None:
    still = draw_groups(WIDTHS * 0, 0)
    found = compare_groups(still, draw_groups(WIDTHS * 1e-7, 1))
    assert found.document["within"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (found.score.value, found.score.high) == (0.0, 0.0)
    assert found.measurements["group_duplicates"].status == "not_measured"


def test_a_deterministic_subject_of_a_varied_reference_has_lost_all() -> None:
    found = compare_groups(draw_groups(WIDTHS * 0, 0), draw_groups(WIDTHS, 1))
    assert found.document["within"]["value"] == 0.0 and found.score.low == 1.0
    assert len(found.document["collapsed"]) == G


def test_a_condition_without_effect_is_seen_between_groups() -> None:
    found = compare_groups(draw_groups(WIDTHS, 0, centers=CENTERS[:1]), draw_groups(WIDTHS, 1))
    assert found.document["between"]["high"] < 0.1 and found.document["within"]["value"] == pytest.approx(1, abs=0.1)


def keep(source: GroupedFeatures, rows: Sequence[int]) -> GroupedFeatures:
    return GroupedFeatures(source.features[list(rows)], [source.groups[row] for row in rows], "some")


def test_groups_are_matched_by_name_and_the_rest_is_counted() -> None:
    subject, reference = draw_groups(WIDTHS, 0), draw_groups(WIDTHS, 1)
    ragged = keep(subject, [row for row in range(G * N) if row >= 3])  # p0 has one sample left
    renamed = GroupedFeatures(reference.features, ["other" if name == "p5" else name for name in reference.groups])
    found = compare_groups(ragged, renamed).document
    assert found["count"] == G - 2 and found["left_out"] == 3
    assert found["left_out_reasons"] == {"one sample": 1, "not in the reference": 1, "only in the reference": 1}


def test_nothing_in_common_and_groups_of_one_are_refused() -> None:
    subject = draw_groups(WIDTHS, 0)
    with pytest.raises(SourceError, match="no group of"):
        compare_groups(subject, GroupedFeatures(subject.features, [f"q{name}" for name in subject.groups]))
    singles = keep(subject, range(0, G * N, N))
    for refused in (lambda: compare_groups(singles, subject), lambda: describe_groups(singles)):
        with pytest.raises(SourceError, match="cannot be measured"):
            refused()


def test_without_a_reference_there_is_a_fact_with_its_floor() -> None:
    found = describe_groups(draw_groups(WIDTHS, 0))
    assert found.score.value is None and found.document["basis"] == "between"
    assert found.document["within"]["high"] < 0.5 < found.document["floor"]["low"]
    flat = describe_groups(draw_groups(WIDTHS * 0 + 1, 0, centers=CENTERS[:1])).document
    assert flat["within"]["value"] >= flat["floor"]["low"] - 0.02


def test_one_group_is_measured_by_its_own_samples() -> None:
    one = GroupedFeatures(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), ["a"] * 30)
    half = GroupedFeatures(0.5 * torch.randn(30, 4, generator=torch.Generator().manual_seed(1)), ["a"] * 30)
    found = compare_groups(half, one).document
    assert found["count"] == 1 and found["within"]["low"] < 0.5 < found["within"]["high"] < 1
    assert found["between"]["value"] is None
    assert describe_groups(one).document["within"]["value"] is None


def test_the_rke_split_is_conditional_vendi_of_order_two() -> None:
    subject, reference = draw_groups(WIDTHS * 0.3, 0), draw_groups(WIDTHS, 1)
    found = compare_groups(subject, reference).measurements
    bandwidth = 0.5 * float(measure_groups(reference.features, reference.groups).mean.mean())
    for source, part in ((subject, "value"), (reference, "floor")):
        split = conditional_vendi(source.features, source.groups, 2.0, bandwidth)
        assert getattr(found["group_rke_within"], part) == pytest.approx(split.conditional, rel=1e-6)
        assert getattr(found["group_rke_between"], part) == pytest.approx(split.information, rel=1e-6)
    within = found["group_rke_within"]
    assert within.low is not None and 1 <= within.low < within.value < within.high < within.floor
