"""The score on simulated tables: fresh draws are never called collapsed, damaged ones nearly always."""

from __future__ import annotations

import pytest
from table_worlds import as_table, damage, make_world

from gandiag.metrics.distinct_rows import estimate_repeated_rows, has_repeated_rows
from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.metrics.table_score import estimate_table_losses, include_table_losses
from gandiag.sampling.tables.columns import RawTable
from gandiag.sampling.tables.reader import TableReader, fit_pair

LIMIT = 0.15


def judge(real: RawTable, fake: RawTable) -> tuple[str, float]:
    """The verdict and the score of a generated table."""
    encoder, _ = fit_pair(TableReader(real), TableReader(fake), {})
    rows = encoder.encode(real)[:4000], encoder.encode(fake)[:2000]
    joint = estimate_repeated_rows(*rows) if has_repeated_rows(*rows) else estimate_diversity_loss(*rows)
    estimate = include_table_losses(joint, estimate_table_losses(encoder, *rows))
    score = estimate.score
    if estimate.inconclusive_reasons or score.low < LIMIT <= score.high:
        return "inconclusive", score.value
    return ("collapsed" if score.low >= LIMIT else "healthy"), score.value


@pytest.mark.slow
def test_fresh_draws_are_never_called_collapsed() -> None:
    verdicts = []
    for seed in range(91_000, 91_040):
        world, rng = make_world(seed)
        real, fake = (as_table(world.draw(n, rng)[0]) for n in (world.n_real, world.n_real // 2))
        verdicts.append(judge(real, fake)[0])
    assert verdicts.count("collapsed") == 0
    assert verdicts.count("inconclusive") <= 4


@pytest.mark.slow
def test_damaged_tables_are_called_collapsed() -> None:
    """Dropped clusters are left out of the error: where they overlap, less is lost than their share."""
    verdicts, errors = [], []
    for seed in range(90_000, 90_045):
        world, rng = make_world(seed)
        real = as_table(world.draw(world.n_real, rng)[0])
        damaged = damage(world, rng)
        if damaged is None:
            continue
        name, lost, rows = damaged
        verdict, score = judge(real, as_table(rows))
        if name == "clusters":
            continue
        verdicts.append(verdict)
        if name in ("category", "half"):
            errors.append(abs(score - lost))
    assert len(verdicts) >= 25 and verdicts.count("healthy") == 0
    assert verdicts.count("collapsed") >= 0.9 * len(verdicts)
    assert sum(errors) / len(errors) < 0.05
