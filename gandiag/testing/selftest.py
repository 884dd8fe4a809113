"""Self-test: scores generators with a known loss, and compares the score with published metrics on this machine.

    document = run_selftest(SelfTestConfig(dims=(2, 64), seeds=(0,)))
    document["ok"], document["rows"][0]["score"]

Every row draws its own real and generated samples from its seed; a *null* comparison is between real samples and other
real samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.record import Score
from gandiag.testing.competing_metrics import TABLE_METRICS, compute_metrics
from gandiag.testing.selftest_rows import MIN_LOSS, CaseResult, make_case_row, make_null_row, summarize_rows
from gandiag.testing.toy_mixtures import ValidityCase, standard_mixture, validity_cases
from gandiag.verdict.policy import Policy, compute_score_verdict

SCHEMA = "gandiag.selftest/1"
N_NULL_SPLITS = 8  # splits of real samples in each mixture

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class SelfTestConfig:
    """What to run. `n` generated samples against 2n real ones; every seed gives another mixture and other samples."""

    dims: tuple[int, ...] = (2, 8, 64, 512)
    seeds: tuple[int, ...] = (0,)
    n: int = 1000
    replicates: int = 20
    cases: tuple[ValidityCase, ...] = validity_cases()
    n_threads: int = 0  # 0: as many as torch uses

    @property
    def n_runs(self) -> int:
        """Total number of comparisons."""
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
    """A dozen rows in 2 and 64 dimensions at n = 600: a few seconds."""
    cases = tuple(case for case in validity_cases() if case.name in QUICK_CASES)
    return SelfTestConfig(dims=(2, 64), n=600, replicates=12, cases=cases)


@dataclass(frozen=True, slots=True)
class _Job:
    """One comparison. `case` None: real against real, split number `split`."""

    dim: int
    seed: int
    case: ValidityCase | None
    split: int = 0

    def run(self, config: SelfTestConfig) -> CaseResult:
        mixture, n = standard_mixture(self.dim, self.seed), config.n
        first_seed = 1_000_000 * (self.seed + 1)
        if self.case is None:
            pool = mixture.sample(3 * n, first_seed + 10 + self.split)
            real, fake, loss = pool[: 2 * n], pool[2 * n :], 0.0
        else:
            corruption = self.case.corruption
            real, fake = mixture.sample(2 * n, first_seed + 1), corruption.sample(mixture, n, first_seed + 2)
            loss = corruption.true_loss(mixture)
        return evaluate_pair(real, fake, loss, seed=self.seed + self.split, replicates=config.replicates)


def evaluate_pair(
    real: torch.Tensor,
    fake: torch.Tensor,
    target: float,
    *,
    seed: int,
    replicates: int,
    metric_keys: Iterable[str] = TABLE_METRICS,
) -> CaseResult:
    """Score `fake` (n, D), whose true loss is `target`, against `real` (2n, D).

    The score uses all real rows, the other metrics as many as there are generated ones.
    """
    estimate = estimate_diversity_loss(real, fake, seed=seed, replicates=replicates)
    verdict: str = "inconclusive"
    if not estimate.inconclusive_reasons:
        verdict = compute_score_verdict(Score(**asdict(estimate.score)), Policy().limit)
    metrics = compute_metrics(real[: len(fake)], fake, metric_keys)
    return CaseResult(target, estimate.score, verdict, estimate.profile["off_manifold"].value, metrics)


def run_selftest(
    config: SelfTestConfig,
    progress: ProgressCallback = lambda stage, done, total: None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run all comparisons and return one JSON-ready document, which depends on `config` alone except for its duration.

    `ok`: every row is within its tolerance. Cost: about 0.6 s per comparison at n = 1,000 on one core, half of it for
    the interval.
    """
    start = time.monotonic()
    results = _run_jobs(config, progress, log)
    rows = []
    for dim in config.dims:
        null_sets = [[results[_Job(dim, seed, None, i)] for i in range(N_NULL_SPLITS)] for seed in config.seeds]
        rows.append(make_null_row(dim, [result for null_set in null_sets for result in null_set]))
        for case in config.cases:
            case_results = [results[_Job(dim, seed, case)] for seed in config.seeds]
            rows.append(make_case_row(dim, case, case_results, null_sets))
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


def _run_jobs(
    config: SelfTestConfig, progress: ProgressCallback, log: Callable[[str], None]
) -> Mapping[_Job, CaseResult]:
    jobs = [_Job(dim, seed, None, i) for dim in config.dims for seed in config.seeds for i in range(N_NULL_SPLITS)]
    jobs += [_Job(dim, seed, case) for dim in config.dims for seed in config.seeds for case in config.cases]
    n_threads = config.n_threads or torch.get_num_threads()
    _warm_up()
    timed_jobs = [next(job for job in jobs if job.dim == dim) for dim in config.dims]  # to estimate the duration
    results, seconds = {}, 0.0
    for job in timed_jobs:
        start = time.monotonic()
        results[job] = job.run(config)
        seconds += (time.monotonic() - start) * (config.n_runs / len(config.dims) - 1)
    plural = "s" * (n_threads > 1)
    log(f"{config.n_runs} comparisons, about {_format_duration(seconds / n_threads)} on {n_threads} thread{plural}")
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(job.run, config): job for job in jobs if job not in results}
        try:
            for count, future in enumerate(as_completed(futures), len(timed_jobs) + 1):
                results[futures[future]] = future.result()
                progress("selftest", count, config.n_runs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _warm_up() -> None:
    """Run one small comparison, so that imports are not timed."""
    real = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    evaluate_pair(real, torch.zeros(200, 2), 1.0, seed=0, replicates=2)


def _format_duration(seconds: float) -> str:
    return f"{max(5, 5 * round(seconds / 5))} s" if seconds < 120 else f"{round(seconds / 60)} min"
