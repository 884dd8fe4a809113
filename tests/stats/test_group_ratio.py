"""Distances within groups and the ratio to a reference: closed forms, intervals, and the collapsed groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control

from gandiag.stats.group_distances import measure_groups, measure_moments, squared_center_distances
from gandiag.stats.group_ratio import (
    LogRatios,
    adjust_benjamini_hochberg,
    estimate_center_ratio,
    estimate_ratio,
    estimate_worst_loss,
    judge_groups,
    locate,
    smallest_detectable_loss,
)


def test_distances_of_a_group_are_those_of_its_pairs() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0], [9.0, 9.0], [9.0, 9.0], [1.0, 1.0]])
    groups = measure_groups(rows, ["a", "a", "a", "b", "b", "single"])
    assert groups.names == ("a", "b", "single") and groups.n.tolist() == [3, 2, 1]
    assert groups.mean == pytest.approx([(5 + 4 + 3) / 3, 0.0, 0.0])
    assert groups.closest[:2] == pytest.approx([3.0, 0.0])
    assert groups.squared_width[0] == pytest.approx((25 + 16 + 9) / 3)


def test_moments_from_sums_are_those_of_the_pairs() -> None:
    rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 100
    labels = np.arange(60) % 7
    groups, moments = measure_groups(rows, labels.tolist()), measure_moments(rows, labels)
    assert moments.squared_width == pytest.approx(groups.squared_width, rel=1e-6)
    assert squared_center_distances(moments) == pytest.approx(squared_center_distances(groups), abs=1e-6)


def test_the_variance_of_a_mean_distance_is_that_of_a_simulation() -> None:
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(4000, 3, generator=draw)
    for n in (4, 8):
        groups = measure_groups(rows, [index // n for index in range(4000)])
        assert groups.pairs is not None
        relative = groups.mean.var() / groups.mean.mean() ** 2
        assert groups.pairs.of_mean(n) == pytest.approx(relative, rel=0.2)


def test_the_location_is_the_root_and_bounded_in_what_one_group_can_do() -> None:
    values = np.array([0.1, -0.2, 0.3, -50.0])
    middle = float(locate(values)[0])
    assert np.tanh((values - middle) / 2).sum() == pytest.approx(0, abs=1e-9)
    assert middle > -1  # a mean of logs would be -12
    same = np.full(5, math.log(0.4))
    assert math.exp(float(locate(same)[0])) == pytest.approx(0.4)


def test_equal_groups_have_a_ratio_without_an_interval() -> None:
    estimate = estimate_ratio(LogRatios(np.zeros(20), np.zeros(20)))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_one_group_has_the_interval_of_its_own_samples() -> None:
    estimate = estimate_ratio(LogRatios(np.array([math.log(0.5)]), np.array([0.1])))
    assert estimate.value == pytest.approx(0.5)
    assert estimate.low == pytest.approx(0.5 * math.exp(-0.196), rel=1e-3)


def test_dead_groups_widen_the_interval_and_do_not_blow_it_up() -> None:
    values = np.array([-np.inf] * 2 + [math.log(0.7)] * 10)
    estimate = estimate_ratio(LogRatios(values, np.full(12, 0.3)))
    assert 0 < estimate.low < estimate.value < estimate.high < 1


def test_benjamini_hochberg_is_scipys() -> None:
    p_values = np.random.default_rng(0).uniform(size=40) ** 2
    assert adjust_benjamini_hochberg(p_values) == pytest.approx(false_discovery_control(p_values))


def test_only_groups_that_lost_half_are_named() -> None:
    ratios = LogRatios(np.log(np.array([1.0] * 45 + [0.05] * 5)), np.full(50, 0.25))
    q_values = [group.q for group in judge_groups(ratios)]
    assert max(q_values[45:]) < 0.1 < min(q_values[:45])


def test_the_worst_group_gets_an_interval_for_all_groups() -> None:
    one = estimate_worst_loss(LogRatios(np.zeros(1), np.full(1, 0.2)))
    many = estimate_worst_loss(LogRatios(np.zeros(100), np.full(100, 0.2)))
    assert one.low == many.low == 0 and many.high > one.high


def test_power_grows_with_groups() -> None:
    few, many = (smallest_detectable_loss(LogRatios(np.zeros(n), np.full(n, 0.3))) for n in (10, 100))
    assert 0 < many < few < 1


def test_variety_between_groups_that_ignore_the_condition_is_zero() -> None:
    draw = torch.Generator().manual_seed(3)
    labels = [index // 8 for index in range(320)]
    spread = measure_groups(
        torch.randn(320, 4, generator=draw) + 9 * torch.randn(40, 4, generator=draw)[labels], labels
    )
    flat = measure_groups(torch.randn(320, 4, generator=draw), labels)
    centers = squared_center_distances(spread)
    ignored = estimate_center_ratio(squared_center_distances(flat), centers)
    assert ignored is not None and ignored.high < 0.1
    alike = estimate_center_ratio(centers, centers)
    assert alike is not None and alike.value == 1.0
