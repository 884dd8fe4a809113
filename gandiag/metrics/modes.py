"""Mode coverage: the number of modes in the data, how many of them the generator produces, and which it misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.exhibits.named_groups import embedding_map, group_exhibits, uncovered_grid
from gandiag.exhibits.samples import ClusterExamples, cluster_exhibits
from gandiag.interfaces import Metric, MetricResult, Needs
from gandiag.metrics.group_shares import Grouping, group_by_class, group_by_region
from gandiag.metrics.mode_counts import ALPHA, ModeCounts, count_labels, find_missed, fisher_p_values, lowest_covered
from gandiag.metrics.registry import MetricContext
from gandiag.record import Exhibit, Measurement
from gandiag.stats.clustering import ClusterAssignment, Clustering, find_clusters
from gandiag.stats.resampling import estimate_by_halves
from gandiag.stats.splits import RealFakeSplit, split_from_results, split_needs
from gandiag.stats.subset import SampleSubset, SubsetSpec

MAX_ROWS = 5_000  # per set: more cost quadratic time and give the same clusters
N_RAW_SAMPLES = 512  # raw samples kept per set, for the exhibits
EXCESS_RATIO = 2.0  # a mode is over-served above this ratio of shares, if the test agrees
MIN_NEAR_FRACTION = 0.5  # with fewer samples near real data, samples clearly nearest to one mode are counted as well
MIN_COUNTED_SAMPLES = 50
MIN_STABILITY = 0.6  # adjusted Rand index between fits below which clusters are no property of the data
KEYS = ("modes_found", "modes_covered", "modes_effective", "clustering_stability")
NOT_SEPARATED = "the real data have no separated clusters at this sample size"
NO_REAL_DATA = "no real data: clusters of the generated samples themselves, which cannot show missing modes"

ModeEntries = list[dict[str, Any]]  # one entry per mode, as the section lists them


@dataclass(frozen=True, slots=True)
class ModeCoverage:
    """The metric `modes`: mode counts by clustering one view. One section, four measurements, two exhibits.

    Clusters are those of the reference half of the real data, or of the generated samples where not `referenced`, from
    `gandiag.stats.clustering.find_clusters`. A generated sample belongs to the mode of its nearest real sample if that
    is nearer than the .99 quantile of the real data's own nearest-neighbor distances. Shares are relative to the
    samples that belong to some mode, so outliers and blur do not count as missing modes. A mode is *missed* when
    Fisher's exact test on real and generated counts rejects at .05 after Holm's correction over modes and its share is
    below a quarter of the real one.

    Modes are counted only where the real data have separated clusters, alike in every fit. Shares of named groups
    (`gandiag.metrics.group_shares`) stand beside them: classes of labeled real data, or k-means regions where no modes
    are counted.

    Cost: about 2 s at n = 2,000, D = 1,280. Reads low where modes overlap: connected data are one mode, and losses
    inside it show only in coverage and the score. Sources: the test after Richardson & Weiss 2018 (NDB), made exact and
    corrected; the effective number is the Hill number of order 1, Hill 1973.
    """

    view: str
    n: int
    seed: int = 0
    referenced: bool = True
    class_names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return "modes"

    def needs(self) -> Needs:
        raw_samples = SubsetSpec("samples", N_RAW_SAMPLES)
        if not self.referenced:
            return {"fake": frozenset({SubsetSpec(self.view, self.n), raw_samples})}
        return {role: specs | {raw_samples} for role, specs in split_needs(self.view, self.n).items()}

    def measure(self, results: Any) -> MetricResult:
        split = split_from_results(results, self.view, self.n) if self.referenced else None
        if split is None:
            return _measure_alone(results["fake"][SubsetSpec(self.view, self.n)], self.seed)
        clusters = find_clusters(split.reference[:MAX_ROWS], seed=self.seed)
        examples = ClusterExamples.from_results(results, self.view, self.n, N_RAW_SAMPLES)
        if is_separated(clusters):
            counted = self._count_modes(clusters, split, examples)
        else:
            counted = _report_unseparated(
                clusters, () if examples is None else cluster_exhibits(examples, clusters, ())
            )
        return self._add_groups(counted, results, split, examples)

    def _count_modes(
        self, clusters: Clustering, split: RealFakeSplit, examples: ClusterExamples | None
    ) -> MetricResult:
        fake, heldout = clusters.assign(split.fake[:MAX_ROWS]), clusters.assign(split.heldout[:MAX_ROWS])
        comparison = _ModeComparison(clusters, fake, heldout, self.seed)
        missed, over_served = _unequal_modes(comparison)
        exhibits = cluster_exhibits(examples, clusters, [entry["mode"] for entry in missed]) if examples else ()
        missed_exhibit = "missed" if any(exhibit.id == "missed" for exhibit in exhibits) else None
        for entry in missed:
            entry["exhibit"] = missed_exhibit
        return _make_result(comparison, missed, over_served, exhibits)

    def _add_groups(
        self, result: MetricResult, results: Any, split: RealFakeSplit, examples: ClusterExamples | None
    ) -> MetricResult:
        """The result with the shares of classes or regions, and pictures of the real samples that nothing is near."""
        section, exhibits = dict(result.sections["modes"]), list(result.exhibits)
        grouping, reason = self._find_groups(results, split, is_counted=section["covered"] is not None)
        if grouping is not None:
            section["groups"] = {**grouping.build_section(), "reason": reason}
        if examples is not None and examples.has_images:
            if grouping is not None:
                exhibits += group_exhibits(examples, grouping.assign, section["groups"])
            exhibits += uncovered_grid(examples, split.fake[:MAX_ROWS])
            if len(examples.real.features) > 2:
                exhibits.append(embedding_map(examples, _find_missed_samples(examples, grouping, section)))
        return MetricResult(result.measurements, {"modes": section}, tuple(exhibits))

    def _find_groups(self, results: Any, split: RealFakeSplit, *, is_counted: bool) -> tuple[Grouping | None, str]:
        """Classes of labeled real data, else regions where no modes are counted; and why there are no classes."""
        real = results["real"][SubsetSpec(self.view, 2 * self.n)]
        grouping, reason = group_by_class(real, split.fake, self.class_names, seed=self.seed)
        if (
            grouping is None and not is_counted and self.view != "table"
        ):  # columns of a table have names: see its section
            grouping = group_by_region(split, seed=self.seed)
        return grouping, reason


def _find_missed_samples(examples: ClusterExamples, grouping: Grouping | None, section: Mapping[str, Any]) -> Tensor:
    """Which of the real examples belong to a class or region that is missing, (k,) bool."""
    if grouping is None:
        return torch.zeros(len(examples.real.features), dtype=torch.bool)
    missing = [row["group"] for row in section["groups"]["rows"] if row["state"] == "missing"]
    return torch.isin(grouping.assign(examples.real.features), torch.tensor(missing, dtype=torch.int64))


def create_mode_metrics(context: MetricContext) -> Sequence[Metric]:
    """The factory of "modes"."""
    return [ModeCoverage(context.view, context.n, context.seed, context.referenced, context.class_names)]


def is_separated(clusters: Clustering) -> bool:
    """Whether there are several clusters, about the same ones in every fit."""
    return clusters.n_clusters > 1 and clusters.stability >= MIN_STABILITY


class _ModeComparison:
    """Mode counts of generated and held-out real samples, assigned alike, beside those of the reference."""

    def __init__(self, clusters: Clustering, fake: ClusterAssignment, heldout: ClusterAssignment, seed: int) -> None:
        self.clusters, self.seed = clusters, seed
        self.near_fraction = float(fake.nearest_is_close.double().mean())
        self.counts_distant = self.near_fraction < MIN_NEAR_FRACTION
        self.fake_labels, self.heldout_labels = self._counted_labels(fake), self._counted_labels(heldout)
        self.real = self._count(clusters.labels, len(clusters.labels))
        self.fake = self._count(self.fake_labels, len(fake.label))
        self.heldout = self._count(self.heldout_labels, len(heldout.label))

    def _counted_labels(self, assignment: ClusterAssignment) -> Tensor:
        """Labels of the samples near real data; if those are few, of samples clearly nearest to one mode as well."""
        is_counted = assignment.nearest_is_close
        if self.counts_distant:
            is_counted = is_counted | assignment.nearest_is_clear
        return assignment.label[is_counted]

    def _count(self, labels: Tensor, n: int) -> ModeCounts:
        return count_labels(labels, self.clusters.n_clusters, n)

    @property
    def is_countable(self) -> bool:
        """Whether enough samples belong to a mode to compare shares."""
        return self.fake.total >= min(MIN_COUNTED_SAMPLES, self.fake.n // 2)


def effective_count(labels: Tensor, order: float = 1.0) -> float:
    """The effective number of labels (N,) int64, between 1 and the number of labels.

    exp of their entropy (order 1), or the inverse Simpson index (order 2).
    """
    shares = torch.bincount(labels).double()
    shares = shares[shares > 0] / max(1, len(labels))
    if order == 1.0:
        return float(torch.exp(-(shares * shares.log()).sum()))
    return float((shares**order).sum() ** (1 / (1 - order)))


def _unequal_modes(comparison: _ModeComparison) -> tuple[ModeEntries, ModeEntries]:
    """The missed and the over-served modes, those with the largest share first."""
    if not comparison.is_countable:
        return [], []
    real, fake = comparison.real, comparison.fake
    p_values = fisher_p_values(real, fake)
    is_over_served = (p_values < ALPHA) & (fake.shares > EXCESS_RATIO * real.shares)
    entries = [
        {
            "mode": i,
            "share_real": float(real.shares[i]),
            "share_fake": float(fake.shares[i]),
            "p_value": float(p_values[i]),
            "exhibit": None,
        }
        for i in range(len(p_values))
    ]

    def select(mask: Tensor, share: str) -> ModeEntries:
        return sorted((entries[int(i)] for i in mask.nonzero()[:, 0]), key=lambda entry: -float(str(entry[share])))

    return select(find_missed(p_values, real, fake), "share_real"), select(is_over_served, "share_fake")


def _make_result(
    comparison: _ModeComparison, missed: ModeEntries, over_served: ModeEntries, exhibits: tuple[Exhibit, ...]
) -> MetricResult:
    clusters, fake, real = comparison.clusters, comparison.fake, comparison.real
    measurements = _clustering_measurements(clusters)
    section = _clustering_section(clusters) | {
        "missed": missed,
        "over_served": over_served,
        "near": comparison.near_fraction,
    }
    if not comparison.is_countable:
        reason = f"only {fake.total} of {fake.n} generated samples lie near real ones: too few to count by mode"
        measurements |= {key: Measurement.missing(reason) for key in ("modes_covered", "modes_effective")}
        section |= {"covered": None, "effective": None, "reason": reason}
        return MetricResult(measurements, {"modes": section}, exhibits)
    covered = clusters.n_clusters - len(missed)
    heldout_missed = find_missed(fisher_p_values(real, comparison.heldout), real, comparison.heldout)
    heldout_covered = clusters.n_clusters - int(heldout_missed.sum())
    low = min(covered, lowest_covered(real, fake))
    measurements["modes_covered"] = Measurement(covered, low, covered, heldout_covered, "modes", "higher", fake.n)
    bounds = (1.0, float(clusters.n_clusters))
    effective = estimate_by_halves(effective_count, comparison.fake_labels, seed=comparison.seed, bounds=bounds)
    floor = effective_count(comparison.heldout_labels)
    measurements["modes_effective"] = Measurement(
        effective.value, effective.low, effective.high, floor, "modes", "higher", fake.n
    )
    section |= {"covered": covered, "effective": effective.value, "reason": _caveat(comparison)}
    return MetricResult(measurements, {"modes": section}, exhibits)


def _report_unseparated(clusters: Clustering, exhibits: tuple[Exhibit, ...]) -> MetricResult:
    """Without separated clusters no mode is counted, covered or missed."""
    measurements = _clustering_measurements(clusters)
    measurements |= {key: Measurement.missing(NOT_SEPARATED) for key in ("modes_covered", "modes_effective")}
    section = _clustering_section(clusters) | {
        "covered": None,
        "effective": None,
        "missed": [],
        "over_served": [],
        "reason": NOT_SEPARATED,
    }
    return MetricResult(measurements, {"modes": section}, exhibits)


def _caveat(comparison: _ModeComparison) -> str | None:
    if comparison.counts_distant:
        return (
            f"only {comparison.near_fraction:.0%} of the generated samples lie near real ones; "
            "the others are counted where they are clearly nearest to one mode"
        )
    return None


def _clustering_measurements(clusters: Clustering) -> dict[str, Measurement]:
    counts = (*clusters.counts_per_fit, clusters.n_clusters)
    n = len(clusters.labels)
    found = Measurement(
        clusters.n_clusters,
        min(counts),
        max(counts),
        None,
        "modes",
        "neither",
        n,
        reason="a count of clusters has no floor",
    )
    reason = "describes the clustering, not the generator"
    stability = Measurement(clusters.stability, None, None, None, "adjusted Rand index", "higher", n, reason=reason)
    return {"modes_found": found, "clustering_stability": stability}


def _clustering_section(clusters: Clustering) -> dict[str, Any]:
    return {
        "found": clusters.n_clusters,
        "stability": clusters.stability,
        "method": "Ward tree on principal components, cut at gaps that held-out rows confirm",
    }


def _measure_alone(fake: SampleSubset, seed: int) -> MetricResult:
    """Without real data: the clusters of the generated samples."""
    rows = fake.values[:MAX_ROWS]
    clusters = find_clusters(rows, seed=seed)
    bounds = (1.0, float(clusters.n_clusters))
    effective = estimate_by_halves(effective_count, clusters.labels, seed=seed, bounds=bounds)
    measurements = _clustering_measurements(clusters)
    measurements["modes_covered"] = Measurement.missing(NO_REAL_DATA)
    measurements["modes_effective"] = Measurement(
        effective.value, effective.low, effective.high, None, "modes", "higher", len(rows), reason="no real data"
    )
    section = {
        **_clustering_section(clusters),
        "covered": None,
        "effective": effective.value,
        "missed": [],
        "over_served": [],
        "reason": NO_REAL_DATA,
    }
    return MetricResult(measurements, {"modes": section})
