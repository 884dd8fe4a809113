"""Means over seeds with intervals, and differences between a remedy and no remedy, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from scipy.stats import t as student

COVERAGE_COLUMNS = ("modes", "good", "variation", "kl")
LOWER_IS_BETTER = {"modes": False, "variation": True, "kl": True}
COLLAPSE_THRESHOLD = 0.7  # total variation from which an evaluation counts as collapsed

Run = Mapping[str, Any]  # one entry of the document's `runs`
Coverage = Mapping[str, Any]  # the coverage of one snapshot


def estimate_mean(values: Sequence[float], minimum: float = 0.0, maximum: float = math.inf) -> dict[str, Any]:
    """Return {value, low, high, n}: the mean and its 95 % interval (Student's t), clipped to [minimum, maximum].

    The interval is None for a single value, and everything is None without values.
    """
    n = len(values)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    mean = sum(values) / n
    if n == 1:
        return {"value": mean, "low": None, "high": None, "n": 1}
    half = float(student.ppf(0.975, n - 1)) * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return {"value": mean, "low": max(minimum, mean - half), "high": min(maximum, mean + half), "n": n}


def upper_bound(name: str, n_modes: int) -> float:
    """Return the largest possible value of a coverage column with this many modes."""
    return {"modes": n_modes, "good": 1.0, "variation": 1 - 1 / n_modes, "kl": math.log(n_modes)}[name]


def summarize_runs(benchmark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one entry per study and arm: means over seeds at the end of training, with their intervals."""
    summaries = []
    for (study, arm), runs in group_by_arm(benchmark["runs"]):
        final = [coverage for run in runs if (coverage := final_coverage(run))]
        n_modes = final[0]["of"] if final else None
        means = {
            name: estimate_mean(
                known_values(final, name), maximum=math.inf if n_modes is None else upper_bound(name, n_modes)
            )
            for name in COVERAGE_COLUMNS
        }
        summaries.append(
            {
                "study": study,
                "arm": arm,
                **{name: runs[0][name] for name in ("recipe", "dataset", "steps", "recipe_steps", "shortened")},
                "seeds": [run["seed"] for run in runs],
                **means,
                "collapsed": estimate_mean([collapsed_fraction(run) for run in runs], maximum=1.0),
                "changes": estimate_mean([count_mode_changes(run) for run in runs]),
            }
        )
    return summaries


def paired_differences(benchmark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one entry per study and arm that has partners without a remedy: arm − none at the arm's last step.

    Partners share recipe, seed and step, so networks, data and latents started alike; a partner may come from another,
    longer study. Each of `modes`, `variation` and `kl` is {value, low, high, n, better}: the mean difference with its
    95 % interval (Student's t), and the number of seeds in which the arm is better.
    """
    differences = []
    for (study, arm), runs in group_by_arm(run for run in benchmark["runs"] if run["arm"] != "none"):
        seeds, pairs = [], []
        for run in runs:
            treated, baseline = coverage_at_step(run, run["steps"]), _find_baseline(benchmark, run)
            if treated and baseline:
                seeds.append(run["seed"])
                pairs.append((treated, baseline))
        if pairs:
            columns = {name: _estimate_difference(name, pairs) for name in LOWER_IS_BETTER}
            differences.append({"study": study, "arm": arm, "seeds": seeds, **columns})
    return differences


def group_by_arm(runs: Iterable[Run]) -> Iterator[tuple[tuple[str, str], list[Run]]]:
    """Yield ((study, arm), runs) in order of their names."""
    for key, group in groupby(sorted(runs, key=arm_of), key=arm_of):
        yield key, list(group)


def arm_of(run: Run) -> tuple[str, str]:
    """Return the run's (study, arm)."""
    return run["study"], run["arm"]


def final_coverage(run: Run) -> Coverage | None:
    """Return the coverage of a run's last snapshot."""
    return coverage_at_step(run, run["snapshots"][-1]["step"]) if run["snapshots"] else None


def coverage_at_step(run: Run, step: int) -> Coverage | None:
    """Return the coverage of a run's snapshot at a step, or None if there is none."""
    matches = (entry["coverage"] for entry in run["snapshots"] if entry["step"] == step and entry["coverage"])
    return next(matches, None)


def known_values(coverages: Sequence[Coverage], name: str) -> list[float]:
    """Return one column of several coverages, without missing values."""
    return [coverage[name] for coverage in coverages if coverage[name] is not None]


def collapsed_fraction(run: Run) -> float:
    """Return the share of evaluations, after the first tenth of a run, with total variation >= COLLAPSE_THRESHOLD."""
    values: list[float] = run["looks"]["variation"]
    late = values[len(values) // 10 :]
    return sum(value >= COLLAPSE_THRESHOLD for value in late) / max(1, len(late))


def count_mode_changes(run: Run) -> int:
    """Return how often the dominant mode differs from that of the evaluation before."""
    return sum(before != after for before, after in pairwise(run["looks"]["dominant"]))


def _find_baseline(benchmark: Mapping[str, Any], run: Run) -> Coverage | None:
    """Return the coverage without a remedy after as many steps, preferably from the same study."""
    candidates = [
        other
        for other in benchmark["runs"]
        if (other["arm"], other["recipe"], other["seed"]) == ("none", run["recipe"], run["seed"])
    ]
    candidates.sort(key=lambda other: other["study"] != run["study"])
    return next((coverage for other in candidates if (coverage := coverage_at_step(other, run["steps"]))), None)


def _estimate_difference(name: str, pairs: Sequence[tuple[Coverage, Coverage]]) -> dict[str, Any]:
    differences = [
        treated[name] - baseline[name]
        for treated, baseline in pairs
        if treated[name] is not None and baseline[name] is not None
    ]
    sign = -1 if LOWER_IS_BETTER[name] else 1
    bound = upper_bound(name, pairs[0][0]["of"])
    better = sum(sign * difference > 0 for difference in differences)
    return {**estimate_mean(differences, -bound, bound), "better": better}
