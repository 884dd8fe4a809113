"""gandiag audit: from a checkpoint or samples to a verdict."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gandiag.checkpoints.file_type import detect_file_type, unsupported_file_error
from gandiag.config import AuditConfig, ResolvedConfig, resolve_config
from gandiag.errors import ExitCode, LoadError, RecordError, SourceError
from gandiag.record import Record, write_atomically
from gandiag.report import formatting
from gandiag.sampling.shards import Shard, parse_shard
from gandiag.verdict.policy import verdict_exit_code

from . import console
from .options import (
    CONTEXT_SETTINGS,
    GroupedCommand,
    audit_options,
    brief_options,
    debug_option,
    exit_zero_option,
    format_config,
    html_option,
    json_option,
    output_option,
)

_UNUSABLE_KINDS = ("lfs", "html", "empty")  # neither weights nor samples


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where the result goes, and whether the verdict sets the exit code."""

    as_json: bool
    path: str | None
    html_path: str | None
    exit_zero: bool
    quiet: bool


@click.command(cls=GroupedCommand, context_settings=CONTEXT_SETTINGS)
@click.argument("subject", metavar="CKPT|SAMPLES", required=False)
@audit_options
@click.option(
    "--run",
    "run_path",
    metavar="DIR",
    help="audit every checkpoint of a run (weights, or a folder of samples per step) beside its log, and say which "
    "one to keep; finished audits are reused",
)
@click.option(
    "--shard",
    "shard_text",
    metavar="K/W",
    help="make part K of W of this audit, and write it with -o; `gandiag merge` makes the record of all parts",
)
@json_option("print the record as one JSON document")
@output_option("write the record (JSON) here", metavar="RECORD")
@html_option
@exit_zero_option
@click.option("--dry-run", is_flag=True, help="check files and settings, print the plan, and exit")
@click.option("--show-config", is_flag=True, help="print every setting with its source and default, and exit")
@brief_options
@debug_option
def audit_command(
    subject: str | None,
    run_path: str | None,
    shard_text: str | None,
    as_json: bool,
    output: str | None,
    html_path: str | None,
    exit_zero: bool,
    dry_run: bool,
    show_config: bool,
    quiet: int,
    verbose: int,
    debug: bool,
    **flags: Any,
) -> int:
    """Audit a generator checkpoint, or samples: a folder, .zip or .tar of images, sounds, .npy, .npz, CSV, Parquet.

    With --real, the score is the share of the data's variety that is missing. Without it, only repeated samples and
    samples that ignore the latent can be detected. Everything runs offline, and no code in a checkpoint is executed
    without --trust.
    """
    console.configure_output(quiet=quiet, verbose=verbose, debug=debug)
    resolved = resolve_config({name: value for name, value in flags.items() if value is not None})
    if show_config:
        values = {entry.name: getattr(resolved.config, entry.name) for entry in dataclasses.fields(resolved.config)}
        console.print_result(format_config(values, dict(resolved.sources)))
        return ExitCode.OK
    console.print_import_note(resolved.config.model)
    shard = None if shard_text is None else parse_shard(shard_text)
    for path in (output, html_path):
        check_writable(path)
    options = OutputOptions(as_json, output, html_path, exit_zero, quiet > 0)
    if shard is not None:
        _check_shard_usage(options, run_path)
    if run_path is not None:
        if subject is not None:
            raise click.UsageError(f"--run audits the checkpoints of a folder: drop {subject}")
        check_reference(resolved.config.against)
        return _audit_series(run_path, resolved, options, dry_run)
    if subject is None and resolved.config.model is None:
        raise click.UsageError("nothing to audit: give a checkpoint, samples, --model pkg.mod:fn, or --run DIR")
    check_readable(subject, resolved.config.real, resolved.config.holdout)
    check_reference(resolved.config.against)
    if subject is None:
        if shard is not None:
            raise click.UsageError("a function draws its samples in one process: drop --shard")
        return _audit_subject(_import_function(resolved.config), resolved, options, dry_run)
    if shard is not None and not dry_run:
        return _audit_shard(subject, resolved, options, shard)
    return _audit_subject(subject, resolved, options, dry_run)


def _check_shard_usage(options: OutputOptions, run_path: str | None) -> None:
    """UsageError for options that a shard has no use for."""
    if run_path is not None:
        raise click.UsageError("--shard divides one audit: drop --run, or give it one checkpoint")
    if options.as_json or options.html_path is not None:
        raise click.UsageError("a shard is no record: give --json and --html to `gandiag merge`")
    if options.path is None:
        raise click.UsageError("a shard is a file: say where with -o, such as -o s1.gandiag")


def _import_function(config: AuditConfig) -> Any:
    """The function fn(n, seed) that --model names, with the arguments of --init."""
    from gandiag.checkpoints.model_factory import import_function

    assert config.model is not None
    return import_function(config.model, config.init)


