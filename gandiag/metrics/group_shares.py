"""Shares of named groups, real against generated: classes of the real data, or regions where there are none.

Modes can be counted only where clusters are separated. Handwritten digits are not: their classes touch. Classes have
names, so they say more than numbered clusters where the real data are labeled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits
from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.metrics.mode_counts import ALPHA, count_labels, find_missed, fisher_p_values
from gandiag.stats.resampling import wilson_interval
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.subset import SampleSubset

N_COMPONENTS = 64  # principal components that the classifier sees
N_FOLDS = 5
MIN_CLASS_ROWS = 10  # classes with fewer real samples are left out
MAX_CLASSES = 200
MAX_ROWS = 5_000  # per set
# Below this accuracy, or where guessing the largest class does nearly as well, shares would say nothing.
MIN_ACCURACY = 0.5
MIN_GAIN = 0.2
MAX_REGIONS = 10
ROWS_PER_REGION = 30  # of the reference: enough that a region that is never made is significant


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups of real and generated samples, assigned alike.

    `kind`: "classes" or "regions". `real` (N,) int64: groups of real rows that were not used to assign them (held out,
    or cross-validated). `fake` (M,) int64. `assign`: the groups of rows (n, D), for pictures. `accuracy`: of the
    classifier, cross-validated; None for regions. `left_out`: classes with too few real samples.
    """

    kind: str
    names: tuple[str, ...]
    real: Tensor
    fake: Tensor
    assign: Callable[[Tensor], Tensor]
    accuracy: Estimate | None = None
    left_out: int = 0

    def build_rows(self) -> list[dict[str, Any]]:
        """One row per group, the largest deficit first: shares with 95 % intervals, counts, state and p-value."""
        k = len(self.names)
        real, fake = count_labels(self.real, k), count_labels(self.fake, k)
        p_values = fisher_p_values(real, fake)
        missed = find_missed(p_values, real, fake)
        rows = []
        for i, name in enumerate(self.names):
            share_real, share_fake = float(real.shares[i]), float(fake.shares[i])
            rows.append(
                {
                    "group": i,
                    "name": name,
                    "real": _make_share(int(real.per_mode[i]), real.total),
                    "fake": _make_share(int(fake.per_mode[i]), fake.total),
                    "p_value": float(p_values[i]),
                    "state": _name_state(bool(missed[i]), float(p_values[i]), share_fake < share_real),
                }
            )
        return sorted(rows, key=lambda row: row["fake"]["value"] - row["real"]["value"])

    def build_section(self) -> dict[str, Any]:
        """What the record says of these groups."""
        accuracy = self.accuracy
        return {
            "kind": self.kind,
            "accuracy": None
            if accuracy is None
            else {"value": accuracy.value, "low": accuracy.low, "high": accuracy.high},
            "left_out": self.left_out,
            "rows": self.build_rows(),
        }


def _make_share(count: int, total: int) -> dict[str, float]:
    share = count / max(1, total)
    low, high = wilson_interval(share, max(1, total))
    return {"value": share, "low": low, "high": high, "n": count}


def _name_state(is_missed: bool, p_value: float, is_lower: bool) -> str:
    """ "missing", "rare", "frequent", or "even" where shares are not shown to differ."""
    if is_missed:
        return "missing"
    if p_value >= ALPHA:
        return "even"
    return "rare" if is_lower else "frequent"


