"""gandiag inspect: what a file holds, which weights an audit would load and how, without running anything in it."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gandiag.checkpoints.summary import FileSummary, SummaryRow, format_row_size, summarize_file
from gandiag.config import AuditConfig, assumption_options, resolve_config
from gandiag.errors import ConfigError, ExitCode, LoadError
from gandiag.interfaces import Assumption
from gandiag.record import write_atomically
from gandiag.report import formatting
from gandiag.report.assumptions import (
    assumption_document,
    assumption_label,
    assumption_value,
    describe_source,
    merge_layers,
)
from gandiag.untrusted.files import hash_file

if TYPE_CHECKING:
    from gandiag.checkpoints.generator import LoadedGenerator

from . import console
from .options import GroupedCommand, load_options

SCHEMA = "gandiag.inspect/1"
_MAX_ROWS, _MAX_CODE_LINES = 40, 20
_MAX_LABEL_WIDTH, _LINE_WIDTH = 54, 118
# Of families that are recognized by their shapes, as the first line names them
_GENERATOR_NAMES = {
    "transposed": "DCGAN generator",
    "projected": "convolutional generator",
    "mlp": "MLP generator",
    "pickled": "pickled generator",
}
_ENCODING_TEXT = {"index": "as an index", "onehot": "as one-hot vectors", "concat": "one-hot, joined to the latents"}


@click.command("inspect", cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", metavar="CKPT")
@load_options
@click.option("--json", "as_json", is_flag=True, help="print everything as one JSON document")
@click.option("--hash", "hashed", is_flag=True, help="compute the file's sha256 (reads all of it)")
@click.option("--emit-model", "source_path", metavar="NET.PY", help="write the reading as a PyTorch module's source")
@click.option("--debug", is_flag=True, help="show tracebacks")
def inspect_command(path: str, as_json: bool, hashed: bool, source_path: str | None, debug: bool, **flags: Any) -> int:
    """Show what CKPT contains, which weights an audit would load and how, and the code in it, which is never run.

    Only headers are read, and the few tensors needed to settle open questions. Exit code 2 if an audit could not load
    it.
    """
    console.configure_output(debug=debug)
    config = _without_code(resolve_config({name: value for name, value in flags.items() if value is not None}).config)
    try:
        summary = summarize_file(_resolve_path(path, config.weights))
    except LoadError as missing:
        if as_json:
            console.print_result(json.dumps(_missing_file_document(path, missing), indent=2, ensure_ascii=False))
        raise
    sha256 = _compute_sha256(summary) if hashed else None
    generator, error = _load(path, config, summary, inspect_only=source_path is None)
    if as_json:
        document = build_document(summary, generator, error, sha256)
        console.print_result(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        lines = format_summary(summary, generator, sha256)
        console.print_result("\n".join(map(formatting.escape_unprintable, lines)))
        if error is not None:
            console.print_error(error)
    if source_path is not None and generator is not None:
        _emit_model(generator, source_path)
    return ExitCode.OK if error is None else ExitCode.CANNOT_RUN


def _emit_model(generator: LoadedGenerator, path: str) -> None:
    """Write the reading as source, to a new file."""
    from gandiag.checkpoints.model_source import write_model_source

    if Path(path).exists():
        raise ConfigError(f"--emit-model {path} exists", "give the name of a new file")
    write_atomically(path, write_model_source(generator))
    console.print_info(f"the reading as source: {path}; check it, then: --model {path}:G")


def _without_code(config: AuditConfig) -> AuditConfig:
    """The configuration without what would run or import anything, wherever it was set."""
    return dataclasses.replace(config, trust=False, model=None, init=())


def _resolve_path(path: str, prefer: str) -> str:
    """The file to summarize: the likeliest file of a checkpoint folder, the downloaded file of a Hub reference."""
    from gandiag.checkpoints.folders import is_checkpoint_folder, open_checkpoint_folder
    from gandiag.checkpoints.hub import download_checkpoint, is_hub_reference

    path = str(download_checkpoint(path, prefer).path) if is_hub_reference(path) else path
    return str(open_checkpoint_folder(Path(path), prefer).files[0]) if is_checkpoint_folder(Path(path)) else path


def _compute_sha256(summary: FileSummary) -> str:
    return hash_file(summary.file_info.path)


def _load(
    path: str, config: AuditConfig, summary: FileSummary, *, inspect_only: bool
) -> tuple[LoadedGenerator | None, LoadError | None]:
    """The generator as an audit would load it, or the error. Torch is not imported for files that no reader takes.

    `inspect_only`: skip what takes seconds.
    """
    if summary.error is not None:
        return None, _explain_trust(summary.error)
    try:
        _reject_unsupported(summary)
        from gandiag.checkpoints.loader import load_generator
        from gandiag.pipeline.subject import with_inferred_prior

        generator = load_generator(path, config, inspect_only=inspect_only)
        return (generator if config.prior else with_inferred_prior(generator)), None
    except LoadError as error:
        return None, _explain_trust(error)


def _explain_trust(error: LoadError) -> LoadError:
    """The error with --trust, which `inspect` does not have, as an option of `audit`."""
    return LoadError(error.message, error.hint.replace("--trust", "gandiag audit --trust"))


def _reject_unsupported(summary: FileSummary) -> None:
    """LoadError for file types that no reader takes, before torch is imported."""
    from gandiag.checkpoints.file_type import (
        EXECUTABLE_KINDS,
        UNSUPPORTED_KINDS,
        trust_required_error,
        unsupported_file_error,
    )
    from gandiag.checkpoints.plugin_readers import find_plugin_reader

    if summary.file_info.kind in EXECUTABLE_KINDS:
        raise trust_required_error(summary.file_info, "")
    if summary.file_info.kind in UNSUPPORTED_KINDS and find_plugin_reader(summary.file_info) is None:
        raise unsupported_file_error(summary.file_info)


# text


def format_summary(summary: FileSummary, network: LoadedGenerator | None, sha256: str | None) -> list[str]:
    """Everything as lines of text."""
    protocol = f", pickle protocol {summary.pickle_protocol}" if summary.pickle_protocol is not None else ""
    size = f"{summary.file_info.size:,} bytes"
    lines = [] if network is None else [_describe_reading(network)]
    lines += [f"{_display_name(summary, network)}: {summary.kind_name}{protocol}, {size}"]
    lines += [f"sha256 {sha256}"] if sha256 else []
    if summary.rows:
        rows = [(row.path or "(the whole file)", row.description, format_row_size(row)) for row in summary.rows]
        lines += ["", "contents", *_format_table(rows[:_MAX_ROWS]), *_count_hidden(len(rows), _MAX_ROWS)]
    if network is not None:
        facts = _describe_generator(network) | _describe_discriminator(summary, network)
        lines += ["", "generator that an audit would load", *_format_table(list(facts.items()))]
        assumptions = [_format_assumption(entry) for entry in merge_layers(network.assumptions)]
        lines += ["", "settings, with [source; option to change it]", *_format_table(assumptions, "[{}]")]
        lines += ["", *(f"note: {note}" for note in network.notes)] if network.notes else []
    code = [f"  {action}" for action in summary.code_actions] or ["  none"]
    hidden = _count_hidden(len(code), _MAX_CODE_LINES)
    return [*lines, "", "code in the file (not run)", *code[:_MAX_CODE_LINES], *hidden]


def _describe_reading(network: LoadedGenerator) -> str:
    """One line: what the network is, and how sure that is."""
    from gandiag.checkpoints.confidence import assess_confidence

    confidence = assess_confidence(network)
    family = _GENERATOR_NAMES.get(str(network.subject.get("family")))
    name = family or f"{formatting.describe_family(network.subject.get('family'))} generator"
    classes = f", {network.classes} classes" if network.classes else ""
    grounds = confidence.grounds
    settled = f"settled {grounds}" if grounds.startswith("by ") else f"settled: {grounds}"
    sure = {"exact": "read exactly", "settled": settled}.get(confidence.word, grounds)
    return f"{name}, {_describe_samples(network)}, z = {network.latent.dim}{classes}, {sure}"


def _describe_samples(network: LoadedGenerator) -> str:
    """ "64 × 64 RGB", "28 × 28 gray", or the kind with its sizes."""
    kind, shape = network.output.kind, network.output.shape
    if kind != "image" or len(shape) != 3:
        return f"{kind} of {' × '.join(map(str, shape))}"
    colors = {1: "gray", 3: "RGB"}.get(shape[0], f"with {shape[0]} channels")
    return f"{shape[1]} × {shape[2]} {colors}"


def _count_hidden(count: int, limit: int) -> list[str]:
    return [f"  … and {count - limit} more (--json shows all)"] if count > limit else []


def _display_name(summary: FileSummary, network: LoadedGenerator | None) -> str:
    """The file's name; within a folder that was given, its path from there: "ddpm/unet/model.safetensors"."""
    file = summary.file_info.path
    given = file if network is None else Path(str(network.subject.get("path")))
    return (Path(given.name) / file.relative_to(given)).as_posix() if given in file.parents else file.name


