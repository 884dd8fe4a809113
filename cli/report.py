"""`gandiag report`: shows a Record again, as text, page or JSON. Never imports torch; matplotlib only for pages."""

from __future__ import annotations

from pathlib import Path

import click

from gandiag.errors import RecordError
from gandiag.record import Record, write_atomically
from gandiag.report.formats import FORMATS, guess_format

from . import console


@click.command("report", short_help="Show a record as text, page or JSON.")
@click.argument("record", type=click.Path(path_type=Path))
@click.option(
    "-f",
    "--format",
    "form",
    metavar="FORMAT",
    help="text, html, json, or a plug-in's. Default: what the suffix of -o says, else text.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead of standard output.")
@click.option("-v", "--verbose", is_flag=True, help="All measurements, all remedies, seconds per stage.")
def report_command(record: Path, form: str | None, output: Path | None, verbose: bool) -> None:
    """Show RECORD, a file written by `gandiag audit -o`.

    \b
    gandiag report audit.json                    the text that the audit printed
    gandiag report audit.json -o report.html     one self-contained page
    """
    found, form = Record.read(record), form or guess_format(output)
    render = FORMATS.get(form)
    try:
        if form == "text" and output is None:
            console.print_record(found, paths=(f"record {record}",), verbose=int(verbose))
            return
        text = render(found)
    except (AttributeError, KeyError, TypeError, ValueError) as wrong:
        what = f"{record} is a record with damaged content: {type(wrong).__name__}: {wrong}"
        raise RecordError(
            what, "write it again with `gandiag audit -o`; if gandiag wrote it as it is, please report that"
        ) from wrong
    if output is None:
        console.print_result(text)
    else:
        write_atomically(output, text)
        console.print_info(f"wrote {output}")
