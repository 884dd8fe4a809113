"""The real data as a monitor needs it, computed once: features, modes, and what a glance or a full look compares with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.config import AuditConfig
from gandiag.contracts import Batch, Estimate, Output
from gandiag.errors import SourceError
from gandiag.features.aspects import ASPECTS
from gandiag.features.extractors import default_features
from gandiag.features.views import View, embed, make_views, salt_of
from gandiag.metrics.variety import FEWEST as JUDGED
from gandiag.metrics.variety import variety
from gandiag.metrics.views import variety_of_views
from gandiag.stats.cells import Modes, find_modes
from gandiag.subjects import open_real

STARVED = 0.5  # of its real share: a mode with less is lost, if two deviations of its count do not reach it
REPLICATES = 12
_BATCH = 128


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be told at once. `lost`: share of the real data in modes that the samples starve. `spread`: their variance over the real one."""

    lost: float
    spread: float
    modes: int
    starved: int


class Reference:
    """2n real samples in feature space, with their modes. `most`: samples of a look that they allow."""

    def __init__(self, real: Any, output: Output, config: AuditConfig, n: int) -> None:
        self.output, self.seed = output, config.seed
        opened = open_real(real, config, output)
        self.most = min(n, opened.n // 2)
        if self.most < JUDGED:
            raise SourceError(f"{opened.n} real samples are too few to watch by", f"give at least {2 * JUDGED}")
        self.view = config.features or default_features(output)
        names = [self.view, *(name for name in ASPECTS if output.kind == "image" and name != self.view)]
        self._views: tuple[View, ...] = make_views(names, output, device=config.device if config.device != "auto" else "cpu",
                                                   download=config.download, inception_weights=config.inception_weights)  # fmt: skip
        batches = opened.batches(_BATCH, fit=output, limit=2 * self.most)
        found = [embed(batch, self._views, output, salt=salt_of("real")).views for batch in batches]
        self._rows = {name: torch.cat([batch[name] for batch in found]) for name in names}  # (2n, D)
        self._modes, self._shares = self._partition(self._rows[self.view])

    def _partition(self, rows: Tensor) -> tuple[Modes, Tensor]:
        shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))]
        modes = find_modes(shuffled[::2], shuffled[1::2], seed=self.seed)
        return modes, torch.bincount(modes.assign(rows), minlength=modes.count).double() / len(rows)  # (K,)

    def embed(self, samples: Tensor) -> dict[str, Tensor]:
        """Every view of generated samples, (n, D) each."""
        parts = [Batch(rows, torch.arange(at * _BATCH, at * _BATCH + len(rows))) for at, rows in enumerate(torch.split(samples, _BATCH))]
        found = [embed(part, self._views, self.output, salt=salt_of("fake")).views for part in parts]
        return {name: torch.cat([batch[name] for batch in found]) for name in self._rows}

    def glance(self, fake: Mapping[str, Tensor]) -> Glance:
        """Which modes starve, and how far the samples spread; milliseconds. Blind to repeats and to what happens inside a mode."""
        rows, real = fake[self.view], self._rows[self.view]
        counts = torch.bincount(self._modes.assign(rows), minlength=len(self._shares)).double()  # (K,)
        expected = self._shares * len(rows)
        starved = counts + 2 * (counts + 1).sqrt() < STARVED * expected
        spread = float(rows.var(0).sum() / real.var(0).sum().clamp(min=1e-30))
        return Glance(float(self._shares[starved].sum()), spread, len(self._shares), int(starved.sum()))

    def score(self, fake: Mapping[str, Tensor]) -> Estimate:
        """The collapse score of the samples, as an audit gives it, from n of them and twice as many real ones. O(n² D)."""
        n = len(fake[self.view])
        real = {name: rows[: 2 * n] for name, rows in self._rows.items()}
        if self.output.kind != "image":
            return variety(real[self.view], fake[self.view], seed=self.seed, replicates=REPLICATES).score
        return variety_of_views(real, fake, seed=self.seed, replicates=REPLICATES)[0].score
