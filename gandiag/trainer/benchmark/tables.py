"""Renders the benchmark as Markdown tables and as a figure."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gandiag.report.plot_style import load_matplotlib, plot_style
from gandiag.trainer.benchmark.results import load_paper_results
from gandiag.trainer.benchmark.statistics import arm_of, final_coverage, paired_differences, summarize_runs

SUMMARY_HEADER = [
    "study",
    "arm",
    "steps",
    "seeds",
    "modes",
    "% high quality",
    "variation",
    "KL",
    "share collapsed",
    "mode changes",
]
PAIRED_HEADER = ["study", "arm", "seeds", "modes", "more in", "variation", "less in", "KL", "lower in"]
PAPER_HEADER = ["task", "method", "modes", "% high quality", "KL", "source", "read"]
PAPER_COLUMNS = ("task", "method", "modes", "good", "kl", "source", "read")
SUMMARY_NOTE = (
    "Means over seeds at the end of training with 95 % intervals (Student's t); real data: the same number of samples "
    "as counted for each run. High quality: within the radius that holds 98.9 % of real samples. "
    "Share collapsed: share of the evaluations, after the first tenth of training, with total variation >= 0.7. "
    "\\*: shorter than the recipe."
)
PAIRED_NOTE = "Mean differences, arm − none, with 95 % intervals, and the number of seeds in which the arm is better."
RUN_COLOR, MEAN_COLOR = "#8a8f98", "#c2410c"


def render_markdown(benchmark: Mapping[str, Any]) -> str:
    """Return all tables as Markdown."""
    summary_rows = [
        *map(make_summary_row, summarize_runs(benchmark)),
        *(_make_real_row(*entry) for entry in benchmark.get("real", {}).items()),
    ]
    lines = ["# Baselines", "", *_format_table(SUMMARY_HEADER, summary_rows), "", SUMMARY_NOTE]
    differences = paired_differences(benchmark)
    if differences:
        table = _format_table(PAIRED_HEADER, map(_make_paired_row, differences))
        lines += ["", "## Against none, seed by seed", "", *table, "", PAIRED_NOTE]
    paper_rows = [[str(row.get(name, "–")) for name in PAPER_COLUMNS] for row in load_paper_results()]
    lines += ["", "## Published", "", *_format_table(PAPER_HEADER, paper_rows)]
    return "\n".join(lines) + "\n"


def make_summary_row(entry: Mapping[str, Any]) -> list[str]:
    """Return a summary as a row under SUMMARY_HEADER."""
    steps = f"{entry['steps']:,}" + (f"\\* of {entry['recipe_steps']:,}" if entry["shortened"] else "")
    return [
        entry["study"],
        entry["arm"],
        steps,
        str(len(entry["seeds"])),
        *_format_coverage(entry),
        format_estimate(entry["collapsed"], 2),
        format_estimate(entry["changes"], 0),
    ]


def format_estimate(estimate: Mapping[str, Any], digits: int, scale: float = 1.0) -> str:
    """Return text such as "0.12 [0.10, 0.14]"; "–" for a missing value."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "–"
    interval = "" if low is None else f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    return f"{scale * value:.{digits}f}{interval}"


def render_figure(benchmark: Mapping[str, Any]) -> bytes:
    """Return a PNG with the final total variation of every run, and each arm's mean with its interval."""
    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    summaries = summarize_runs(benchmark)
    with plot_style():
        figure = Figure(figsize=(7.0, 0.8 + 0.42 * max(1, len(summaries))), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for y, entry in enumerate(summaries):
            runs = [run for run in benchmark["runs"] if arm_of(run) == (entry["study"], entry["arm"])]
            values = [coverage["variation"] for run in runs if (coverage := final_coverage(run))]
            axes.plot(values, [y] * len(values), linestyle="none", marker="o", markersize=4, alpha=0.5, color=RUN_COLOR)
            mean = entry["variation"]
            if mean["low"] is not None:
                axes.plot([max(0.0, mean["low"]), mean["high"]], [y, y], color=MEAN_COLOR, linewidth=2)
            if mean["value"] is not None:
                axes.plot([mean["value"]], [y], marker="D", markersize=6, color=MEAN_COLOR)
        axes.set_yticks(range(len(summaries)), [f"{entry['study']} · {entry['arm']}" for entry in summaries])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("total variation between modes at the end (0: even; 1 − 1/K: one mode)")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _make_real_row(dataset: str, entry: Mapping[str, Any]) -> list[str]:
    """Return the coverage of real data as a row under SUMMARY_HEADER."""
    return [dataset, "real data", "–", f"{entry['variation']['n']} draws", *_format_coverage(entry), "–", "–"]


def _format_coverage(entry: Mapping[str, Any]) -> list[str]:
    return [
        format_estimate(entry["modes"], 1),
        format_estimate(entry["good"], 1, 100),
        format_estimate(entry["variation"], 2),
        format_estimate(entry["kl"], 2),
    ]


def _make_paired_row(entry: Mapping[str, Any]) -> list[str]:
    """Return a paired difference as a row under PAIRED_HEADER."""
    cells = [entry["study"], entry["arm"], str(len(entry["seeds"]))]
    for name, digits in (("modes", 1), ("variation", 2), ("kl", 2)):
        cells += [format_estimate(entry[name], digits), f"{entry[name]['better']} of {entry[name]['n']}"]
    return cells


def _format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
