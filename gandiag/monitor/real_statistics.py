"""The real data in feature space with their modes, computed once: what a quick check and a full score compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.config import AuditConfig
from gandiag.errors import SourceError
from gandiag.features.extractors import default_features
from gandiag.features.image_statistics import ASPECTS
from gandiag.features.views import FeatureView, embed_batch, make_views, noise_seed_for
from gandiag.interfaces import Batch, Estimate, OutputSpec
from gandiag.metrics.score.estimator import MIN_SAMPLES as MIN_SCORED_SAMPLES
from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.metrics.score.mode_partition import ModePartition, find_modes
from gandiag.metrics.score.multi_view import estimate_multi_view_loss
from gandiag.pipeline.subject import open_real_data

MIN_MODE_RATIO = 0.5  # of its real share; a mode whose count is below this by two standard errors is lost
REPLICATES = 12
_BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class QuickCheck:
    """What mode counts and variance show.

    `lost`: share of the real data in modes that the samples underrepresent. `spread`: variance of the samples over
    that of the real data. `starved`: number of underrepresented modes, out of `modes`.
    """

    lost: float
    spread: float
    modes: int
    starved: int


class RealStatistics:
    """2n real samples in feature space, with their modes.

    `max_samples`: the number of generated samples that they allow, at most n.
    """

    def __init__(self, real: Any, output: OutputSpec, config: AuditConfig, n: int) -> None:
        self.output, self.seed = output, config.seed
        data = open_real_data(real, config, output)
        self.max_samples = min(n, data.n // 2)
        if self.max_samples < MIN_SCORED_SAMPLES:
            raise SourceError(
                f"{data.n} real samples are too few to monitor with", f"give at least {2 * MIN_SCORED_SAMPLES}"
            )
        self.view = config.features or default_features(output)
        aspects = (name for name in ASPECTS if output.kind == "image" and name != self.view)
        self._view_names = [self.view, *aspects]
        self._views: tuple[FeatureView, ...] = make_views(
            self._view_names,
            output,
            device=config.device if config.device != "auto" else "cpu",
            download=config.download,
            inception_weights=config.inception_weights,
        )
        batches = data.iter_batches(_BATCH_SIZE, output=output, limit=2 * self.max_samples)
        self._features = self._embed_batches(batches, "real")  # (2n, D) for each view
        self._modes, self._mode_shares = self._find_modes(self._features[self.view])

    def _embed_batches(self, batches: Iterable[Batch], role: str) -> dict[str, Tensor]:
        """Features (n, D) of all batches, for each view."""
        parts = [
            embed_batch(batch, self._views, self.output, noise_seed=noise_seed_for(role)).features for batch in batches
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in self._view_names}

    def _find_modes(self, features: Tensor) -> tuple[ModePartition, Tensor]:
        """The modes, and the share of the real data in each (K,)."""
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed))
        shuffled = features[order]
        modes = find_modes(shuffled[::2], shuffled[1::2], seed=self.seed)
        counts = torch.bincount(modes.assign_modes(features), minlength=modes.n_modes).double()  # (K,)
        return modes, counts / len(features)

    def embed(self, samples: Tensor) -> dict[str, Tensor]:
        """Features (n, D) of generated samples, for each view."""
        batches = [
            Batch(rows, torch.arange(i * _BATCH_SIZE, i * _BATCH_SIZE + len(rows)))
            for i, rows in enumerate(torch.split(samples, _BATCH_SIZE))
        ]
        return self._embed_batches(batches, "fake")

    def quick_check(self, fake: Mapping[str, Tensor]) -> QuickCheck:
        """Find underrepresented modes and the spread of the samples, in milliseconds.

        Blind to repeated outputs and to what happens inside a mode.
        """
        features, real = fake[self.view], self._features[self.view]
        assigned = self._modes.assign_modes(features)
        counts = torch.bincount(assigned, minlength=len(self._mode_shares)).double()  # (K,)
        expected = self._mode_shares * len(features)
        starved = counts + 2 * (counts + 1).sqrt() < MIN_MODE_RATIO * expected
        spread = float(features.var(0).sum() / real.var(0).sum().clamp(min=1e-30))
        return QuickCheck(
            lost=float(self._mode_shares[starved].sum()),
            spread=spread,
            modes=len(self._mode_shares),
            starved=int(starved.sum()),
        )

    def score(self, fake: Mapping[str, Tensor]) -> Estimate:
        """The collapse score of n samples against 2n real ones, as an audit computes it. Cost: O(n² D)."""
        n = len(fake[self.view])
        real = {name: features[: 2 * n] for name, features in self._features.items()}
        if self.output.kind != "image":
            estimate = estimate_diversity_loss(real[self.view], fake[self.view], seed=self.seed, replicates=REPLICATES)
            return estimate.score
        return estimate_multi_view_loss(real, fake, seed=self.seed, replicates=REPLICATES)[0].score
