"""Renders the self-test's document as text: result, a table per dimension, and how well each metric detects collapse.

Torch-free. Nothing depends on color alone; everything fits in 100 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.report import formatting
from gandiag.report.text_page import TextPage

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100
# Metric key: (column title, name, what it is)
METRIC_LABELS = {
    "frechet": ("FD", "Fréchet distance", "FID's formula, applied to the vectors themselves"),
    "recall": ("rec", "recall", "Kynkäänniemi 2019, k = 5"),
    "coverage": ("cov", "coverage", "Naeem 2020, k = 5"),
    "ndb": ("NDB", "bins that differ", "NDB/K, Richardson & Weiss 2018"),
    "vendi_1": ("Ven", "Vendi score", "order 1, cosine similarity about the real mean"),
    "pairwise_distance": ("MPD", "mean pairwise distance", ""),
    "pairwise_similarity": ("sim", "mean pairwise similarity", "like MS-SSIM: SSIM's last term over whole vectors"),
}
GROUP_LABELS = {
    "null": "nothing lost",
    "collapse": "collapse",
    "control": "controls: low fidelity alone, no variety lost",
    "masked": "masked: collapse with low fidelity",
}
VERDICT_LABELS = {"healthy": "healthy", "collapsed": "collapsed", "inconclusive": "unsure"}
COLUMNS = (("", 27), ("lost", 4), ("score", 5), ("95 %", 7), ("verdict", 9), ("off", 3), ("ok", 3))  # (title, width)
LEFT_ALIGNED = ("", "verdict")
LEGEND_TEXT = """\
lost     share of the variety that was removed, known by construction
score    gandiag's estimate of it, with its 95 % interval; verdict at the default limit of {limit:.2f}
off      share of samples off the manifold: fidelity, reported but not scored
ok       |score - lost| is at most .10, or .05 if nothing was lost; the tolerance is never below three
         standard errors of the mean over the seeds
*        worse than real against real is by chance (level .005, from {nulls} splits of real data): correct
         if variety was lost, a false alarm if none was
{titles}
These samples are vectors, without pixels and scales: MS-SSIM itself is not defined here, and
without Inception's features FD is not FID. `gandiag explain NAME` has formulas and sources."""


def render_self_test(document: Mapping[str, Any], *, color: bool = False) -> str:
    """Render the whole document, at most 100 columns wide; it ends with a newline."""
    page = TextPage(WIDTH, color)
    page.add(describe_result(document), style="bold green" if document["ok"] else "bold red")
    page.add(_describe_setup(document))
    for dim in document["dims"]:
        page.add(f"\n{dim} dimensions", style="bold")
        _add_groups(page, [row for row in document["rows"] if row["dim"] == dim])
    keys = list(document["rows"][0]["metrics"])
    titles = "\n".join(
        f"{METRIC_LABELS[key][0]:<9}{': '.join(part for part in METRIC_LABELS[key][1:] if part)}" for key in keys
    )
    page.add("\n" + LEGEND_TEXT.format(limit=document["limit"], nulls=document["nulls"], titles=titles))
    _add_summary(page, document)
    return page.render()


def describe_result(document: Mapping[str, Any]) -> str:
    """One line: whether all rows are within their tolerance."""
    n_rows, failed = len(document["rows"]), document["off"]
    error = f"mean absolute error {document['mean_absolute_error']:.3f}"
    if document["ok"]:
        return f"PASSED  all {n_rows} rows are within their tolerance; {error}"
    names = "; ".join(failed[:2]) + (f" and {len(failed) - 2} more" if len(failed) > 2 else "")
    return f"FAILED  {len(failed)} of {n_rows} rows are off: {names}; {error}"


