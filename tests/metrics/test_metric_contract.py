"""What all the metrics of this layer owe: hashable needs, an entry in the catalogue, floors, and intervals of the right width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from metric_inputs import draw, results

import gandiag.metrics as functions
from gandiag.catalogue import find_entry
from gandiag.interfaces import Metric
from gandiag.metrics.duplicates import Duplicates
from gandiag.metrics.frechet import FrechetDistance
from gandiag.metrics.inception import Fid, InceptionScore
from gandiag.metrics.kernel_distance import Kid
from gandiag.metrics.memorization import Memorization
from gandiag.metrics.ndb_bins import Ndb
from gandiag.metrics.pairwise import PairwiseDistances
from gandiag.metrics.precision_recall import Prdc
from gandiag.metrics.vendi import Vendi
from gandiag.stats.resampling import interval_half_widths, subsample_indices, wilson_interval
from gandiag.stats.splits import half_sample_estimate

METRICS = (Prdc, FrechetDistance, Kid, Vendi, Ndb, PairwiseDistances, Duplicates, Memorization, Fid, InceptionScore)
N = 60


@pytest.mark.parametrize("kind", METRICS)
def test_every_measurement_is_explained_and_has_floor_and_interval(kind: Any) -> None:
    metric = kind("v", N, 0, True)
    assert isinstance(metric, Metric) and metric.key
    assert metric == kind("v", N, 0, True) and set(metric.needs()) == {"real", "fake"}
    for key, found in metric.measure(
        results(draw(2 * N, 40), draw(N, 40, seed=1).repeat_interleave(2, 0)[:N], N)
    ).measurements.items():
        told = find_entry(key)
        assert told is not None and told.title and told.formula and told.caveats and told.source and told.advice, key
        assert told.better == found.better and told.unit == found.unit, key
        assert found.status == "ok" and found.low <= found.value <= found.high, key
        assert found.floor is not None or (key == "support_size" and "real samples" in str(found.reason)), key
        low, high = told.bounds
        assert (low is None or found.low >= low) and (high is None or found.high <= high), key


@pytest.mark.parametrize("kind", METRICS)
def test_without_real_data_there_is_a_reason(kind: Any) -> None:
    metric = kind("v", N, 0, False)
    assert "real" not in metric.needs()
    for found in metric.measure(
        results(None, draw(N, 40, seed=1).repeat_interleave(2, 0)[:N], N)
    ).measurements.values():
        assert found.floor is None and found.reason == "no real data"


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("fake", [torch.zeros(40, 36), torch.full((40, 36), 1e4), torch.zeros(12, 36)])
def test_the_order_of_a_collapsed_batch_changes_nothing_and_nothing_is_nan(kind: Any, fake: torch.Tensor) -> None:
    n = len(fake)
    for found in kind("v", n, 0, True).measure(results(draw(2 * n, 36), fake, n)).measurements.values():
        assert found.value is not None and found.value == found.value and abs(found.value) != float("inf")


def test_the_plain_functions_are_found_under_their_names() -> None:
    for name in functions.__all__:
        assert callable(getattr(functions, name))
    assert sorted(functions._FUNCTIONS) == functions.__all__ == dir(functions)
    assert functions.recall(draw(30, 3), draw(30, 3, seed=1).numpy()) <= 1


@pytest.mark.parametrize("n", [200, 2_000, 20_000])
def test_half_samples_know_the_error_of_a_mean(n: int) -> None:
    """sd/√n, to within a factor of 1.3 over 20 repeats of 12 replicates (relative error .05), also above the cap."""
    widths, helper = [], []
    for seed in range(20):
        x = draw(n, 1, seed=seed)
        found = half_sample_estimate(lambda rows: float(rows.mean()), x, seed=seed)
        widths.append((found.high - found.low) / 2)
        keep = x[subsample_indices(n, seed=seed)]
        helper.append(
            float(interval_half_widths(lambda i, part=keep: part[i].mean()[None], (len(keep),), n, seed=seed))
        )
    for mean in (sum(widths) / 20, sum(helper) / 20):
        assert 1 / 1.3 < mean / (2.2 / n**0.5) < 1.3


def test_shares_of_nothing_and_of_everything_are_not_certain() -> None:
    low, high = wilson_interval(0.0, 50)
    assert low == 0 and 0.05 < high < 0.1
    assert wilson_interval(1.0, 50)[1] == 1 and wilson_interval(1.0, 50)[0] == pytest.approx(1 - high)
