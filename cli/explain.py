"""gandiag explain: describes a rule or measurement, how it is computed, when it misleads, and what to try. No torch."""

from __future__ import annotations

import textwrap

import click

from gandiag.catalogue import DocEntry, get_entry
from gandiag.verdict.remedies import get_remedies, load_remedies

from . import console

WIDTH = 80


@click.command("explain")
@click.argument("name", metavar="CODE|METRIC")
def explain_command(name: str) -> None:
    """Explain a rule (GD103), a measurement (recall) or a component of the score (missing).

    Shows meaning, formula, direction, caveats, remedies and source.
    """
    console.print_result(format_entry(get_entry(name)))


def format_entry(entry: DocEntry) -> str:
    """One catalogue entry as text; rules are followed by their remedies, best first."""
    is_rule = entry.key.startswith("GD")
    rows = [
        ("meaning", entry.summary),
        ("condition" if is_rule else "formula", entry.formula),
        ("better", "" if is_rule else entry.better),
        ("range", _format_bounds(entry)),
        ("unit", entry.unit),
        ("caveats", entry.caveats),
        ("advice", entry.advice),
        ("source", entry.source),
        ("published", entry.published),
    ]
    lines = [f"{entry.key}  {entry.title}", *(_format_row(name, text) for name, text in rows if text)]
    for rank, remedy in enumerate(get_remedies(entry.key), 1):
        lines += ["", _fill(f"{rank}. {remedy['title']}: {remedy['why']}", "  ", "     ")]
        fields = load_remedies()["remedies"][remedy["key"]]
        details = (("method", fields["how"]), ("cost", fields["price"]), ("source", fields["source"]))
        lines += [_format_row(name, text, 5) for name, text in details]
        # Commands are not wrapped, so that they can be pasted.
        lines += [f"     {'try it':<11}{command}" for command in fields.get("commands", ())]
    return "\n".join(lines)


def _format_bounds(entry: DocEntry) -> str:
    low, high = entry.bounds
    if low is None and high is None:
        return ""
    return f"{'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"


def _format_row(name: str, text: str, indent: int = 2) -> str:
    head = " " * indent + f"{name:<11}"
    return _fill(text, head, " " * len(head))


def _fill(text: str, first_indent: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first_indent, subsequent_indent=indent)
