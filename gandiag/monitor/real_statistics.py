"""The real data in feature space with their modes, computed once: what a quick check and a full score compare with."""

from __future__ import annotations

import time
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
from gandiag.interfaces import Batch, OutputSpec
from gandiag.metrics.score.estimator import MIN_SAMPLES as MIN_SCORED_SAMPLES
from gandiag.metrics.score.mode_partition import ModePartition, find_modes
from gandiag.monitor.judgment import Judge, Judgment
from gandiag.pipeline.subject import open_real_data

MIN_MODE_RATIO = 0.5  # of its real share; a mode whose count is below this by two standard errors is lost
_BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class QuickCheck:
    """What mode counts and variance show.

    `lost`: share of the real data in modes that the samples underrepresent. `spread`: variance of the samples over
    that of the real data. `starved`: number of underrepresented modes, out of `modes`; modes that held-out real data
    underrepresent do not count.
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
        self._modes, self._mode_shares, self._counted = self._find_modes(self._features[self.view])
        self._judge = Judge(config.seed, config.limit, output.kind == "image").rehearse(self._features)

    def _embed_batches(self, batches: Iterable[Batch], role: str) -> dict[str, Tensor]:
        """Features (n, D) of all batches, for each view."""
        parts = [
            embed_batch(batch, self._views, self.output, noise_seed=noise_seed_for(role)).features for batch in batches
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in self._view_names}

    def _find_modes(self, features: Tensor) -> tuple[ModePartition, Tensor, Tensor]:
        """The modes, the share of the real data in each (K,), and which of them held-out real data fill too (K,)."""
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed))
        first, second = features[order[::2]], features[order[1::2]]
        modes = find_modes(first, second, seed=self.seed)
        fitted, heldout = (
            torch.bincount(modes.assign_modes(rows), minlength=modes.n_modes).double() / len(rows)
            for rows in (first, second)
        )  # (K,)
        shares = (fitted * len(first) + heldout * len(second)) / len(features)
        return modes, shares, heldout >= MIN_MODE_RATIO * fitted

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
        starved = self._counted & (counts + 2 * (counts + 1).sqrt() < MIN_MODE_RATIO * expected)
        spread = float(features.var(0).sum() / real.var(0).sum().clamp(min=1e-30))
        return QuickCheck(
            lost=float(self._mode_shares[starved].sum()),
            spread=spread,
            modes=int(self._counted.sum()),
            starved=int(starved.sum()),
        )

    def judge(self, fake: Mapping[str, Tensor]) -> Judgment:
        """What an audit would say of n samples, against 2n real ones. Cost: O(n² D)."""
        n = len(fake[self.view])
        return self._judge.judge({name: rows[: 2 * n] for name, rows in self._features.items()}, fake)

    def time_judgment(self, n: int) -> float:
        """Seconds of a judgment on n samples, measured on real ones."""
        start = time.perf_counter()
        self.judge({name: rows[-n:] for name, rows in self._features.items()})
        return time.perf_counter() - start

    def describe(self) -> str:
        """What the samples are compared with, in words."""
        modes = f", {int(self._counted.sum())} modes" if int(self._counted.sum()) > 1 else ", no separate modes"
        return f"{2 * self.max_samples:,} real samples{modes}"
