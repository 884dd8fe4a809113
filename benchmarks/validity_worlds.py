"""Healthy and collapsed generators of laws that the score was not made for: how often each verdict, how far off.

    python -m benchmarks validity --mode worlds --first-seed 1000           # fresh seeds
    python -m benchmarks validity --mode worlds --full                      # 200 healthy and 200 collapsed ones

Each law draws its parameters from the seed. The collapsed ones lose .3 to .9 by dropped groups, repeats or narrowing.
Other metrics stand beside the score on the same rows: how often a collapsed generator looks worse than a healthy one of
the same law (AUC, mean over the laws), and the Spearman correlation of their values with the true loss, law by law.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np
import torch
from kept_results import KeptResults
from scipy.stats import spearmanr
from validity import seeds_of

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.competing_metrics import compute_metrics, metric_direction
from gandiag.testing.selftest_rows import roc_auc

Sampler = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""(n, random) -> rows (n, D) and the group of each row (n,)."""
LIMIT = 0.15
LOSSES = ("groups", "repeats", "narrowing")
OTHERS = ("frechet", "coverage", "recall", "vendi_1", "irs", "pqmass")


def one_hot(random: np.random.Generator) -> Sampler:
    tables = [random.dirichlet(np.ones(k)) for k in random.integers(2, 9, 4)]

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        codes = [draw.choice(len(p), n, p=p) for p in tables]
        return np.concatenate([np.eye(len(p))[c] for p, c in zip(tables, codes, strict=True)], 1), codes[0]

    return sample


def integers(random: np.random.Generator) -> Sampler:
    rates = random.uniform(1, 30, (6, 8))

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        group = draw.integers(0, 6, n)
        return draw.poisson(rates[group]).astype(float), group

    return sample


def heavy_tails(random: np.random.Generator) -> Sampler:
    centers = 6 * random.normal(size=(6, 12))

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        group = draw.integers(0, 6, n)
        return centers[group] + draw.standard_t(3, (n, 12)), group

    return sample


def outliers(random: np.random.Generator) -> Sampler:
    centers = 4 * random.normal(size=(8, 10))

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        group = draw.integers(0, 8, n)
        scale = np.where(draw.random((n, 1)) < 0.01, 100.0, 1.0)
        return (centers[group] + draw.normal(size=(n, 10))) * scale, group

    return sample


def long_tail(random: np.random.Generator) -> Sampler:
    centers, weights = 5 * random.normal(size=(20, 16)), np.arange(1, 21.0) ** -1.0
    weights /= weights.sum()

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        group = draw.choice(20, n, p=weights)
        return centers[group] + draw.normal(size=(n, 16)), group

    return sample


def duplicates(random: np.random.Generator) -> Sampler:
    pool = random.normal(size=(400, 6)) + 4 * random.normal(size=(5, 6))[np.arange(400) % 5]

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        index = draw.integers(0, 400, n)
        return pool[index], index % 5

    return sample


def series(random: np.random.Generator) -> Sampler:
    frequency = random.uniform(0.5, 6, 5)

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        group, time = draw.integers(0, 5, n), np.linspace(0, 1, 48)
        phase = draw.uniform(0, 2 * np.pi, (n, 1))
        return np.sin(2 * np.pi * frequency[group, None] * time + phase) + 0.1 * draw.normal(size=(n, 48)), group

    return sample