def _format_assumption(entry: Assumption) -> tuple[str, str, str]:
    """Label, value, and the source with the options that change it."""
    options = "" if entry.source == "flag" else " or ".join(assumption_options(entry.setting))
    source = describe_source(entry)
    return assumption_label(entry), assumption_value(entry), f"{source}; {options}" if options else source


def _format_table(rows: Sequence[tuple[str, ...]], last: str = "({})") -> list[str]:
    """Columns side by side, a third one in brackets by the format `last`; long texts are wrapped."""
    width = min(_MAX_LABEL_WIDTH, max(len(row[0]) for row in rows))
    lines = []
    for label, *rest in rows:
        cells = [rest[0], last.format(rest[1])] if len(rest) > 1 and rest[1] else rest[:1]
        text = "  ".join(cell for cell in cells if cell)
        head = f"  {label:<{width}}  "
        lines += textwrap.wrap(
            text, _LINE_WIDTH, initial_indent=head, subsequent_indent=" " * (width + 4), break_on_hyphens=False
        ) or [head.rstrip()]
    return lines


def _describe_generator(network: LoadedGenerator) -> dict[str, str]:
    facts, latent, output = network.subject, network.latent, network.output
    span = f", range [{output.range[0]:g}, {output.range[1]:g}]" if output.range else ""
    classes = "none"
    if network.classes is not None:
        classes = f"{network.classes}, passed {_ENCODING_TEXT.get(str(network.condition), network.condition)}"
    return {
        "weights": str(facts.get("weights")),
        "family": f"{formatting.describe_family(facts.get('family'))}, {facts.get('parameters', 0):,} parameters",
        "latent": f"{latent.dim} dimensions, {latent.prior} prior, shape (B, {', '.join(map(str, latent.shape))})",
        "output": f"{output.kind} {'x'.join(map(str, output.shape))}{span}",
        "classes": classes,
    }


