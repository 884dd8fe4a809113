"""Simulated tables of mixed types, and the damage that generators do to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gandiag.sampling.tables.columns import RawColumn, RawTable, make_table

Rows = list[np.ndarray]  # one array per column
KINDS = ("normal", "lognormal", "t2", "poisson", "zero_inflated", "bimodal", "uniform", "category", "skewed", "binary")
KIND_SHARES = (0.17, 0.11, 0.09, 0.12, 0.09, 0.06, 0.09, 0.13, 0.09, 0.05)
MAX_ROWS = 2000  # generated rows: so many are scored, and repeats count among these
DAMAGES = ("clusters", "category", "constant", "half", "recycle")


@dataclass(frozen=True)
class World:
    """A law of table rows: `n_real` rows, clusters with `shares`, and columns that depend on them."""

    n_real: int
    shares: np.ndarray
    kinds: tuple[str, ...]
    draw: Callable[[int, np.random.Generator], tuple[Rows, np.ndarray]]


def make_world(seed: int) -> tuple[World, np.random.Generator]:
    """A world and the generator that its tables are drawn with: 2 to 100 columns, 300 to 10,000 rows."""
    rng = np.random.default_rng(seed)
    n_columns = int(rng.choice([2, 3, 4, 6, 8, 12, 20, 40, 100]))
    n_real = int(rng.choice([300, 600, 1000, 2000, 4000, 10_000]))
    n_clusters = int(rng.choice([1, 2, 4, 8]))
    shares = rng.dirichlet(np.full(n_clusters, 3.0))
    columns = []
    for _ in range(n_columns):
        kind = str(rng.choice(KINDS, p=KIND_SHARES))
        n_values = int(rng.integers(2, 20))
        chances = rng.dirichlet(np.full(n_values, 1.0 if kind == "category" else 0.3), size=n_clusters)
        if rng.random() < 0.5:
            chances[:] = chances[0]
        column = {
            "kind": kind,
            "means": rng.normal(0, 1.5 * (rng.random() < 0.7), n_clusters),
            "common": rng.random(),
            "chances": chances,
            "unit": 10 ** rng.uniform(-3, 5),
            "rare": rng.beta(1, 4),
            "gaps": 0.15 * (rng.random() < 0.2),
        }
        columns.append(column)

    def draw(n: int, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
        cluster, common = rng.choice(n_clusters, n, p=shares), rng.normal(size=n)
        return [_draw_column(column, cluster, common, rng) for column in columns], cluster

    return World(n_real, shares, tuple(str(column["kind"]) for column in columns), draw), rng


def _draw_column(
    column: dict[str, Any], cluster: np.ndarray, common: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    kind, n, unit, means = column["kind"], len(cluster), column["unit"], column["means"][cluster]
    value = means + column["common"] * common + np.sqrt(1 - 0.9 * column["common"] ** 2) * rng.normal(size=n)
    if kind in ("category", "skewed"):
        ends = column["chances"][cluster].cumsum(1)
        codes = (rng.random(n)[:, None] > ends).sum(1).clip(0, ends.shape[1] - 1)
        return np.array([f"v{code}" for code in codes], dtype=object)
    if kind == "lognormal":
        value = np.exp(value) * unit
    elif kind == "t2":
        value = (means + rng.standard_t(2, n)) * unit
    elif kind == "poisson":
        value = rng.poisson(np.exp(np.clip(0.5 * value + 1, -3, 4))).astype(float)
    elif kind == "zero_inflated":
        value = np.where(rng.random(n) < 0.6, 0, np.round(np.exp(value) * 10))
    elif kind == "bimodal":
        value = (0.1 * value + np.where(rng.random(n) < 0.5, 0, 5)) * unit
    elif kind == "uniform":
        value = rng.random(n) * unit
    elif kind == "binary":
        value = (rng.random(n) < column["rare"]).astype(float)
    else:
        value = value * unit
    return np.where(rng.random(n) < column["gaps"], np.nan, value)


def damage(world: World, rng: np.random.Generator) -> tuple[str, float, Rows] | None:
    """(kind of damage, lost share, generated rows), .25 to .95 lost; None where no damage applies to this world.

    "clusters": some clusters are never made, an upper bound on what is lost, since clusters overlap.
    """
    n = min(world.n_real // 2, MAX_ROWS)
    for name in rng.permutation(DAMAGES):
        rows, cluster = world.draw(6 * n, rng)
        keep = _DAMAGES[name](world, rows, cluster, rng)
        if keep is None or not 0.05 <= keep.mean() <= 0.75:
            continue
        chosen = np.flatnonzero(keep)
        lost = 1 - float(keep.mean())
        if name == "recycle":
            distinct = max(2, int(rng.uniform(0.1, 0.6) * n))
            chosen, lost = rng.integers(0, distinct, n), 1 - distinct / n
        if len(chosen) >= n:
            return str(name), lost, [values[chosen[:n]] for values in rows]
    return None


def _keep_clusters(world: World, rows: Rows, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    order = np.argsort(world.shares)
    return np.isin(cluster, order[world.shares[order].cumsum() > rng.uniform(0.3, 0.9)])


def _keep_categories(world: World, rows: Rows, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    candidates = [index for index, kind in enumerate(world.kinds) if kind in ("category", "skewed")]
    if not candidates:
        return None
    values = rows[rng.choice(candidates)]
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(counts)
    return np.isin(values, names[order][counts[order].cumsum() / len(values) > rng.uniform(0.3, 0.9)])


def _keep_half(world: World, rows: Rows, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    candidates = [index for index, kind in enumerate(world.kinds) if kind in ("normal", "lognormal", "t2", "uniform")]
    if not candidates:
        return None
    values = rows[rng.choice(candidates)]
    return values > np.nanquantile(values, rng.uniform(0.3, 0.7))


def _keep_one_value(world: World, rows: Rows, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Marks the rows with the value that the column is set to, of all rows."""
    index = int(rng.integers(len(rows)))
    values = rows[index]
    is_kept = values == values[0]
    if values.dtype.kind == "f":
        is_kept |= np.isnan(values) & np.isnan(values[0])
    rows[index] = np.full(len(values), values[0], dtype=values.dtype)
    if is_kept.mean() < 0.05:  # a number: nearly all values are lost
        is_kept[:] = False
        is_kept[: len(values) // 4] = True
    return is_kept


_DAMAGES: dict[str, Callable[..., np.ndarray | None]] = {
    "clusters": _keep_clusters,
    "category": _keep_categories,
    "half": _keep_half,
    "constant": _keep_one_value,
    "recycle": lambda world, rows, cluster, rng: np.arange(len(cluster)) % 2 == 0,
}


def as_table(rows: Rows) -> RawTable:
    """The rows as a table with columns c0, c1, …"""
    return make_table("world", [RawColumn(f"c{index}", values) for index, values in enumerate(rows)])
