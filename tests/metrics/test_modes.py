"""Mode coverage: exact for separated modes, one for a single cloud, and unaffected by low fidelity."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control, fisher_exact
from torch import Tensor

from gandiag.metrics.mode_counts import ModeCounts, fisher_p_values, holm_correction
from gandiag.metrics.modes import KEYS, ModeCoverage, effective_count
from gandiag.record import to_json_value
from gandiag.stats.cluster_separation import nearest_rows
from gandiag.stats.clustering import Clustering, find_clusters, principal_components
from gandiag.stats.subset import SampleSubset, SubsetSpec
from gandiag.testing.toy_mixtures import Corruption, GaussianMixture, make_mixture

N = 600
RING, SPACE = make_mixture(2, 8), make_mixture(64, 20)
_cache: dict[Any, Any] = {}


@pytest.fixture(autouse=True)
def _cache_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search clusters of the same rows once in this file: the search is a pure function and takes most of the time."""

    def find_cached(rows: Tensor, *, seed: int) -> Clustering:
        key = (rows.numpy().tobytes(), seed)
        if key not in _cache:
            _cache[key] = find_clusters(rows, seed=seed)
        return _cache[key]  # type: ignore[no-any-return]

    monkeypatch.setattr("gandiag.metrics.modes.find_clusters", find_cached)


def normal(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))  # (n, dim)


def cube(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed))  # (n, dim)


def make_subset(rows: Tensor, k: int) -> SampleSubset:
    return SampleSubset(rows[:k], torch.arange(min(k, len(rows))), None)


def results(real: Tensor, fake: Tensor, n: int = N) -> dict[str, dict[SubsetSpec, SampleSubset]]:
    """What the engine passes to measure()."""
    return {
        "real": {SubsetSpec("v", 2 * n): make_subset(real, 2 * n), SubsetSpec("samples", 512): make_subset(real, 512)},
        "fake": {SubsetSpec("v", n): make_subset(fake, n), SubsetSpec("samples", 512): make_subset(fake, 512)},
    }


def audit(mixture: GaussianMixture, fault: Corruption, n: int = N) -> Any:
    """The result for a mixture and a corruption."""
    key = (id(mixture), fault, n)
    if key not in _cache:
        _cache[key] = ModeCoverage("v", n).measure(results(mixture.sample(2 * n, 1), fault.sample(mixture, n, 2), n))
    return _cache[key]


@pytest.mark.parametrize("n", [200, 500, 2000])
def test_ring_has_eight_clusters(n: int) -> None:
    result = find_clusters(RING.sample(n, 3), seed=0)
    assert result.n_clusters == 8 and result.stability == pytest.approx(1.0)


@pytest.mark.parametrize("n", [500, 1500])
def test_twenty_clusters_in_64_dimensions(n: int) -> None:
    rows = SPACE.sample(n, 3)
    result = find_clusters(rows, seed=0)
    truth = torch.cdist(rows, SPACE.centers).argmin(1)  # (n,)
    assert result.n_clusters == 20
    assert (
        len({(int(a), int(b)) for a, b in zip(truth, result.labels, strict=True)}) == 20
    )  # the same partition up to numbering


def test_unequal_weights() -> None:
    """The rarest of ten modes holds 30 of 2,000 rows in expectation."""
    shares = torch.tensor([2.0 ** (-i / 2) for i in range(10)])
    mixture = make_mixture(64, 10)
    result = find_clusters(GaussianMixture(mixture.centers, 1.0, shares / shares.sum()).sample(2000, 3), seed=0)
    assert result.n_clusters == 10
    sizes = torch.bincount(result.labels)
    assert (sizes[:-1] >= sizes[1:]).all()  # numbered by falling size


@pytest.mark.parametrize("dim", [2, 8, 64])
@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("draw", [normal, cube])
def test_one_cloud_is_one_cluster(dim: int, n: int, draw: Any) -> None:
    assert [find_clusters(draw(n, dim, seed), seed=seed).n_clusters for seed in range(2)] == [1, 1]


