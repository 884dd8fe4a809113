"""Inception score and FID from Inception logits and features.

Both names are reserved for torch-fidelity's Inception network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import Metric, MetricResult
from gandiag.metrics.base import PairedMetric, UnpairedMetric, make_measurement
from gandiag.metrics.frechet import frechet_distance, frechet_measurement
from gandiag.metrics.registry import INCEPTION_METRICS, MetricContext
from gandiag.stats.resampling import interval_half_widths
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_features

N_SPLITS = 10


def inception_score(logits: Any, splits: int = N_SPLITS, seed: int | None = 2020) -> tuple[float, float]:
    """IS as (mean, standard deviation over splits) from (N, C) logits, in [1, C]; higher is better.

    exp of the mean divergence of p(y|x) from p(y) per split. Rows are shuffled as torch-fidelity does; `seed` None: not
    shuffled. It has no reference: one good sample per class scores C, so collapse inside a class is invisible, and real
    data do not score best. Small splits lower it. SourceError with fewer rows than splits. Source: Salimans et al.
    2016, section 4.
    """
    rows = as_features(logits, "logits")
    if len(rows) < splits:
        raise SourceError(f"{len(rows)} samples are too few for {splits} splits", "pass more samples")
    if seed is not None:
        rows = rows[torch.from_numpy(np.random.RandomState(seed).permutation(len(rows)))]
    edges = [k * len(rows) // splits for k in range(splits + 1)]
    scores = [_split_score(rows[start:stop]) for start, stop in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


def _split_score(logits: Tensor) -> float:
    log_p = logits.double().log_softmax(1)  # (n, C)
    p = log_p.exp()
    return math.exp(float((p * (log_p - p.mean(0).log())).nan_to_num(0.0).sum(1).mean()))


def fid(real: Any, fake: Any) -> float:
    """The Fréchet distance of (N, 2048) and (M, 2048) Inception pool features, in [0, inf); lower is better.

    See `frechet_distance`.
    """
    return frechet_distance(real, fake)


@dataclass(frozen=True, slots=True)
class Fid(PairedMetric):
    """FID, with that of real against real at the same n as the floor; published values use 50,000 samples."""

    view: str = INCEPTION_METRICS["fid"][0]
    n: int = 50_000

    purpose: ClassVar[str] = "a covariance"

    @property
    def key(self) -> str:
        return "fid"

    def compute(self, split: RealFakeSplit) -> MetricResult:
        return MetricResult({self.key: frechet_measurement(split, self.seed)})


@dataclass(frozen=True, slots=True)
class InceptionScore(UnpairedMetric):
    """IS over ten splits; `view` names the logits.

    The floor is the score of as many real samples, which is not always higher.
    """

    view: str = INCEPTION_METRICS["is"][0]
    n: int = 50_000
    n_splits: int = N_SPLITS

    purpose: ClassVar[str] = "an Inception score"

    @property
    def key(self) -> str:
        return "is"

    @property
    def measurement_keys(self) -> tuple[str, ...]:
        return ("inception_score",)

    @property
    def min_samples(self) -> int:
        return self.n_splits

    def compute(self, fake: Tensor, split: RealFakeSplit | None) -> MetricResult:
        n = len(fake)
        half_width = interval_half_widths(lambda i: torch.tensor([_split_score(fake[i])]), (n,), n, seed=self.seed)
        measurement = make_measurement(
            inception_score(fake, self.n_splits)[0],
            float(half_width),
            n=n,
            floor=None if split is None else inception_score(split.reference, self.n_splits)[0],
            better="higher",
            unit="effective classes",
            bounds=(1, fake.shape[1]),
        )
        return MetricResult({"inception_score": measurement})


def create_fid(context: MetricContext) -> Sequence[Metric]:
    """The factory of "fid"."""
    return [Fid(n=context.n, seed=context.seed, referenced=context.referenced)]


def create_inception_score(context: MetricContext) -> Sequence[Metric]:
    """The factory of "is"."""
    return [InceptionScore(n=context.n, seed=context.seed, referenced=context.referenced)]
