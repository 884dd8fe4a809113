"""How many modes the data have, how many of them the generator shows, and which it misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import beta, fisher_exact
from torch import Tensor

from gandiag.contracts import Needs, Outcome
from gandiag.metrics.exhibits import Gallery, clusters_shown
from gandiag.record import Measurement
from gandiag.stats.clusters import Assigned, Clusters, find_clusters
from gandiag.stats.subset import Kept, KeptSamples
from gandiag.stats.trio import half_sampled, trio_needs, trio_of

MOST_ROWS = 5_000  # of a side: more cost quadratic time and find the same clusters
SHOWN = 512  # raw samples kept a side, from which the exemplars are taken
MISSED = 0.25  # a mode is missed below this ratio of shares, generated to real, and
OVER = 2.0  # over-served above this one, where the test agrees
LEVEL = 0.05
LEAST_NEAR = 0.5  # with fewer of the samples near real data, those that lean to a mode are counted instead
LEAST_COUNTED = 50
KEYS = ("modes_found", "modes_covered", "modes_effective", "clustering_stability")
NO_REAL = "no real data: the samples' own clusters; modes that are missing cannot be seen"


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples in each mode: `in_mode` (K,) int64, of `total` samples that belong to any mode, of `n` samples."""

    in_mode: Tensor
    total: int
    n: int

    @property
    def shares(self) -> Tensor:
        """Shares of the samples that belong to some mode, (K,) float64."""
        return self.in_mode.double() / max(1, self.total)


