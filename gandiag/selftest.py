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

from gandiag.contracts import Estimate
from gandiag.judge.policy import Policy, verdict_of_score
from gandiag.metrics.variety import variety
from gandiag.record import Score
from gandiag.rivals import COLUMNS, better, compare
from gandiag.testing import Case, cases, standard_world

SCHEMA = "gandiag.selftest/1"
TOLERANCE = 0.10  # of the mean over seeds in a row with a loss,
SPARED = 0.05  # and in one without; but never less than
CHANCE = 3.0  # standard errors of that mean, by its own interval: few seeds prove little
NULLS = 8  # splits of real samples in each world
SURE = 0.995  # one-sided level at which a metric tells a row from real against real
LOST = 0.25  # the loss that a metric is asked to tell from none

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `n` generated samples against 2n real ones; every seed is another world with other samples."""

    dims: tuple[int, ...] = (2, 8, 64, 512)
    seeds: tuple[int, ...] = (0,)
    n: int = 1000
    replicates: int = 20
    rows: tuple[Case, ...] = cases()
    threads: int = 0  # 0: as many as torch has

    @property
    def count(self) -> int:
        """Comparisons in all."""
        return len(self.dims) * len(self.seeds) * (len(self.rows) + NULLS)


QUICK = ("clean", "modes kept 0.75", "modes kept 0.5", "every second mode", "mode width × 0.5", "Zipf weights, s = 1", "distinct outputs 0.5", "one point",
         "junk 20 %", "noise 1", "half + junk 20 %", "half + noise 1", "half + width 0.5")  # fmt: skip


def quick() -> Plan:
    """A dozen rows in 2 and 64 dimensions at n = 600: some seconds."""
    return Plan(dims=(2, 64), n=600, replicates=12, rows=tuple(case for case in cases() if case.name in QUICK))


@dataclass(frozen=True, slots=True)
class Seen:
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
    case: Case | None
    split: int = 0

    def run(self, plan: Plan) -> Seen:
        world, n = standard_world(self.dim, self.seed), plan.n
        base = 1_000_000 * (self.seed + 1)
        if self.case is None:
            pool = world.sample(3 * n, base + 10 + self.split)
            return see(pool[: 2 * n], pool[2 * n :], 0.0, seed=self.seed + self.split, replicates=plan.replicates)
        real, fake = world.sample(2 * n, base + 1), self.case.injection.sample(world, n, base + 2)
        return see(real, fake, self.case.injection.target(world), seed=self.seed, replicates=plan.replicates)


def see(real: torch.Tensor, fake: torch.Tensor, target: float, *, seed: int, replicates: int, keys: Iterable[str] = COLUMNS) -> Seen:
    """Judge `fake` (n, D) against `real` (2n, D): the score uses all real rows, the other metrics as many as there are generated ones."""
    found = variety(real, fake, seed=seed, replicates=replicates)
    verdict = "inconclusive" if found.doubts else verdict_of_score(Score(**asdict(found.score)), Policy().limit)
    return Seen(target, found.score, verdict, found.profile["off_manifold"].value, compare(real[: len(fake)], fake, keys))


def selftest(plan: Plan, progress: Progress = lambda stage, done, total: None, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Run the plan and return one JSON-ready document. A pure function of the plan, but for its seconds.

    `ok`: every row is within its tolerance. Cost: about 0.6 s a comparison at n = 1,000 on one core, half of it for the interval.
    """
    start = time.monotonic()
    done = _run(plan, progress, say)
    nulls = {(dim, seed): [done[_Job(dim, seed, None, i)] for i in range(NULLS)] for dim in plan.dims for seed in plan.seeds}
    rows = []
    for dim in plan.dims:
        rows.append(_null_row(dim, [seen for seed in plan.seeds for seen in nulls[dim, seed]], plan))
        rows += [_row(dim, case, [done[_Job(dim, seed, case)] for seed in plan.seeds], [nulls[dim, seed] for seed in plan.seeds]) for case in plan.rows]
    off = [f"{row['name']} in {row['dim']}-D" for row in rows if not row["ok"]]
    return {
        "schema": SCHEMA, "ok": not off, "off": off, "n": plan.n, "n_real": 2 * plan.n, "seeds": list(plan.seeds), "dims": list(plan.dims), "nulls": NULLS,
        "limit": Policy().limit, "lost": LOST, "mean_absolute_error": fmean(abs(row["error"]) for row in rows), "rows": rows,
        "summary": summary(rows), "seconds": time.monotonic() - start,
    }  # fmt: skip