def _audit_subject(subject: Any, resolved: ResolvedConfig, options: OutputOptions, dry_run: bool) -> int:
    """Audit one checkpoint or set of samples."""
    from gandiag.pipeline.run_audit import audit_with_config, describe_audit

    if dry_run:
        console.print_result(formatting.escape_lines(describe_audit(subject, resolved)))
        return ExitCode.OK
    with console.show_progress() as on_progress:
        record = audit_with_config(subject, resolved, progress=on_progress, on_message=console.print_info)
    return finish_audit(record, options)


def finish_audit(record: Record, options: OutputOptions) -> int:
    """Write and print a record; returns the exit code."""
    written = _write_record(record, options)
    if options.as_json:
        console.print_result(record.to_json())
    else:
        console.print_record(record, paths=written, more=_describe_more(options))
    return ExitCode.OK if options.exit_zero else verdict_exit_code(record)


def _audit_shard(subject: str, resolved: ResolvedConfig, options: OutputOptions, shard: Shard) -> int:
    """Make one shard of an audit."""
    from gandiag.pipeline.shard_audit import audit_shard

    assert options.path is not None
    with console.show_progress() as on_progress:
        audit_shard(subject, resolved, shard, options.path, progress=on_progress, on_message=console.print_info)
    console.print_info(f"shard {shard}: {options.path}")
    return ExitCode.OK


def _audit_series(folder: str, resolved: ResolvedConfig, options: OutputOptions, dry_run: bool) -> int:
    """Audit every checkpoint of a folder; the result is one document and one table."""
    from gandiag.pipeline.checkpoint_series import audit_series, describe_series
    from gandiag.report.series_text import render_run

    if dry_run:
        console.print_result(formatting.escape_lines(describe_series(folder, resolved)))
        return ExitCode.OK
    with console.show_progress() as on_progress:
        series = audit_series(folder, resolved, progress=on_progress, on_message=console.print_info)
    written = []
    if options.path is not None:
        write_atomically(options.path, series.to_json() + "\n")
        written.append(f"run {options.path}")
    if options.html_path is not None:
        from gandiag.report.series_html import render_run_page

        text = series.advice["text"]
        page = render_run_page(folder, series.points, series.log, series.score_jumps, series.failed, text)
        write_atomically(options.html_path, page)
        written.append(f"page {options.html_path}")
    if options.as_json:
        console.print_result(series.to_json())
    else:
        text = series.advice["text"]
        table = (series.points, series.log, series.score_jumps, series.failed, written, text)
        console.print_result(formatting.escape_unprintable(" ".join(text[:1])) if options.quiet else render_run(*table))
    return ExitCode.OK if options.exit_zero else ExitCode.worst(series.exit_codes)


def check_readable(subject: str | None, *real_data: str | None) -> None:
    """Fail at once on a missing path or a failed download, before torch is imported, which takes seconds."""
    if subject is None:
        pass
    elif not os.path.lexists(subject) and not subject.startswith("hf:"):
        raise LoadError(f"{subject} does not exist", "check the path")
    elif Path(subject).is_file():
        file_info = detect_file_type(subject)
        if file_info.kind in _UNUSABLE_KINDS:
            raise unsupported_file_error(file_info)
    for path in real_data:
        if path is not None and not os.path.lexists(path):
            raise SourceError(f"{path} cannot be read: No such file or directory", "check the path")


def check_reference(against: str | None) -> None:
    """Fail at once on a missing reference."""
    if against is not None and not os.path.lexists(against) and not against.startswith("hf:"):
        raise SourceError(f"{against} cannot be read: No such file or directory", "check the path of --against")


def check_writable(path: str | None) -> None:
    """Fail before the run, not after it, if a result could not be written."""
    if path is None:
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise RecordError(f"{path} cannot be written: there is no folder {folder}", f"mkdir -p {folder}")
    if Path(path).is_dir():
        raise RecordError(f"{path} is a folder", "give a file name")
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise RecordError(f"{path} cannot be written: permission denied", "choose another path")


def _describe_more(options: OutputOptions) -> str:
    """Where the rest of the report is: in what was written, else in what can be."""
    whole = f"gandiag report {options.path} -v" if options.path else "-v (-o RECORD keeps it)"
    return f"The whole report: {whole}" + ("" if options.html_path else "; as a page with pictures: --html FILE")


def _write_record(record: Record, options: OutputOptions) -> list[str]:
    """Write the record and the page where asked; returns "record PATH", "report PATH"."""
    written = []
    if options.path is not None:
        record.write(options.path)
        written.append(f"record {options.path}")
    if options.html_path is not None:
        from gandiag.report.html_page import render_html

        write_atomically(options.html_path, render_html(record))
        written.append(f"report {options.html_path}")
    return written
