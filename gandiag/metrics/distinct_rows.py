"""The loss of data whose rows repeat exactly, such as tables of few categories: shares of distinct rows, compared.

Distances and neighborhoods mean nothing where most rows have an exact twin; shares of distinct rows mean everything.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.metrics.column_losses import MIN_POOLED_ROWS, Counts, find_never_made, measure_variation, pool_rare
from gandiag.metrics.score.estimator import POWER_Z_SCORE, Z_SCORE, DiversityEstimate
from gandiag.stats.resampling import draw_halves, wilson_interval

MIN_TWIN_SHARE = 0.8  # of real rows that equal another real row
MIN_MATCHED_SHARE = 0.5  # of generated rows that equal a real row


def has_repeated_rows(real: Tensor, fake: Tensor) -> bool:
    """Whether most real rows (N, D) equal another one, and most generated rows (M, D) a real one."""
    real_codes, fake_codes = number_rows(real, fake)
    counts = np.bincount(real_codes, minlength=int(fake_codes.max(initial=0)) + 1)
    is_twin = counts[real_codes] > 1
    return bool(is_twin.mean() >= MIN_TWIN_SHARE and (counts[fake_codes] > 0).mean() >= MIN_MATCHED_SHARE)


def number_rows(real: Tensor, fake: Tensor) -> tuple[Counts, Counts]:
    """The number of each row among the distinct rows of both sets: (N,) and (M,)."""
    rows = torch.cat([real.flatten(1), fake.flatten(1)]).cpu().numpy() + np.float32(0)  # −0 is 0
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    codes = np.unique(keys, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes[: len(real)], codes[len(real) :]


def estimate_repeated_rows(real: Tensor, fake: Tensor, *, seed: int = 0, replicates: int = 20) -> DiversityEstimate:
    """Total variation of the shares of distinct rows, less its bias, or rare rows that are not made if that is more.

    Rows that no real row equals are fidelity (`off_manifold`) and do not count. The replicates are those of random
    halves.
    """
    codes = number_rows(real, fake)
    value, error, missing = _measure(*codes)
    generator = torch.Generator().manual_seed(seed)
    halves = [draw_halves((len(real), len(fake)), generator) for _ in range(replicates)]
    half_values = tuple(
        min(max(_measure(codes[0][first.numpy()], codes[1][second.numpy()])[0], 0.0), 1.0) for first, second in halves
    )
    real_counts, fake_counts = _count(*codes)
    unseen = float(fake_counts[real_counts == 0].sum() / fake_counts.sum())
    expected = float((real_counts == 1).sum() / real_counts.sum())  # Good and Turing: the chance of an unseen row
    score = _estimate(value, error)
    skewed = max(0.0, 1 - (1 - value) / max(1 - missing, 1e-9))
    off_low, off_high = wilson_interval(unseen, len(fake))
    profile = {
        "missing": _estimate(missing, error if missing else 0.0),
        "skewed": _estimate(skewed, error),
        "narrowed": Estimate(0.0, 0.0, 0.0),
        "duplicated": Estimate(0.0, 0.0, 0.0),
        "off_manifold": Estimate(*(max(0.0, share - expected) for share in (unseen, off_low, off_high))),
    }
    return DiversityEstimate(
        score=score,
        profile=profile,
        power=min(1.0, (Z_SCORE + POWER_Z_SCORE) * error),
        n=min(len(fake), len(real) // 2),
        replicates=half_values,
        inconclusive_reasons=(),
    )


def _measure(real: Counts, fake: Counts) -> tuple[float, float, float]:
    """(loss, standard error, part of it in rows that are never made) from the numbers of real and generated rows."""
    real_counts, fake_counts = _count(real, fake)
    never = find_never_made(real_counts, fake_counts)
    missing = float(real_counts[never].sum() / real_counts.sum())
    has_real = real_counts > 0
    shares = real_counts[has_real], fake_counts[has_real]
    if not shares[1].sum():
        return 1.0, 0.0, 1.0
    value, error = measure_variation(*pool_rare(*shares))
    rare_value, rare_error = _measure_rare(real, fake, real_counts)
    if rare_value - Z_SCORE * rare_error > value:
        value, error = rare_value, rare_error
    return max(value, missing), error, min(missing, max(value, missing))


def _measure_rare(real: Counts, fake: Counts, counts: Counts) -> tuple[float, float]:
    """The lost share of rare real rows: how many have an equal among generated rows, against held-out real rows."""
    n = min(len(fake), len(real) // 2)
    order = np.random.default_rng(0).permutation(len(real))
    reference, heldout = real[order[:n]], real[order[n : 2 * n]]
    rare = reference[counts[reference] < MIN_POOLED_ROWS]
    if len(rare) < MIN_POOLED_ROWS:
        return 0.0, 0.0
    made, possible = (float(np.isin(rare, part[:n]).mean()) for part in (fake, heldout))
    if not possible:
        return 0.0, 0.0
    error = math.sqrt((made * (1 - made) + possible * (1 - possible)) / len(rare)) / possible
    share = len(rare) / n
    return share * max(0.0, 1 - made / possible), share * error


def _count(real: Counts, fake: Counts) -> tuple[Counts, Counts]:
    n_codes = int(max(real.max(initial=0), fake.max(initial=0))) + 1
    return np.bincount(real, minlength=n_codes), np.bincount(fake, minlength=n_codes)


def _estimate(value: float, error: float) -> Estimate:
    low, high = (min(max(bound, 0.0), 1.0) for bound in (value - Z_SCORE * error, value + Z_SCORE * error))
    return Estimate(min(max(value, 0.0), 1.0), low, high)
