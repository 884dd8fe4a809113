"""AUC of every metric: a loss of at least 25 % of the variety against none, with fidelity varied independently.

Every degree of noise, outliers and over-dispersion is crossed with every other (24 combinations). Under each, a
generator that has lost nothing is compared with one that has lost at least 25 %; the kind of loss rotates. A metric
counts in its documented direction, or in the better one if it documents none. Two losses hide inside modes, where noise
refills what is gone (width and repeats); they are reported separately as well.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from statistics import fmean

from validity import dims_of, drawn, seeds_of

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.competing_metrics import OTHER_METRICS, compute_metrics, metric_direction
from gandiag.testing.selftest_rows import MIN_LOSS, roc_auc
from gandiag.testing.toy_mixtures import Corruption

FIDELITY = tuple(
    Corruption(noise=noise, outlier_fraction=junk, std_factor=width)
    for noise, junk, width in product((0.0, 0.5, 1.0, 2.0), (0.0, 0.2, 0.5), (1.0, 1.5))
)
WHOLE = {
    "half": {"mode_fraction": 0.5},
    "quarter": {"mode_fraction": 0.75},
    "every second": {"mode_fraction": 0.5, "alternate_modes": True},
    "Zipf 1": {"zipf_exponent": 1.0},
    "most": {"mode_fraction": 0.25},
}
INSIDE = {"width .5": {"std_factor": 0.5}, "unique .5": {"unique_fraction": 0.5}}
LOSSES = WHOLE | INSIDE
KEYS = ("score", *OTHER_METRICS)


def pairs(seed: int) -> Iterator[tuple[str, Corruption]]:
    """("none" or the loss, what is injected): every degree of fidelity, once without and once with a loss."""
    for i, fault in enumerate(FIDELITY):
        name = list(LOSSES)[(i + i // len(LOSSES) + 5 * seed) % len(LOSSES)]
        yield "none", fault
        yield name, replace(fault, **LOSSES[name])  # half the width takes the place of over-dispersion


def measured(dim: int, seed: int, n: int) -> list[tuple[str, dict[str, float]]]:
    """Every metric of every pair for one seed."""
    found = []
    for i, (name, injection) in enumerate(pairs(seed)):
        real, fake, lost = drawn(injection, dim, 1000 * seed + i, n)
        if name != "none" and lost < MIN_LOSS - 0.001:
            raise ValueError(f"{name} loses {lost:.2f} in {dim} dimensions, less than {MIN_LOSS}")
        score = estimate_diversity_loss(real, fake, seed=seed, replicates=0).score.value
        found.append((name, {"score": score, **compute_metrics(real[:n], fake)}))
    return found


def areas(found: list[tuple[str, dict[str, float]]], losses: dict[str, object]) -> dict[str, float]:
    """The area under the curve of every metric, those losses against none."""
    out = {}
    for key in KEYS:
        lost, none = ([numbers[key] for name, numbers in found if name in names] for names in (losses, ("none",)))
        out[key] = roc_auc(lost, none, "lower" if key == "score" else metric_direction(key))
    return out


def run(options: argparse.Namespace) -> dict[str, dict[str, dict[int, float]]]:
    """Prints and returns {"whole" | "all": {metric: {dim: area}}}; whole: losses of modes or of their proportions."""
    found = {
        dim: [pair for seed in seeds_of(options, 1, 5) for pair in measured(dim, seed, options.n)]
        for dim in dims_of(options)
    }
    out: dict[str, dict[str, dict[int, float]]] = {"whole": defaultdict(dict), "all": defaultdict(dict)}
    for dim, pairs_found in found.items():
        for title, losses in (("whole", WHOLE), ("all", LOSSES)):
            for key, value in areas(pairs_found, losses).items():
                out[title][key][dim] = value
    for title, said in (
        ("whole", "modes dropped or out of proportion"),
        ("all", "those, half the width, or half the outputs distinct"),
    ):
        _print(
            out[title],
            f"{said}: AUC against none, n = {options.n}, {len(next(iter(found.values()))) // 2} pairs a dimension",
        )
    return out


def _print(table: dict[str, dict[int, float]], title: str) -> None:
    dims = list(next(iter(table.values())))
    print(f"\n{title}\n{'':24s}" + "".join(f"{dim:>7d}-D" for dim in dims) + "     mean")
    for key in sorted(table, key=lambda name: -fmean(table[name].values())):
        print(f"{key:24s}" + "".join(f"{table[key][dim]:9.3f}" for dim in dims) + f"{fmean(table[key].values()):9.3f}")
