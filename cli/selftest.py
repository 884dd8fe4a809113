"""gandiag selftest: checks the score and common metrics on this machine, on generators with a known loss."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from gandiag.errors import ConfigError, ExitCode

from . import console
from .options import json_option, quiet_option

MIN_SAMPLES, MAX_DIM = 500, 4096  # with fewer samples, rows miss their tolerance by chance


@click.command("selftest")
@click.option("--dims", default="2,8,64,512", show_default=True, metavar="D,D…", help="dimensions of the samples")
@click.option(
    "--seeds", default=1, show_default=True, metavar="K", help="mixtures to average over, each with its own samples"
)
@click.option("--first-seed", default=0, show_default=True, metavar="S", help="use seeds S … S + K - 1")
@click.option(
    "-n",
    "--n",
    "n",
    default=1000,
    show_default=True,
    metavar="N",
    help="generated samples per comparison, against 2N real ones",
)
@click.option("--quick", is_flag=True, help="a dozen rows in 2 and 64 dimensions at n = 600; takes seconds")
@json_option("print one JSON document")
@quiet_option
@click.pass_context
def self_test_command(
    context: click.Context, dims: str, seeds: int, first_seed: int, n: int, quick: bool, as_json: bool, quiet: int
) -> int:
    """Check the score on this machine against collapses of known size.

    Toy generators lose modes, width, proportions or distinct outputs, or only fidelity, or both. For each, the score
    and its interval are shown beside the true loss and other metrics. Takes about a minute and a half on two cores;
    nothing is read, written or downloaded.

    Exit codes: 0 every row is within its tolerance, 1 some row is not, 2 could not run.
    """
    console.configure_output(quiet=quiet)
    settings = {"dims": _parse_dims(dims), "n": _check_at_least("n", n, MIN_SAMPLES)}
    if quick:  # has its own dimensions and n, unless they are given
        settings = {name: value for name, value in settings.items() if _is_given(context, name)}
    seed_range = tuple(range(first_seed, first_seed + _check_at_least("seeds", seeds, 1)))
    document = _run(quick, {**settings, "seeds": seed_range})
    if as_json:
        console.print_result(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        from gandiag.report.selftest import render_self_test

        console.print_result(render_self_test(document, color=console.supports_color(sys.stdout)))
    return ExitCode.OK if document["ok"] else ExitCode.COLLAPSED


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _run(quick: bool, settings: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import replace

    from gandiag.testing.selftest import SelfTestConfig, quick_config, run_selftest

    config = replace(quick_config() if quick else SelfTestConfig(), **settings)
    with console.show_progress() as on_progress:
        return run_selftest(config, on_progress, console.print_info)


def _parse_dims(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    invalid = [part for part in parts if not part.isdigit() or not 2 <= int(part) <= MAX_DIM]
    hint = f"give whole numbers from 2 to {MAX_DIM}, such as 2,64"
    if not parts:
        raise ConfigError(f"--dims {text!r} names no dimension", hint)
    if invalid:
        raise ConfigError(f"--dims {text!r} contains {invalid[0]!r}", hint)
    return tuple(dict.fromkeys(map(int, parts)))


def _check_at_least(name: str, value: int, minimum: int) -> int:
    if value < minimum:
        raise ConfigError(f"--{name} {value} is too few", f"give at least {minimum}")
    return value
