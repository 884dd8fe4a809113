"""Encodes table rows as feature vectors: rank-normal scores of numbers against the real column, one-hot categories.

Two typical values of a number lie √2 apart, and so do two categories: every column has about the same weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.sampling.tables.columns import Numbers, RawColumn, RawTable, format_date, format_number
from gandiag.sampling.tables.types import ColumnKind, ColumnPlan

MAX_BINS = 20  # ranges of a number; with fewer distinct values, one range per value
MIN_KNOTS, MAX_KNOTS, ROWS_PER_KNOT = 20, 100, 10  # of the map from values to scores
MISSING, UNSEEN = "(missing)", "(not in the real data)"


@dataclass(frozen=True, slots=True)
class ColumnEncoder:
    """One column. Number or date: (score, 1 if missing); category: one-hot with missing and unseen values of their own.

    `values`: quantiles of the real numbers, ascending, and `scores` their rank-normal scores, ties at their mid-rank;
    between them scores are linear, so that real rows keep their spacing. `edges`: scores that bound the ranges, and
    `bounds`: the smallest and largest real value of each. `categories`: of a category, the most frequent first.
    """

    name: str
    kind: ColumnKind
    categories: tuple[str, ...] = ()
    values: Numbers = field(default_factory=lambda: np.empty(0))
    scores: Numbers = field(default_factory=lambda: np.empty(0))
    edges: Numbers = field(default_factory=lambda: np.empty(0))
    bounds: Numbers = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.categories) + 2 if self.kind == "category" else 2

    @property
    def n_codes(self) -> int:
        """Number of categories or ranges, with missing (the second last) and unseen (the last)."""
        return (len(self.categories) if self.kind == "category" else len(self.edges) + 1) + 2

    def encode(self, column: RawColumn) -> npt.NDArray[np.float32]:
        """(n, width) float32."""
        if self.kind == "category":
            return np.eye(self.width, dtype=np.float32)[self._find_categories(column)]
        values = column.values.astype(np.float64)
        is_missing = np.isnan(values)
        scores = np.where(is_missing, 0.0, self._score(np.where(is_missing, self.values[0], values)))
        return np.stack([scores, is_missing], 1).astype(np.float32)

    def find_codes(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The category or range of each encoded row (n, width): (n,) in 0 … n_codes - 1."""
        if self.kind == "category":
            return np.asarray(features.argmax(1), dtype=np.int64)
        codes = np.searchsorted(self.edges, features[:, 0].astype(np.float64), side="right").astype(np.int64)
        codes[features[:, 1] > 0.5] = self.n_codes - 2
        return codes

    def describe_codes(self, first: int, last: int) -> str:
        """A category by name; the ranges `first` … `last` of a number as "17 to 23", "below 17", "above 80"."""
        if first >= self.n_codes - 2:
            return (MISSING, UNSEEN)[first - (self.n_codes - 2)]
        if self.kind == "category":
            return self.categories[first]
        write = format_date if self.kind == "date" else format_number
        low, high = write(float(self.bounds[first, 0])), write(float(self.bounds[last, 1]))
        if low == high:
            return low
        return f"below {high}" if first == 0 else f"above {low}" if last == len(self.edges) else f"{low} to {high}"

    def _score(self, values: Numbers) -> Numbers:
        """Scores by interpolation between real values; beyond them, up to 1 further out."""
        low, high = self.values[0], self.values[-1]
        spread = max(high - low, 1e-300)
        scores: Numbers = np.interp(values, self.values, self.scores)
        with np.errstate(over="ignore", invalid="ignore"):
            above, below = ((beyond / spread).clip(0, 1e6) for beyond in (values - high, low - values))
        return np.asarray(scores + above / (1 + above) - below / (1 + below))

    def _find_categories(self, column: RawColumn) -> npt.NDArray[np.int64]:
        known = {name: code for code, name in enumerate(self.categories)}
        n = len(self.categories)
        return np.array(
            [n if word is None else known.get(word, n + 1) for word in column.as_words()], dtype=np.int64
        ).reshape(-1)


@dataclass(frozen=True, slots=True)
class TableEncoder:
    """All columns that are compared, and the plans of those left out."""

    columns: tuple[ColumnEncoder, ...]
    left_out: tuple[ColumnPlan, ...] = ()

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    def encode(self, table: RawTable) -> Tensor:
        """(n, width) float32."""
        parts = [column.encode(table.column(column.name)) for column in self.columns]
        return torch.from_numpy(np.concatenate(parts, 1))

    def split(self, features: Tensor) -> list[npt.NDArray[np.float32]]:
        """The features of each column: (n, width of the column) each."""
        ends = np.cumsum([column.width for column in self.columns])[:-1]
        return np.split(features.detach().cpu().numpy(), ends, axis=1)


