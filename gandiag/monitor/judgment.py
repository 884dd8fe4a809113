"""The judgment on the samples of one evaluation: the facts of a record and the verdict that an audit gives on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.metrics.collapse_score import estimate_loss, score_sections
from gandiag.metrics.score.injected_losses import InjectedLoss
from gandiag.record import Record, Score, Verdict
from gandiag.verdict.policy import MAX_OFF_MANIFOLD, Policy, compute_verdict

REPLICATES = 12


@dataclass(frozen=True, slots=True)
class Judgment:
    """`score` with its interval, the audit's `verdict` on it, and `doubts` that keep it from deciding.

    `is_realistic`: no doubts, and at least half of the samples pass for real.
    """

    score: Estimate
    verdict: Verdict
    is_realistic: bool
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judge:
    """`has_aspects`: whether the views are those of images. `limit`: the score from which a generator has collapsed.

    `injected`: what known losses score in the real data, measured once.
    """

    seed: int
    limit: float
    has_aspects: bool
    injected: tuple[InjectedLoss, ...] = ()

    def rehearse(self, real: Mapping[str, Tensor]) -> Judge:
        """The judge that knows which losses it would see: injected into real samples (2n, D) of each view."""
        perfect = {name: rows[: len(rows) // 2] for name, rows in real.items()}
        estimate, _ = estimate_loss(
            real, perfect, seed=self.seed, has_aspects=self.has_aspects, inject=True, replicates=0
        )
        return replace(self, injected=estimate.injected)

    def judge(self, real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> Judgment:
        """The judgment on n generated samples against 2n real ones. Cost: O(n² D)."""
        estimate, _ = estimate_loss(
            real, fake, seed=self.seed, has_aspects=self.has_aspects, inject=False, replicates=REPLICATES
        )
        estimate = replace(estimate, injected=self.injected)
        n_real, n_fake = (len(next(iter(views.values()))) for views in (real, fake))
        sections = score_sections(estimate, n_real=n_real, n_fake=n_fake, has_aspects=self.has_aspects)
        doubts = tuple(sections["doubts"])
        record = _make_record(sections["score"], self.limit, doubts)
        off_manifold = estimate.profile["off_manifold"].value
        is_realistic = not doubts and off_manifold <= MAX_OFF_MANIFOLD
        return Judgment(estimate.score, compute_verdict(record, Policy(limit=self.limit)), is_realistic, doubts)


def _make_record(score: Score, limit: float, doubts: Sequence[str]) -> Record:
    """A record of what the verdict is computed from. How the network was loaded is not in doubt while it trains."""
    return Record(
        verdict="inconclusive",
        kinds=(),
        score=replace(score, limit=limit),
        subject={},
        measurements={},
        provenance={"doubts": list(doubts)},
    )
