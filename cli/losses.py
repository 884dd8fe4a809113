"""gandiag losses: what a training log says of stability."""

from __future__ import annotations

import sys

import click

from gandiag.errors import ExitCode
from gandiag.record import write_atomically
from gandiag.training_logs.analysis import losses as judged

from . import console
from .audit import check_writable


@click.command("losses", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("logs", metavar="LOG…", nargs=-1, required=True)
@click.option("--generator", metavar="COLUMN", help="column of the generator's loss, where the inferred one is wrong")
@click.option("--discriminator", metavar="COLUMN", help="column of the discriminator's loss")
@click.option("--step", metavar="COLUMN", help="column of the step")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="seed of the Monte Carlo test  [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON document (gandiag.losses/1)")
@click.option("-o", "--output", "json_path", metavar="FILE", help="write the JSON document here")
@click.option("--html", "html_path", metavar="FILE", help="write one self-contained page here")
@click.option("--exit-zero", is_flag=True, help="exit 0 whatever the verdict")
@click.option("-q", "--quiet", count=True, help="no notes (-q), nothing at all (-qq)")
@click.option("-v", "--verbose", count=True, help="every remedy")
@click.option("--debug", is_flag=True, help="show tracebacks")
def losses_command(
    logs: tuple[str, ...],
    generator: str | None,
    discriminator: str | None,
    step: str | None,
    seed: int,
    as_json: bool,
    json_path: str | None,
    html_path: str | None,
    exit_zero: bool,
    quiet: int,
    verbose: int,
    debug: bool,
) -> int:
    """Read the losses of a GAN training like an instrument.

    LOG: CSV, TSV, JSON lines, TensorBoard events, notebooks, or any text with the losses in it (a pasted scrollback); several
    files of one run are joined. Exit codes: 0 settled, 1 any other finding, 2 could not read, 3 inconclusive.
    """
    console.configure_output(quiet=quiet, verbose=verbose, debug=debug)
    for path in (json_path, html_path):
        check_writable(path)
    found = judged(list(logs), generator=generator, discriminator=discriminator, step=step, seed=seed)
    written = []
    if json_path is not None:
        write_atomically(json_path, found.to_json() + "\n")
        written.append(f"losses {json_path}")
    if html_path is not None:
        from gandiag.report.log_html import render_losses_page

        write_atomically(html_path, render_losses_page(found.document, found.findings))
        written.append(f"page {html_path}")
    if as_json:
        console.print_result(found.to_json())
    else:
        from gandiag.report.log_text import render_losses

        wide, color = console.get_output_width(sys.stdout), console.supports_color(sys.stdout)
        console.print_result(
            render_losses(found.document, found.findings, width=wide, color=color, paths=written, verbose=verbose > 0)
        )
    return ExitCode.OK if exit_zero else found.exit_code