@dataclass(frozen=True, slots=True)
class Modes:
    """Mode counts by clustering one view. The metric `modes`: the section of that name, four measurements, two exhibits.

    Clusters are those of the reference half of the real data (of the samples themselves where not `referenced`), found by
    `gandiag.stats.clusters.find_clusters`. A generated sample belongs to the mode of its nearest real sample, if that is
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
        shown = Kept("samples", SHOWN)
        if not self.referenced:
            return {"fake": frozenset({Kept(self.view, self.n), shown})}
        return {role: specs | {shown} for role, specs in trio_needs(self.view, self.n).items()}

    def measure(self, results: Any) -> Outcome:
        found = trio_of(results, self.view, self.n) if self.referenced else None
        fake = results["fake"][Kept(self.view, self.n)]
        if found is None:
            return _alone(fake, self.seed)
        real, null, shown = (part[:MOST_ROWS] for part in (found.a, found.b, found.f))
        clusters = find_clusters(real, seed=self.seed)
        against = _Against(clusters, clusters.assign(shown), clusters.assign(null), self.seed)
        gallery = Gallery.of(results, self.view, self.n, SHOWN)
        missed, over = _unequal(against)
        exhibits = clusters_shown(gallery, clusters, [entry["mode"] for entry in missed]) if gallery else ()
        shown_ids = {exhibit.id for exhibit in exhibits}
        for entry in missed:
            entry["exhibit"] = "missed" if "missed" in shown_ids else None
        return _outcome(against, missed, over, exhibits)


class _Against:
    """Generated counts (and the null half's, counted alike) against the reference's own."""

    def __init__(self, clusters: Clusters, fake: Assigned, null: Assigned, seed: int) -> None:
        self.clusters, self.seed = clusters, seed
        self.loose = float(fake.near.double().mean()) < LEAST_NEAR
        self.near = float(fake.near.double().mean())
        self.labels, self.null_labels = (side.label[side.leans | side.near if self.loose else side.near] for side in (fake, null))
        self.real = self._counts(clusters.labels, len(clusters.labels))
        self.fake, self.null = self._counts(self.labels, len(fake.label)), self._counts(self.null_labels, len(null.label))

    def _counts(self, labels: Tensor, n: int) -> Counts:
        return Counts(torch.bincount(labels, minlength=self.clusters.count), len(labels), n)

    @property
    def countable(self) -> bool:
        """Are there enough samples near real data to speak of shares?"""
        return self.fake.total >= min(LEAST_COUNTED, self.fake.n // 2)


def hill(labels: Tensor, order: float = 1.0) -> float:
    """The effective number of labels (N,) int64: exp of their entropy (order 1), or the inverse Simpson index (order 2). In [1, labels]."""
    shares = torch.bincount(labels).double()
    shares = shares[shares > 0] / max(1, len(labels))
    if order == 1.0:
        return float(torch.exp(-(shares * shares.log()).sum()))
    return float((shares**order).sum() ** (1 / (1 - order)))


def share_tests(real: Counts, fake: Counts) -> Tensor:
    """Holm-corrected p-value of Fisher's exact test for each mode, (K,) float64: is the share the same?"""
    pairs = zip(real.in_mode.tolist(), fake.in_mode.tolist(), strict=True)
    p = [float(fisher_exact([[a, real.total - a], [f, fake.total - f]])[1]) for a, f in pairs]
    return holm(torch.tensor(p, dtype=torch.float64))


def holm(p: Tensor) -> Tensor:
    """Holm's step-down correction of p-values (K,): family-wise error at any dependence. Source: Holm 1979."""
    order = p.argsort(stable=True)
    factor = torch.arange(len(p), 0, -1, dtype=torch.float64)
    corrected = (p[order] * factor).cummax(0).values.clamp(max=1.0)
    return torch.empty_like(p).scatter_(0, order, corrected)


def _missed(real: Counts, fake: Counts) -> Tensor:
    """Which modes are missed, (K,) bool."""
    return (share_tests(real, fake) < LEVEL) & (fake.shares < MISSED * real.shares)


def _surely_covered(real: Counts, fake: Counts) -> int:
    """Modes whose generated share is above a quarter of the real one with family-wise confidence .95 (Clopper-Pearson)."""
    hits = fake.in_mode.double().numpy()
    low = beta.ppf(LEVEL / max(1, len(hits)), hits, fake.total - hits + 1)
    return int((torch.from_numpy(low).nan_to_num(0.0) > MISSED * real.shares).sum())


def _unequal(against: _Against) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The modes that are missed and those that are over-served, the most striking first."""
    if not against.countable:
        return [], []
    p = share_tests(against.real, against.fake)
    missed = _missed(against.real, against.fake)
    over = (p < LEVEL) & (against.fake.shares > OVER * against.real.shares)
    entries = [
        {"mode": i, "share_real": float(against.real.shares[i]), "share_fake": float(against.fake.shares[i]), "p_value": float(p[i]), "exhibit": None}
        for i in range(len(p))
    ]
    by_loss = sorted((entries[int(i)] for i in missed.nonzero()[:, 0]), key=lambda entry: -float(str(entry["share_real"])))
    by_gain = sorted((entries[int(i)] for i in over.nonzero()[:, 0]), key=lambda entry: -float(str(entry["share_fake"])))
    return by_loss, by_gain


def _outcome(against: _Against, missed: list[dict[str, Any]], over: list[dict[str, Any]], exhibits: tuple[Any, ...]) -> Outcome:
    clusters, fake, real = against.clusters, against.fake, against.real
    measured: dict[str, Measurement] = _facts(clusters)
    section: dict[str, Any] = _section(clusters) | {"missed": missed, "over_served": over, "near": against.near}
    if not against.countable:
        why = f"only {fake.total} of {fake.n} generated samples lie near real ones: too few to count by mode"
        measured |= {key: Measurement.missing(why) for key in ("modes_covered", "modes_effective")}
        return Outcome(measured, {"modes": section | {"covered": None, "effective": None, "reason": why}}, exhibits)
    covered = clusters.count - len(missed)
    null_covered = clusters.count - int(_missed(real, against.null).sum())
    measured["modes_covered"] = Measurement(covered, min(covered, _surely_covered(real, fake)), covered, null_covered, "modes", "higher", fake.n)
    effective = half_sampled(hill, against.labels, seed=against.seed, bounds=(1.0, float(clusters.count)))
    measured["modes_effective"] = Measurement(effective.value, effective.low, effective.high, hill(against.null_labels), "modes", "higher", fake.n)
    section |= {"covered": covered, "effective": effective.value, "reason": _reason(against)}
    return Outcome(measured, {"modes": section}, exhibits)


def _reason(against: _Against) -> str | None:
    if against.clusters.count == 1:
        return "the real data have no gaps at this sample size: one cloud, counted as one mode; losses inside it show in coverage and the score"
    if against.loose:
        return f"only {against.near:.0%} of the generated samples lie near real ones; the others are counted where they clearly lean to one mode"
    return None


def _facts(clusters: Clusters) -> dict[str, Measurement]:
    low, high = min(*clusters.counts, clusters.count), max(*clusters.counts, clusters.count)
    n = len(clusters.labels)
    about = "about the clustering, not the generator"
    return {
        "modes_found": Measurement(clusters.count, low, high, None, "modes", "neither", n, reason="a count of clusters has no floor"),
        "clustering_stability": Measurement(clusters.stability, None, None, None, "adjusted Rand index", "higher", n, reason=about),
    }


def _section(clusters: Clusters) -> dict[str, Any]:
    return {"found": clusters.count, "stability": clusters.stability, "method": "Ward tree on principal components, cut at gaps that held-out rows confirm"}


def _alone(fake: KeptSamples, seed: int) -> Outcome:
    """Without real data: the samples' own clusters."""
    rows = fake.values[:MOST_ROWS]
    clusters = find_clusters(rows, seed=seed)
    effective = half_sampled(hill, clusters.labels, seed=seed, bounds=(1.0, float(clusters.count)))
    measured = _facts(clusters) | {
        "modes_covered": Measurement.missing(NO_REAL),
        "modes_effective": Measurement(effective.value, effective.low, effective.high, None, "modes", "higher", len(rows), reason="no real data"),
    }
    section = {**_section(clusters), "covered": None, "effective": effective.value, "missed": [], "over_served": [], "reason": NO_REAL}
    return Outcome(measured, {"modes": section})
