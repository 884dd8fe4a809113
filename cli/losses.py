"""gandiag losses: diagnoses the stability of a GAN training from its log."""

from __future__ import annotations

import sys

import click

from gandiag.errors import ExitCode
from gandiag.record import write_atomically
from gandiag.training_logs.analysis import losses

from . import console
from .audit import check_writable
from .options import (
    CONTEXT_SETTINGS,
    debug_option,
    exit_zero_option,
    html_option,
    json_option,
    output_option,
    quiet_option,
    verbose_option,
)


@click.command("losses", context_settings=CONTEXT_SETTINGS)
@click.argument("logs", metavar="LOG…", nargs=-1, required=True)
@click.option("--generator", metavar="COLUMN", help="column of the generator's loss, if inferred incorrectly")
@click.option("--discriminator", metavar="COLUMN", help="column of the discriminator's loss, if inferred incorrectly")
@click.option("--step", metavar="COLUMN", help="column of the step, if inferred incorrectly")
@click.option("--columns", metavar="NAMES", help="all columns of a table without a header, in order: step,d,g")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="seed of the Monte Carlo test  [default: 0]")
@json_option("print one JSON document (gandiag.losses/1)")
@output_option("write the JSON document here")
@html_option
@exit_zero_option
@quiet_option
@verbose_option("show all remedies")
@debug_option
def losses_command(
    logs: tuple[str, ...],
    generator: str | None,
    discriminator: str | None,
    step: str | None,
    columns: str | None,
    seed: int,
    as_json: bool,
    output: str | None,
    html_path: str | None,
    exit_zero: bool,
    quiet: int,
    verbose: int,
    debug: bool,
) -> int:
    """Diagnose a training log: oscillation, divergence, drift, or a dominating player.

    LOG: CSV, TSV, JSON lines, TensorBoard events, a notebook, or any text that contains the losses, such as copied
    terminal output; "-" is standard input. Several files of one run are joined. Exit codes: 0 settled, or no
    instability found; 1 an instability (failed, a player has won, diverging, bursts, oscillating); 2 cannot be read;
    3 neither: inconclusive, drifting, stepped, spiking, or D at chance.
    """
    console.configure_output(quiet=quiet, verbose=verbose, debug=debug)
    for path in (output, html_path):
        check_writable(path)
    analysis = losses(
        list(logs), generator=generator, discriminator=discriminator, step=step, columns=columns, seed=seed
    )
    written = []
    if output is not None:
        write_atomically(output, analysis.to_json() + "\n")
        written.append(f"losses {output}")
    if html_path is not None:
        from gandiag.report.log_html import render_losses_page

        write_atomically(html_path, render_losses_page(analysis.document, analysis.findings))
        written.append(f"page {html_path}")
    if as_json:
        console.print_result(analysis.to_json())
    else:
        from gandiag.report.log_text import render_losses

        width, color = console.get_output_width(sys.stdout), console.supports_color(sys.stdout)
        text = render_losses(
            analysis.document, analysis.findings, width=width, color=color, paths=written, verbose=verbose > 0
        )
        console.print_result(text.splitlines()[0] if quiet else text)
    return ExitCode.OK if exit_zero else analysis.exit_code
