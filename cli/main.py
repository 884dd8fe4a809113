"""The command `gandiag`: subcommands found lazily, and the boundary where every ending gets its exit code.

0 no collapse seen · 1 collapse · 2 could not audit · 3 evidence insufficient · 130 interrupted
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from gandiag import __version__
from gandiag.errors import ExitCode, GandiagError, close_match_hint

COMMANDS = {
    "audit": (
        "gandiag.cli.audit:audit_command",
        "Is this generator collapsed, how badly, in which way, and what helps?",
    ),
    "inspect": (
        "gandiag.cli.inspect:inspect_command",
        "What is in this file, and how would it be read? Nothing is run.",
    ),
    "gate": ("gandiag.cli.gate:gate_command", "For CI: hold records or checkpoints against a policy."),
    "compare": ("gandiag.cli.compare:compare_command", "What changed from one record to another, with intervals."),
    "explain": (
        "gandiag.cli.explain:explain_command",
        "What a finding or a number is, when it misleads, and what to try.",
    ),
    "losses": (
        "gandiag.cli.losses:losses_command",
        "What do the losses of this training say: cycle, runaway, winner, since when?",
    ),
    "list": ("gandiag.cli.list:list_command", "Every name that gandiag knows, and from which plug-in."),
    "report": ("gandiag.cli.report:report_command", "Show a record again: text, page or JSON. Nothing is measured."),
    "train": (
        "gandiag.cli.train:train_command",
        "Train a small GAN with or without a remedy, and audit its snapshots.",
    ),
    "bank": ("gandiag.cli.bank:bank_command", "The baselines: recipes, remedies and seeds in one table."),
    "selftest": (
        "gandiag.cli.selftest:self_test_command",
        "Check the score on this machine against collapses of known size.",
    ),
}


DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class LazyGroup(click.Group):
    """A group that imports a command when it is called, so that --help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attr = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(module), attr)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}: {close_match_hint(args[0], list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="gandiag %(version)s")
def cli() -> None:
    """Has this generator mode-collapsed?

    \b
      gandiag audit netG.pth --real photos/           a verdict with its evidence
      gandiag audit netG.pth --html report.html       the same as a page
      gandiag report audit.json                       show a saved record again
      gandiag gate audit.json --max-score 0.2         a CI gate with an exit code
      gandiag explain GD103                           what a finding means, and every remedy

    Exit codes: 0 no collapse seen, 1 collapse, 2 could not audit, 3 evidence insufficient, 130 interrupted.
    """


def run_command_line(argv: Sequence[str] | None = None) -> ExitCode:
    """Run a command line and return its exit code; every error becomes one sentence and an action on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Before torch starts its threads: waiting threads that spin for long slow a busy machine seven times and more.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _open_streams()
    try:
        return _bounded(arguments)
    except OSError:  # not even the complaint could be written
        return ExitCode.CANNOT_RUN


def _open_streams() -> None:
    """A stream that the caller has closed (`>&-`) swallows what is written."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _bounded(arguments: list[str]) -> ExitCode:
    from . import console

    try:
        code = cli.main(arguments, prog_name="gandiag", standalone_mode=False)
        sys.stdout.flush()
        return ExitCode(code or 0)
    except (click.Abort, KeyboardInterrupt):
        console.print_interrupted()
        return ExitCode.INTERRUPTED
    except click.ClickException as problem:
        problem.show()
    except GandiagError as problem:
        console.print_error(problem)
    except BrokenPipeError:
        # The reader of our output has gone: nothing more can be said, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        console.print_error(_full(problem)) if problem.errno in DISK_FULL_ERRORS else console.print_bug_report(problem)
    except Exception as bug:
        console.print_bug_report(bug)
    return ExitCode.CANNOT_RUN


def _full(problem: OSError) -> GandiagError:
    return GandiagError(
        f"the output cannot be written: {problem.strerror}", "free some space, or write elsewhere with -o"
    )


def entry() -> None:
    """The console script."""
    raise SystemExit(int(run_command_line()))
