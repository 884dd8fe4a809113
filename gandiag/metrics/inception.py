"""IS and FID, which mean torch-fidelity's Inception and nothing else. Here: from its features and logits to the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import NO_REAL_DATA, make_measurement, missing_measurements
from gandiag.metrics.frechet import frechet_distance, frechet_measurement
from gandiag.stats.resampling import interval_half_widths
from gandiag.stats.splits import split_from_results, split_needs
from gandiag.stats.subset import SubsetSpec
from gandiag.stats.validation import as_features

N_SPLITS = 10


def inception_score(logits: Any, splits: int = N_SPLITS, seed: int | None = 2020) -> tuple[float, float]:
    """IS as (mean, standard deviation over splits) from (N, C) logits, in [1, C]; higher is better.

    exp of the mean divergence of p(y|x) from p(y), per split, rows shuffled as torch-fidelity does (`seed` None: not at
    all). It has no reference: one good sample per class scores C, so collapse inside a class is invisible, and real data do
    not score best. Small splits lower it. SourceError with fewer rows than splits. Source: Salimans et al. 2016, section 4.
    """
    found = as_features(logits, "logits")
    if len(found) < splits:
        raise SourceError(f"{len(found)} samples make no {splits} splits", "pass more samples")
    if seed is not None:
        found = found[torch.from_numpy(np.random.RandomState(seed).permutation(len(found)))]
    edges = [k * len(found) // splits for k in range(splits + 1)]
    scores = [_score(found[start:stop]) for start, stop in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Tensor) -> float:
    log_p = logits.double().log_softmax(1)  # (n, C)
    p = log_p.exp()
    return math.exp(float((p * (log_p - p.mean(0).log())).nan_to_num(0.0).sum(1).mean()))


def fid(real: Any, fake: Any) -> float:
    """The Fréchet distance of (N, 2048) and (M, 2048) Inception pool features, in [0, inf); lower is better. See `frechet_distance`."""
    return frechet_distance(real, fake)


@dataclass(frozen=True, slots=True)
class Fid:
    """FID, with that of real against real at the same n as the floor; published values take 50,000 samples."""

    view: str = "inception-v3-compat"
    n: int = 50_000
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return "fid"

    def needs(self) -> Needs:
        return split_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        if sets is None:
            return MetricResult(missing_measurements(("fid",), NO_REAL_DATA))
        if sets.n < 2:
            return MetricResult(missing_measurements(("fid",), f"{sets.n} samples a side have no covariance"))
        return MetricResult({"fid": frechet_measurement(sets, self.seed)})


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """IS over ten splits; `view` names the logits. The floor is the score of as many real samples, which need not be the best."""

    view: str = "inception-v3-compat/logits"
    n: int = 50_000
    seed: int = 0
    referenced: bool = True
    n_splits: int = N_SPLITS

    @property
    def key(self) -> str:
        return "is"

    def needs(self) -> Needs:
        return (
            split_needs(self.view, self.n) if self.referenced else {"fake": frozenset({SubsetSpec(self.view, self.n)})}
        )

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        fake = results["fake"][SubsetSpec(self.view, self.n)].values if sets is None else sets.fake  # (n, C)
        if len(fake) < self.n_splits:
            return MetricResult(
                missing_measurements(("inception_score",), f"{len(fake)} samples make no {self.n_splits} splits")
            )
        floor = None if sets is None else inception_score(sets.reference, self.n_splits)[0]
        value = inception_score(fake, self.n_splits)[0]
        width = interval_half_widths(lambda i: torch.tensor([_score(fake[i])]), (len(fake),), len(fake), seed=self.seed)
        found = make_measurement(
            value,
            float(width),
            n=len(fake),
            floor=floor,
            better="higher",
            unit="effective classes",
            bounds=(1, fake.shape[1]),
        )
        return MetricResult({"inception_score": found})
