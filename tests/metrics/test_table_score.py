"""Losses of columns and pairs, and the score of tables: right answers on tables with known damage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gandiag
from gandiag.metrics.table_score import TableLosses, estimate_table_losses
from gandiag.record import Record
from gandiag.sampling.tables.columns import RawTable, column_from_objects, make_table, table_from_array
from gandiag.sampling.tables.encoder import fit_encoder
from gandiag.sampling.tables.types import plan_columns

N = 1000


def table(columns: dict[str, np.ndarray]) -> RawTable:  # type: ignore[type-arg]
    return make_table("t", [column_from_objects(name, values.tolist()) for name, values in columns.items()])


def losses(real: dict[str, np.ndarray], fake: dict[str, np.ndarray]) -> TableLosses:  # type: ignore[type-arg]
    tables = table(real), table(fake)
    encoder = fit_encoder(*tables, plan_columns(*tables, {}))
    return estimate_table_losses(encoder, *(encoder.encode(part) for part in tables))


def draw(n: int, seed: int) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    return {
        "cut": rng.choice(["Ideal", "Premium", "Good", "Fair"], n, p=[0.5, 0.25, 0.15, 0.1]),
        "size": size,
        "price": np.exp(2 * size + 0.3 * rng.normal(size=n)),
        "count": rng.poisson(3, n).astype(float),
    }


def test_a_fresh_draw_loses_nothing() -> None:
    result = losses(draw(2 * N, 0), draw(N, 1))
    assert result.worst() is None
    assert all(column.loss.value < 0.05 and not column.never_made for column in result.columns)
    assert all(pair.loss is not None and pair.loss.low == 0 for pair in result.pairs)


def test_lost_categories_are_named_and_weighed() -> None:
    fake = draw(2 * N, 1)
    kept = ~np.isin(fake["cut"], ["Good", "Fair"])
    result = losses(draw(2 * N, 0), {name: values[kept] for name, values in fake.items()})
    column = result.columns[0]
    assert column.never_made == ("Good", "Fair")
    assert column.loss.low <= 0.25 <= column.loss.high and column.loss.low > 0.15
    assert abs(column.never_made_share - 0.25) < 0.03
    worst = result.worst()
    assert worst is not None and worst[1] == ("cut",)


def test_a_lost_range_is_named_and_weighed() -> None:
    fake = draw(3 * N, 1)
    kept = fake["size"] < 0
    result = losses(draw(2 * N, 0), {name: values[kept] for name, values in fake.items()})
    size = next(column for column in result.columns if column.name == "size")
    assert len(size.never_made) == 1 and size.never_made[0].startswith("above ")
    assert abs(float(size.never_made[0].removeprefix("above "))) < 0.3
    assert size.loss.low <= 0.5 <= size.loss.high + 0.06


def test_narrowed_numbers_lose_their_width() -> None:
    fake = draw(N, 1)
    fake["size"] = fake["size"] * 0.5
    column = losses(draw(2 * N, 0), fake).columns[1]
    assert column.narrowed == pytest.approx(0.5, abs=0.05) and column.loss.low > 0.4


def test_a_moved_column_is_fidelity() -> None:
    fake = draw(N, 1)
    fake["size"] = fake["size"] + 0.3
    assert losses(draw(2 * N, 0), fake).columns[1].loss.low < 0.05


def test_a_constant_column_has_lost_all_other_values() -> None:
    fake = draw(N, 1)
    fake["count"], fake["size"] = np.full(N, 3.0), np.full(N, 0.123)
    columns = losses(draw(2 * N, 0), fake).columns
    assert columns[3].is_constant and columns[3].loss.low < 0.776 < columns[3].loss.high  # 1 - P(3) of Poisson(3)
    assert columns[1].is_constant and columns[1].loss.value == 1.0


def test_a_constant_column_counts_at_least_as_the_limit() -> None:
    rng = np.random.default_rng(0)
    real = {"fraud": (rng.random(2000) < 0.06).astype(float), "size": rng.normal(size=2000)}
    fake = {"fraud": np.zeros(1000), "size": rng.normal(size=1000)}
    column = losses(real, fake).columns[0]
    assert column.is_constant and column.loss.low == 0.15 and column.loss.value == 0.15


def test_a_rare_value_that_may_be_absent_by_chance_is_no_loss() -> None:
    real = {"a": np.array(["x"] * 998 + ["y"] * 2), "b": np.random.default_rng(0).normal(size=1000)}
    fake = {"a": np.array(["x"] * 500), "b": np.random.default_rng(1).normal(size=500)}
    column = losses(real, fake).columns[0]
    assert not column.is_constant and not column.never_made and column.loss.low == 0


def test_lost_combinations_are_seen_where_both_columns_are_whole() -> None:
    rng = np.random.default_rng(0)
    real = {"a": rng.choice(["x", "y"], 2 * N), "b": rng.choice(["u", "v"], 2 * N)}
    same = rng.choice(["x", "y"], N)
    fake = {"a": same, "b": np.where(same == "x", "u", "v")}
    result = losses(real, fake)
    assert all(column.loss.low == 0 for column in result.columns)
    (pair,) = result.pairs
    assert pair.loss is not None and pair.loss.low <= 0.5 <= pair.loss.high and pair.loss.low > 0.4
    assert pair.change.high < -0.8  # an association is invented


def test_a_lost_association_is_no_lost_variety() -> None:
    fake = draw(N, 1)
    fake["price"] = np.random.default_rng(2).permutation(fake["price"])
    result = losses(draw(2 * N, 0), fake)
    pair = next(pair for pair in result.pairs if pair.names == ("size", "price"))
    assert pair.real_association > 0.95 and abs(pair.fake_association) < 0.1 and pair.change.low > 0.8
    assert pair.loss is None or pair.loss.low == 0


def test_missing_values_are_counted_and_their_absence_is_a_loss() -> None:
    real, fake = draw(2 * N, 0), draw(N, 1)
    real["size"] = np.where(np.arange(2 * N) % 5 == 0, np.nan, real["size"])
    column = losses(real, fake).columns[1]
    assert column.missing == (pytest.approx(0.2), 0.0)
    assert "(missing)" in column.never_made and column.loss.low <= 0.2 <= column.loss.high


def audit(real: dict[str, np.ndarray], fake: dict[str, np.ndarray], **settings: object) -> Record:  # type: ignore[type-arg]
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(part) for part in (fake, real)]
    return gandiag.audit(frames[0], real=frames[1], exhibits=False, **settings)


def test_the_audit_of_a_table_names_its_columns() -> None:
    fake = draw(1000, 1)
    kept = ~np.isin(fake["cut"], ["Good", "Fair"])
    fake = {name: values[kept] for name, values in fake.items()}
    fake["price"] = np.full(kept.sum(), 2.0)
    record = audit(draw(1000, 0), fake)
    texts = {finding.rule: finding.text for finding in record.findings}
    assert record.verdict == "collapsed" and {"constant_columns", "lost_values"} <= set(record.kinds)
    assert "cut: Good, Fair never made" in texts["GD151"] and "price" in texts["GD152"]
    assert record.table["score_of"] == ["price"]
    assert all(finding.remedies for finding in record.findings if finding.rule in ("GD151", "GD152"))
    assert Record.from_json(record.to_json()).table == record.table
    assert record.subject["output"]["kind"] == "table"


def test_a_healthy_table_is_healthy() -> None:
    record = audit(draw(800, 0), draw(400, 1))
    assert record.verdict == "healthy"
    assert not {finding.rule for finding in record.findings} & {"GD151", "GD152", "GD153", "GD154", "GD351", "GD352"}


def test_vectors_in_units_of_their_own_are_compared_by_column() -> None:
    rng = np.random.default_rng(0)
    centers = rng.uniform(size=(8, 7))

    def rows(n: int, modes: list[int]) -> np.ndarray:  # type: ignore[type-arg]
        small = centers[rng.choice(modes, n)] + 0.03 * rng.normal(size=(n, 7))
        return np.c_[30_000 + 1000 * rng.normal(size=n), small].astype("float32")

    real, fake = rows(1000, list(range(8))), rows(500, [0])
    record = gandiag.audit(fake, real=real, exhibits=False)
    assert record.verdict == "collapsed" and abs(record.score.value - 0.875) < 0.05
    assert [entry["data"] for entry in record.subject["assumptions"] if entry["setting"] == "features"] == ["table"]
    assert gandiag.audit(rows(500, list(range(8))), real=real, exhibits=False).verdict == "healthy"


def test_arrays_take_their_columns_by_position() -> None:
    array = np.random.default_rng(0).normal(size=(N, 2))
    encoder = fit_encoder(table_from_array(array, "a"), None, plan_columns(table_from_array(array, "a"), None, {}))
    assert isinstance(encoder.encode(table_from_array(array, "b")), torch.Tensor)
