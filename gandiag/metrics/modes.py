"""How many modes the data have, how many of them the generator shows, and which it misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import beta, fisher_exact
from torch import Tensor

from gandiag.exhibits.samples import ClusterExamples, cluster_exhibits
from gandiag.interfaces import MetricResult, Needs
from gandiag.record import Measurement
from gandiag.stats.clustering import ClusterAssignment, Clustering, find_clusters
from gandiag.stats.splits import half_sample_estimate, split_from_results, split_needs
from gandiag.stats.subset import SampleSubset, SubsetSpec

MAX_ROWS = 5_000  # of a side: more cost quadratic time and find the same clusters
N_RAW_SAMPLES = 512  # raw samples kept a side, from which the exemplars are taken
MISSING_RATIO = 0.25  # a mode is missed below this ratio of shares, generated to real, and
EXCESS_RATIO = 2.0  # over-served above this one, where the test agrees
ALPHA = 0.05
MIN_NEAR_FRACTION = 0.5  # with fewer of the samples near real data, those that lean to a mode are counted instead
MIN_COUNTED_SAMPLES = 50
KEYS = ("modes_found", "modes_covered", "modes_effective", "clustering_stability")
NO_REAL_DATA = "no real data: the samples' own clusters; modes that are missing cannot be seen"


@dataclass(frozen=True, slots=True)
class ModeCounts:
    """Samples in each mode: `in_mode` (K,) int64, of `total` samples that belong to any mode, of `n` samples."""

    per_mode: Tensor
    total: int
    n: int

    @property
    def shares(self) -> Tensor:
        """Shares of the samples that belong to some mode, (K,) float64."""
        return self.per_mode.double() / max(1, self.total)


@dataclass(frozen=True, slots=True)
class ModeCoverage:
    """Mode counts by clustering one view. The metric `modes`: the section of that name, four measurements, two exhibits.

    Clusters are those of the reference half of the real data (of the samples themselves where not `referenced`), found by
    `gandiag.stats.clustering.find_clusters`. A generated sample belongs to the mode of its nearest real sample, if that is
    nearer than the .99 quantile of the real data's own nearest-neighbour distances; shares are of the samples that belong
    to some mode, so junk and blur do not count as missing modes. A mode is *missed* when Fisher's exact test on real and
    generated counts rejects at .05 after Holm's correction over modes and its share is below a quarter of the real one.

    Cost: about 2 s at n = 2,000, D = 1,280. Reads low where modes overlap: one connected cloud is one mode, and what is lost
    inside it is left to coverage and the score. Source: the test after Richardson & Weiss 2018 (NDB), made exact and
    corrected; the effective number is the Hill number of order 1, Hill 1973.
    """

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return "modes"

    def needs(self) -> Needs:
        shown = SubsetSpec("samples", N_RAW_SAMPLES)
        if not self.referenced:
            return {"fake": frozenset({SubsetSpec(self.view, self.n), shown})}
        return {role: specs | {shown} for role, specs in split_needs(self.view, self.n).items()}

    def measure(self, results: Any) -> MetricResult:
        found = split_from_results(results, self.view, self.n) if self.referenced else None
        fake = results["fake"][SubsetSpec(self.view, self.n)]
        if found is None:
            return _alone(fake, self.seed)
        real, null, shown = (part[:MAX_ROWS] for part in (found.reference, found.heldout, found.fake))
        clusters = find_clusters(real, seed=self.seed)
        against = _Against(clusters, clusters.assign(shown), clusters.assign(null), self.seed)
        gallery = ClusterExamples.from_results(results, self.view, self.n, N_RAW_SAMPLES)
        missed, over = _unequal(against)
        exhibits = cluster_exhibits(gallery, clusters, [entry["mode"] for entry in missed]) if gallery else ()
        shown_ids = {exhibit.id for exhibit in exhibits}
        for entry in missed:
            entry["exhibit"] = "missed" if "missed" in shown_ids else None
        return _outcome(against, missed, over, exhibits)


class _Against:
    """Generated counts (and the null half's, counted alike) against the reference's own."""

    def __init__(self, clusters: Clustering, fake: ClusterAssignment, null: ClusterAssignment, seed: int) -> None:
        self.clusters, self.seed = clusters, seed
        self.loose = float(fake.nearest_is_close.double().mean()) < MIN_NEAR_FRACTION
        self.near = float(fake.nearest_is_close.double().mean())
        self.labels, self.null_labels = (
            side.label[side.nearest_is_clear | side.nearest_is_close if self.loose else side.nearest_is_close]
            for side in (fake, null)
        )
        self.real = self._counts(clusters.labels, len(clusters.labels))
        self.fake, self.null = (
            self._counts(self.labels, len(fake.label)),
            self._counts(self.null_labels, len(null.label)),
        )

    def _counts(self, labels: Tensor, n: int) -> ModeCounts:
        return ModeCounts(torch.bincount(labels, minlength=self.clusters.n_clusters), len(labels), n)

    @property
    def countable(self) -> bool:
        """Are there enough samples near real data to speak of shares?"""
        return self.fake.total >= min(MIN_COUNTED_SAMPLES, self.fake.n // 2)


def effective_count(labels: Tensor, order: float = 1.0) -> float:
    """The effective number of labels (N,) int64: exp of their entropy (order 1), or the inverse Simpson index (order 2). In [1, labels]."""
    shares = torch.bincount(labels).double()
    shares = shares[shares > 0] / max(1, len(labels))
    if order == 1.0:
        return float(torch.exp(-(shares * shares.log()).sum()))
    return float((shares**order).sum() ** (1 / (1 - order)))


def fisher_p_values(real: ModeCounts, fake: ModeCounts) -> Tensor:
    """Holm-corrected p-value of Fisher's exact test for each mode, (K,) float64: is the share the same?"""
    pairs = zip(real.per_mode.tolist(), fake.per_mode.tolist(), strict=True)
    p = [float(fisher_exact([[a, real.total - a], [f, fake.total - f]])[1]) for a, f in pairs]
    return holm_correction(torch.tensor(p, dtype=torch.float64))


def holm_correction(p_values: Tensor) -> Tensor:
    """Holm's step-down correction of p-values (K,): family-wise error at any dependence. Source: Holm 1979."""
    order = p_values.argsort(stable=True)
    factor = torch.arange(len(p_values), 0, -1, dtype=torch.float64)
    corrected = (p_values[order] * factor).cummax(0).values.clamp(max=1.0)
    return torch.empty_like(p_values).scatter_(0, order, corrected)


def _missed(real: ModeCounts, fake: ModeCounts) -> Tensor:
    """Which modes are missed, (K,) bool."""
    return (fisher_p_values(real, fake) < ALPHA) & (fake.shares < MISSING_RATIO * real.shares)


def _surely_covered(real: ModeCounts, fake: ModeCounts) -> int:
    """Modes whose generated share is above a quarter of the real one with family-wise confidence .95 (Clopper-Pearson)."""
    hits = fake.per_mode.double().numpy()
    low = beta.ppf(ALPHA / max(1, len(hits)), hits, fake.total - hits + 1)
    return int((torch.from_numpy(low).nan_to_num(0.0) > MISSING_RATIO * real.shares).sum())


def _unequal(against: _Against) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The modes that are missed and those that are over-served, the most striking first."""
    if not against.countable:
        return [], []
    p = fisher_p_values(against.real, against.fake)
    missed = _missed(against.real, against.fake)
    over = (p < ALPHA) & (against.fake.shares > EXCESS_RATIO * against.real.shares)
    entries = [
        {
            "mode": i,
            "share_real": float(against.real.shares[i]),
            "share_fake": float(against.fake.shares[i]),
            "p_value": float(p[i]),
            "exhibit": None,
        }
        for i in range(len(p))
    ]
    by_loss = sorted(
        (entries[int(i)] for i in missed.nonzero()[:, 0]), key=lambda entry: -float(str(entry["share_real"]))
    )
    by_gain = sorted(
        (entries[int(i)] for i in over.nonzero()[:, 0]), key=lambda entry: -float(str(entry["share_fake"]))
    )
    return by_loss, by_gain


def _outcome(
    against: _Against, missed: list[dict[str, Any]], over: list[dict[str, Any]], exhibits: tuple[Any, ...]
) -> MetricResult:
    clusters, fake, real = against.clusters, against.fake, against.real
    measured: dict[str, Measurement] = _facts(clusters)
    section: dict[str, Any] = _section(clusters) | {"missed": missed, "over_served": over, "near": against.near}
    if not against.countable:
        why = f"only {fake.total} of {fake.n} generated samples lie near real ones: too few to count by mode"
        measured |= {key: Measurement.missing(why) for key in ("modes_covered", "modes_effective")}
        return MetricResult(
            measured, {"modes": section | {"covered": None, "effective": None, "reason": why}}, exhibits
        )
    covered = clusters.n_clusters - len(missed)
    null_covered = clusters.n_clusters - int(_missed(real, against.null).sum())
    measured["modes_covered"] = Measurement(
        covered, min(covered, _surely_covered(real, fake)), covered, null_covered, "modes", "higher", fake.n
    )
    effective = half_sample_estimate(
        effective_count, against.labels, seed=against.seed, bounds=(1.0, float(clusters.n_clusters))
    )
    measured["modes_effective"] = Measurement(
        effective.value, effective.low, effective.high, effective_count(against.null_labels), "modes", "higher", fake.n
    )
    section |= {"covered": covered, "effective": effective.value, "reason": _reason(against)}
    return MetricResult(measured, {"modes": section}, exhibits)


def _reason(against: _Against) -> str | None:
    if against.clusters.n_clusters == 1:
        return "the real data have no gaps at this sample size: one cloud, counted as one mode; losses inside it show in coverage and the score"
    if against.loose:
        return f"only {against.near:.0%} of the generated samples lie near real ones; the others are counted where they clearly lean to one mode"
    return None


def _facts(clusters: Clustering) -> dict[str, Measurement]:
    low, high = min(*clusters.counts_per_fit, clusters.n_clusters), max(*clusters.counts_per_fit, clusters.n_clusters)
    n = len(clusters.labels)
    about = "about the clustering, not the generator"
    return {
        "modes_found": Measurement(
            clusters.n_clusters, low, high, None, "modes", "neither", n, reason="a count of clusters has no floor"
        ),
        "clustering_stability": Measurement(
            clusters.stability, None, None, None, "adjusted Rand index", "higher", n, reason=about
        ),
    }


def _section(clusters: Clustering) -> dict[str, Any]:
    return {
        "found": clusters.n_clusters,
        "stability": clusters.stability,
        "method": "Ward tree on principal components, cut at gaps that held-out rows confirm",
    }


def _alone(fake: SampleSubset, seed: int) -> MetricResult:
    """Without real data: the samples' own clusters."""
    rows = fake.values[:MAX_ROWS]
    clusters = find_clusters(rows, seed=seed)
    effective = half_sample_estimate(
        effective_count, clusters.labels, seed=seed, bounds=(1.0, float(clusters.n_clusters))
    )
    measured = _facts(clusters) | {
        "modes_covered": Measurement.missing(NO_REAL_DATA),
        "modes_effective": Measurement(
            effective.value, effective.low, effective.high, None, "modes", "higher", len(rows), reason="no real data"
        ),
    }
    section = {
        **_section(clusters),
        "covered": None,
        "effective": effective.value,
        "missed": [],
        "over_served": [],
        "reason": NO_REAL_DATA,
    }
    return MetricResult(measured, {"modes": section})
