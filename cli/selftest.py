"""gandiag selftest: generators with a known loss, judged on this machine by the score and by what else people measure."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from gandiag.errors import ConfigError, ExitCode

from . import console

MIN_SAMPLES, MAX_DIM = 500, 4096  # fewer samples leave the tolerance to chance


@click.command("selftest")
@click.option("--dims", default="2,8,64,512", show_default=True, metavar="D,D…", help="dimensions of the samples")
@click.option(
    "--seeds", default=1, show_default=True, metavar="K", help="worlds to average over, each with its own samples"
)
@click.option("--first-seed", default=0, show_default=True, metavar="S", help="seeds S … S + K - 1; choose your own")
@click.option(
    "-n",
    "--n",
    "n",
    default=1000,
    show_default=True,
    metavar="N",
    help="generated samples a comparison, against 2N real ones",
)
@click.option("--quick", is_flag=True, help="a dozen rows in 2 and 64 dimensions at n = 600: some seconds")
@click.option("--json", "as_json", is_flag=True, help="print one JSON document")
@click.option("-q", "--quiet", count=True, help="no progress (-q), nothing at all (-qq)")
@click.pass_context
def self_test_command(
    context: click.Context, dims: str, seeds: int, first_seed: int, n: int, quick: bool, as_json: bool, quiet: int
) -> int:
    """Check the score on this machine against collapses of known size.

    Toy generators lose modes, width, proportions or distinct outputs, or only fidelity, or both. For each the score and its
    interval stand beside the loss and beside other metrics. About a minute and a half on two cores; nothing is read, written or downloaded.

    Exit codes: 0 every row within its tolerance, 1 some row off, 2 could not run.
    """
    console.configure_output(quiet=quiet)
    asked = {
        name for name in ("dims", "n") if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    settings = {"dims": _dims(dims), "n": _at_least("n", n, MIN_SAMPLES)}
    chosen = {name: value for name, value in settings.items() if not quick or name in asked}
    document = _run(quick, {**chosen, "seeds": tuple(range(first_seed, first_seed + _at_least("seeds", seeds, 1)))})
    if as_json:
        console.print_result(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        from gandiag.report.selftest import render_self_test

        console.print_result(render_self_test(document, color=console.supports_color(sys.stdout)))
    return ExitCode.OK if document["ok"] else ExitCode.COLLAPSED


def _run(short: bool, settings: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import replace

    from gandiag.testing.selftest import SelfTestConfig, quick_config, run_selftest

    with console.show_progress() as on_progress:
        return run_selftest(
            replace(quick_config() if short else SelfTestConfig(), **settings), on_progress, console.print_info
        )


def _dims(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not part.isdigit() or not 2 <= int(part) <= MAX_DIM]
    if wrong or not parts:
        raise ConfigError(
            f"--dims {text!r} names {repr(wrong[0]) if wrong else 'no dimension'}",
            f"give whole numbers from 2 to {MAX_DIM}, such as 2,64",
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ConfigError(f"--{name} {value} is too few", f"give at least {least}")
    return value
