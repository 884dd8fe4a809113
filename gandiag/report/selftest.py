"""The self-test's document as text: the verdict, a table for each dimension, and who told collapse from clean. Torch-free.

Nothing is said in color alone; everything fits in 100 columns.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
# Metric key: (column title, name, what it is)
METRIC_LABELS = {
    "frechet": ("FD", "Fréchet distance", "FID's formula, on the vectors themselves"),
    "recall": ("rec", "recall", "Kynkäänniemi 2019, k = 5"),
    "coverage": ("cov", "coverage", "Naeem 2020, k = 5"),
    "ndb": ("NDB", "bins that differ", "NDB/K, Richardson & Weiss 2018"),
    "vendi_1": ("Ven", "Vendi score", "order 1, cosine similarity about the real mean"),
    "pairwise_distance": ("MPD", "mean pairwise distance", ""),
    "pairwise_similarity": ("sim", "mean pairwise similarity", "MS-SSIM's like, SSIM's last term over whole vectors"),
}
GROUP_LABELS = {
    "null": "nothing lost",
    "collapse": "collapse",
    "control": "controls: fidelity faults alone, no variety lost",
    "masked": "masked: collapse behind a fidelity fault",
}
VERDICT_LABELS = {"healthy": "healthy", "collapsed": "collapsed", "inconclusive": "unsure"}
LEGEND_TEXT = """\
lost     the variety taken away, known by construction
score    gandiag's estimate of it, with its 95 % interval; verdict at the default limit of {limit:.2f}
off      share of samples off the manifold: fidelity, reported and not scored
ok       score - lost is at most .10, or .05 where nothing was lost; never held to less than three
         standard errors of the mean over the seeds
*        worse than real against real is by chance (level .005, from {nulls} splits of real data): right
         where variety was lost, a false alarm where none was
{titles}
These samples are vectors, without pixels and scales: MS-SSIM itself has no meaning here, and
without Inception's features FD is no FID. `gandiag explain NAME` has formulas and sources."""


def render_self_test(document: Mapping[str, Any], *, color: bool = False) -> str:
    """The whole document as text that ends with a newline, at most 100 columns wide."""
    page = _page(color)
    page.print(describe_result(document), style="bold green" if document["ok"] else "bold red")
    page.print(_setting(document))
    for dim in document["dims"]:
        page.print(f"\n{dim} dimensions", style="bold")
        rows = [row for row in document["rows"] if row["dim"] == dim]
        for group, heading in GROUP_LABELS.items():
            _group(
                page,
                heading,
                [row for row in rows if group == ("null" if row["group"] == "clean" else row["group"])],
                header=group == "null",
            )
    keys = list(document["rows"][0]["metrics"])
    titles = "\n".join(
        f"{METRIC_LABELS[key][0]:<9}{': '.join(part for part in METRIC_LABELS[key][1:] if part)}" for key in keys
    )
    page.print("\n" + LEGEND_TEXT.format(limit=document["limit"], nulls=document["nulls"], titles=titles))
    _summary(page, document)
    written: str = page.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.strip("\n").split("\n")) + "\n"


def _page(color: bool) -> Console:
    from rich.console import Console

    # An empty environment: what is printed depends on the arguments alone.
    return Console(
        file=io.StringIO(),
        width=WIDTH,
        color_system="standard" if color else None,
        force_terminal=color,
        no_color=not color,
        markup=False,
        emoji=False,
        highlight=False,
        force_jupyter=False,
        legacy_windows=False,
        _environ={},
    )


def describe_result(document: Mapping[str, Any]) -> str:
    """One line: did the score hold?"""
    rows, off = len(document["rows"]), document["off"]
    told = f"mean absolute error {document['mean_absolute_error']:.3f}"
    if document["ok"]:
        return f"PASSED  all {rows} rows are within their tolerance; {told}"
    named = "; ".join(off[:2]) + (f" and {len(off) - 2} more" if len(off) > 2 else "")
    return f"FAILED  {len(off)} of {rows} rows are off: {named}; {told}"


