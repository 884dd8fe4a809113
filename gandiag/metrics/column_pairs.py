"""Lost variety pair by pair: combinations of two columns that are never made, and associations lost or invented.

Combinations are counted in coarse cells that hold real rows. Generated rows in other cells are fidelity and are left
out, so that columns drawn independently lose no variety; what they lose is the association, which is stated beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gandiag.interfaces import Estimate
from gandiag.metrics.column_losses import CLEAR_SHARE_RATIO
from gandiag.sampling.tables.encoder import ColumnEncoder

MAX_CELLS = 8  # categories or ranges per column; the rest is counted together
MIN_CELL_ROWS = 8  # real rows of a cell whose absence counts
MIN_ROWS_IN_CELLS = 50  # generated rows in cells with real ones, without which a pair is not measured
MAX_PAIR_COLUMNS = 100  # columns whose pairs are compared
MAX_PAIR_ROWS = 10_000

Cells = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairLoss:
    """Two columns. `loss`: lost combinations, None where too few samples lie where real rows do; low is corrected.

    `real_association`, `fake_association`: correlation of scores between numbers, else Cramér's V; `change`: how much
    weaker it is among generated rows, negative where it is invented, with a corrected interval.
    """

    names: tuple[str, str]
    loss: Estimate | None
    real_association: float
    fake_association: float
    change: Estimate


def pair_count(n_columns: int) -> int:
    """Number of pairs that are compared."""
    n = min(n_columns, MAX_PAIR_COLUMNS)
    return n * (n - 1) // 2


def estimate_pair_losses(
    columns: tuple[ColumnEncoder, ...],
    codes: tuple[Cells, Cells],
    scores: tuple[Floats, Floats],
    *,
    z_low: float,
) -> list[PairLoss]:
    """Every pair of the first MAX_PAIR_COLUMNS columns.

    `codes`: real (N, C) and generated (M, C) categories or ranges. `scores`: real and generated scores of numbers.
    `z_low`: standard errors of the corrected bounds.
    """
    columns = columns[:MAX_PAIR_COLUMNS]
    real, fake = (part[:MAX_PAIR_ROWS, : len(columns)] for part in codes)
    maps = [_coarsen(column, real[:, index]) for index, column in enumerate(columns)]
    real_counts, fake_counts = (_count_cells(part, maps) for part in (real, fake))  # (C, C, L, L)
    loss, error, is_measured = _measure_losses(real_counts, fake_counts)
    chance = _largest_by_chance(real, maps, len(fake))
    is_number = np.array([column.kind != "category" for column in columns])
    associations = [
        np.where(
            is_number[:, None] & is_number, _correlations(part[:MAX_PAIR_ROWS, : len(columns)]), _cramers_v(counts)
        )
        for part, counts in zip(scores, (real_counts, fake_counts), strict=True)
    ]
    change_error = z_low * (1 / len(real) + 1 / len(fake)) ** 0.5
    pairs = []
    for first, second in zip(*np.triu_indices(len(columns), 1), strict=True):
        at = first, second
        value, spread = float(loss[at]), float(error[at])
        low = value - chance - z_low * spread
        bounds = (min(max(bound, 0.0), 1.0) for bound in (value, low, value + 1.96 * spread))
        before, after = (float(part[at]) for part in associations)
        change = before - after if before >= 0 else after - before
        pairs.append(
            PairLoss(
                (columns[first].name, columns[second].name),
                Estimate(*bounds) if is_measured[at] else None,
                before,
                after,
                Estimate(change, change - change_error, change + change_error),
            )
        )
    return pairs


def _largest_by_chance(real: Cells, maps: list[Cells], n_fake: int) -> float:
    """The largest loss of any pair between real rows and held-out real rows in place of generated ones."""
    order = np.random.default_rng(0).permutation(len(real))
    n_heldout = min(n_fake, len(real) // 2)
    heldout, reference = (_count_cells(real[rows], maps) for rows in (order[:n_heldout], order[n_heldout:]))
    loss, _, is_measured = _measure_losses(reference, heldout)
    return float(loss[np.triu(is_measured, 1)].max(initial=0.0))


def _coarsen(column: ColumnEncoder, codes: Cells) -> Cells:
    """Code -> one of MAX_CELLS cells, (n_codes,); −1 for what the real data do not have."""
    counts = np.bincount(codes, minlength=column.n_codes)
    cells = np.full(column.n_codes, -1)
    if column.kind == "category":
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        cells[order] = np.minimum(np.arange(len(order)), MAX_CELLS - 1)
        return cells
    inside = counts[:-2]
    n_cells = min(MAX_CELLS - 1, int((inside > 0).sum()))
    middle = np.cumsum(inside) - inside / 2
    if n_cells:
        cells[:-2] = np.minimum(middle / max(int(inside.sum()), 1) * n_cells, n_cells - 1)
    if counts[-2]:
        cells[-2] = MAX_CELLS - 1
    return cells


def _count_cells(codes: Cells, maps: list[Cells]) -> Floats:
    """Rows in each cell of each pair of columns, (C, C, L, L)."""
    n_columns = len(maps)
    indicator = np.zeros((len(codes), n_columns, MAX_CELLS), np.float32)
    for index, cells in enumerate(maps):
        cell = cells[codes[:, index]]
        rows = np.flatnonzero(cell >= 0)
        indicator[rows, index, cell[rows]] = 1
    flat = indicator.reshape(len(codes), -1)
    counts = (flat.T @ flat).reshape(n_columns, MAX_CELLS, n_columns, MAX_CELLS)
    return np.ascontiguousarray(counts.transpose(0, 2, 1, 3)).astype(np.float64)


def _measure_losses(real: Floats, fake: Floats) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """The short share of combinations with its standard error, and whether it is measured, (C, C) each."""
    n_real, n_fake = real.sum((2, 3)), (fake * (real > 0)).sum((2, 3))
    is_measured = (n_fake >= MIN_ROWS_IN_CELLS) & (n_real >= MIN_ROWS_IN_CELLS)
    p = real / np.maximum(n_real, 1)[..., None, None]
    q = fake * (real > 0) / np.maximum(n_fake, 1)[..., None, None]
    is_short = (real >= MIN_CELL_ROWS) & (p > CLEAR_SHARE_RATIO * q)
    p_short, q_short = ((part * is_short).sum((2, 3)) for part in (p, q))
    q_error = np.where(p_short > 0, np.maximum(q_short, 1 / np.maximum(n_fake, 1)), 0.0)
    variance = p_short * (1 - p_short) / np.maximum(n_real, 1)
    variance += CLEAR_SHARE_RATIO**2 * q_error * (1 - q_error) / np.maximum(n_fake, 1)
    return p_short - CLEAR_SHARE_RATIO * q_short, np.sqrt(variance), is_measured


def _correlations(scores: Floats) -> Floats:
    """Correlations of the columns of (N, C) scores, 0 for a constant column: (C, C)."""
    centered = scores - scores.mean(0)
    norm = np.sqrt((centered**2).sum(0))
    scaled = centered / np.where(norm > 1e-9, norm, np.inf)
    return np.asarray(scaled.T @ scaled)


def _cramers_v(counts: Floats) -> Floats:
    """Bias-corrected Cramér's V of the cells of each pair, (C, C) (Bergsma 2013)."""
    n = np.maximum(counts.sum((2, 3)), 2)
    rows, columns = counts.sum(3), counts.sum(2)  # (C, C, L) each
    expected = rows[..., :, None] * columns[..., None, :] / n[..., None, None]
    squared = np.where(expected > 0, (counts - expected) ** 2 / np.where(expected > 0, expected, 1), 0.0)
    n_rows, n_columns = ((part > 0).sum(2) for part in (rows, columns))
    bias = (n_rows - 1) * (n_columns - 1) / (n - 1)
    phi = np.maximum(squared.sum((2, 3)) / n - bias, 0)
    n_rows, n_columns = (part - (part - 1) ** 2 / (n - 1) for part in (n_rows, n_columns))
    return np.asarray(np.sqrt(phi / np.maximum(np.minimum(n_rows, n_columns) - 1, 1e-9)).clip(0, 1))
