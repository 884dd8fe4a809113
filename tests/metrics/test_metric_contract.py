"""What every metric provides: hashable needs, a catalogue entry, floors, and intervals of the right width."""

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
from gandiag.metrics.image_retrieval import ImageRetrieval
from gandiag.metrics.inception import Fid, InceptionScore
from gandiag.metrics.kernel_distance import Kid
from gandiag.metrics.kernel_modes import KernelMissingModes
from gandiag.metrics.memorization import Memorization
from gandiag.metrics.ndb_bins import Ndb
from gandiag.metrics.pairwise import PairwiseDistances
from gandiag.metrics.precision_recall import Prdc
from gandiag.metrics.registry import FUNCTION_MODULES
from gandiag.metrics.vendi import Vendi
from gandiag.metrics.voronoi_cells import VoronoiMass
from gandiag.stats.resampling import estimate_by_halves, interval_half_widths, subsample_indices, wilson_interval

METRICS = (
    Prdc,
    FrechetDistance,
    Kid,
    Vendi,
    Ndb,
    PairwiseDistances,
    Duplicates,
    Memorization,
    Fid,
    InceptionScore,
    ImageRetrieval,
    VoronoiMass,
    KernelMissingModes,
)
N = 60


@pytest.mark.parametrize("metric_class", METRICS)
def test_every_measurement_is_documented_and_has_floor_and_interval(metric_class: Any) -> None:
    metric = metric_class("v", N, 0, True)
    assert isinstance(metric, Metric) and metric.key
    assert metric == metric_class("v", N, 0, True) and set(metric.needs()) == {"real", "fake"}
    for key, result in metric.measure(
        results(draw(2 * N, 40), draw(N, 40, seed=1).repeat_interleave(2, 0)[:N], N)
    ).measurements.items():
        entry = find_entry(key)
        assert (
            entry is not None and entry.title and entry.formula and entry.caveats and entry.source and entry.advice
        ), key
        assert entry.better == result.better and entry.unit == result.unit, key
        assert result.status == "ok" and result.low <= result.value <= result.high, key
        assert result.floor is not None or (key == "support_size" and "real samples" in str(result.reason)), key
        low, high = entry.bounds
        assert (low is None or result.low >= low) and (high is None or result.high <= high), key


@pytest.mark.parametrize("metric_class", METRICS)
def test_without_real_data_there_is_a_reason(metric_class: Any) -> None:
    metric = metric_class("v", N, 0, False)
    assert "real" not in metric.needs()
    for result in metric.measure(
        results(None, draw(N, 40, seed=1).repeat_interleave(2, 0)[:N], N)
    ).measurements.values():
        assert result.floor is None and result.reason == "no real data"


@pytest.mark.parametrize("metric_class", METRICS)
@pytest.mark.parametrize("fake", [torch.zeros(40, 36), torch.full((40, 36), 1e4), torch.zeros(12, 36)])
def test_collapsed_batches_give_finite_numbers(metric_class: Any, fake: torch.Tensor) -> None:
    n = len(fake)
    for result in metric_class("v", n, 0, True).measure(results(draw(2 * n, 36), fake, n)).measurements.values():
        assert result.value is not None and result.value == result.value and abs(result.value) != float("inf")


def test_plain_functions_are_exported() -> None:
    for name in functions.__all__:
        assert callable(getattr(functions, name))
    assert sorted(FUNCTION_MODULES) == functions.__all__ == dir(functions)
    assert functions.recall(draw(30, 3), draw(30, 3, seed=1).numpy()) <= 1


@pytest.mark.parametrize("n", [200, 2_000, 20_000])
def test_half_samples_estimate_the_error_of_a_mean(n: int) -> None:
    """std/√n, within a factor of 1.3 over 20 repeats of 12 replicates (relative error .05), also above max_rows."""
    widths, helper = [], []
    for seed in range(20):
        x = draw(n, 1, seed=seed)
        result = estimate_by_halves(lambda rows: float(rows.mean()), x, seed=seed)
        widths.append((result.high - result.low) / 2)
        keep = x[subsample_indices(n, seed=seed)]
        helper.append(
            float(interval_half_widths(lambda i, part=keep: part[i].mean()[None], (len(keep),), n, seed=seed))
        )
    for mean in (sum(widths) / 20, sum(helper) / 20):
        assert 1 / 1.3 < mean / (2.2 / n**0.5) < 1.3


def test_wilson_interval_has_width_at_zero_and_one() -> None:
    low, high = wilson_interval(0.0, 50)
    assert low == 0 and 0.05 < high < 0.1
    assert wilson_interval(1.0, 50)[1] == 1 and wilson_interval(1.0, 50)[0] == pytest.approx(1 - high)