def _run(plan: Plan, progress: Progress, say: Callable[[str], None]) -> dict[_Job, Seen]:
    jobs = [_Job(dim, seed, None, i) for dim in plan.dims for seed in plan.seeds for i in range(NULLS)]
    jobs += [_Job(dim, seed, case) for dim in plan.dims for seed in plan.seeds for case in plan.rows]
    threads = plan.threads or torch.get_num_threads()
    see(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(200, 2), 1.0, seed=0, replicates=2)  # imports, not to be timed
    first = [next(job for job in jobs if job.dim == dim) for dim in plan.dims]  # they tell how long the rest will take
    done, seconds = {}, 0.0
    for job in first:
        began = time.monotonic()
        done[job] = job.run(plan)
        seconds += (time.monotonic() - began) * (plan.count / len(plan.dims) - 1)
    say(f"{plan.count} comparisons, about {_duration(seconds / threads)} on {threads} thread{'s' * (threads > 1)}")
    rest = [job for job in jobs if job not in done]
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(job.run, plan): job for job in rest}
        try:
            for count, future in enumerate(as_completed(futures), len(first) + 1):
                done[futures[future]] = future.result()
                progress("selftest", count, plan.count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def _duration(seconds: float) -> str:
    return f"{max(5, 5 * round(seconds / 5))} s" if seconds < 120 else f"{round(seconds / 60)} min"


def _row(dim: int, case: Case, seen: Sequence[Seen], nulls: Sequence[Sequence[Seen]]) -> dict[str, Any]:
    """The mean over seeds; a metric tells the row where it does so in most of them."""
    metrics = {}
    for key in seen[0].metrics:
        marks = [tells(one.metrics[key], [null.metrics[key] for null in null_set], better(key)) for one, null_set in zip(seen, nulls, strict=True)]
        metrics[key] = {"value": fmean(one.metrics[key] for one in seen), "told": fmean(marks) > 0.5}
    return {**_common(dim, case.name, case.group, seen), "metrics": metrics}


def _null_row(dim: int, seen: Sequence[Seen], plan: Plan) -> dict[str, Any]:
    metrics = {key: {"value": fmean(one.metrics[key] for one in seen), "told": False} for key in seen[0].metrics}
    row = {**_common(dim, "real against real", "null", seen), "metrics": metrics}
    return {**row, "ok": row["ok"] and "collapsed" not in row["verdicts"]}


def _common(dim: int, name: str, group: str, seen: Sequence[Seen]) -> dict[str, Any]:
    target, value, low, high = (fmean(column) for column in zip(*((s.target, s.score.value, s.score.low, s.score.high) for s in seen), strict=True))
    chance = CHANCE * max(high - value, value - low) / 1.96 / math.sqrt(len(seen))  # the wider side: the other may be cut at 0 or 1
    limit = max(TOLERANCE if target > 0 else SPARED, chance)
    return {
        "dim": dim, "name": name, "group": group, "target": target, "score": {"value": value, "low": low, "high": high}, "error": value - target,
        "tolerance": limit, "ok": abs(value - target) <= limit, "covered": fmean(s.score.low <= s.target <= s.score.high for s in seen),
        "off_manifold": fmean(s.off_manifold for s in seen), "verdicts": dict(Counter(s.verdict for s in seen)), "repeats": len(seen),
    }  # fmt: skip


def tells(value: float, nulls: Sequence[float], direction: str) -> bool:
    """Is `value` on the bad side of `nulls` by more than one more null would be, at level SURE? A t prediction bound."""
    reach = float(t.ppf(SURE, len(nulls) - 1)) * stdev(nulls) * math.sqrt(1 + 1 / len(nulls))
    off = value - fmean(nulls)
    return abs(off) > reach if direction == "neither" else (off if direction == "lower" else -off) > reach


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For the score and each metric: rows that lost LOST or more and were told from clean, rows that lost nothing and were, and the area under the curve.

    The score tells a row by its verdict, collapsed. `auc`: the chance that a row with such a loss looks worse than one with none, mean over dimensions.
    """
    lost, none = [row for row in rows if row["target"] >= LOST], [row for row in rows if row["target"] == 0]
    out = {}
    for key in ("score", *rows[0]["metrics"]):
        found, alarms = (sum(_told(row, key) for row in side) for side in (lost, none))
        out[key] = {"found": found, "of": len(lost), "alarms": alarms, "of_none": len(none), "auc": _mean_auc(rows, key)}
    return out


def _told(row: Mapping[str, Any], key: str) -> bool:
    if key != "score":
        return bool(row["metrics"][key]["told"])
    return bool(row["verdicts"].get("collapsed", 0) > row["repeats"] / 2)


def _mean_auc(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    sides: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        if row["target"] >= LOST or row["target"] == 0:
            value = row["score"]["value"] if key == "score" else row["metrics"][key]["value"]
            sides[row["dim"]][row["target"] == 0].append(value)
    areas = [area(lost, none, "lower" if key == "score" else better(key)) for lost, none in sides.values() if lost and none]
    return fmean(areas) if areas else None


def area(lost: Sequence[float], none: Sequence[float], direction: str) -> float:
    """The probability that a loss reads worse than none, ties for half: the area under the ROC curve, in [0, 1].

    `direction`: which way is better; "neither": whichever separates more, in the metric's favour.
    """
    a, b = torch.tensor(lost, dtype=torch.float64), torch.tensor(none, dtype=torch.float64)
    above = float((a[:, None] > b).double().mean() + (a[:, None] == b).double().mean() / 2)
    return max(above, 1 - above) if direction == "neither" else above if direction == "lower" else 1 - above
