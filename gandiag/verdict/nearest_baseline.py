"""Finds the bundled baseline run that a record resembles most, by score and profile. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from gandiag.record import Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.rule_base import Diagnosis, rule

PROFILE_FACTORS = ("missing", "skewed", "narrowed", "duplicated", "off_manifold")
POINT_DATASETS = ("ring", "grid")  # runs on points of the plane; the others are on images
MAX_DISTANCE = 0.25  # beyond this distance no baseline resembles the record


@dataclass(frozen=True, slots=True)
class BaselineMatch:
    """A snapshot of a baseline run and its distance: Euclidean over score and profile factors, 0 for equal numbers."""

    snapshot: Mapping[str, Any]
    run: Mapping[str, Any]
    distance: float

    def __str__(self) -> str:
        remedy, _, unroll_steps = self.run["arm"].partition("/")
        arm = f"{remedy} (K = {unroll_steps})" if unroll_steps else remedy
        arm = "vanilla" if remedy == "none" else arm
        run = self.run
        return f"{arm}, {run['dataset']}, {run['recipe']}, seed {run['seed']}, step {self.snapshot['step']:,}"


@cache
def load_baselines() -> Mapping[str, Any]:
    """The baselines in gandiag/data, as `gandiag bank` wrote them; no runs where none are shipped."""
    file = files("gandiag.data").joinpath("bank.json")
    baselines: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"runs": []}
    return baselines


def match_baseline(record: Record, baselines: Mapping[str, Any] | None = None) -> BaselineMatch | None:
    """The closest snapshot of a trained baseline; None without real data or without baselines.

    The untrained start of a run (step 0) does not count.
    """
    factors = {name: (record.profile.get(name) or {}).get("value") for name in PROFILE_FACTORS}
    origin = _make_point(record.score.value, factors)
    if record.score.basis != "referenced" or origin is None:
        return None
    matches = []
    for run in (load_baselines() if baselines is None else baselines)["runs"]:
        if not _is_comparable(record, run):
            continue
        for snapshot in run["snapshots"]:
            point = _make_point(snapshot["score"]["value"], snapshot["profile"]) if snapshot["step"] else None
            if point is not None:
                matches.append(BaselineMatch(snapshot, run, math.dist(origin, point)))
    return min(matches, key=lambda match: match.distance, default=None)


@rule("GD601")
def find_closest_baseline(record: Record, policy: Policy) -> Diagnosis | None:
    """Which of the bundled baselines the record resembles."""
    match = match_baseline(record)
    if match is None or match.distance > MAX_DISTANCE:
        return None
    score = match.snapshot["score"]["value"]
    text = (
        f"Closest baseline: {match} (score {score:.2f}, {match.snapshot['verdict']}; "
        f"distance {match.distance:.2f} in score and profile)."
    )
    evidence = {"distance": match.distance, "score": score, "step": match.snapshot["step"], "seed": match.run["seed"]}
    return Diagnosis("note", text, evidence)


def _is_comparable(record: Record, run: Mapping[str, Any]) -> bool:
    """Whether both are of one kind of data: points of the plane, or images. Records that do not say are comparable."""
    output = record.subject.get("output") or {}
    if not output.get("kind"):
        return True
    if str(run["dataset"]).startswith(POINT_DATASETS):
        return output["kind"] == "vector" and list(output.get("shape") or ()) == [2]
    return bool(output["kind"] == "image")


def _make_point(score: float | None, factors: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Score and factors as coordinates; None where one is missing."""
    values = [score, *(factors.get(name) for name in PROFILE_FACTORS)]
    known = [float(value) for value in values if value is not None]
    return tuple(known) if len(known) == len(values) else None
