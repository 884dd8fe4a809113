"""Which run of the bank a record looks like: the nearest one by score and profile. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from gandiag.record import Finding, Record
from gandiag.verdict.policy import Policy

PROFILE_FACTORS = ("missing", "skewed", "narrowed", "duplicated", "off_manifold")
MAX_DISTANCE = 0.25  # beyond this distance no baseline is like the record


@dataclass(frozen=True, slots=True)
class BaselineMatch:
    """A snapshot of the bank, and how far it is: Euclidean over score and factors, 0 for the same numbers."""

    snapshot: Mapping[str, Any]
    run: Mapping[str, Any]
    distance: float

    def __str__(self) -> str:
        remedy, _, ahead = self.run["arm"].partition("/")
        arm = "vanilla" if remedy == "none" else f"{remedy} (K = {ahead})" if ahead else remedy
        return f"{arm}, {self.run['dataset']}, {self.run['recipe']}, seed {self.run['seed']}, step {self.snapshot['step']:,}"


@cache
def load_baselines() -> Mapping[str, Any]:
    """The bank in gandiag/data, as `gandiag bank` wrote it; without runs where none is shipped."""
    file = files("gandiag.data").joinpath("bank.json")
    found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"runs": []}
    return found


def match_baseline(record: Record, baselines: Mapping[str, Any] | None = None) -> BaselineMatch | None:
    """The closest trained snapshot; None without real data, or where the bank is empty. The untrained start of a run is no baseline."""
    here = _point(record.score.value, {name: (record.profile.get(name) or {}).get("value") for name in PROFILE_FACTORS})
    if record.score.basis != "referenced" or here is None:
        return None
    runs = (load_baselines() if baselines is None else baselines)["runs"]
    places = [
        (snapshot, run, _point(snapshot["score"]["value"], snapshot["profile"]))
        for run in runs
        for snapshot in run["snapshots"]
        if snapshot["step"]
    ]
    found = [
        BaselineMatch(snapshot, run, math.dist(here, there)) for snapshot, run, there in places if there is not None
    ]
    return min(found, key=lambda entry: entry.distance, default=None)


def find_closest_baseline(record: Record, policy: Policy) -> Finding | None:
    """GD601: where the record stands among the bundled baselines."""
    found = match_baseline(record)
    if found is None or found.distance > MAX_DISTANCE:
        return None
    score = found.snapshot["score"]["value"]
    text = f"Closest baseline: {found} (score {score:.2f}, {found.snapshot['verdict']}; distance {found.distance:.2f} over score and profile)."
    evidence = {"distance": found.distance, "score": score, "step": found.snapshot["step"], "seed": found.run["seed"]}
    return Finding("GD601", "note", text, evidence)


def _point(score: float | None, profile: Mapping[str, Any]) -> tuple[float, ...] | None:
    values = [score, *(profile.get(name) for name in PROFILE_FACTORS)]
    return None if any(value is None for value in values) else tuple(map(float, values))  # type: ignore[arg-type]
