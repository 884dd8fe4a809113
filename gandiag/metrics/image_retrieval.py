"""IRS: how many real samples the generator can reach, from how many distinct ones its samples retrieve.

Each generated sample retrieves its nearest real sample. If n of N real samples are reachable, all alike likely, m
retrievals hit k distinct ones with probability S(m, k) n! / ((n - k)! n^m). The score is the maximum-likelihood n over
N. Held-out real samples reach less than all, since features crowd: their score is the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import gammaln
from scipy.stats import chi2
from torch import Tensor

from gandiag.interfaces import Estimate, MetricResult
from gandiag.metrics.base import NamedPairedMetric
from gandiag.record import Measurement
from gandiag.stats.neighbors import nearest_neighbors
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

KEY = "irs"
MIN_SAMPLES = 4


def image_retrieval_score(real: Any, fake: Any) -> float:
    """Share of the real samples that the generator reaches, in (0, 1]; higher is more diverse.

    `real` (N, D), `fake` (M, D); M may be smaller than N. Divide by the score of held-out real samples of the same
    number to correct for features that crowd (`image_retrieval_ratio`). Blind to quality and to shape inside a cell.
    Cost N·M·D. Source: Dombrowski et al. 2025, Image Generation Diversity Issues and How to Tame Them.
    """
    return retrieval_estimate(*as_feature_pair(real, fake)).value


def image_retrieval_ratio(real: Any, heldout: Any, fake: Any) -> float:
    """The score of generated samples over that of as many held-out real ones: about 1 for a perfect generator."""
    reference = image_retrieval_score(real, heldout)
    return image_retrieval_score(real, fake) / reference


def retrieval_estimate(real: Tensor, fake: Tensor) -> Estimate:
    """The score with its 95 % likelihood interval."""
    retrieved = nearest_neighbors(fake, real, k=1).indices[:, 0]
    return occupancy_estimate(len(torch.unique(retrieved)), len(fake), len(real))


def occupancy_estimate(n_distinct: int, n_draws: int, n_total: int) -> Estimate:
    """Maximum-likelihood share of `n_total` boxes that are open, after `n_draws` hit `n_distinct` of them.

    The interval holds every number of open boxes whose log-likelihood is within 1.92 of the largest.
    """
    n_open = np.arange(n_distinct, n_total + 1, dtype=np.float64)
    likelihood = gammaln(n_open + 1) - gammaln(n_open - n_distinct + 1) - n_draws * np.log(n_open)
    inside = n_open[likelihood >= likelihood.max() - float(chi2.ppf(0.95, 1)) / 2]
    shares = n_open[int(likelihood.argmax())] / n_total, inside[0] / n_total, inside[-1] / n_total
    return Estimate(*(float(share) for share in shares))


@dataclass(frozen=True, slots=True)
class ImageRetrieval(NamedPairedMetric):
    """The score of generated samples against the reference half; the floor is that of the held-out half."""

    name: ClassVar[str] = KEY
    fewest_samples: ClassVar[int] = MIN_SAMPLES
    purpose: ClassVar[str] = "the image retrieval score"

    def compute(self, split: RealFakeSplit) -> MetricResult:
        reference, heldout, fake = split.flat_rows()
        found, floor = retrieval_estimate(reference, fake), retrieval_estimate(reference, heldout)
        measurement = Measurement(
            found.value,
            found.low,
            found.high,
            floor.value,
            unit="share of real samples",
            better="higher",
            n=split.n,
            reason=f"over that of held-out data: {found.value / floor.value:.3f}",
        )
        return MetricResult({KEY: measurement})
