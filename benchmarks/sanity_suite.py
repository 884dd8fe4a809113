"""The sanity suite of "All current generative fidelity and diversity metrics are flawed": groups passed by each metric.

    python -m benchmarks sanity-suite                                  # three repeats on seeds 0, 1, 2
    python -m benchmarks sanity-suite --first-seed 500 --keep FILE     # other seeds; resumes from FILE
    python -m benchmarks sanity-suite --only sphere --curves           # one check, with its curves

Fidelity: 1 − off_manifold, 1 − fake_only (the share that a classifier does not find to be clearly generated), density,
precision. Diversity: 1 − score, coverage, recall, IRS; `both` is (1 − score) (1 − off_manifold), the variety of the
data that realistic samples show. Source: Räisä et al., ICML 2025.
"""

from __future__ import annotations

import argparse
import time
import zlib
from statistics import fmean
from typing import Any

import numpy as np
import torch
from kept_results import KeptResults
from sanity_checks import Check, all_checks
from sanity_criteria import all_pass

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.competing_metrics import compute_metrics

FIDELITY = ("1 - off_manifold", "1 - fake_only", "density", "precision")
DIVERSITY = ("1 - score", "both", "coverage", "recall", "irs")
REPLICATES = 20  # as in an audit: they choose the distance at which losses are sought


def measure(check: Check, variant: Any, x: float, seed: int) -> dict[str, float]:
    """Every metric at one point, on rows standardized by the real ones, as the paper does."""
    entropy = [seed, zlib.crc32(f"{check.name} {variant}".encode())]
    real = check.real(variant, x, np.random.default_rng([*entropy, 0]))
    fake = check.fake(variant, x, np.random.default_rng([*entropy, 1, check.points[variant].index(x)]))
    mean, std = real.mean(0), real.std(0)
    rows = [torch.from_numpy((part - mean) / std).float() for part in (real, fake)]
    estimate = estimate_diversity_loss(rows[0], rows[1], replicates=REPLICATES)
    others = compute_metrics(rows[0], rows[1], ("density", "precision", "coverage", "recall", "irs"))
    on_manifold, kept = 1 - estimate.profile["off_manifold"].value, 1 - estimate.score.value
    return {
        "1 - off_manifold": on_manifold,
        "1 - fake_only": 1 - estimate.fake_only_fraction,
        "1 - score": kept,
        "both": on_manifold * kept,
        **others,
    }


def curves_of(check: Check, seeds: range, kept: KeptResults) -> dict[Any, dict[str, dict[float, float]]]:
    """{variant: {metric: {x: mean over seeds}}}"""
    out: dict[Any, dict[str, dict[float, float]]] = {}
    for variant, points in check.points.items():
        found = {
            x: [
                kept.get(
                    f"{check.name} | {variant} | {x:.6g} | {seed}",
                    lambda variant=variant, x=x, seed=seed: measure(check, variant, x, seed),  # type: ignore[misc]
                )
                for seed in seeds
            ]
            for x in points
        }
        out[variant] = {
            metric: {x: fmean(one[metric] for one in found[x]) for x in points} for metric in (*FIDELITY, *DIVERSITY)
        }
    return out


def judge(check: Check, curves: dict[Any, dict[str, dict[float, float]]]) -> dict[str, dict[str, bool]]:
    """{group: {metric: passed}}"""
    out: dict[str, dict[str, bool]] = {}
    for metrics, groups_of in ((FIDELITY, check.fidelity), (DIVERSITY, check.diversity)):
        for group in groups_of(next(iter(curves))):
            out.setdefault(group, {}).update(
                {
                    metric: all_pass(
                        criterion(curves[variant][metric])
                        for variant in curves
                        for criterion in groups_of(variant)[group]
                    )
                    for metric in metrics
                }
            )
    return out


def run(options: argparse.Namespace) -> dict[str, int]:
    """Prints the table; returns the number of groups that each metric passes."""
    kept = KeptResults(options.keep)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    metrics = (*FIDELITY, *DIVERSITY)
    passed, n_groups = dict.fromkeys(metrics, 0), 0
    print("| check | group | " + " | ".join(metrics) + " |\n" + "|---" * (len(metrics) + 2) + "|")
    for check in all_checks():
        if options.only not in check.name:
            continue
        curves = curves_of(check, seeds, kept)
        for group, results in judge(check, curves).items():
            n_groups += 1
            for metric, ok in results.items():
                passed[metric] += ok
            cells = " | ".join("yes" if results[metric] else "no" for metric in metrics)
            print(f"| {check.name} | {group} | {cells} |", flush=True)
        if options.curves:
            _print_curves(curves)
    print(f"| of {n_groups} | | " + " | ".join(str(passed[metric]) for metric in metrics) + " |")
    return passed


def _print_curves(curves: dict[Any, dict[str, dict[float, float]]]) -> None:
    for variant, by_metric in curves.items():
        for metric, curve in by_metric.items():
            print(f"    {variant!s:14s} {metric:17s}", " ".join(f"{x:.3g}:{value:.2f}" for x, value in curve.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="repeats, whose mean is judged; ten in the paper")
    parser.add_argument("--only", default="", help="checks whose name contains this")
    parser.add_argument("--keep", metavar="FILE", help="write every result here at once, and resume from it")
    parser.add_argument("--curves", action="store_true", help="print every curve")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    run(options)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
