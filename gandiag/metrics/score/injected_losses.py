"""What this score could see in these data: known losses are injected into held-out real rows and scored.

One half of the real rows is the reference. From the other half a generator with a known loss is made, so the question
is asked at half the number of samples that the audit has; the answer errs on the side of caution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from gandiag.config import DEFAULT_LIMIT
from gandiag.metrics.score.mode_partition import find_modes

LOSSES = (0.25, 0.5)
MAX_ROWS = 500  # generated rows of an injection
N_REGIONS = 12  # k-means regions that are narrowed, each towards its mean
ROWS_PER_SMALL_MODE = 5
MAX_SEPARATION_RATIO = 0.2  # nearest row in the same cell over the nearest in another: below it, cells are modes
N_COMPONENTS = 8  # leading principal components, across which a continuum is halved
MIN_ROWS = 40


@dataclass(frozen=True, slots=True)
class InjectedLoss:
    """`score` measured after `loss` of a `kind` was injected.

    Kinds: "modes" and "small_modes" are never made (where the data have such), "continuum" loses a half-space,
    "narrowing" shrinks regions, "repeats" recycles outputs.
    """

    kind: str
    loss: float
    score: float


def measure_injected_losses(
    real: Tensor, n: int, prepare_measure: Callable[[Tensor], Callable[[Tensor], float]], *, seed: int = 0
) -> tuple[InjectedLoss, ...]:
    """The score of each kind and size of loss in these data, (N, D), at up to n/2 generated rows.

    `prepare_measure(real)` gives the function from generated rows to the score's value. Empty with fewer than
    4 · MIN_ROWS real rows. Costs four to eight scores of at most 2 · MAX_ROWS real rows.
    """
    size = min(n // 2, MAX_ROWS, len(real) // 4)
    if size < MIN_ROWS:
        return ()
    generator = torch.Generator().manual_seed(seed)
    half = len(real) // 2
    reference, source = real[:half][: 2 * size], real[half:][: 2 * size]
    measure = prepare_measure(reference)
    modes = find_modes(reference, source, seed=seed).assign_modes(source)
    return tuple(
        InjectedLoss(kind, loss, measure(rows)) for kind, loss, rows in _make_generators(source, modes, size, generator)
    )


def bound_power(power: float | None, injected: Sequence[InjectedLoss], limit: float = DEFAULT_LIMIT) -> float | None:
    """The power of the interval, no smaller than the injections allow, in [0, 1].

    The interval's power is that against losses the estimate can see. Where a loss of .25 of a kind was injected and
    scored below half of the limit (the injections have half the samples), the smallest larger one that was seen counts,
    or 1 where none was.
    """
    if power is None:
        return None
    for kind in {entry.kind for entry in injected}:
        scores = {entry.loss: entry.score for entry in injected if entry.kind == kind}
        missed = max((loss for loss, score in scores.items() if not score >= limit / 2), default=0.0)
        if missed:
            power = max(power, min((loss for loss in scores if loss > missed), default=1.0))
    return power


def _make_generators(
    source: Tensor, modes: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[str, float, Tensor]]:
    """Kind, loss and `size` rows (or fewer, where the source has no more) of each injected generator."""
    small = _find_small_modes(source)
    for loss in LOSSES:
        if int(modes.max()) > 0:
            yield "modes", loss, _drop_cells(source, modes, loss, generator)[:size]
        if small is not None:
            yield "small_modes", loss, _drop_cells(source, small, loss, generator)[:size]
        yield "continuum", loss, _drop_half_space(source, loss)[:size]
    rows = source[:size]
    yield "narrowing", LOSSES[-1], _narrow(rows, LOSSES[-1], _find_cells(rows, N_REGIONS))
    yield "repeats", LOSSES[-1], _repeat(rows, LOSSES[-1])


def _find_cells(rows: Tensor, n_cells: int) -> Tensor:
    """The k-means cell of each row, (N,) int64."""
    n_cells = min(n_cells, len(torch.unique(rows, dim=0)))
    with threadpool_limits(limits=1):
        labels = KMeans(n_cells, n_init=1, max_iter=30, random_state=0).fit_predict(rows.numpy())
    return torch.from_numpy(labels).long()


def _find_small_modes(rows: Tensor) -> Tensor | None:
    """Cells of a few rows each where the data consist of separate groups of that size, else None."""
    if len(rows) < 8 * ROWS_PER_SMALL_MODE:
        return None
    cells = _find_cells(rows, len(rows) // ROWS_PER_SMALL_MODE)
    distances = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    is_same = cells[:, None] == cells
    inside = distances.masked_fill(~is_same, torch.inf).amin(1)
    outside = distances.masked_fill(is_same, torch.inf).amin(1)
    ratio = (inside / outside.clamp(min=1e-12))[inside.isfinite()]
    return cells if len(ratio) and float(ratio.median()) < MAX_SEPARATION_RATIO else None


def _drop_cells(rows: Tensor, cells: Tensor, loss: float, generator: torch.Generator) -> Tensor:
    """The rows without a random set of cells that holds about `loss` of them."""
    order = torch.randperm(int(cells.max()) + 1, generator=generator)
    share = cells.bincount(minlength=len(order))[order].cumsum(0) / len(rows)
    n_dropped = min(len(order) - 1, max(1, int((share <= loss + 0.5 / len(order)).sum())))
    kept = torch.ones(len(order), dtype=torch.bool)
    kept[order[:n_dropped]] = False
    return rows[kept[cells]]


def _drop_half_space(rows: Tensor, loss: float) -> Tensor:
    """The rows below the 1 − `loss` quantile of an even mixture of the leading principal components."""
    centered = rows - rows.mean(0)
    use_rows = centered.shape[1] > len(centered)  # decompose the smaller of N x N and D x D
    _, vectors = torch.linalg.eigh(centered @ centered.T if use_rows else centered.T @ centered)
    axes = vectors[:, -N_COMPONENTS:]
    scores = axes if use_rows else centered @ axes  # (N, C)
    position = (scores / scores.std(0).clamp(min=1e-9)).sum(1)
    return rows[position <= position.quantile(1 - loss)]


def _narrow(rows: Tensor, loss: float, cells: Tensor) -> Tensor:
    """Each row moved towards the mean of its cell, so that the cell keeps 1 − `loss` of its width."""
    total = torch.zeros(int(cells.max()) + 1, rows.shape[1]).index_add_(0, cells, rows)
    center = (total / cells.bincount().clamp(min=1)[:, None])[cells]
    return center + (1 - loss) * (rows - center)


def _repeat(rows: Tensor, loss: float) -> Tensor:
    """As many rows, of which only a fraction 1 − `loss` is distinct."""
    n_distinct = max(1, round((1 - loss) * len(rows)))
    return rows[torch.arange(len(rows)) % n_distinct]
