"""gandiag inspect: what is in a file, which of it would be audited and how it is read; nothing in it is run."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from gandiag.checkpoints.summary import FileSummary, SummaryRow, format_row_size, summarize_file
from gandiag.config import AuditConfig, resolve_config
from gandiag.errors import ExitCode, LoadError
from gandiag.interfaces import Assumption
from gandiag.report import formatting

if TYPE_CHECKING:
    from gandiag.checkpoints.loader import LoadedGenerator

from . import console
from .options import GroupedCommand, load_options

SCHEMA = "gandiag.inspect/1"
_ROWS, _CODE = 40, 20
_OF_LAYER = r"(.* of )(\S+(?:, \S+)*)( \(--[a-z -]+\))"
_FIT = r"(.*) \(batch-norm mismatch ([\d.]+); .*: [\d.]+, ([\d.]+) times as far\)"
_FITS = r"(.*) \(batch-norm mismatch at most ([\d.]+); the nearest other: ([\d.]+) times as far\)"
_SOURCES = {
    "batch-norm": "by the batch norms",
    "shapes": "by the shapes",
    "metadata": "by the file's metadata",
    "default": "by custom",
    "flag": "as you say",
    "spec": "by --spec",
    "gandiag": "gandiag's way",
    "file": "by the file",
}
_PASSED = {"index": "as an index", "onehot": "as one-hot vectors", "concat": "one-hot, joined to the latents"}


@click.command("inspect", cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", metavar="CKPT")
@load_options
@click.option("--json", "as_json", is_flag=True, help="print everything as one JSON document")
@click.option("--hash", "hashed", is_flag=True, help="name the file by its sha256 (reads all of it)")
@click.option("--debug", is_flag=True, help="show tracebacks")
def inspect_command(path: str, as_json: bool, hashed: bool, debug: bool, **flags: Any) -> int:
    """What is in CKPT: its contents, the weights that an audit would take, how it would read them, and the code it would not run.

    Only the file's headers are read, and the few tensors that settle an open question. Exit code 2 if it could not be audited.
    """
    console.configure_output(debug=debug)
    config = resolve_config({name: value for name, value in flags.items() if value is not None}).config
    try:
        seen = summarize_file(_within(path, config.weights))
    except LoadError as missing:
        if as_json:
            console.print_result(json.dumps(_nothing(path, missing), indent=2, ensure_ascii=False))
        raise
    sha256 = _digest(seen) if hashed else None
    network, problem = _read(path, config, seen)
    if as_json:
        console.print_result(json.dumps(build_document(seen, network, problem, sha256), indent=2, ensure_ascii=False))
    else:
        console.print_result(
            "\n".join(formatting.escape_unprintable(line) for line in format_summary(seen, network, sha256))
        )
        if problem is not None:
            console.print_error(problem)
    return ExitCode.OK if problem is None else ExitCode.CANNOT_RUN


def _within(path: str, prefer: str) -> str:
    """The file that is looked at: in a folder that stands for one checkpoint, the likeliest; of the Hub, a fetched one."""
    from pathlib import Path

    from gandiag.checkpoints.folders import is_checkpoint_folder, open_checkpoint_folder
    from gandiag.checkpoints.hub import download_checkpoint, is_hub_reference

    path = str(download_checkpoint(path, prefer).path) if is_hub_reference(path) else path
    return str(open_checkpoint_folder(Path(path), prefer).files[0]) if is_checkpoint_folder(Path(path)) else path


def _digest(seen: FileSummary) -> str:
    import hashlib

    with seen.file_info.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: str, config: AuditConfig, seen: FileSummary) -> tuple[LoadedGenerator | None, LoadError | None]:
    """The generator as an audit would read it, or why there is none. What the survey refuses never meets torch."""
    if seen.error is not None:
        return None, _here(seen.error)
    try:
        _refuse(seen)
        from gandiag.checkpoints.loader import load_generator
        from gandiag.pipeline.subject import with_inferred_prior

        found = load_generator(path, config, inspect_only=True)
        return (found if config.prior else with_inferred_prior(found)), None
    except LoadError as problem:
        return None, _here(problem)


def _here(problem: LoadError) -> LoadError:
    """The refusal, with a flag that this command has not in the words of the one that has it."""
    return LoadError(problem.message, problem.hint.replace("--trust", "gandiag audit --trust"))


def _refuse(seen: FileSummary) -> None:
    """Kinds that no reader takes, before torch is loaded."""
    from gandiag.checkpoints.file_type import (
        EXECUTABLE_KINDS,
        UNSUPPORTED_KINDS,
        trust_required_error,
        unsupported_file_error,
    )
    from gandiag.checkpoints.plugin_readers import find_plugin_reader

    if seen.file_info.kind in EXECUTABLE_KINDS:
        raise trust_required_error(seen.file_info, "")
    if seen.file_info.kind in UNSUPPORTED_KINDS and find_plugin_reader(seen.file_info) is None:
        raise unsupported_file_error(seen.file_info)


def format_summary(summary: FileSummary, network: LoadedGenerator | None, sha256: str | None) -> list[str]:
    """The whole account as text."""
    protocol = f", protocol {summary.pickle_protocol}" if summary.pickle_protocol is not None else ""
    out = [f"{_name(summary, network)}: {summary.kind_name}{protocol}, {summary.file_info.size:,} bytes"]
    out += [f"sha256 {sha256}"] if sha256 else []
    if summary.rows:
        out += [
            "",
            "contents",
            *_table(
                [
                    (row.path or "(the whole file)", row.description, format_row_size(row))
                    for row in summary.rows[:_ROWS]
                ]
            ),
        ]
        out += [f"  … and {len(summary.rows) - _ROWS} more (--json shows all)"] if len(summary.rows) > _ROWS else []
    if network is not None:
        rows: list[tuple[str, ...]] = [_row_of(entry) for entry in _together(network.assumptions)]
        out += [
            "",
            "an audit would read it so",
            *_table(list((_facts(network) | _opponent_line(summary, network)).items())),
        ]
        out += ["", "how that is known or assumed, and which flag says otherwise", *_table(rows, "[{}]")]
        out += ["", *(f"note: {note}" for note in network.notes)] if network.notes else []
    told = [f"  {entry}" for entry in summary.code_actions[:_CODE]] or ["  none"]
    told += (
        [f"  … and {len(summary.code_actions) - _CODE} more (--json shows all)"]
        if len(summary.code_actions) > _CODE
        else []
    )
    return [*out, "", "code (nothing was run)", *told]


def _name(seen: FileSummary, network: LoadedGenerator | None) -> str:
    """The file's name; of a folder that was given, its place in it: "ddpm/unet/model.safetensors"."""
    from pathlib import Path

    file, given = (
        seen.file_info.path,
        Path(str(network.subject.get("path"))) if network is not None else seen.file_info.path,
    )
    inside = given != file and given in file.parents
    return (Path(given.name) / file.relative_to(given)).as_posix() if inside else seen.file_info.name


