"""gandiag explain: what a rule or measurement is, how it is computed, when it misleads, what to try. Never imports torch."""

from __future__ import annotations

import textwrap

import click

from gandiag.catalogue import DocEntry, get_entry
from gandiag.verdict.remedies import get_remedies

from . import console


@click.command("explain")
@click.argument("name", metavar="CODE|METRIC")
def explain_command(name: str) -> None:
    """Explain a rule (GD103), a measurement (recall) or a factor of the score (missing): formula, direction, when it misleads, what to try, source."""
    console.print_result(format_entry(get_entry(name)))


def format_entry(entry: DocEntry) -> str:
    """One entry of the catalogue as text, with the ranked remedies of a rule."""
    better = entry.better if not entry.key.startswith("GD") else ""
    rows = [
        ("means", entry.summary),
        ("how", entry.formula),
        ("better", better),
        ("bounds", _bounds(entry)),
        ("unit", entry.unit),
        ("misleads", entry.caveats),
        ("try", entry.advice),
        ("source", entry.source),
    ]
    lines = [f"{entry.key}  {entry.title}", *(_row(name, text) for name, text in rows if text)]
    for rank, remedy in enumerate(get_remedies(entry.key), 1):
        lines += [
            "",
            f"  {rank}. {remedy['title']}: {remedy['why']}",
            *(_row(name, remedy[name], 5) for name in ("how", "price", "source")),
        ]
    return "\n".join(lines)


def _bounds(entry: DocEntry) -> str:
    low, high = entry.bounds
    return (
        ""
        if low is None and high is None
        else f"{'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
    )


def _row(name: str, text: str, indent: int = 2) -> str:
    head = " " * indent + f"{name:<10}"
    return textwrap.fill(text, 80, initial_indent=head, subsequent_indent=" " * len(head))
