"""Remedies against none, seed by seed: the same recipe, seed and step, so that networks, data and latents began alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gandiag.trainer.seed_means import estimate_mean

COVERAGE_COLUMNS = ("modes", "good", "variation", "kl")
LOWER_IS_BETTER = {"modes": False, "variation": True, "kl": True}


def coverage_at_step(run: Mapping[str, Any], step: int) -> Mapping[str, Any] | None:
    """The counts of a run's snapshot at a step, None where there is none."""
    found: list[Mapping[str, Any]] = [
        entry["coverage"] for entry in run["snapshots"] if entry["step"] == step and entry["coverage"]
    ]
    return found[0] if found else None


def paired_differences(benchmark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per study and arm that has partners without a remedy: differences arm − none at the arm's last step.

    Each of `modes`, `variation`, `kl` is {value, low, high, n, better}, the mean difference with its 95 % interval (Student's t) and
    the number of seeds in which the arm does better. A partner may come from another, longer study of the same recipe.
    """
    place = lambda run: (run["study"], run["arm"])  # noqa: E731
    found = []
    for (study, arm), entries in groupby(
        sorted((run for run in benchmark["runs"] if run["arm"] != "none"), key=place), key=place
    ):
        both = [
            (run["seed"], mine, other)
            for run in entries
            if (mine := coverage_at_step(run, run["steps"])) and (other := _partner(benchmark, run))
        ]
        if both:
            numbers = {name: _difference(name, [(mine, other) for _, mine, other in both]) for name in LOWER_IS_BETTER}
            found.append({"study": study, "arm": arm, "seeds": [seed for seed, *_ in both], **numbers})
    return found


def _partner(bank: Mapping[str, Any], run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The counts without a remedy after as many steps, first from the same study."""
    alike = [
        other
        for other in bank["runs"]
        if (other["arm"], other["recipe"], other["seed"]) == ("none", run["recipe"], run["seed"])
    ]
    alike.sort(key=lambda other: other["study"] != run["study"])
    return next((counts for other in alike if (counts := coverage_at_step(other, run["steps"]))), None)


def _difference(name: str, both: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    known = [(mine[name], other[name]) for mine, other in both if mine[name] is not None and other[name] is not None]
    sign = -1 if LOWER_IS_BETTER[name] else 1
    better = sum(sign * (mine - other) > 0 for mine, other in known)
    reach = upper_bound(name, both[0][0]["of"])
    return {**estimate_mean([mine - other for mine, other in known], -reach, reach), "better": better}


def upper_bound(name: str, n_modes: int) -> float:
    """The greatest value that a count can have with so many modes."""
    return {"modes": n_modes, "good": 1.0, "variation": 1 - 1 / n_modes, "kl": math.log(n_modes)}[name]
