"""gandiag compare: two records held against each other, from the numbers that both hold. Never samples, never imports torch."""

from __future__ import annotations

from dataclasses import replace

import click

from gandiag.errors import ConfigError, RecordError
from gandiag.record import Record, write_atomically
from gandiag.report.comparison import ComparisonReport, render_comparison
from gandiag.verdict.compare import check_regression, compare
from gandiag.verdict.gate_policy import DEFAULT_MAX_REGRESS
from gandiag.verdict.limits import Limit

from . import console


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
    help="how much worse the score may be",
)
@click.option("--allow", multiple=True, type=click.Choice(["inconclusive"]), help="exit 0 where it cannot be told")
@click.option(
    "-f", "--format", "form", metavar="FORMAT", default="text", show_default=True, help="text, json or markdown"
)
@click.option("-o", "--output", metavar="FILE", help="write to this file instead of standard output")
@click.option("-v", "--verbose", is_flag=True, help="show what stayed the same too")
def compare_command(
    old: str, new: str, max_regress: float, allow: tuple[str, ...], form: str, output: str | None, verbose: bool
) -> int:
    """What changed from OLD to NEW, two records of `gandiag audit -o`; each difference with its interval.

    Where both were audited with the same seed and numbers of samples, the replicates of the score pair up, and small changes show.

    Exit codes: 0 the score did not get worse by more than --max-regress, 1 it did, 2 they cannot be compared, 3 the intervals do not tell.
    """
    if not max_regress >= 0:
        raise ConfigError(f"--max-regress is {max_regress}", "give a number of at least 0")
    before, after = Record.read(old), Record.read(new)
    try:
        found = compare(before, after)
    except (AttributeError, KeyError, TypeError, ValueError) as wrong:
        what = f"one of the records has damaged content: {type(wrong).__name__}: {wrong}"
        raise RecordError(what, "write both again with `gandiag audit -o`") from wrong
    check = check_regression(Limit("score"), found.change("score"), max_regress)
    result = ComparisonReport(old, new, found, replace(check, allowed=check.state in allow))
    text = render_comparison(result, form, verbose=verbose)
    if output is None:
        console.print_result(text)
    else:
        write_atomically(output, text)
        console.print_info(f"wrote {output}")
    return result.exit_code