def _row_of(entry: Assumption) -> tuple[str, str, str]:
    """What, its value, and who says so and what flag says otherwise."""
    what, _, flags = entry.what.partition(" (--")
    if not flags.endswith(")"):
        what, flags = entry.what, ""
    source = _SOURCES.get(entry.source, _source(entry.source))
    return what, entry.value, f"{source}; --{flags.removesuffix(')')}" if flags and entry.source != "flag" else source


def _together(assumptions: Sequence[Assumption]) -> list[Assumption]:
    """Neighbours that say the same of several layers as one: "stride and padding of main.4, main.7 (--image-size)"; of how well they fit, the worst."""
    found: list[Assumption] = []
    for entry in assumptions:
        before = re.fullmatch(_OF_LAYER, found[-1].what) if found else None
        now = re.fullmatch(_OF_LAYER, entry.what)
        value = _both(found[-1].value, entry.value) if before and now else None
        if (
            before
            and now
            and before.group(1, 3) == now.group(1, 3)
            and value is not None
            and found[-1].source == entry.source
        ):
            found[-1] = Assumption(f"{before[1]}{before[2]}, {now[2]}{now[3]}", value, entry.source)
        else:
            found.append(entry)
    return found


def _both(one: str, other: str) -> str | None:
    """What two values say that differ in how well they fit at most; None where they say different things."""
    if one == other:
        return one
    parts = [re.fullmatch(_FITS, text) or re.fullmatch(_FIT, text) for text in (one, other)]
    if parts[0] is None or parts[1] is None or parts[0][1] != parts[1][1]:
        return None
    worst, nearest = max(parts[0][2], parts[1][2], key=float), min(parts[0][3], parts[1][3], key=float)
    return f"{parts[0][1]} (batch-norm mismatch at most {worst}; the nearest other: {nearest} times as far)"


def _source(source: str) -> str:
    """ "family (mimicry)" -> "family: mimicry": parentheses stand around it already."""
    return source.replace(" (", ": ", 1).removesuffix(")") if " (" in source else source


