"""The collapse score of a table: the joint view, every column and every pair; the worst of them speaks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from torch import Tensor

from gandiag.config import DEFAULT_LIMIT
from gandiag.interfaces import Estimate
from gandiag.metrics.column_losses import ColumnLoss, estimate_column_losses
from gandiag.metrics.column_pairs import PairLoss, estimate_pair_losses, pair_count
from gandiag.metrics.score.estimator import DiversityEstimate
from gandiag.sampling.tables.encoder import TableEncoder

MAX_LISTED_PAIRS = 20  # of the record, the worst by loss and the worst by association
MAX_LISTED_VALUES = 20


@dataclass(frozen=True, slots=True)
class TableLosses:
    """`columns` in the table's order, `pairs` in any order; every lower bound is corrected for all of them."""

    columns: list[ColumnLoss]
    pairs: list[PairLoss]

    def worst(self) -> tuple[Estimate, tuple[str, ...]] | None:
        """The largest loss that chance does not explain, and the names of its columns; single columns first."""
        losses: list[tuple[Estimate, tuple[str, ...]]] = [(column.loss, (column.name,)) for column in self.columns]
        losses += [(pair.loss, pair.names) for pair in self.pairs if pair.loss is not None]
        certain = [entry for entry in losses if entry[0].low > 0]
        return max(certain, key=lambda entry: (round(entry[0].value, 2), -len(entry[1]), entry[0].low), default=None)

    def largest_low(self) -> float:
        """The largest lower bound of all columns and pairs."""
        lows = [column.loss.low for column in self.columns]
        return max([*lows, *(pair.loss.low for pair in self.pairs if pair.loss is not None)], default=0.0)


def estimate_table_losses(encoder: TableEncoder, real: Tensor, fake: Tensor) -> TableLosses:
    """Losses of every column and pair of encoded rows: real (N, width), fake (M, width)."""
    n_columns = len(encoder.columns)
    z_low = NormalDist().inv_cdf(1 - 0.025 / (n_columns + pair_count(n_columns)))
    columns, real_codes, fake_codes = estimate_column_losses(encoder, real, fake, z_low=z_low)
    scores = tuple(
        np.stack([part[:, 0] for part in encoder.split(rows)], 1).astype(np.float64) for rows in (real, fake)
    )
    pairs: list[PairLoss] = []
    if n_columns > 1:
        pairs = estimate_pair_losses(encoder.columns, (real_codes, fake_codes), (scores[0], scores[1]), z_low=z_low)
    return TableLosses(columns, pairs)


def include_table_losses(joint: DiversityEstimate, losses: TableLosses) -> DiversityEstimate:
    """The joint estimate, or a column's or pair's loss where it is larger and beyond chance.

    A column that has certainly lost variety settles what the joint view leaves in doubt.
    """
    worst = losses.worst()
    if worst is None:
        return joint
    low = max(joint.score.low, losses.largest_low())
    value = max(joint.score.value, worst[0].value, low)
    is_certain = low >= DEFAULT_LIMIT
    return replace(
        joint,
        score=Estimate(value, low, max(joint.score.high, worst[0].high, value)),
        replicates=() if _speaks_for_columns(joint, losses) else joint.replicates,
        inconclusive_reasons=() if is_certain else joint.inconclusive_reasons,
    )


def _speaks_for_columns(joint: DiversityEstimate, losses: TableLosses) -> bool:
    """Whether the score is that of a column or pair, not of the joint view."""
    worst = losses.worst()
    return worst is not None and worst[0].value > joint.score.value


def build_table_section(encoder: TableEncoder, joint: DiversityEstimate, losses: TableLosses) -> dict[str, Any]:
    """The record's `table`."""
    worst = losses.worst()
    measured = [pair for pair in losses.pairs if pair.loss is not None]
    by_loss = sorted(measured, key=lambda pair: -pair.loss.value if pair.loss else 0.0)[:MAX_LISTED_PAIRS]
    by_change = sorted(losses.pairs, key=lambda pair: -abs(pair.change.value))[:MAX_LISTED_PAIRS]
    listed = list({pair.names: pair for pair in (*by_loss, *by_change)}.values())
    return {
        "joint": asdict(joint.score),
        "score_of": list(worst[1]) if worst is not None and _speaks_for_columns(joint, losses) else [],
        "columns": [_column_entry(column) for column in losses.columns],
        "pairs": [_pair_entry(pair) for pair in listed],
        "pairs_compared": len(losses.pairs),
        "left_out": [{"name": plan.name, "reason": plan.reason} for plan in encoder.left_out],
    }


def _column_entry(column: ColumnLoss) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.kind,
        "loss": asdict(column.loss),
        "short": column.short,
        "narrowed": column.narrowed,
        "constant": column.is_constant,
        "never_made": list(column.never_made[:MAX_LISTED_VALUES]),
        "never_made_share": column.never_made_share,
        "missing_values": {"real": column.missing[0], "fake": column.missing[1]},
        "unseen": column.unseen,
    }


def _pair_entry(pair: PairLoss) -> dict[str, Any]:
    return {
        "names": list(pair.names),
        "loss": None if pair.loss is None else asdict(pair.loss),
        "association": {"real": pair.real_association, "fake": pair.fake_association},
        "association_lost": asdict(pair.change),
    }
