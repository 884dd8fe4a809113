"""gandiag report: shows a saved Record as text, page or JSON. Never imports torch; matplotlib only for pages."""

from __future__ import annotations

import click

from gandiag.errors import RecordError
from gandiag.record import Record
from gandiag.report.formats import FORMATS, guess_format

from . import console
from .options import output_option, verbose_option


@click.command("report")
@click.argument("record", metavar="RECORD")
@click.option(
    "-f",
    "--format",
    "format_name",
    metavar="FORMAT",
    help="text, html, json, markdown, csv, tex (a table), svg (a figure), or a plug-in's  [default: from the suffix of "
    "-o, else text]",
)
@output_option("write to this file instead of standard output")
@verbose_option("show the whole report (-v), with all measurements and remedies (-vv)")
def report_command(record: str, format_name: str | None, output: str | None, verbose: int) -> None:
    """Show RECORD, a file written by `gandiag audit -o`. Nothing is measured again.

    \b
    gandiag report audit.json                    the text that the audit printed
    gandiag report audit.json -v                 the whole report
    gandiag report audit.json -o report.html     one self-contained page
    """
    loaded, format_name = Record.read(record), format_name or guess_format(output)
    render = FORMATS.get(format_name)
    try:
        if format_name == "text" and output is None:
            more = "The whole report: -v; as a page with pictures: -o FILE.html"
            console.print_record(loaded, paths=(f"record {record}",), verbose=verbose, more=more)
            return
        text = render(loaded)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"{record} is a record with damaged content: {type(error).__name__}: {error}"
        hint = "write it again with `gandiag audit -o`; if gandiag itself wrote this content, please report it"
        raise RecordError(message, hint) from error
    console.write_or_print(text, output)