@pytest.mark.parametrize("stretch", [10.0, 100.0])
def test_long_cloud_is_one_cluster(stretch: float) -> None:
    rows = normal(800, 4, 5) * torch.tensor([stretch, 1.0, 1.0, 1.0])
    assert find_clusters(rows, seed=1).n_clusters == 1


def test_degenerate_rows() -> None:
    """One point, one row, and a few points repeated: finite answers, never an error."""
    assert find_clusters(torch.ones(300, 5), seed=0).n_clusters == 1
    assert find_clusters(torch.ones(1, 5), seed=0).n_clusters == 1
    result = find_clusters(normal(4, 6, 0)[torch.arange(400) % 4], seed=0)
    assert result.n_clusters == 4 and math.isfinite(result.max_distance)


def test_clusters_are_invariant_to_shift_scale_and_rotation() -> None:
    rows = make_mixture(16, 6).sample(400, 9)
    rotation = torch.linalg.qr(normal(16, 16, 1))[0]
    assert find_clusters(3.0 * rows @ rotation + 5.0, seed=0).labels.equal(find_clusters(rows, seed=0).labels)


def test_principal_components_keep_distances() -> None:
    """As many components as dimensions keep everything; with fewer rows than dimensions, n - 1 components do."""
    for rows in (normal(40, 7, 0), normal(12, 300, 1)):
        assert torch.cdist(principal_components(rows), principal_components(rows)).allclose(
            torch.cdist(rows.double(), rows.double()), atol=1e-5
        )


def test_nearest_rows_equal_brute_force() -> None:
    rows = normal(90, 5, 2)
    distance = torch.cdist(rows, rows).fill_diagonal_(math.inf)
    result = nearest_rows(rows, rows, skip_self=True, chunk_size=17)
    assert result[1].equal(distance.argmin(1)) and result[0].allclose(distance.amin(1), atol=1e-4)


def test_effective_count_of_equal_shares_is_their_number() -> None:
    labels = torch.arange(60) % 6
    assert effective_count(labels) == pytest.approx(6.0) and effective_count(labels, 2.0) == pytest.approx(6.0)
    skewed = torch.tensor([0] * 30 + [1] * 10)
    assert effective_count(skewed, 2.0) < effective_count(skewed) < 2.0  # Hill numbers fall with their order


def test_holm_is_between_none_and_bonferroni() -> None:
    p = torch.tensor([0.04, 0.001, 0.2, 0.012], dtype=torch.float64)
    assert holm_correction(p).tolist() == pytest.approx([0.08, 0.004, 0.2, 0.036])  # by hand: x 2, x 4, x 1, x 3
    assert (holm_correction(p) >= torch.from_numpy(false_discovery_control(p.numpy()))).all()


def test_p_values_are_fishers() -> None:
    real, fake = ModeCounts(torch.tensor([30, 70]), 100, 100), ModeCounts(torch.tensor([5, 95]), 100, 120)
    assert fisher_p_values(real, fake)[0].item() == pytest.approx(2 * fisher_exact([[30, 70], [5, 95]])[1])


@pytest.mark.parametrize("mixture", [RING, SPACE], ids=["ring", "64-D"])
@pytest.mark.parametrize("keep", [1.0, 0.75, 0.5, 0.25])
def test_covered_counts_the_kept_modes(mixture: GaussianMixture, keep: float) -> None:
    outcome, count = audit(mixture, Corruption(mode_fraction=keep)), len(mixture.weights)
    section, covered = outcome.sections["modes"], outcome.measurements["modes_covered"]
    assert section["found"] == count
    assert section["covered"] == covered.value == round(keep * count) and covered.floor == count
    assert len(section["missed"]) == count - covered.value
    assert all(entry["p_value"] < 0.05 and entry["share_fake"] < entry["share_real"] / 4 for entry in section["missed"])
    assert section["effective"] == pytest.approx(
        keep * count, rel=0.05
    )  # K equal modes, n = 600: bias (K - 1) / 2n, under 2 %


@pytest.mark.parametrize(
    "fault",
    [
        Corruption(outlier_fraction=0.5),
        Corruption(new_mode_fraction=0.5),
        Corruption(std_factor=1.5),
        Corruption(noise=3.0),
        Corruption(std_factor=0.05),
    ],
    ids=str,
)
def test_low_fidelity_misses_no_mode(fault: Corruption) -> None:
    outcome = audit(SPACE, fault)
    assert outcome.sections["modes"]["missed"] == [] and outcome.measurements["modes_covered"].value == 20