def group_by_class(
    real: SampleSubset, fake: Tensor, class_names: Sequence[str], *, seed: int
) -> tuple[Grouping | None, str]:
    """Groups by the classes of labeled real data, or None with the reason.

    Generated samples (n, D) get the class that a linear discriminant on principal components gives them; it is tested
    by 5-fold cross-validation, and the real shares are those of its own held-out answers, so that what it mistakes
    counts on both sides. Cost: O(N D²). Source of the discriminant: Ledoit & Wolf 2004 (shrinkage).
    """
    if real.labels is None:
        return None, "the real data have no classes"
    counts = torch.bincount(real.labels[:MAX_ROWS].clamp(min=0))
    kept = (counts >= MIN_CLASS_ROWS).nonzero()[:, 0]
    if len(kept) < 2 or len(kept) > MAX_CLASSES:
        return None, f"{len(kept)} classes have {MIN_CLASS_ROWS} real samples or more"
    is_kept = torch.isin(real.labels[:MAX_ROWS], kept)
    labels = torch.searchsorted(kept, real.labels[:MAX_ROWS][is_kept]).numpy()
    classifier = _ClassFinder(real.values[:MAX_ROWS][is_kept].flatten(1), labels, seed)
    answers = classifier.cross_validate()
    accuracy = float((answers == labels).mean())
    largest_share = float(np.bincount(labels).max()) / len(labels)
    if accuracy < max(MIN_ACCURACY, largest_share + MIN_GAIN * (1 - largest_share)):
        return None, f"a classifier names the class of only {accuracy:.0%} of the real samples"
    names = tuple(class_names[i] if i < len(class_names) else str(i) for i in kept.tolist())
    grouping = Grouping(
        "classes",
        names,
        torch.from_numpy(answers),
        classifier.assign(fake[:MAX_ROWS]),
        classifier.assign,
        Estimate(accuracy, *wilson_interval(accuracy, len(labels))),
        int((counts > 0).sum()) - len(kept),
    )
    return grouping, ""


class _ClassFinder:
    """A linear discriminant on the principal components of labeled rows (N, D), labels (N,) int64."""

    def __init__(self, rows: Tensor, labels: np.ndarray, seed: int) -> None:
        values = rows.double().numpy()
        self.labels, self.seed = labels, seed
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant columns have no variance to explain
            n_components = min(N_COMPONENTS, values.shape[1], len(values) - 1)
            self._projection = PCA(n_components, random_state=seed).fit(values)  # sees no label
            self._points = self._projection.transform(values)  # (N, P)
            self._discriminant = _fit_discriminant(self._points, labels)

    def assign(self, rows: Tensor) -> Tensor:
        """The class of each row, (n,) int64."""
        if not len(rows):
            return torch.zeros(0, dtype=torch.int64)
        points = self._projection.transform(rows.flatten(1).double().numpy())
        return torch.from_numpy(np.asarray(self._discriminant.predict(points), dtype=np.int64))

    def cross_validate(self) -> np.ndarray:
        """Answers for the rows themselves, each from a discriminant that has not seen it, (N,) int64."""
        answers = np.empty(len(self.labels), dtype=np.int64)
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=self.seed)
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for train, test in folds.split(self._points, self.labels):
                fold = _fit_discriminant(self._points[train], self.labels[train])
                answers[test] = fold.predict(self._points[test])
        return answers


def _fit_discriminant(points: np.ndarray, labels: np.ndarray) -> LinearDiscriminantAnalysis:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(points, labels)


def group_by_region(split: RealFakeSplit, *, seed: int) -> Grouping | None:
    """Groups by k-means regions of the reference half; shares of the held-out half and of the generated samples.

    Regions have no meaning of their own: where the cuts fall is arbitrary in data without gaps. None for fewer than 60
    reference rows.
    """
    reference = split.reference[:MAX_ROWS].flatten(1)
    n_regions = min(MAX_REGIONS, len(reference) // ROWS_PER_REGION)
    if n_regions < 2 or float(reference.var(0).sum()) == 0.0:
        return None
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than regions
        kmeans = KMeans(n_regions, n_init=3, random_state=seed).fit(reference.numpy())
    sizes = np.bincount(kmeans.labels_, minlength=n_regions)
    centers = torch.from_numpy(kmeans.cluster_centers_[np.argsort(-sizes, kind="stable")]).float()  # (K, D)

    def assign(rows: Tensor) -> Tensor:
        return torch.cdist(rows.flatten(1).float(), centers).argmin(1)

    names = tuple(str(i + 1) for i in range(n_regions))
    return Grouping("regions", names, assign(split.heldout[:MAX_ROWS]), assign(split.fake[:MAX_ROWS]), assign)
