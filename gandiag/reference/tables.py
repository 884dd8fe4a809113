"""The bank as a table: each arm's mean over seeds with its interval, paired with no remedy, beside the published rows."""

from __future__ import annotations

import io
import math
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby, pairwise
from typing import Any

from scipy.stats import t as student

COLLAPSED = 0.7  # total variation from which a look counts as collapsed
COLUMNS = ("modes", "good", "variation", "kl")
HEAD = ["study", "arm", "steps", "seeds", "modes", "% high quality", "variation", "KL", "looks collapsed", "changes of mode", "variation − none, paired"]


def summaries(bank: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per study and arm: means over seeds at the end, with 95 % intervals (Student's t; null with one seed)."""
    found = []
    for (study, arm), entries in groupby(sorted(bank["runs"], key=_place), key=_place):
        runs = list(entries)
        numbers = {name: estimate([ended[name] for run in runs if (ended := end(run)) and ended[name] is not None]) for name in COLUMNS}
        looks = {"collapsed": estimate([share_collapsed(run) for run in runs]), "changes": estimate([changes(run) for run in runs])}
        about = {name: runs[0][name] for name in ("recipe", "dataset", "steps", "recipe_steps", "shortened")}
        found.append({"study": study, "arm": arm, **about, "seeds": [run["seed"] for run in runs], **numbers, **looks, "paired": paired(bank, runs)})
    return found


def end(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The counts of a run's last snapshot."""
    last: Mapping[str, Any] | None = run["snapshots"][-1]["coverage"] if run["snapshots"] else None
    return last


def share_collapsed(run: Mapping[str, Any]) -> float:
    """Share of the looks after the first tenth of a run with total variation >= COLLAPSED."""
    values: list[float] = run["looks"]["variation"]
    late = values[len(values) // 10 :]
    return sum(value >= COLLAPSED for value in late) / max(1, len(late))


def changes(run: Mapping[str, Any]) -> int:
    """How often the dominant mode is another one than at the look before."""
    seen = run["looks"]["dominant"]
    return sum(one != other for one, other in pairwise(seen))


def paired(bank: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Difference in final total variation from the arm "none" of the same study and seed; below 0: the remedy helps."""
    plain = {run["seed"]: end(run) for run in bank["runs"] if run["study"] == runs[0]["study"] and run["arm"] == "none"}
    pairs = [(mine, other) for run in runs if run["arm"] != "none" and (mine := end(run)) and (other := plain.get(run["seed"]))]
    return estimate([mine["variation"] - other["variation"] for mine, other in pairs], least=-1.0) if pairs else None


def estimate(values: Sequence[float], least: float = 0.0) -> dict[str, Any]:
    """{value, low, high, n}: mean with its 95 % interval by Student's t, cut at the least value that there can be."""
    n = len(values)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    mean = sum(values) / n
    if n == 1:
        return {"value": mean, "low": None, "high": None, "n": 1}
    half = float(student.ppf(0.975, n - 1)) * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return {"value": mean, "low": max(least, mean - half), "high": mean + half, "n": n}


def published() -> list[dict[str, Any]]:
    """Published rows, each with its source."""
    rows: list[dict[str, Any]] = tomllib.loads(files("gandiag.data").joinpath("published.toml").read_text(encoding="utf-8"))["row"]
    return rows


def markdown(bank: Mapping[str, Any]) -> str:
    """Both tables as Markdown."""
    lines = ["# Baselines", "", _row(HEAD), _row(["---"] * len(HEAD)), *(_row(cells(entry)) for entry in summaries(bank)), "",
             "Means over seeds at the end of training with 95 % intervals (Student's t). High quality: within the radius that holds 98.9 % of real samples. "
             "Looks collapsed: share of the looks, without the first tenth, with total variation of 0.7 and more. "
             "\\*: shorter than the recipe.", "", "# Published", "",
             _row(["task", "method", "modes", "% high quality", "KL", "source", "read"]), _row(["---"] * 7)]  # fmt: skip
    lines += [_row([str(row.get(name, "–")) for name in ("task", "method", "modes", "good", "kl", "source", "read")]) for row in published()]
    return "\n".join(lines) + "\n"


def cells(entry: Mapping[str, Any]) -> list[str]:
    """A summary under HEAD."""
    steps = f"{entry['steps']:,}" + (f"\\* of {entry['recipe_steps']:,}" if entry["shortened"] else "")
    numbers = [told(entry["modes"], 1), told(entry["good"], 1, 100), told(entry["variation"], 2), told(entry["kl"], 2)]
    rest = [told(entry["collapsed"], 2), told(entry["changes"], 0), "–" if entry["paired"] is None else told(entry["paired"], 2)]
    return [entry["study"], entry["arm"], steps, str(len(entry["seeds"])), *numbers, *rest]


def told(found: Mapping[str, Any], digits: int, unit: float = 1.0) -> str:
    """0.12 [0.10, 0.14]"""
    if found["value"] is None:
        return "–"
    spread = "" if found["low"] is None else f" [{unit * found['low']:.{digits}f}, {unit * found['high']:.{digits}f}]"
    return f"{unit * found['value']:.{digits}f}{spread}"


def figure(bank: Mapping[str, Any]) -> bytes:
    """A PNG: final total variation of every run, and each arm's mean with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = summaries(bank)
    drawn = Figure(figsize=(7.0, 0.8 + 0.42 * max(1, len(found))), dpi=120, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    for place, entry in enumerate(found):
        runs = [run for run in bank["runs"] if _place(run) == (entry["study"], entry["arm"])]
        ends = [ended["variation"] for run in runs if (ended := end(run))]
        axes.plot(ends, [place] * len(ends), linestyle="none", marker="o", markersize=4, alpha=0.5, color="#8a8f98")
        mean = entry["variation"]
        if mean["low"] is not None:
            axes.plot([max(0.0, mean["low"]), mean["high"]], [place, place], color="#c2410c", linewidth=2)
        if mean["value"] is not None:
            axes.plot([mean["value"]], [place], marker="D", markersize=6, color="#c2410c")
    axes.set_yticks(range(len(found)), [f"{entry['study']} · {entry['arm']}" for entry in found])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("total variation between modes at the end (0: even; 1 − 1/K: one mode)")
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _place(run: Mapping[str, Any]) -> tuple[str, str]:
    return run["study"], run["arm"]


def _row(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entries) + " |"