@pytest.mark.parametrize(
    "fault", [Corruption(mode_fraction=0.5, outlier_fraction=0.5), Corruption(mode_fraction=0.5, noise=3.0)], ids=str
)
def test_low_fidelity_hides_no_missing_mode(fault: Corruption) -> None:
    assert audit(SPACE, fault).measurements["modes_covered"].value == 10


def test_over_served() -> None:
    section = audit(SPACE, Corruption(zipf_exponent=1.0)).sections["modes"]
    assert section["over_served"] and all(
        entry["share_fake"] > 2 * entry["share_real"] for entry in section["over_served"]
    )


def test_samples_off_the_data_are_not_counted() -> None:
    outcome = audit(SPACE, Corruption(point="off"))
    assert outcome.measurements["modes_covered"].status == "not_measured" and "lie near" in (
        outcome.measurements["modes_covered"].reason or ""
    )
    assert outcome.sections["modes"]["covered"] is None and outcome.sections["modes"]["missed"] == []


def test_one_cloud_has_a_reason() -> None:
    outcome = ModeCoverage("v", 400).measure(results(normal(800, 8, 1), normal(400, 8, 2), 400))
    section = outcome.sections["modes"]
    assert (section["found"], section["covered"], section["effective"]) == (1, None, None)
    assert "no separated clusters" in section["reason"] and section["groups"]["kind"] == "regions"
    assert {row["state"] for row in section["groups"]["rows"]} == {"even"}  # the generator is perfect


def test_without_real_data() -> None:
    metric = ModeCoverage("v", N, referenced=False)
    outcome = metric.measure(
        {"fake": results(SPACE.sample(10, 0), Corruption(mode_fraction=0.5).sample(SPACE, N, 2))["fake"]}
    )
    section = outcome.sections["modes"]
    assert "real" not in metric.needs()
    assert section["found"] == 10 and section["covered"] is None and outcome.measurements["modes_covered"].value is None


def test_every_measurement_is_complete_and_json() -> None:
    for fault in (Corruption(), Corruption(mode_fraction=0.5), Corruption(point="on"), Corruption(point="off")):
        outcome = audit(SPACE, fault)
        assert set(outcome.measurements) == set(KEYS)
        for entry in outcome.measurements.values():
            assert (entry.value is None) == (entry.status != "ok") and (entry.value is not None or entry.reason)
            assert entry.low is None or entry.low <= entry.value <= entry.high
        json.dumps(to_json_value(outcome), allow_nan=False)


def test_same_seed_gives_the_same_result_without_global_state() -> None:
    data, rows = results(RING.sample(2 * N, 1), RING.sample(N, 2)), RING.sample(300, 1)
    torch.manual_seed(1)
    np.random.seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert find_clusters(rows, seed=3).labels.equal(find_clusters(rows, seed=3).labels)
    assert to_json_value(ModeCoverage("v", N, seed=3).measure(data)) == to_json_value(
        ModeCoverage("v", N, seed=3).measure(data)
    )
    assert torch.get_rng_state().equal(state) and (np.random.get_state()[1] == numpy_state).all()


def test_missed_modes_show_real_examples() -> None:
    """Images in two colors, of which red is never generated: the grid shows red only."""
    color = torch.arange(2 * N) % 2
    real = torch.zeros(2 * N, 3, 8, 8)
    real[torch.arange(2 * N), color] = 1.0
    features = torch.nn.functional.one_hot(color, 2).float() * 10 + normal(2 * N, 2, 0)
    data = results(features, features[1::2])
    data["real"][SubsetSpec("samples", 512)] = make_subset(real, 512)
    data["fake"][SubsetSpec("samples", 512)] = make_subset(real[1::2], 512)
    outcome = ModeCoverage("v", N).measure(data)
    assert [entry["exhibit"] for entry in outcome.sections["modes"]["missed"]] == ["missed"]
    assert [exhibit.id for exhibit in outcome.exhibits] == ["clusters", "missed", "uncovered", "map"]
