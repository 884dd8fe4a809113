"""gandiag compare: compares the numbers that two records share. Needs no samples and never imports torch."""

from __future__ import annotations

from dataclasses import replace

import click

from gandiag.errors import ConfigError, RecordError
from gandiag.record import Record
from gandiag.report.comparison import ComparisonReport, render_comparison
from gandiag.verdict.compare import check_regression, compare
from gandiag.verdict.gate_policy import DEFAULT_MAX_REGRESS
from gandiag.verdict.limits import Limit

from . import console
from .options import output_option, verbose_option


@click.command("compare")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "--max-regress",
    type=float,
    default=DEFAULT_MAX_REGRESS,
    show_default=True,
    metavar="X",
    envvar="GANDIAG_MAX_REGRESS",
    help="how much worse the score may get",
)
@click.option(
    "--allow", multiple=True, type=click.Choice(["inconclusive"]), help="exit 0 if the evidence is insufficient"
)
@click.option(
    "-f",
    "--format",
    "format_name",
    metavar="FORMAT",
    help="text, json, markdown or html  [default: html for -o FILE.html, else text]",
)
@output_option("write to this file instead of standard output")
@verbose_option("also show what stayed the same")
def compare_command(
    old: str,
    new: str,
    max_regress: float,
    allow: tuple[str, ...],
    format_name: str | None,
    output: str | None,
    verbose: int,
) -> int:
    """Show what changed from OLD to NEW, two records of `gandiag audit -o`, with the interval of each difference.

    If both audits used the same seed and sample sizes, the replicates of the score are paired, which makes small
    changes detectable.

    Exit codes: 0 the score did not get worse by more than --max-regress, 1 it did, 2 the records cannot be compared,
    3 the evidence is insufficient.
    """
    if not max_regress >= 0:
        raise ConfigError(f"--max-regress is {max_regress}", "give a number of at least 0")
    old_record, new_record = Record.read(old), Record.read(new)
    try:
        comparison = compare(old_record, new_record)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"one of the records has damaged content: {type(error).__name__}: {error}"
        raise RecordError(message, "write both again with `gandiag audit -o`") from error
    check = check_regression(Limit("score"), comparison.change("score"), max_regress)
    report = ComparisonReport(old, new, comparison, replace(check, allowed=check.state in allow))
    if format_name is None:
        format_name = "html" if output is not None and output.lower().endswith((".html", ".htm")) else "text"
    if format_name == "html":
        from gandiag.report.comparison_html import render_comparison_page

        console.write_or_print(render_comparison_page(report, old_record, new_record, verbose=verbose > 0), output)
        return report.exit_code
    console.write_or_print(render_comparison(report, format_name, verbose=verbose > 0), output)
    return report.exit_code
