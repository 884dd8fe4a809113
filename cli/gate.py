"""gandiag gate: checks records and checkpoints against a policy, for CI. Checking records never imports torch."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from gandiag.config import ResolvedConfig, resolve_config
from gandiag.errors import ExitCode, GandiagError
from gandiag.record import Record
from gandiag.report.formats import GATE_FORMATS
from gandiag.report.gate_text import worst_exit_code
from gandiag.untrusted.files import open_regular
from gandiag.verdict.gate import GatePolicy, GateResult, find_policy, gate, make_error_result, read_policy
from gandiag.verdict.gate_policy import ALLOWED_STATES, is_allowable

from . import console
from .options import (
    CONTEXT_SETTINGS,
    GroupedCommand,
    audit_options,
    debug_option,
    format_config,
    output_option,
    quiet_option,
)


class AllowedChoice(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2 only
    """A state of a check, or the code of a finding."""

    def __init__(self) -> None:
        super().__init__(ALLOWED_STATES)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value) if is_allowable(str(value)) else str(super().convert(value, param, ctx))


_POLICY_FLAGS = ("max_score", "baseline", "max_regress", "allow")


@click.command("gate", cls=GroupedCommand, context_settings=CONTEXT_SETTINGS)
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
    "--baseline", metavar="RECORD", envvar="GANDIAG_BASELINE", help="earlier record that the score is compared with"
)
@click.option(
    "--max-regress",
    type=float,
    metavar="X",
    envvar="GANDIAG_MAX_REGRESS",
    help="how much worse than the baseline the score may be  [default: 0.05]",
)
@click.option(
    "--allow",
    multiple=True,
    type=AllowedChoice(),
    envvar="GANDIAG_ALLOW",
    help="let checks in this state, or with this finding (GD201), pass (repeatable)",
)
@click.option(
    "-f",
    "--format",
    "format_name",
    metavar="FORMAT",
    default="text",
    show_default=True,
    help="text, json, junit, github, markdown, or a plug-in's",
)
@output_option("write to this file instead of standard output")
@click.option("--show-config", is_flag=True, help="print the policy and every setting with its source, and exit")
@quiet_option
@debug_option
@audit_options
def gate_command(
    subjects: tuple[str, ...],
    policy_path: str | None,
    format_name: str,
    output: str | None,
    show_config: bool,
    quiet: int,
    debug: bool,
    **flags: Any,
) -> int:
    """Check records (from `gandiag audit -o`) or checkpoints against a policy.

    \b
    gandiag gate audit.json                               the limit stored in the record
    gandiag gate audit.json --max-score 0.2               your own limit
    gandiag gate audit.json --baseline last.json          no worse than an earlier record
    gandiag gate netG.pth --real photos/ -f junit -o gate.xml

    Exit codes: 0 passed, 1 a limit is violated, 2 something could not be evaluated, 3 the evidence is insufficient.
    With several subjects, the worst code counts.
    """
    console.configure_output(quiet=quiet, debug=debug)
    render = GATE_FORMATS.get(format_name)
    policy = _load_policy(policy_path, {name: flags.pop(name) for name in _POLICY_FLAGS})
    resolved = resolve_config({name: value for name, value in flags.items() if value is not None})
    if show_config:
        console.print_result(_format_policy(policy, resolved))
        return ExitCode.OK
    console.print_import_note(resolved.config.model)
    baseline = None if policy.baseline is None else Record.read(policy.baseline)
    results = [_evaluate(subject, policy, baseline, resolved) for subject in subjects]
    console.write_or_print(render(results), output)
    if format_name == "github":
        _write_job_summary(results)
    return worst_exit_code(results)


def _load_policy(path: str | None, flags: dict[str, Any]) -> GatePolicy:
    """The policy of the file, overridden by the command line and the environment."""
    policy = read_policy(path) if path is not None else find_policy(Path.cwd())
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    lines = {key: where for key, where in policy.lines.items() if key.replace("-", "_") not in given}
    if "allow" in given:
        given["allow"] = policy.allow | frozenset(given["allow"])
    lines |= {name.replace("_", "-"): _describe_origin(name) for name in given}
    return replace(policy, **given, lines=lines)


def _describe_origin(name: str) -> str:
    """Where a parameter comes from: its option, or its environment variable."""
    source = click.get_current_context().get_parameter_source(name)
    if source is not None and source.name == "ENVIRONMENT":
        return f"GANDIAG_{name.upper()}"
    return f"--{name.replace('_', '-')}"


def _format_policy(policy: GatePolicy, resolved: ResolvedConfig) -> str:
    """The policy, limit by limit, then the settings with which checkpoints are audited."""
    values: dict[str, Any] = {
        "max-score": "the record's limit" if policy.max_score is None else policy.max_score,
        "max-regress": policy.max_regress,
        "baseline": policy.baseline or "(none)",
        "allow": tuple(sorted(policy.allow)),
        "forbid": policy.forbid,
    }
    sources = {key: policy.lines.get(key, "default") for key in values}
    for limit in policy.limits:
        key = f"limits.{limit.key}"
        regress = "" if limit.max_regress is None else f" regress {limit.max_regress:g}"
        values[key], sources[key] = f"{limit}{regress}".strip(), limit.where
    settings = {entry.name: getattr(resolved.config, entry.name) for entry in fields(resolved.config)}
    rows = [f"{key:<24}  {_format_setting(value):<28}  {sources[key]}" for key, value in values.items()]
    return "\n".join(["gate", *rows, "", "audit", format_config(settings, dict(resolved.sources))])


def _format_setting(value: Any) -> str:
    return ", ".join(value) or "(none)" if isinstance(value, tuple) else str(value)


def _evaluate(subject: str, policy: GatePolicy, baseline: Record | None, resolved: ResolvedConfig) -> GateResult:
    """The result of one subject; an error becomes a result too, so that the other subjects are still evaluated."""
    try:
        record = Record.read(subject) if is_record_file(subject) else _audit(subject, resolved)
        return replace(gate(record, policy, baseline=baseline), subject=subject)
    except GandiagError as error:
        return make_error_result(subject, error)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not is_record_file(subject):
            raise
        message = f"{subject} is a record with damaged content: {type(error).__name__}: {error}"
        return make_error_result(subject, GandiagError(message, "write it again with `gandiag audit -o`"))


def is_record_file(path: str) -> bool:
    """Whether a file holds JSON rather than weights or samples, by its first bytes.

    A missing .json counts as a record, so that the error message is about records.
    """
    try:
        with open_regular(path) as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    except OSError:
        return path.endswith(".json")


def _audit(subject: str, resolved: ResolvedConfig) -> Record:
    from .main import require_address_space

    require_address_space()
    from gandiag.pipeline.run_audit import audit_with_config

    with console.show_progress() as on_progress:
        return audit_with_config(subject, resolved, progress=on_progress, on_message=console.print_info)


def _write_job_summary(results: list[GateResult]) -> None:
    """Append the result as Markdown to the job summary, if GitHub provides one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(GATE_FORMATS.get("markdown")(results) + "\n")
    except OSError as error:
        console.print_warning(f"the job summary {path} cannot be written: {error.strerror}")
