"""Distance of table rows to their closest record, and whether they are nearer to training than to held-out rows.

The distance is SDMetrics' (`calculate_dcr`): the mean over columns of |a − b| over the reference's range for numbers
and dates, at most 1, and of 0 or 1 for categories; two missing values are equal, and one is as far as can be. Distances
that are compared with each other share the range of the training rows: heavy tails make that of any set a matter of
luck.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gandiag.interfaces import MetricResult
from gandiag.metrics.base import make_fraction_measurement, make_measurement
from gandiag.record import Measurement
from gandiag.sampling.content_keys import table_keys
from gandiag.sampling.latents import chunk_slices
from gandiag.sampling.stream_names import GENERATED_ORDER, HELDOUT_ORDER, REAL_ORDER
from gandiag.sampling.tables.columns import RawTable
from gandiag.sampling.tables.encoder import ColumnEncoder
from gandiag.stats.resampling import wilson_interval

MAX_ROWS = 1_000  # generated rows, and twice as many real ones, that are compared
CHUNK_ROWS = 500
KEYS = ("closest_record", "copied_rows", "closer_to_training")

Floats = npt.NDArray[np.float64]


def closest_record_distances(
    columns: Sequence[ColumnEncoder], rows: RawTable, reference: RawTable, scale: RawTable | None = None
) -> Floats:
    """The distance of each of (n,) rows to the nearest of the (m,) reference rows, in [0, 1]. Cost O(n m C).

    `scale`: the rows whose ranges divide differences of numbers; default the reference.
    """
    parts = [_comparable(column, rows, reference, scale or reference) for column in columns]
    nearest = np.empty(rows.n)
    for chunk in chunk_slices(rows.n, CHUNK_ROWS):
        total = np.zeros((chunk.stop - chunk.start, reference.n))
        for values, others, spread in parts:
            total += _differences(values[chunk], others, spread)
        nearest[chunk] = total.min(1) / len(parts)
    return nearest


def measure_closest_records(
    columns: Sequence[ColumnEncoder], training: RawTable, fake: RawTable, holdout: RawTable | None, *, seed: int = 0
) -> MetricResult:
    """Distances of generated rows to the training rows; the floor is that of held-out real rows.

    Without `holdout`, half of the real rows take its place, and whether generated rows are nearer to the training rows
    is not known. Both sets are cut to one size, because more rows are nearer.
    """
    is_heldout = holdout is not None
    training, fake = _by_content(training, REAL_ORDER), _by_content(fake, GENERATED_ORDER)
    training, holdout = _halve(training, seed) if holdout is None else (training, _by_content(holdout, HELDOUT_ORDER))
    n = min(training.n, holdout.n, 2 * MAX_ROWS)
    training, holdout, fake = _cut(training, n), _cut(holdout, n), _cut(fake, MAX_ROWS)
    distances = closest_record_distances(columns, fake, training)
    floors = closest_record_distances(columns, _cut(holdout, MAX_ROWS), training)
    others = closest_record_distances(columns, fake, holdout, training)
    copied, copied_floor = float((distances == 0).mean()), float((floors == 0).mean())
    if not is_heldout:  # both halves are training rows; a real row meets each with the same probability
        copied, copied_floor = float(((distances == 0) | (others == 0)).mean()), 1 - (1 - copied_floor) ** 2
    return MetricResult(
        {
            "closest_record": _measure_median(distances, float(np.median(floors))),
            "copied_rows": make_fraction_measurement(
                copied, 0.0, n=fake.n, floor=copied_floor, better="lower", unit="share of generated rows"
            ),
            "closer_to_training": _compare_with_training(distances, others if is_heldout else None),
        }
    )


def _compare_with_training(distances: Floats, others: Floats | None) -> Measurement:
    """The share of rows nearer to training than to held-out rows (n,), ties by half: .5 without memorization."""
    if others is None:
        return Measurement.missing("no held-out real rows: pass --holdout")
    share = float((distances < others).mean() + 0.5 * (distances == others).mean())
    low, high = wilson_interval(share, len(distances))
    return Measurement(share, low, high, 0.5, "share of generated rows", "lower", len(distances))


def _measure_median(distances: Floats, floor: float) -> Measurement:
    """The median with the interval of its order statistics."""
    n, ordered = len(distances), np.sort(distances)
    half = 0.98 * n**0.5
    low, high = ordered[max(0, int(n / 2 - half))], ordered[min(n - 1, int(n / 2 + half) + 1)]
    value = float(np.median(distances))
    measurement = make_measurement(value, 0.0, n=n, floor=floor, better="neither", unit="of the range")
    return Measurement(value, float(low), float(high), measurement.floor, measurement.unit, "neither", n)


def _comparable(
    column: ColumnEncoder, rows: RawTable, reference: RawTable, scale: RawTable
) -> tuple[Floats, Floats, float]:
    """Numbers of both tables with NaN where missing, and the range of `scale`; 0 for categories, as codes."""
    first, second = rows.column(column.name), reference.column(column.name)
    if column.kind != "category":
        values, others = first.values.astype(np.float64), second.values.astype(np.float64)
        known = scale.column(column.name).known_values().astype(np.float64)
        return values, others, float(known.max() - known.min()) if len(known) else 0.0
    words = [part.as_words() for part in (first, second)]
    codes = {word: float(code) for code, word in enumerate({*words[0], *words[1]} - {None})}
    values, others = (np.array([codes.get(word, np.nan) for word in part]) for part in words)
    return values, others, 0.0


def _differences(values: Floats, others: Floats, spread: float) -> Floats:
    """(n, m) distances of one column, in [0, 1]."""
    gap = np.abs(values[:, None] - others[None, :])
    gap = np.minimum(gap / spread, 1.0) if spread > 0 else (gap > 0).astype(np.float64)
    no_value, no_other = np.isnan(values)[:, None], np.isnan(others)[None, :]
    if no_value.any() or no_other.any():
        gap = np.where(no_value & no_other, 0.0, np.where(no_value | no_other, 1.0, gap))
    return gap


def _halve(table: RawTable, seed: int) -> tuple[RawTable, RawTable]:
    order = np.random.default_rng(seed).permutation(table.n)
    return table.take(order[: table.n // 2]), table.take(order[table.n // 2 :])


def _by_content(table: RawTable, stream: str) -> RawTable:
    """The rows in an order that their content decides."""
    return table.take(np.argsort(table_keys(table, stream).numpy(), kind="stable"))


def _cut(table: RawTable, n: int) -> RawTable:
    return table if table.n <= n else table.take(np.arange(n))