def _describe_setup(document: Mapping[str, Any]) -> str:
    n_runs = sum(row["repeats"] for row in document["rows"])
    n_covered = sum(row["covered"] * row["repeats"] for row in document["rows"])
    seeds = f"seed{'s' * (len(document['seeds']) > 1)} {', '.join(map(str, document['seeds']))}"
    return (
        f"{document['n']:,} generated against {document['n_real']:,} real samples per comparison, {seeds}.\n"
        f"The 95 % interval contained the true loss in {n_covered:.0f} of {n_runs:.0f} comparisons"
        f" ({n_covered / n_runs:.0%})."
    )


def _add_groups(page: TextPage, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table per group of cases; the first has the column titles instead of a heading."""
    for group, heading in GROUP_LABELS.items():
        group_rows = [row for row in rows if group == ("null" if row["group"] == "clean" else row["group"])]
        if not group_rows:
            continue
        if group != "null":
            page.add(f"  {heading}", style="dim")
        page.add(_make_case_table(group_rows, show_header=group == "null"))


def _make_case_table(rows: Sequence[Mapping[str, Any]], *, show_header: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=show_header, header_style="")
    for title, width in COLUMNS:
        table.add_column(title, width=width, no_wrap=True, justify="left" if title in LEFT_ALIGNED else "right")
    for key in rows[0]["metrics"]:
        table.add_column(METRIC_LABELS[key][0] + " ", width=4, no_wrap=True, justify="right")
    for row in rows:
        table.add_row(*_build_cells(row), style="" if row["ok"] else "bold red")
    return table


def _build_cells(row: Mapping[str, Any]) -> list[str]:
    score = row["score"]
    verdicts = [VERDICT_LABELS[name] for name in row["verdicts"]]
    metrics = [
        f"{format_short_number(entry['value'])}{'*' if entry['told'] else ' '}" for entry in row["metrics"].values()
    ]
    return [
        row["name"],
        format_short_fraction(row["target"]),
        format_short_fraction(score["value"]),
        f"{format_short_fraction(score['low'])}–{format_short_fraction(score['high'])}",
        verdicts[0] if len(verdicts) == 1 else "mixed",
        format_short_fraction(row["off_manifold"]),
        "yes" if row["ok"] else "OFF",
        *metrics,
    ]


def _add_summary(page: TextPage, document: Mapping[str, Any]) -> None:
    """Detections, false alarms and AUC of the score and of each metric."""
    from rich.table import Table

    counts = next(iter(document["summary"].values()))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("", no_wrap=True)
    for title in (f"detected of {counts['of']}", f"false alarms of {counts['of_none']}", "AUC"):
        table.add_column(title, no_wrap=True, justify="right")
    for key, entry in document["summary"].items():
        name = "gandiag's score" if key == "score" else METRIC_LABELS[key][1]
        auc = formatting.NOT_AVAILABLE if entry["auc"] is None else f"{entry['auc']:.3f}"
        style = "bold" if key == "score" else ""
        table.add_row(name, str(entry["found"]), str(entry["alarms"]), auc, style=style)
    page.add(f"\nDetection of a loss of {document['lost']:.0%} or more, at any fidelity", style="bold")
    page.add(table)
    page.add(
        "detected, false alarms: rows marked *; for the score, rows called collapsed. AUC: the probability\n"
        "that a row with such a loss scores worse than one without; mean over dimensions, documented directions."
    )


def format_short_fraction(value: float) -> str:
    """A fraction in three characters: .52, 1.0"""
    text = f"{value:.2f}"
    if text.startswith("0"):
        return text[1:]
    return text[:3] if text.startswith("1") else text


def format_short_number(value: float) -> str:
    """Any number in three characters: .43, 2.5, 585, 17k, -.1"""
    if abs(value) < 0.995:
        text = f"{value:.{1 if value <= -0.05 else 2}f}".replace("0.", ".", 1)
        return text.removeprefix("-") if value > -0.05 else text
    if abs(value) < 9.95:
        return f"{value:.1f}"
    return f"{value:.0f}" if abs(value) < 999.5 else f"{value / 1000:.0f}k"
