"""The command `gandiag`: imports subcommands lazily, and turns every outcome into an exit code.

0 no collapse found · 1 collapse · 2 could not run · 3 insufficient evidence · 130 interrupted
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from gandiag import __version__
from gandiag.errors import ExitCode, GandiagError, close_match_hint

# Name -> where the command is, and its summary; nothing is imported for --help.
COMMANDS = {
    "audit": ("gandiag.cli.audit:audit_command", "Diagnose mode collapse: verdict, extent, kind, and remedies."),
    "merge": ("gandiag.cli.merge:merge_command", "Make the record of an audit from all its shards."),
    "inspect": ("gandiag.cli.inspect:inspect_command", "Show what a checkpoint contains and how it would be loaded."),
    "gate": ("gandiag.cli.gate:gate_command", "Check records or checkpoints against a policy, for CI."),
    "compare": ("gandiag.cli.compare:compare_command", "Show what changed between two records, with intervals."),
    "explain": ("gandiag.cli.explain:explain_command", "Explain a finding or metric: meaning, caveats, remedies."),
    "losses": (
        "gandiag.cli.losses:losses_command",
        "Diagnose a training log: oscillation, divergence, drift, or a dominating player.",
    ),
    "list": ("gandiag.cli.list:list_command", "List metrics, rules, formats and other names, with their plug-ins."),
    "report": ("gandiag.cli.report:report_command", "Show a saved record as text, page, Markdown, table or figure."),
    "train": (
        "gandiag.cli.train:train_command",
        "Train a small GAN with or without a remedy and audit its snapshots.",
    ),
    "bank": ("gandiag.cli.bank:bank_command", "Train and audit the baselines: all recipes, remedies and seeds."),
    "selftest": ("gandiag.cli.selftest:self_test_command", "Check the score against collapses of known size."),
}

TORCH_COMMANDS = ("audit", "merge", "inspect", "train", "bank", "selftest")
_TORCH_ADDRESS_SPACE = 4 * 2**30
_MEMORY_WORDS = re.compile("map segment|allocate memory|DefaultCPUAllocator|bad_alloc|out of memory", re.IGNORECASE)
SAMPLING_PACKAGES = ("torch", "torchvision", "sklearn", "safetensors")  # of no use to gate, compare and report
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attr = COMMANDS[name][0].partition(":")
        if name in TORCH_COMMANDS:
            require_address_space()
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
      gandiag audit netG.pth --html report.html       the same as an HTML page
      gandiag report audit.json                       a saved record
      gandiag gate audit.json --max-score 0.2         a CI gate with an exit code
      gandiag explain GD103                           what a finding means, and its remedies

    Exit codes: 0 no collapse found, 1 collapse, 2 could not run, 3 insufficient evidence, 130 interrupted.
    """


def run_command_line(argv: Sequence[str] | None = None) -> ExitCode:
    """Run a command line and return its exit code; every error is printed as one sentence and an action on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Before torch starts its threads: threads that spin while waiting slow down a busy machine sevenfold or more.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _open_streams()
    try:
        return _run_guarded(arguments)
    except OSError:  # even the error message could not be written
        return ExitCode.CANNOT_RUN


def _open_streams() -> None:
    """Replace streams that the caller has closed (`>&-`) with the null device."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def forget_working_folder() -> None:
    """Import nothing from the working folder: `python -m` and an empty entry of PYTHONPATH put it on the path.

    It stays where PYTHONPATH names it in full. Only --model adds it again, for one import.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:
        return
    stated = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if not any(os.path.isabs(entry) and os.path.realpath(entry) == here for entry in stated):
        sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]


def _run_guarded(arguments: list[str]) -> ExitCode:
    from . import console

    try:
        code = cli.main(arguments, prog_name="gandiag", standalone_mode=False)
        sys.stdout.flush()
        return ExitCode(code or 0)
    except (click.Abort, KeyboardInterrupt):
        console.print_interrupted()
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
    except GandiagError as error:
        console.print_error(error)
    except BrokenPipeError:
        # The reader of our output has gone: nothing more can be printed, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno in DISK_FULL_ERRORS:
            hint = "free some space, or write elsewhere with -o"
            console.print_error(GandiagError(f"the output cannot be written: {error.strerror}", hint))
        else:
            console.print_error(_explain_system_error(error))
    except (MemoryError, RecursionError):
        console.print_error(_memory_error())
    except Exception as error:
        if isinstance(error, (ImportError, RuntimeError)) and _MEMORY_WORDS.search(str(error)):
            console.print_error(_memory_error())
        elif isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in SAMPLING_PACKAGES:
            console.print_error(_missing_package_error(str(error.name)))
        else:
            console.print_bug_report(error)
    return ExitCode.CANNOT_RUN


def _explain_system_error(error: OSError) -> GandiagError:
    try:
        os.getcwd()
    except OSError:
        return GandiagError("the working folder does not exist any more", "change to one that does: cd ~")
    where = f"{error.filename} cannot be used" if error.filename else "the system refused"
    return GandiagError(f"{where}: {error.strerror or error}", "check the path and your rights")


def _missing_package_error(name: str) -> GandiagError:
    """Records can be judged and shown without torch; sampling cannot do without it."""
    return GandiagError(
        f"{name.split('.')[0]} is not installed, and this command draws or reads samples",
        "pip install torch --index-url https://download.pytorch.org/whl/cpu (or with CUDA), then pip install gandiag",
    )


def _memory_error() -> GandiagError:
    return GandiagError("there is not enough memory", "free some, or pass a smaller -n and --batch-size")


def require_address_space() -> None:
    """GandiagError under a limit (ulimit -v) with which torch ends the process, before it is imported."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < _TORCH_ADDRESS_SPACE:
        raise GandiagError(
            f"the address space is limited to {limit / 2**30:.1f} GiB, and torch needs "
            f"{_TORCH_ADDRESS_SPACE / 2**30:.0f} GiB",
            "raise the limit: ulimit -v unlimited",
        )


def entry() -> None:
    """The entry point of the console script."""
    forget_working_folder()
    raise SystemExit(int(run_command_line()))
