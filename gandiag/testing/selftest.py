"""Does the score hold on this machine? Generators with a known loss, judged by the score and by what else people measure.

    document = selftest(Plan(dims=(2, 64), seeds=(0,)))
    document["ok"], document["rows"][0]["score"]

Every row draws its own real and generated samples from its seed; a *null* row compares real samples with real ones. Another
metric *tells* a row from clean where it lies further to its documented bad side than real against real does by chance.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.stats import t

from gandiag.interfaces import Estimate
from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.record import Score
from gandiag.testing.competing_metrics import TABLE_METRICS, compute_metrics, metric_direction
from gandiag.testing.toy_mixtures import ValidityCase, standard_mixture, validity_cases
from gandiag.verdict.policy import Policy, compute_score_verdict

SCHEMA = "gandiag.selftest/1"
TOLERANCE = 0.10  # of the mean over seeds in a row with a loss,
NULL_TOLERANCE = 0.05  # and in one without; but never less than
MAX_STANDARD_ERRORS = 3.0  # standard errors of that mean, by its own interval: few seeds prove little
N_NULL_SPLITS = 8  # splits of real samples in each world
DETECTION_LEVEL = 0.995  # one-sided level at which a metric tells a row from real against real
MIN_LOSS = 0.25  # the loss that a metric is asked to tell from none

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class SelfTestConfig:
    """What to run. `n` generated samples against 2n real ones; every seed is another world with other samples."""

    dims: tuple[int, ...] = (2, 8, 64, 512)
    seeds: tuple[int, ...] = (0,)
    n: int = 1000
    replicates: int = 20
    cases: tuple[ValidityCase, ...] = validity_cases()
    n_threads: int = 0  # 0: as many as torch has

    @property
    def n_runs(self) -> int:
        """Comparisons in all."""
        return len(self.dims) * len(self.seeds) * (len(self.cases) + N_NULL_SPLITS)


QUICK_CASES = (
    "clean",
    "modes kept 0.75",
    "modes kept 0.5",
    "every second mode",
    "mode width × 0.5",
    "Zipf weights, s = 1",
    "distinct outputs 0.5",
    "one point",
    "junk 20 %",
    "noise 1",
    "half + junk 20 %",
    "half + noise 1",
    "half + width 0.5",
)


def quick_config() -> SelfTestConfig:
    """A dozen rows in 2 and 64 dimensions at n = 600: some seconds."""
    return SelfTestConfig(
        dims=(2, 64), n=600, replicates=12, cases=tuple(case for case in validity_cases() if case.name in QUICK_CASES)
    )


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One comparison: the score, its verdict at the default limit, and the other metrics by key."""

    target: float
    score: Estimate
    verdict: str
    off_manifold: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Job:
    """`case` None: real against real, split number `split`."""

    dim: int
    seed: int
    case: ValidityCase | None
    split: int = 0

    def run(self, plan: SelfTestConfig) -> CaseResult:
        world, n = standard_mixture(self.dim, self.seed), plan.n
        base = 1_000_000 * (self.seed + 1)
        if self.case is None:
            pool = world.sample(3 * n, base + 10 + self.split)
            return evaluate_pair(
                pool[: 2 * n], pool[2 * n :], 0.0, seed=self.seed + self.split, replicates=plan.replicates
            )
        real, fake = world.sample(2 * n, base + 1), self.case.corruption.sample(world, n, base + 2)
        return evaluate_pair(
            real, fake, self.case.corruption.true_loss(world), seed=self.seed, replicates=plan.replicates
        )


def evaluate_pair(
    real: torch.Tensor,
    fake: torch.Tensor,
    target: float,
    *,
    seed: int,
    replicates: int,
    metric_keys: Iterable[str] = TABLE_METRICS,
) -> CaseResult:
    """Judge `fake` (n, D) against `real` (2n, D): the score uses all real rows, the other metrics as many as there are generated ones."""
    found = estimate_diversity_loss(real, fake, seed=seed, replicates=replicates)
    verdict = (
        "inconclusive"
        if found.inconclusive_reasons
        else compute_score_verdict(Score(**asdict(found.score)), Policy().limit)
    )
    return CaseResult(
        target,
        found.score,
        verdict,
        found.profile["off_manifold"].value,
        compute_metrics(real[: len(fake)], fake, metric_keys),
    )