def _table(rows: list[tuple[str, ...]], last: str = "({})") -> list[str]:
    """Columns side by side, the `last` one in brackets; long texts are wrapped under themselves."""
    width = min(54, max(len(row[0]) for row in rows))
    out = []
    for first, *rest in rows:
        text = "  ".join(
            part for part in ([rest[0], last.format(rest[1])] if len(rest) > 1 and rest[1] else rest[:1]) if part
        )
        head = f"  {first:<{width}}  "
        out += textwrap.wrap(
            text, 118, initial_indent=head, subsequent_indent=" " * (width + 4), break_on_hyphens=False
        ) or [head.rstrip()]
    return out


def _facts(network: LoadedGenerator) -> dict[str, str]:
    about, latent, output = network.subject, network.latent, network.output
    span = f", range [{output.range[0]:g}, {output.range[1]:g}]" if output.range else ""
    return {
        "weights": str(about.get("weights")),
        "family": f"{formatting.describe_family(about.get('family'))}, {about.get('parameters', 0):,} parameters",
        "latent": f"{latent.dim}, {latent.prior}, passed as (B, {', '.join(map(str, latent.shape))})",
        "output": f"{output.kind} {'x'.join(map(str, output.shape))}{span}",
        "classes": "none"
        if network.classes is None
        else f"{network.classes}, passed {_PASSED.get(str(network.condition), network.condition)}",
    }


def _opponent(seen: FileSummary, network: LoadedGenerator) -> dict[str, Any] | None:
    """The discriminator that goes with the file, and whether it can be rebuilt; None where there is none."""
    from gandiag.checkpoints.discriminator import find_discriminator

    found = find_discriminator(seen.file_info.path, network.output)
    if found is None:
        return None
    judge = found.spec
    if judge is None:
        return {"where": found.location, "rebuilt": False, "reason": found.reason}
    return {
        "where": found.location,
        "rebuilt": True,
        "family": judge.family,
        "parameters": judge.n_parameters,
        "loss": found.loss,
    }


def _opponent_line(seen: FileSummary, network: LoadedGenerator) -> dict[str, str]:
    found = _opponent(seen, network)
    if found is None:
        return {}
    known = (
        f"{found['family']}, {found['parameters']:,} parameters"
        if found["rebuilt"]
        else f"not rebuilt: {found['reason']}"
    )
    return {"discriminator": f"{found['where']}: {known}"}


def _nothing(path: str, problem: LoadError) -> dict[str, Any]:
    """The document of a path that is no file to look into."""
    facts = ("size", "container", "protocol", "sha256")
    told: dict[str, Any] = {
        "contents": [],
        "code": [],
        "reading": None,
        "problem": {"what": problem.message, "hint": problem.hint},
    }
    return {"schema": SCHEMA, "path": path, **dict.fromkeys(facts), **told}


def build_document(
    summary: FileSummary, network: LoadedGenerator | None, problem: LoadError | None, sha256: str | None
) -> dict[str, Any]:
    """The JSON document, schema gandiag.inspect/1; the reading is null where there is a problem."""
    reading = None
    if network is not None:
        latent, output = network.latent, network.output
        reading = {
            "weights": network.subject.get("weights"),
            "family": network.subject.get("family"),
            "parameters": network.subject.get("parameters"),
            "latent": {"dim": latent.dim, "prior": latent.prior, "shape": list(latent.shape)},
            "output": {
                "kind": output.kind,
                "shape": list(output.shape),
                "range": list(output.range) if output.range else None,
            },
            "classes": network.classes,
            "condition": network.condition,
            "notes": list(network.notes),
            "discriminator": _opponent(summary, network),
            "assumptions": [
                {"what": entry.what, "value": entry.value, "source": entry.source} for entry in network.assumptions
            ],
        }
    return {
        "schema": SCHEMA,
        "path": str(summary.file_info.path),
        "size": summary.file_info.size,
        "container": summary.file_info.kind,
        "protocol": summary.pickle_protocol,
        "sha256": sha256,
        "contents": [_row(row) for row in summary.rows],
        "code": list(summary.code_actions),
        "reading": reading,
        "problem": None if problem is None else {"what": problem.message, "hint": problem.hint},
    }


def _row(row: SummaryRow) -> dict[str, Any]:
    return {
        "path": row.path,
        "what": row.description,
        "tensors": row.n_tensors,
        "numbers": row.numel,
        "bytes": row.nbytes,
    }
