"""gandiag gate: records and checkpoints against a policy, for CI. Judging records never imports torch."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from gandiag.config import ResolvedConfig, resolve_config
from gandiag.errors import ExitCode, GandiagError
from gandiag.record import Record, write_atomically
from gandiag.report.gate_formats import GATE_FORMATS
from gandiag.report.gate_text import worst_exit_code
from gandiag.verdict.gate import GatePolicy, GateResult, find_policy, gate, make_error_result, read_policy
from gandiag.verdict.gate_policy import ALLOWED_STATES

from . import console
from .options import GroupedCommand, audit_options, format_config


@click.command("gate", cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("subjects", metavar="RECORD|CKPT…", nargs=-1, required=True)
@click.option(
    "--policy",
    "policy_path",
    metavar="FILE",
    envvar="GANDIAG_POLICY",
    help="TOML with a [gate] table  [default: gandiag.toml, pyproject.toml]",
)
@click.option(
    "--max-score",
    type=float,
    metavar="X",
    envvar="GANDIAG_MAX_SCORE",
    help="the collapse score must be below this  [default: the record's limit]",
)
@click.option(
    "--baseline", metavar="RECORD", envvar="GANDIAG_BASELINE", help="an earlier record that none may be worse than"
)
@click.option(
    "--max-regress",
    type=float,
    metavar="X",
    envvar="GANDIAG_MAX_REGRESS",
    help="how much worse the score may be  [default: 0.05]",
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(ALLOWED_STATES),
    envvar="GANDIAG_ALLOW",
    help="let this pass (repeatable)",
)
@click.option(
    "-f",
    "--format",
    "form",
    metavar="FORMAT",
    default="text",
    show_default=True,
    help="text, json, junit, github, markdown, or a plug-in's",
)
@click.option("-o", "--output", metavar="FILE", help="write to this file instead of standard output")
@click.option(
    "--show-config", "list_config", is_flag=True, help="print the policy and every setting with its source, and stop"
)
@click.option("-q", "--quiet", count=True, help="no progress (-q), nothing at all (-qq)")
@click.option("--debug", is_flag=True, help="show tracebacks")
@audit_options
def gate_command(
    subjects: tuple[str, ...],
    policy_path: str | None,
    form: str,
    output: str | None,
    list_config: bool,
    quiet: int,
    debug: bool,
    **flags: Any,
) -> int:
    """Hold records (from `gandiag audit -o`) or checkpoints against a policy.

    \b
    gandiag gate audit.json                               the limit that the record carries
    gandiag gate audit.json --max-score 0.2               a limit of your own
    gandiag gate audit.json --baseline last.json          not worse than the last one
    gandiag gate netG.pth --real photos/ -f junit -o gate.xml

    Exit codes: 0 passed, 1 a limit is violated, 2 something could not be judged, 3 the evidence is insufficient. The worst of several wins.
    """
    console.configure_output(quiet=quiet, debug=debug)
    render = GATE_FORMATS.get(form)
    book = _book(policy_path, {name: flags.pop(name) for name in ("max_score", "baseline", "max_regress", "allow")})
    resolved = resolve_config({name: value for name, value in flags.items() if value is not None})
    if list_config:
        console.print_result(_config(book, resolved))
        return ExitCode.OK
    baseline = None if book.baseline is None else Record.read(book.baseline)
    found = [_judged(subject, book, baseline, resolved) for subject in subjects]
    text = render(found)
    if output is None:
        console.print_result(text)
    else:
        write_atomically(output, text)
        console.print_info(f"wrote {output}")
    if form == "github":
        _summarise(found)
    return worst_exit_code(found)


def _book(path: str | None, flags: dict[str, Any]) -> GatePolicy:
    """The policy of the file, with what the command line says put over it."""
    book = read_policy(path) if path is not None else find_policy(Path.cwd())
    said = {name: value for name, value in flags.items() if value is not None and value != ()}
    lines = {key: where for key, where in book.lines.items() if key.replace("-", "_") not in said}
    if "allow" in said:
        said["allow"] = book.allow | frozenset(said["allow"])
    lines |= {name.replace("_", "-"): _source(name) for name in said}
    return replace(book, **said, lines=lines)


def _source(name: str) -> str:
    """Where the command line has a value from: its option, or the environment."""
    origin = click.get_current_context().get_parameter_source(name)
    return (
        f"GANDIAG_{name.upper()}"
        if origin is not None and origin.name == "ENVIRONMENT"
        else f"--{name.replace('_', '-')}"
    )


def _config(book: GatePolicy, resolved: ResolvedConfig) -> str:
    """The policy, limit by limit, then the settings that checkpoints are audited with."""
    shown = {
        "max-score": "the record's limit" if book.max_score is None else book.max_score,
        "max-regress": book.max_regress,
        "baseline": book.baseline or "(none)",
        "allow": tuple(sorted(book.allow)),
        "forbid": book.forbid,
    }
    values: dict[str, Any] = {key: value for key, value in shown.items()}
    sources = {key: book.lines.get(key, "default") for key in shown}
    for limit in book.limits:
        worse = "" if limit.max_regress is None else f" regress {limit.max_regress:g}"
        values[f"limits.{limit.key}"], sources[f"limits.{limit.key}"] = f"{limit}{worse}".strip(), limit.where
    audited = {entry.name: getattr(resolved.config, entry.name) for entry in fields(resolved.config)}
    rows = [f"{key:<24}  {_shown(value):<28}  {sources[key]}" for key, value in values.items()]
    return "\n".join(["gate", *rows, "", "audit", format_config(audited, dict(resolved.sources))])


def _shown(value: Any) -> str:
    return ", ".join(value) or "(none)" if isinstance(value, tuple) else str(value)


def _judged(subject: str, book: GatePolicy, baseline: Record | None, resolved: ResolvedConfig) -> GateResult:
    """One subject; whatever keeps it from being judged is its result, so that the others are judged too."""
    try:
        record = Record.read(subject) if is_record_file(subject) else _audited(subject, resolved)
        return replace(gate(record, book, baseline=baseline), subject=subject)
    except GandiagError as problem:
        return make_error_result(subject, problem)
    except (AttributeError, KeyError, TypeError, ValueError) as damaged:
        if not is_record_file(subject):
            raise
        what = f"{subject} is a record with damaged content: {type(damaged).__name__}: {damaged}"
        return make_error_result(subject, GandiagError(what, "write it again with `gandiag audit -o`"))


def is_record_file(path: str) -> bool:
    """Whether a path holds JSON rather than weights or samples, by its first bytes. A missing .json is one too, so that the error speaks of records."""
    if not os.path.isfile(path):
        return path.endswith(".json")
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    except OSError:
        return path.endswith(".json")


def _audited(subject: str, resolved: ResolvedConfig) -> Record:
    from gandiag.pipeline.run_audit import audit_with_config

    with console.show_progress() as on_progress:
        return audit_with_config(subject, resolved, progress=on_progress, on_message=console.print_info)


def _summarise(found: list[GateResult]) -> None:
    """Append the result as Markdown to the job's summary page, where GitHub says that there is one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(GATE_FORMATS.get("markdown")(found) + "\n")
    except OSError as problem:
        console.print_warning(f"the job summary {path} cannot be written: {problem.strerror}")
