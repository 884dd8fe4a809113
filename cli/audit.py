"""gandiag audit: from a checkpoint or samples to a verdict."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from gandiag.checkpoints.file_type import detect_file_type, unsupported_file_error
from gandiag.config import ResolvedConfig, resolve_config
from gandiag.errors import ExitCode, LoadError, RecordError, SourceError
from gandiag.record import Record, write_atomically
from gandiag.report import formatting
from gandiag.verdict.policy import verdict_exit_code

from . import console
from .options import GroupedCommand, audit_options, format_config

_NEVER = ("lfs", "html", "empty")  # neither weights nor samples


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("subject", metavar="CKPT|SAMPLES", required=False)
@audit_options
@click.option(
    "--run",
    "run_path",
    metavar="DIR",
    help="audit every checkpoint of a run, and line them up with its log; what is audited already is kept",
)
@click.option("--json", "as_json", is_flag=True, help="print the record as one JSON document")
@click.option("-o", "--output", "record_path", metavar="RECORD", help="write the record (JSON) here")
@click.option("--html", "html_path", metavar="FILE", help="write one self-contained page here")
@click.option("--exit-zero", is_flag=True, help="exit 0 whatever the verdict")
@click.option("--dry-run", is_flag=True, help="check files and settings, print the plan, and stop")
@click.option("--show-config", "list_config", is_flag=True, help="print every setting with its source, and stop")
@click.option("-q", "--quiet", count=True, help="no progress (-q), nothing at all (-qq)")
@click.option("-v", "--verbose", count=True, help="seconds per stage, all measurements")
@click.option("--debug", is_flag=True, help="show tracebacks")
def audit_command(
    subject: str | None,
    run_path: str | None,
    as_json: bool,
    record_path: str | None,
    html_path: str | None,
    exit_zero: bool,
    dry_run: bool,
    list_config: bool,
    quiet: int,
    verbose: int,
    debug: bool,
    **flags: Any,
) -> int:
    """Audit a generator checkpoint, or a folder, zip, .npy or .npz of samples.

    With --real the score says how much of the data's variety is missing; without it only repeats and insensitivity to the
    latent can be seen. Everything runs offline, and nothing in a checkpoint is executed unless you say --trust.
    """
    console.configure_output(quiet=quiet, verbose=verbose, debug=debug)
    resolved = resolve_config({name: value for name, value in flags.items() if value is not None})
    if list_config:
        values = {entry.name: getattr(resolved.config, entry.name) for entry in dataclasses.fields(resolved.config)}
        console.print_result(format_config(values, dict(resolved.sources)))
        return ExitCode.OK
    for path in (record_path, html_path):
        check_writable(path)
    if run_path is not None:
        return _whole_run(run_path, subject, resolved, (as_json, record_path, html_path, exit_zero, dry_run))
    if subject is None:
        raise click.UsageError("there is nothing to audit: give a checkpoint, samples, or --run DIR")
    check_readable(subject, resolved.config.real)
    record = _run(subject, resolved, dry_run)
    if record is None:
        return ExitCode.OK
    written = _write(record, record_path, html_path)
    if as_json:
        console.print_result(record.to_json())
    else:
        console.print_record(record, paths=written, verbose=verbose > 0)
    return ExitCode.OK if exit_zero else verdict_exit_code(record)


def _whole_run(
    folder: str, subject: str | None, resolved: ResolvedConfig, wanted: tuple[bool, str | None, str | None, bool, bool]
) -> int:
    """--run: the same for every checkpoint of a folder; one document, one table."""
    as_json, path, html_path, exit_zero, dry_run = wanted
    if subject is not None:
        raise click.UsageError(f"--run does not go with {subject}: it audits the checkpoints of the folder")
    from gandiag.pipeline.checkpoint_series import audit_series, describe_series
    from gandiag.report.series_text import render_run

    if dry_run:
        console.print_result(
            "\n".join(formatting.escape_unprintable(line) for line in describe_series(folder, resolved).split("\n"))
        )
        return ExitCode.OK
    with console.show_progress() as on_progress:
        found = audit_series(folder, resolved, progress=on_progress, on_message=console.print_info)
    written = []
    if path is not None:
        write_atomically(path, found.to_json() + "\n")
        written.append(f"run {path}")
    if html_path is not None:
        from gandiag.report.series_html import render_run_page

        write_atomically(html_path, render_run_page(folder, found.points, found.log, found.score_jumps, found.failed))
        written.append(f"page {html_path}")
    if as_json:
        console.print_result(found.to_json())
    else:
        console.print_result(render_run(found.points, found.log, found.score_jumps, found.failed, written))
    return ExitCode.OK if exit_zero else ExitCode.worst(found.exit_codes)


def _run(subject: str, resolved: ResolvedConfig, dry_run: bool) -> Record | None:
    from gandiag.pipeline.run_audit import audit_with_config, describe_audit

    if dry_run:
        # Names inside a checkpoint are somebody else's text: no control characters reach the terminal.
        console.print_result(
            "\n".join(formatting.escape_unprintable(line) for line in describe_audit(subject, resolved).split("\n"))
        )
        return None
    with console.show_progress() as on_progress:
        return audit_with_config(subject, resolved, progress=on_progress, on_message=console.print_info)


def check_readable(subject: str, real: str | None) -> None:
    """Fail in an instant where a path leads nowhere or a download failed: what follows imports torch, which takes seconds."""
    if not os.path.lexists(subject) and not subject.startswith("hf:"):
        raise LoadError(f"{subject} does not exist", "check the path")
    if Path(subject).is_file() and (found := detect_file_type(subject)).kind in _NEVER:
        raise unsupported_file_error(found)
    if real is not None and not os.path.lexists(real):
        raise SourceError(f"{real} cannot be read: No such file or directory", "check the path")


def check_writable(path: str | None) -> None:
    """Fail before the run, not after it, where a result could not be written."""
    if path is None:
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise RecordError(f"{path} cannot be written: there is no folder {folder}", f"mkdir -p {folder}")
    if Path(path).is_dir():
        raise RecordError(f"{path} is a folder", "give the name of a file")
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise RecordError(f"{path} cannot be written: permission denied", "choose another path")


def _write(record: Record, record_path: str | None, html_path: str | None) -> list[str]:
    written = []
    if record_path is not None:
        record.write(record_path)
        written.append(f"record {record_path}")
    if html_path is not None:
        from gandiag.report.html_page import render_html

        write_atomically(html_path, render_html(record))
        written.append(f"report {html_path}")
    return written
