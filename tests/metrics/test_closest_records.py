"""Distance to the closest record: by hand, against a plain loop, and with rows that are copies."""

from __future__ import annotations

import numpy as np
import pytest

import gandiag
from gandiag.errors import ConfigError
from gandiag.metrics.closest_records import closest_record_distances, measure_closest_records
from gandiag.sampling.tables.columns import RawTable, column_from_objects, make_table
from gandiag.sampling.tables.encoder import TableEncoder, fit_encoder
from gandiag.sampling.tables.types import plan_columns


def table(**columns: list[object]) -> RawTable:
    return make_table("t", [column_from_objects(name, values) for name, values in columns.items()])


def fit(real: RawTable, fake: RawTable) -> TableEncoder:
    return fit_encoder(real, fake, plan_columns(real, fake, {}))


def draw(n: int, seed: int) -> RawTable:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=n)
    return table(
        size=[None if lacking else value for value, lacking in zip(numbers.tolist(), rng.random(n) < 0.1, strict=True)],
        price=np.exp(numbers + rng.normal(size=n)).tolist(),
        cut=rng.choice(["x", "y", "z", None], n).tolist(),
    )


def test_distances_by_hand() -> None:
    real = table(a=[0.0, 10.0, None], b=["x", "y", "y"])
    rows = table(a=[2.5, None, 99.0], b=["x", "y", "z"])
    # (2.5/10 + 0)/2; missing equals missing; one category is unseen and the number is 10 ranges away, at most 1
    assert closest_record_distances(fit(real, rows).columns, rows, real).tolist() == [0.125, 0.0, 1.0]


def test_distances_equal_a_plain_loop() -> None:
    """The loop is SDMetrics' definition; its calculate_dcr gave the same to the last bit on such tables."""
    real, rows = draw(60, 0), draw(40, 1)
    expected = []
    spans = {name: np.ptp(real.column(name).known_values()) for name in ("size", "price")}
    for i in range(rows.n):
        distances = []
        for j in range(real.n):
            total = 0.0
            for name in ("size", "price", "cut"):
                a, b = rows.column(name).as_words()[i], real.column(name).as_words()[j]
                if a is None or b is None or name == "cut":
                    total += float(a != b)
                else:
                    gap = abs(rows.column(name).values[i] - real.column(name).values[j])
                    total += min(1.0, gap / spans[name])
            distances.append(total / 3)
        expected.append(min(distances))
    result = closest_record_distances(fit(real, rows).columns, rows, real)
    assert result == pytest.approx(expected, abs=1e-12)


def test_copies_of_training_rows_are_seen_against_a_holdout() -> None:
    training, holdout, fresh = draw(400, 0), draw(400, 1), draw(300, 2)
    copies = training.take(np.arange(300))
    columns = fit(training, fresh).columns
    honest = measure_closest_records(columns, training, fresh, holdout).measurements
    copied = measure_closest_records(columns, training, copies, holdout).measurements
    assert honest["closer_to_training"].low < 0.5 < honest["closer_to_training"].high
    assert copied["closer_to_training"].low > 0.9 and copied["copied_rows"].value == 1.0
    assert honest["copied_rows"].value == honest["copied_rows"].floor == 0.0
    alone = measure_closest_records(columns, training, fresh, None).measurements
    assert alone["closer_to_training"].status == "not_measured"


def test_the_audit_reports_copied_rows() -> None:
    pandas = pytest.importorskip("pandas")
    frames = [
        pandas.DataFrame({column.name: list(column.values) for column in draw(n, seed).columns})
        for n, seed in ((800, 0), (800, 1), (400, 2))
    ]
    training, holdout, fresh = frames
    fresh.iloc[:200] = training.iloc[:200].to_numpy()
    record = gandiag.audit(fresh, real=training, holdout=holdout, exhibits=False)
    texts = {finding.rule: finding.text for finding in record.findings}
    assert "nearer to a training row" in texts["GD353"] and "equal a training row" in texts["GD353"]
    with pytest.raises(ConfigError, match="needs the training rows"):
        gandiag.audit(fresh, holdout=holdout)
    with pytest.raises(ConfigError, match="for tables"):
        gandiag.audit(np.zeros((200, 2), "float32"), real=np.zeros((200, 2), "float32"), holdout=holdout)
