"""The bank as tables: each arm's mean over seeds with its interval, real data, remedies against none, the published rows."""

from __future__ import annotations

import io
import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby, pairwise
from typing import Any

from gandiag.trainer.paired_differences import COVERAGE_COLUMNS, coverage_at_step, paired_differences, upper_bound
from gandiag.trainer.seed_means import estimate_mean, format_estimate

COLLAPSE_THRESHOLD = 0.7  # total variation from which a look counts as collapsed
SUMMARY_HEADER = [
    "study",
    "arm",
    "steps",
    "seeds",
    "modes",
    "% high quality",
    "variation",
    "KL",
    "looks collapsed",
    "changes of mode",
]
PAIRED_HEADER = ["study", "arm", "seeds", "modes", "more in", "variation", "less in", "KL", "lower in"]


def summarize_runs(benchmark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per study and arm: means over seeds at the end, with 95 % intervals (Student's t; null with one seed)."""
    found = []
    for (study, arm), entries in groupby(sorted(benchmark["runs"], key=_place), key=_place):
        runs = list(entries)
        ends = [ended for run in runs if (ended := final_coverage(run))]
        numbers = {
            name: estimate_mean(
                known_values(ends, name), maximum=upper_bound(name, ends[0]["of"]) if ends else math.inf
            )
            for name in COVERAGE_COLUMNS
        }
        looks = {
            "collapsed": estimate_mean([collapsed_fraction(run) for run in runs], maximum=1.0),
            "changes": estimate_mean([count_mode_changes(run) for run in runs]),
        }
        about = {name: runs[0][name] for name in ("recipe", "dataset", "steps", "recipe_steps", "shortened")}
        found.append({"study": study, "arm": arm, **about, "seeds": [run["seed"] for run in runs], **numbers, **looks})
    return found


def final_coverage(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The counts of a run's last snapshot."""
    return coverage_at_step(run, run["snapshots"][-1]["step"]) if run["snapshots"] else None


def known_values(coverages: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """One count of each, where it is known."""
    return [entry[name] for entry in coverages if entry[name] is not None]


def collapsed_fraction(run: Mapping[str, Any]) -> float:
    """Share of the looks after the first tenth of a run with total variation >= COLLAPSED."""
    values: list[float] = run["looks"]["variation"]
    late = values[len(values) // 10 :]
    return sum(value >= COLLAPSE_THRESHOLD for value in late) / max(1, len(late))


def count_mode_changes(run: Mapping[str, Any]) -> int:
    """How often the dominant mode is another one than at the look before."""
    seen = run["looks"]["dominant"]
    return sum(one != other for one, other in pairwise(seen))


def format_json_by_entry(document: Mapping[str, Any]) -> str:
    """A document as JSON with one line for each entry of its lists: a change of one run is a change of one line."""
    lines = []
    for name, value in document.items():
        text = (
            "[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in value) + "\n ]"
            if isinstance(value, list)
            else json.dumps(value)
        )
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load_paper_results() -> list[dict[str, Any]]:
    """Published rows, each with its source."""
    rows: list[dict[str, Any]] = tomllib.loads(
        files("gandiag.data").joinpath("published.toml").read_text(encoding="utf-8")
    )["row"]
    return rows


def render_markdown(benchmark: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    lines = [
        "# Baselines",
        "",
        *_table(
            SUMMARY_HEADER,
            [
                *map(make_summary_row, summarize_runs(benchmark)),
                *(_real(*entry) for entry in benchmark.get("real", {}).items()),
            ],
        ),
        "",
        "Means over seeds at the end of training with 95 % intervals (Student's t); real data: as many samples as were counted of each run. "
        "High quality: within the radius that holds 98.9 % of real samples. "
        "Looks collapsed: share of the looks, without the first tenth, with total variation of 0.7 and more. "
        "\\*: shorter than the recipe.",
    ]
    against = paired_differences(benchmark)
    if against:
        lines += [
            "",
            "## Against none, seed by seed",
            "",
            *_table(PAIRED_HEADER, map(_paired, against)),
            "",
            "Mean differences, arm − none, with 95 % intervals; the seeds in which the arm does better.",
        ]
    rows = [
        [str(row.get(name, "–")) for name in ("task", "method", "modes", "good", "kl", "source", "read")]
        for row in load_paper_results()
    ]
    lines += [
        "",
        "## Published",
        "",
        *_table(["task", "method", "modes", "% high quality", "KL", "source", "read"], rows),
    ]
    return "\n".join(lines) + "\n"


def make_summary_row(entry: Mapping[str, Any]) -> list[str]:
    """A summary under HEAD."""
    steps = f"{entry['steps']:,}" + (f"\\* of {entry['recipe_steps']:,}" if entry["shortened"] else "")
    return [
        entry["study"],
        entry["arm"],
        steps,
        str(len(entry["seeds"])),
        *_counts(entry),
        format_estimate(entry["collapsed"], 2),
        format_estimate(entry["changes"], 0),
    ]


def _real(dataset: str, entry: Mapping[str, Any]) -> list[str]:
    """What real data reach, under HEAD."""
    return [dataset, "real data", "–", f"{entry['variation']['n']} draws", *_counts(entry), "–", "–"]


def _counts(entry: Mapping[str, Any]) -> list[str]:
    return [
        format_estimate(entry["modes"], 1),
        format_estimate(entry["good"], 1, 100),
        format_estimate(entry["variation"], 2),
        format_estimate(entry["kl"], 2),
    ]


def _paired(entry: Mapping[str, Any]) -> list[str]:
    """A comparison under PAIRED."""
    numbers = [
        (format_estimate(entry[name], digits), f"{entry[name]['better']} of {entry[name]['n']}")
        for name, digits in (("modes", 1), ("variation", 2), ("kl", 2))
    ]
    return [entry["study"], entry["arm"], str(len(entry["seeds"])), *(cell for pair in numbers for cell in pair)]


def render_figure(benchmark: Mapping[str, Any]) -> bytes:
    """A PNG: final total variation of every run, and each arm's mean with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = summarize_runs(benchmark)
    drawn = Figure(figsize=(7.0, 0.8 + 0.42 * max(1, len(found))), dpi=120, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    for place, entry in enumerate(found):
        runs = [run for run in benchmark["runs"] if _place(run) == (entry["study"], entry["arm"])]
        ends = [ended["variation"] for run in runs if (ended := final_coverage(run))]
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


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
