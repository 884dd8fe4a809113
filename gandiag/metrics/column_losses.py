"""Lost variety column by column: categories and ranges never made, narrowed numbers, constant columns.

Categories: the total variation of their shares, less its bias; mode balance by another name. Numbers and dates: the
real share of ranges that are made less than a third as often as they should be, or the lost width, whichever is more;
values moved by less are fidelity. A column that has one value only has lost the real rows with other values, and counts
at least as much as the limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gandiag.config import DEFAULT_LIMIT
from gandiag.interfaces import Estimate
from gandiag.sampling.tables.encoder import ColumnEncoder, TableEncoder

CLEAR_SHARE_RATIO = 3.0  # a range is short where real rows are more than this many times as frequent
MIN_POOLED_ROWS = 10  # categories with fewer rows, real and generated, are counted together
NOISE_BAND = 2.0  # shares that differ by fewer standard errors may be equal
MAX_TIE_SHARE = 0.02  # of the rows of a number that have one value; more common ones have no width
MIN_CONTINUOUS_SHARE = 0.2
MIN_OTHER_SHARE = 0.02  # of rows without the most common value, from which a constant column has lost variety
NEVER_MADE_CHANCE = 0.01  # that faithful samples would lack a category or range by luck
MADE_RATIO = 0.1  # of its real share, below which a category or range counts as never made

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ColumnLoss:
    """The lost variety of one column. `loss.low` is corrected for the number of columns and pairs that are tested.

    `short`: part of `loss` in categories or ranges too rarely made; `narrowed`: lost width of numbers.
    `never_made`: categories or ranges, the most frequent first, and `never_made_share` of the real rows. `missing`,
    `unseen`: shares (real, generated) of rows without a value, and of generated rows whose category is not in the data.
    """

    name: str
    kind: str
    loss: Estimate
    short: float
    narrowed: float
    is_constant: bool
    never_made: tuple[str, ...]
    never_made_share: float
    missing: tuple[float, float]
    unseen: float


def estimate_column_losses(
    encoder: TableEncoder, real: Tensor, fake: Tensor, *, z_low: float
) -> tuple[list[ColumnLoss], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The loss of every column, and the codes of real (N, C) and generated (M, C) rows.

    `real`, `fake`: rows as encoded, (N, width) and (M, width). `z_low`: standard errors of the corrected lower bound.
    """
    losses, real_codes, fake_codes = [], [], []
    for column, real_part, fake_part in zip(encoder.columns, encoder.split(real), encoder.split(fake), strict=True):
        codes = column.find_codes(real_part), column.find_codes(fake_part)
        scores = (real_part[:, 0], fake_part[:, 0])
        losses.append(_estimate_column(column, codes, scores, z_low))
        real_codes.append(codes[0])
        fake_codes.append(codes[1])
    return losses, np.stack(real_codes, 1), np.stack(fake_codes, 1)


def _estimate_column(
    column: ColumnEncoder,
    codes: tuple[Counts, Counts],
    scores: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    z_low: float,
) -> ColumnLoss:
    real, fake = (np.bincount(part, minlength=column.n_codes) for part in codes)
    short, narrowed = measure_shortfall(column, real, fake), (0.0, 0.0)
    if column.kind != "category":
        narrowed = _measure_narrowing(column, codes, scores)
    value, error = max(short, narrowed)
    is_constant = _has_one_value(fake, scores[1], column) and _is_unlikely_constant(real, int(fake.sum()))
    if is_constant:
        loss = _estimate_constant(codes, scores, z_low)
    else:
        low, high = value - z_low * error, value + 1.96 * error
        loss = Estimate(*(min(max(bound, 0.0), 1.0) for bound in (value, low, high)))
    never = find_never_made(real, fake)
    return ColumnLoss(
        column.name,
        column.kind,
        loss,
        short=short[0],
        narrowed=narrowed[0],
        is_constant=is_constant,
        never_made=_name_codes(column, never, real),
        never_made_share=float(real[never].sum() / real.sum()),
        missing=(float(real[-2] / real.sum()), float(fake[-2] / fake.sum())),
        unseen=float(fake[-1] / fake.sum()) if column.kind == "category" else 0.0,
    )


def measure_shortfall(column: ColumnEncoder, real: Counts, fake: Counts) -> tuple[float, float]:
    """The real share that is too rarely made, (value, standard error), from counts by code.

    Generated rows whose category or missing value the real data do not have are fidelity and do not count.
    """
    has_real = real > 0
    real, fake = real[has_real], fake[has_real]
    if not fake.sum():
        return 0.0, 0.0
    if column.kind == "category":
        return measure_variation(*pool_rare(real, fake))
    return measure_short_share(real, fake)


def pool_rare(real: Counts, fake: Counts) -> tuple[Counts, Counts]:
    """Counts with the rare cells counted together.

    Rare by both sets: a choice by the real counts alone would favor cells of which the real data have many by chance.
    """
    is_rare = real + fake < MIN_POOLED_ROWS
    if is_rare.sum() < 2:
        return real, fake
    first, second = (np.append(part[~is_rare], part[is_rare].sum()) for part in (real, fake))
    return first, second