def _setting(document: Mapping[str, Any]) -> str:
    covered, runs = (
        sum(share * row["repeats"] for row in document["rows"] for share in [row["covered"] if of else 1])
        for of in (True, False)
    )
    seeds = f"seed{'s' * (len(document['seeds']) > 1)} {', '.join(map(str, document['seeds']))}"
    return (
        f"{document['n']:,} generated against {document['n_real']:,} real samples each time, {seeds}.\n"
        f"The 95 % interval held the truth in {covered:.0f} of {runs:.0f} comparisons ({covered / runs:.0%})."
    )


def _group(page: Console, heading: str, rows: Sequence[Mapping[str, Any]], *, header: bool) -> None:
    from rich.table import Table

    if not rows:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=header, header_style="")
    for title, width in (("", 27), ("lost", 4), ("score", 5), ("95 %", 7), ("verdict", 9), ("off", 3), ("ok", 3)):
        table.add_column(title, width=width, no_wrap=True, justify="left" if width in (27, 9) else "right")
    for key in rows[0]["metrics"]:
        table.add_column(METRIC_LABELS[key][0] + " ", width=4, no_wrap=True, justify="right")
    for row in rows:
        table.add_row(*_cells(row), style="" if row["ok"] else "bold red")
    if not header:
        page.print(f"  {heading}", style="dim")
    page.print(table)


def _cells(row: Mapping[str, Any]) -> list[str]:
    score = row["score"]
    words = [VERDICT_LABELS[name] for name in row["verdicts"]]
    marks = [
        f"{format_short_number(found['value'])}{'*' if found['told'] else ' '}" for found in row["metrics"].values()
    ]
    return [
        row["name"],
        format_short_fraction(row["target"]),
        format_short_fraction(score["value"]),
        f"{format_short_fraction(score['low'])}–{format_short_fraction(score['high'])}",
        words[0] if len(words) == 1 else "mixed",
        format_short_fraction(row["off_manifold"]),
        "yes" if row["ok"] else "OFF",
        *marks,
    ]


def _summary(page: Console, document: Mapping[str, Any]) -> None:
    """The score and each metric: what it found, what it cried wolf at."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    one = next(iter(document["summary"].values()))
    for title, right in (
        ("", False),
        (f"found of {one['of']}", True),
        (f"false alarms of {one['of_none']}", True),
        ("AUC", True),
    ):
        table.add_column(title, no_wrap=True, justify="right" if right else "left")
    for key, found in document["summary"].items():
        name = "gandiag's score" if key == "score" else METRIC_LABELS[key][1]
        area = "–" if found["auc"] is None else f"{found['auc']:.3f}"
        table.add_row(name, str(found["found"]), str(found["alarms"]), area, style="bold" if key == "score" else "")
    page.print(f"\nWho tells a loss of {document['lost']:.0%} or more from none, whatever the fidelity?", style="bold")
    page.print(table)
    page.print(
        "found, false alarms: rows marked *; for the score, rows called collapsed. AUC: the chance that a\n"
        "row with such a loss reads worse than one with none; mean over dimensions, documented directions."
    )


def format_short_fraction(value: float) -> str:
    """A share in three characters: .52, 1.0"""
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text[:3] if text.startswith("1") else text


def format_short_number(value: float) -> str:
    """Any number in three characters: .43, 2.5, 585, 17k, -.1"""
    if abs(value) < 0.995:
        text = f"{value:.{1 if value <= -0.05 else 2}f}".replace("0.", ".", 1)
        return text.removeprefix("-") if value > -0.05 else text
    if abs(value) < 9.95:
        return f"{value:.1f}"
    return f"{value:.0f}" if abs(value) < 999.5 else f"{value / 1000:.0f}k"
