"""The real data as a monitor needs it, computed once: features, modes, and what a glance or a full look compares with."""

from __future__ import annotations

from collections.abc import Mapping
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
from gandiag.metrics.score.estimator import MIN_SAMPLES as JUDGED
from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.metrics.score.mode_partition import ModePartition, find_modes
from gandiag.metrics.score.multi_view import estimate_multi_view_loss
from gandiag.pipeline.subject import open_real_data

MIN_MODE_RATIO = 0.5  # of its real share: a mode with less is lost, if two deviations of its count do not reach it
REPLICATES = 12
_BATCH = 128


@dataclass(frozen=True, slots=True)
class QuickCheck:
    """What can be told at once. `lost`: share of the real data in modes that the samples starve. `spread`: their variance over the real one."""

    lost: float
    spread: float
    modes: int
    starved: int


class RealStatistics:
    """2n real samples in feature space, with their modes. `most`: samples of a look that they allow."""

    def __init__(self, real: Any, output: OutputSpec, config: AuditConfig, n: int) -> None:
        self.output, self.seed = output, config.seed
        opened = open_real_data(real, config, output)
        self.max_samples = min(n, opened.n // 2)
        if self.max_samples < JUDGED:
            raise SourceError(f"{opened.n} real samples are too few to watch by", f"give at least {2 * JUDGED}")
        self.view = config.features or default_features(output)
        names = [self.view, *(name for name in ASPECTS if output.kind == "image" and name != self.view)]
        self._views: tuple[FeatureView, ...] = make_views(
            names,
            output,
            device=config.device if config.device != "auto" else "cpu",
            download=config.download,
            inception_weights=config.inception_weights,
        )
        batches = opened.iter_batches(_BATCH, output=output, limit=2 * self.max_samples)
        found = [
            embed_batch(batch, self._views, output, noise_seed=noise_seed_for("real")).features for batch in batches
        ]
        self._rows = {name: torch.cat([batch[name] for batch in found]) for name in names}  # (2n, D)
        self._modes, self._shares = self._partition(self._rows[self.view])

    def _partition(self, rows: Tensor) -> tuple[ModePartition, Tensor]:
        shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))]
        modes = find_modes(shuffled[::2], shuffled[1::2], seed=self.seed)
        return modes, torch.bincount(modes.assign_modes(rows), minlength=modes.n_modes).double() / len(rows)  # (K,)

    def embed(self, samples: Tensor) -> dict[str, Tensor]:
        """Every view of generated samples, (n, D) each."""
        parts = [
            Batch(rows, torch.arange(at * _BATCH, at * _BATCH + len(rows)))
            for at, rows in enumerate(torch.split(samples, _BATCH))
        ]
        found = [
            embed_batch(part, self._views, self.output, noise_seed=noise_seed_for("fake")).features for part in parts
        ]
        return {name: torch.cat([batch[name] for batch in found]) for name in self._rows}

    def quick_check(self, fake: Mapping[str, Tensor]) -> QuickCheck:
        """Which modes starve, and how far the samples spread; milliseconds. Blind to repeats and to what happens inside a mode."""
        rows, real = fake[self.view], self._rows[self.view]
        counts = torch.bincount(self._modes.assign_modes(rows), minlength=len(self._shares)).double()  # (K,)
        expected = self._shares * len(rows)
        starved = counts + 2 * (counts + 1).sqrt() < MIN_MODE_RATIO * expected
        spread = float(rows.var(0).sum() / real.var(0).sum().clamp(min=1e-30))
        return QuickCheck(float(self._shares[starved].sum()), spread, len(self._shares), int(starved.sum()))

    def score(self, fake: Mapping[str, Tensor]) -> Estimate:
        """The collapse score of the samples, as an audit gives it, from n of them and twice as many real ones. O(n² D)."""
        n = len(fake[self.view])
        real = {name: rows[: 2 * n] for name, rows in self._rows.items()}
        if self.output.kind != "image":
            return estimate_diversity_loss(
                real[self.view], fake[self.view], seed=self.seed, replicates=REPLICATES
            ).score
        return estimate_multi_view_loss(real, fake, seed=self.seed, replicates=REPLICATES)[0].score