def measure_short_share(real: Counts, fake: Counts) -> tuple[float, float]:
    """Σ max(0, p − 3 q) over cells with real share p and generated share q, (value, standard error)."""
    n_real, n_fake = int(real.sum()), int(fake.sum())
    is_short = real / n_real > CLEAR_SHARE_RATIO * fake / n_fake
    p, q = float(real[is_short].sum() / n_real), float(fake[is_short].sum() / n_fake)
    return p - CLEAR_SHARE_RATIO * q, _shortfall_error(p, q, n_real, n_fake, CLEAR_SHARE_RATIO)


def measure_variation(real: Counts, fake: Counts) -> tuple[float, float]:
    """Total variation of two sets of shares, less the part that noise alone gives it, (value, standard error)."""
    n_real, n_fake = int(real.sum()), int(fake.sum())
    p, q = real / n_real, fake / n_fake
    pooled = (real + fake) / (n_real + n_fake)
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / n_real + 1 / n_fake))
    may_be_equal = np.abs(p - q) < NOISE_BAND * error
    variation = float(np.maximum(p - q, 0).sum() - 0.4 * error[may_be_equal].sum())  # E max(0, N(0, σ²)) = 0.4 σ
    is_short = p > q
    p_short, q_short = float(p[is_short].sum()), float(q[is_short].sum())
    return max(variation, 0.0), _shortfall_error(p_short, q_short, n_real, n_fake, 1.0)


def _shortfall_error(p: float, q: float, n_real: int, n_fake: int, ratio: float) -> float:
    """Standard error of p − ratio q, of two binomial shares; one generated row is never certain to be absent."""
    q = max(q, 1 / n_fake) if p else q
    return math.sqrt(p * (1 - p) / n_real + ratio**2 * q * (1 - q) / n_fake)


def _measure_narrowing(
    column: ColumnEncoder,
    codes: tuple[Counts, Counts],
    scores: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> tuple[float, float]:
    """The lost fraction of the standard deviation of scores, of values that are not common ones: (value, error)."""
    real, fake = (part[code < column.n_codes - 2] for part, code in zip(scores, codes, strict=True))
    values, counts = np.unique(real, return_counts=True)
    common = values[counts > MAX_TIE_SHARE * len(real)]
    real, fake = real[~np.isin(real, common)], fake[~np.isin(fake, common)]
    share = len(real) / len(codes[0])
    if share < MIN_CONTINUOUS_SHARE or min(len(real), len(fake)) < MIN_POOLED_ROWS:
        return 0.0, 0.0
    (real_std, real_error), (fake_std, fake_error) = _std_and_error(real), _std_and_error(fake)
    ratio = fake_std / max(real_std, 1e-12)
    return share * max(0.0, 1 - ratio), share * ratio * math.hypot(real_error, fake_error)


def _std_and_error(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The standard deviation and its relative standard error, √((kurtosis − 1) / 4n)."""
    centered = values.astype(np.float64) - values.mean(dtype=np.float64)
    variance = float((centered**2).mean())
    if variance <= 0:
        return 0.0, 0.0
    kurtosis = float((centered**4).mean()) / variance**2
    return math.sqrt(variance), math.sqrt(max(kurtosis - 1, 0.1) / (4 * len(values)))


def _has_one_value(fake: Counts, scores: npt.NDArray[np.float32], column: ColumnEncoder) -> bool:
    return int((fake > 0).sum()) == 1 and (column.kind == "category" or bool((scores == scores[0]).all()))


def _estimate_constant(
    codes: tuple[Counts, Counts], scores: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], z_low: float
) -> Estimate:
    """The real share of other values than the only generated one, at least DEFAULT_LIMIT."""
    is_other = (codes[0] != codes[1][0]) | (scores[0] != scores[1][0])
    share, n = float(is_other.mean()), len(is_other)
    error = math.sqrt(share * (1 - share) / n)
    low, high = max(DEFAULT_LIMIT, share - z_low * error), max(DEFAULT_LIMIT, min(1.0, share + 1.96 * error))
    return Estimate(max(DEFAULT_LIMIT, share), low, high)


def _is_unlikely_constant(real: Counts, n_fake: int) -> bool:
    """Whether faithful samples would not have had one value only, by chance."""
    share = float(real.max() / real.sum())
    return 1 - share >= MIN_OTHER_SHARE and share**n_fake < NEVER_MADE_CHANCE


def find_never_made(real: Counts, fake: Counts) -> Counts:
    """Codes that the samples lack, (K,): made less than a tenth as often, where chance does not explain it."""
    n_real, n_fake = int(real.sum()), int(fake.sum())
    expected = real / n_real * n_fake
    needed = math.log(max(int((real > 0).sum()), 1) / NEVER_MADE_CHANCE)  # Poisson: P(0) = exp(−expected)
    # The real count errs too: by two standard errors less, it must still be enough.
    surely = (real - 2 * np.sqrt(real)).clip(0) / n_real * n_fake
    is_lacking = (fake < MADE_RATIO * expected) & (surely - fake / MADE_RATIO * 0.5 > needed)
    return np.flatnonzero(is_lacking)


def _name_codes(column: ColumnEncoder, codes: Counts, real: Counts) -> tuple[str, ...]:
    """Names of categories, the most frequent first, or of ranges, adjacent ones joined."""
    if column.kind == "category":
        return tuple(column.describe_codes(code, code) for code in sorted(codes.tolist(), key=lambda code: -real[code]))
    ranges: list[list[int]] = []
    for code in codes.tolist():
        if ranges and code == ranges[-1][1] + 1 and code < column.n_codes - 2:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return tuple(column.describe_codes(first, last) for first, last in ranges)