def curved(random: np.random.Generator) -> Sampler:
    basis = random.normal(size=(3, 24))

    def sample(n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        angle = draw.uniform(0, 2 * np.pi, n)
        inner = np.c_[np.cos(angle), np.sin(angle), draw.normal(size=n)]
        return np.tanh(inner @ basis) + 0.05 * draw.normal(size=(n, 24)), (angle / (2 * np.pi) * 8).astype(int)

    return sample


LAWS: dict[str, Callable[[np.random.Generator], Sampler]] = {
    "one-hot rows": one_hot,
    "counts": integers,
    "heavy tails": heavy_tails,
    "1 % outliers": outliers,
    "long tail of modes": long_tail,
    "duplicates in the data": duplicates,
    "series": series,
    "curved manifold": curved,
}


def damage(kind: str, sample: Sampler, n: int, loss: float, random: np.random.Generator) -> tuple[np.ndarray, float]:
    """n generated rows with about this loss of one kind, and the loss that they really have."""
    rows, group = sample(4 * n, random)
    if kind == "repeats":
        kept = max(2, round((1 - loss) * n))
        return rows[:n][random.permutation(np.arange(n) % kept)], 1 - kept / n
    if kind == "narrowing":
        means = np.stack(
            [rows[group == g].mean(0) if (group == g).any() else rows.mean(0) for g in range(group.max() + 1)]
        )
        return (means[group] + (1 - loss) * (rows - means[group]))[:n], loss
    share = np.bincount(group) / len(group)
    order = random.permutation(len(share))
    dropped = order[: max(1, int((np.cumsum(share[order]) <= loss + 0.1).sum()))]
    kept_rows = rows[~np.isin(group, dropped)]
    return kept_rows[random.permutation(len(kept_rows))[:n]], float(share[dropped].sum())


def is_measurable(kind: str, law: str) -> bool:
    """Whether a damage is a loss of that size in this law: discrete rows cannot be narrowed, and repeat anyway."""
    discrete = law in ("one-hot rows", "duplicates in the data", "counts")
    return kind == "groups" or not (discrete or (kind == "narrowing" and law in ("series", "curved manifold")))


@dataclass(frozen=True, slots=True)
class Found:
    """One generator: its law and damage, true loss, score with interval, and other metrics."""

    law: str
    kind: str
    truth: float
    value: float
    low: float
    high: float
    others: dict[str, float]


def measure(law: str, kind: str, truth: float, real: np.ndarray, fake: np.ndarray) -> Found:
    rows = torch.tensor(real).float(), torch.tensor(fake).float()
    score = estimate_diversity_loss(*rows, seed=0).score
    others = compute_metrics(rows[0][: len(fake)], rows[1], OTHERS)
    return Found(law, kind, truth, score.value, score.low, score.high, others)


def run(options: argparse.Namespace) -> None:
    kept = KeptResults(options.keep)
    found: list[Found] = []
    n = min(options.n, 1000)
    for seed in seeds_of(options, 4, 25):
        for law in LAWS:
            rows = kept.get(
                f"{law} {seed} {n}", lambda law=law, seed=seed: [asdict(row) for row in judge(law, seed, n)]
            )  # type: ignore[misc]
            found += [Found(**row) for row in rows]
    healthy, collapsed = ([row for row in found if (row.kind != "none") == lost] for lost in (False, True))
    _print_healthy(healthy)
    _print_collapsed(collapsed)
    _print_others(healthy, collapsed)


def judge(law: str, seed: int, n: int) -> list[Found]:
    """A healthy generator of one law, and a collapsed one unless too little is lost."""
    sample = LAWS[law](np.random.default_rng(seed))
    real, _ = sample(2 * n, np.random.default_rng(10_000 + seed))
    fresh, _ = sample(n, np.random.default_rng(20_000 + seed))
    random = np.random.default_rng(30_000 + seed)
    kinds = [kind for kind in LOSSES if is_measurable(kind, law)]
    kind = kinds[seed % len(kinds)]
    fake, truth = damage(kind, sample, n, float(random.uniform(0.3, 0.9)), random)
    rows = [measure(law, "none", 0.0, real, fresh)]
    return [*rows, measure(law, kind, truth, real, fake)] if truth >= 0.3 and len(fake) >= 100 else rows


def _print_others(healthy: list[Found], collapsed: list[Found]) -> None:
    print("on the same rows, mean over laws:       " + "  ".join(f"{key:>8s}" for key in ("score", *OTHERS)))
    areas: list[str] = []
    ranks: list[str] = []
    for key in ("score", *OTHERS):
        by_law: list[tuple[float, float]] = []
        for law in LAWS:
            none, lost = ([row for row in rows if row.law == law] for rows in (healthy, collapsed))
            if not lost:
                continue
            values = [[row.value if key == "score" else row.others[key] for row in rows] for rows in (none, lost)]
            area = roc_auc(values[1], values[0], "lower" if key == "score" else metric_direction(key))
            truth = [row.truth for row in none + lost]
            both = values[0] + values[1]
            rank = abs(float(spearmanr(truth, both).statistic)) if len(set(both)) > 1 else 0.0
            by_law.append((area, rank))
        areas.append(f"{fmean(area for area, _ in by_law):8.2f}")
        ranks.append(f"{fmean(rank for _, rank in by_law):8.2f}")
    print("    AUC, collapsed against healthy      " + "  ".join(areas))
    print("    |Spearman| to the true loss         " + "  ".join(ranks))


def _print_healthy(rows: list[Found]) -> None:
    called = [row for row in rows if row.low >= LIMIT]
    undecided = [row for row in rows if row.low < LIMIT <= row.high]
    print(
        f"{len(rows)} healthy: {len(called)} called collapsed, {len(undecided)} inconclusive, "
        f"interval holds 0 in {fmean(row.low <= 0.005 for row in rows):.0%}, "
        f"mean {fmean(row.value for row in rows):.3f}"
    )
    for row in called + undecided:
        print(f"    {row.law:28s} {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]")


def _print_collapsed(rows: list[Found]) -> None:
    called = fmean(row.low >= LIMIT for row in rows)
    missed = [row for row in rows if row.high < LIMIT]
    error = fmean(abs(row.value - row.truth) for row in rows)
    print(f"{len(rows)} collapsed: {called:.0%} called, {len(missed)} healthy, mean absolute error {error:.3f}")
    for row in sorted(rows, key=lambda row: -abs(row.value - row.truth))[:15]:
        name = f"{row.law}, {row.kind}"
        print(f"    {name:36s} truth {row.truth:.2f}  {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]")