def _describe_discriminator(summary: FileSummary, network: LoadedGenerator) -> dict[str, str]:
    found = _discriminator_document(summary, network)
    if found is None:
        return {}
    description = f"cannot be rebuilt: {found.get('reason')}"
    if found["rebuilt"]:
        description = f"{found['family']}, {found['parameters']:,} parameters"
    return {"discriminator": f"{found['where']}: {description}"}


# JSON


def build_document(
    summary: FileSummary, network: LoadedGenerator | None, problem: LoadError | None, sha256: str | None
) -> dict[str, Any]:
    """The JSON document, schema gandiag.inspect/1; `reading` is null if there is a problem."""
    return {
        "schema": SCHEMA,
        "path": str(summary.file_info.path),
        "size": summary.file_info.size,
        "container": summary.file_info.kind,
        "protocol": summary.pickle_protocol,
        "sha256": sha256,
        "contents": [_row_document(row) for row in summary.rows],
        "code": list(summary.code_actions),
        "reading": None if network is None else _generator_document(summary, network),
        "problem": _problem_document(problem),
    }


def _missing_file_document(path: str, problem: LoadError) -> dict[str, Any]:
    """The document for a path without a readable file."""
    facts = dict.fromkeys(("size", "container", "protocol", "sha256"))
    empty: dict[str, Any] = {"contents": [], "code": [], "reading": None}
    return {"schema": SCHEMA, "path": path, **facts, **empty, "problem": _problem_document(problem)}


def _problem_document(problem: LoadError | None) -> dict[str, str] | None:
    return None if problem is None else {"what": problem.message, "hint": problem.hint}


def _generator_document(summary: FileSummary, network: LoadedGenerator) -> dict[str, Any]:
    from gandiag.checkpoints.confidence import assess_confidence

    latent, output = network.latent, network.output
    confidence = assess_confidence(network)
    return {
        "weights": network.subject.get("weights"),
        "family": network.subject.get("family"),
        "parameters": network.subject.get("parameters"),
        "latent": {"dim": latent.dim, "prior": latent.prior, "shape": list(latent.shape)},
        "output": {
            "kind": output.kind,
            "shape": list(output.shape),
            "range": list(output.range) if output.range else None,
        },
        "confidence": {"word": confidence.word, "grounds": confidence.grounds},
        "classes": network.classes,
        "condition": network.condition,
        "notes": list(network.notes),
        "discriminator": _discriminator_document(summary, network),
        "assumptions": [assumption_document(entry) for entry in network.assumptions],
    }


def _discriminator_document(summary: FileSummary, network: LoadedGenerator) -> dict[str, Any] | None:
    """The discriminator that belongs to the file and whether it can be rebuilt; None without one."""
    from gandiag.checkpoints.discriminator import find_discriminator

    candidate = find_discriminator(summary.file_info.path, network.output)
    if candidate is None:
        return None
    spec = candidate.spec
    if spec is None:
        return {"where": candidate.location, "rebuilt": False, "reason": candidate.reason}
    return {
        "where": candidate.location,
        "rebuilt": True,
        "family": spec.family,
        "parameters": spec.n_parameters,
        "loss": candidate.loss,
    }


def _row_document(row: SummaryRow) -> dict[str, Any]:
    return {
        "path": row.path,
        "what": row.description,
        "tensors": row.n_tensors,
        "numbers": row.numel,
        "bytes": row.nbytes,
    }