def run_selftest(
    config: SelfTestConfig,
    progress: ProgressCallback = lambda stage, done, total: None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run the plan and return one JSON-ready document. A pure function of the plan, but for its seconds.

    `ok`: every row is within its tolerance. Cost: about 0.6 s a comparison at n = 1,000 on one core, half of it for the interval.
    """
    start = time.monotonic()
    done = _run(config, progress, log)
    nulls = {
        (dim, seed): [done[_Job(dim, seed, None, i)] for i in range(N_NULL_SPLITS)]
        for dim in config.dims
        for seed in config.seeds
    }
    rows = []
    for dim in config.dims:
        rows.append(_null_row(dim, [seen for seed in config.seeds for seen in nulls[dim, seed]], config))
        rows += [
            _row(
                dim,
                case,
                [done[_Job(dim, seed, case)] for seed in config.seeds],
                [nulls[dim, seed] for seed in config.seeds],
            )
            for case in config.cases
        ]
    off = [f"{row['name']} in {row['dim']}-D" for row in rows if not row["ok"]]
    return {
        "schema": SCHEMA,
        "ok": not off,
        "off": off,
        "n": config.n,
        "n_real": 2 * config.n,
        "seeds": list(config.seeds),
        "dims": list(config.dims),
        "nulls": N_NULL_SPLITS,
        "limit": Policy().limit,
        "lost": MIN_LOSS,
        "mean_absolute_error": fmean(abs(row["error"]) for row in rows),
        "rows": rows,
        "summary": summarize_rows(rows),
        "seconds": time.monotonic() - start,
    }


def _run(plan: SelfTestConfig, progress: ProgressCallback, say: Callable[[str], None]) -> dict[_Job, CaseResult]:
    jobs = [_Job(dim, seed, None, i) for dim in plan.dims for seed in plan.seeds for i in range(N_NULL_SPLITS)]
    jobs += [_Job(dim, seed, case) for dim in plan.dims for seed in plan.seeds for case in plan.cases]
    threads = plan.n_threads or torch.get_num_threads()
    evaluate_pair(
        torch.randn(400, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(200, 2), 1.0, seed=0, replicates=2
    )  # imports, not to be timed
    first = [next(job for job in jobs if job.dim == dim) for dim in plan.dims]  # they tell how long the rest will take
    done, seconds = {}, 0.0
    for job in first:
        began = time.monotonic()
        done[job] = job.run(plan)
        seconds += (time.monotonic() - began) * (plan.n_runs / len(plan.dims) - 1)
    say(f"{plan.n_runs} comparisons, about {_duration(seconds / threads)} on {threads} thread{'s' * (threads > 1)}")
    rest = [job for job in jobs if job not in done]
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(job.run, plan): job for job in rest}
        try:
            for count, future in enumerate(as_completed(futures), len(first) + 1):
                done[futures[future]] = future.result()
                progress("selftest", count, plan.n_runs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def _duration(seconds: float) -> str:
    return f"{max(5, 5 * round(seconds / 5))} s" if seconds < 120 else f"{round(seconds / 60)} min"


def _row(
    dim: int, case: ValidityCase, seen: Sequence[CaseResult], nulls: Sequence[Sequence[CaseResult]]
) -> dict[str, Any]:
    """The mean over seeds; a metric tells the row where it does so in most of them."""
    metrics = {}
    for key in seen[0].metrics:
        marks = [
            is_detected(one.metrics[key], [null.metrics[key] for null in null_set], metric_direction(key))
            for one, null_set in zip(seen, nulls, strict=True)
        ]
        metrics[key] = {"value": fmean(one.metrics[key] for one in seen), "told": fmean(marks) > 0.5}
    return {**_common(dim, case.name, case.group, seen), "metrics": metrics}


def _null_row(dim: int, seen: Sequence[CaseResult], plan: SelfTestConfig) -> dict[str, Any]:
    metrics = {key: {"value": fmean(one.metrics[key] for one in seen), "told": False} for key in seen[0].metrics}
    row = {**_common(dim, "real against real", "null", seen), "metrics": metrics}
    return {**row, "ok": row["ok"] and "collapsed" not in row["verdicts"]}


def _common(dim: int, name: str, group: str, seen: Sequence[CaseResult]) -> dict[str, Any]:
    target, value, low, high = (
        fmean(column)
        for column in zip(*((s.target, s.score.value, s.score.low, s.score.high) for s in seen), strict=True)
    )
    chance = (
        MAX_STANDARD_ERRORS * max(high - value, value - low) / 1.96 / math.sqrt(len(seen))
    )  # the wider side: the other may be cut at 0 or 1
    limit = max(TOLERANCE if target > 0 else NULL_TOLERANCE, chance)
    return {
        "dim": dim,
        "name": name,
        "group": group,
        "target": target,
        "score": {"value": value, "low": low, "high": high},
        "error": value - target,
        "tolerance": limit,
        "ok": abs(value - target) <= limit,
        "covered": fmean(s.score.low <= s.target <= s.score.high for s in seen),
        "off_manifold": fmean(s.off_manifold for s in seen),
        "verdicts": dict(Counter(s.verdict for s in seen)),
        "repeats": len(seen),
    }


def is_detected(value: float, null_values: Sequence[float], direction: str) -> bool:
    """Is `value` on the bad side of `nulls` by more than one more null would be, at level SURE? A t prediction bound."""
    reach = (
        float(t.ppf(DETECTION_LEVEL, len(null_values) - 1)) * stdev(null_values) * math.sqrt(1 + 1 / len(null_values))
    )
    off = value - fmean(null_values)
    return abs(off) > reach if direction == "neither" else (off if direction == "lower" else -off) > reach


def summarize_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For the score and each metric: rows that lost LOST or more and were told from clean, rows that lost nothing and were, and the area under the curve.

    The score tells a row by its verdict, collapsed. `auc`: the chance that a row with such a loss looks worse than one with none, mean over dimensions.
    """
    lost, none = [row for row in rows if row["target"] >= MIN_LOSS], [row for row in rows if row["target"] == 0]
    out = {}
    for key in ("score", *rows[0]["metrics"]):
        found, alarms = (sum(_told(row, key) for row in side) for side in (lost, none))
        out[key] = {
            "found": found,
            "of": len(lost),
            "alarms": alarms,
            "of_none": len(none),
            "auc": _mean_auc(rows, key),
        }
    return out


def _told(row: Mapping[str, Any], key: str) -> bool:
    if key != "score":
        return bool(row["metrics"][key]["told"])
    return bool(row["verdicts"].get("collapsed", 0) > row["repeats"] / 2)


def _mean_auc(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    sides: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        if row["target"] >= MIN_LOSS or row["target"] == 0:
            value = row["score"]["value"] if key == "score" else row["metrics"][key]["value"]
            sides[row["dim"]][row["target"] == 0].append(value)
    areas = [
        roc_auc(lost, none, "lower" if key == "score" else metric_direction(key))
        for lost, none in sides.values()
        if lost and none
    ]
    return fmean(areas) if areas else None


def roc_auc(loss_values: Sequence[float], null_values: Sequence[float], direction: str) -> float:
    """The probability that a loss reads worse than none, ties for half: the area under the ROC curve, in [0, 1].

    `direction`: which way is better; "neither": whichever separates more, in the metric's favour.
    """
    a, b = torch.tensor(loss_values, dtype=torch.float64), torch.tensor(null_values, dtype=torch.float64)
    above = float((a[:, None] > b).double().mean() + (a[:, None] == b).double().mean() / 2)
    return max(above, 1 - above) if direction == "neither" else above if direction == "lower" else 1 - above