def fit_encoder(real: RawTable, fake: RawTable | None, plans: Sequence[ColumnPlan]) -> TableEncoder:
    """An encoder for both tables. Columns without variety in the real data are left out; SourceError if none is left.

    Without generated rows (`fake` None) a table of constants is kept: every row is then the same.
    """
    columns, left_out = [], [plan for plan in plans if plan.kind is None]
    constant = []
    for plan in plans:
        if plan.kind is None:
            continue
        real_column, fake_column = real.column(plan.name), None if fake is None else fake.column(plan.name)
        encoder = _fit_column(plan, real_column)
        if is_constant(real_column, fake_column):
            constant.append(encoder)
            left_out.append(ColumnPlan(plan.name, None, "constant" if fake is None else "constant in both tables"))
            continue
        if is_constant(real_column, None):
            left_out.append(ColumnPlan(plan.name, None, "constant in the real data, not in the generated"))
            continue
        columns.append(encoder)
    if not columns and constant and fake is None:
        return TableEncoder(tuple(constant), tuple(plan for plan in left_out if not plan.reason.startswith("constant")))
    if not columns:
        reasons = "; ".join(f"{plan.name} ({plan.reason})" for plan in left_out[:6])
        raise SourceError(f"no column is left to compare: {reasons}", "pass columns that vary")
    return TableEncoder(tuple(columns), tuple(left_out))


def is_constant(real: RawColumn, fake: RawColumn | None) -> bool:
    """Whether a column has one value, the same in both tables; missing counts as a value."""
    values = [
        column.values if column.is_numeric else column.as_words() for column in (real, fake) if column is not None
    ]
    first = values[0][0] if len(values[0]) else None
    if isinstance(first, float) and np.isnan(first):
        return all(part.dtype.kind == "f" and bool(np.isnan(part.astype(np.float64)).all()) for part in values)
    return all(bool((part == first).all()) for part in values)


def _fit_column(plan: ColumnPlan, column: RawColumn) -> ColumnEncoder:
    assert plan.kind is not None
    known = column.known_values()
    if plan.kind == "category" or not len(known):
        words = [word for word in column.as_words() if word is not None]
        names, counts = np.unique(np.array(words, dtype=str), return_counts=True) if words else ((), np.empty(0))
        order = np.argsort(-np.asarray(counts), kind="stable")
        return ColumnEncoder(plan.name, "category", tuple(str(names[index]) for index in order))
    values, counts = np.unique(known.astype(np.float64), return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    knots = _choose_knots(ranks, len(known))
    scores = np.asarray(ndtri(ranks[knots]), dtype=np.float64)
    all_scores = np.interp(values, values[knots], scores)
    edges = _bin_edges(all_scores, counts)
    codes = np.searchsorted(edges, all_scores, side="right")
    bounds = [(values[codes == code].min(), values[codes == code].max()) for code in range(len(edges) + 1)]
    return ColumnEncoder(plan.name, plan.kind, (), values[knots], scores, edges, np.array(bounds))


def _choose_knots(ranks: Numbers, n: int) -> npt.NDArray[np.int64]:
    """Positions of distinct values at evenly spaced ranks, and of the outermost ones, doubling inwards: ascending."""
    n_inner = min(MAX_KNOTS, max(MIN_KNOTS, n // ROWS_PER_KNOT))
    if len(ranks) <= n_inner:
        return np.arange(len(ranks))
    inner = np.searchsorted(ranks, np.linspace(0, 1, n_inner + 1)).clip(0, len(ranks) - 1)
    tail = 2 ** np.arange(int(np.log2(max(len(ranks) // n_inner, 1))) + 1) - 1
    return np.unique(np.concatenate([inner, tail, len(ranks) - 1 - tail]))


def _bin_edges(scores: Numbers, counts: npt.NDArray[np.int64]) -> Numbers:
    """Scores between ranges of about equal real mass; no range divides a value."""
    if len(scores) <= MAX_BINS:
        upper = np.arange(1, len(scores))
    else:
        cumulative = np.cumsum(counts) / counts.sum()
        targets = np.arange(1, MAX_BINS) / MAX_BINS
        upper = np.unique(np.searchsorted(cumulative, targets - 1e-12, side="left") + 1)
        upper = upper[upper < len(scores)]
    return np.asarray((scores[upper - 1] + scores[upper]) / 2)
