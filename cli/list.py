"""gandiag list: lists all names, built in or from plug-ins, and what `gandiag explain` knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import import_module

import click

from gandiag.catalogue import load_entries
from gandiag.errors import ConfigError, PluginError, close_match_hint
from gandiag.registry import Registry
from gandiag.report import formatting

from . import console
from .options import json_option

# Kind -> registry; only those that are asked for are imported.
REGISTRY_PATHS = {
    "metrics": "gandiag.metrics.registry:METRICS",
    "features": "gandiag.features.extractors:EXTRACTORS",
    "formats": "gandiag.report.formats:FORMATS",
    "gates": "gandiag.report.formats:GATE_FORMATS",
    "readers": "gandiag.checkpoints.readers:READERS",
    "families": "gandiag.checkpoints.architectures.registry:FAMILIES",
    "logs": "gandiag.training_logs.formats.registry:FORMATS",
    "remedies": "gandiag.trainer.remedies.registry:REMEDIES",
    "datasets": "gandiag.trainer.toy_data:DATASETS",
}
KIND_TEXT = {
    "measurements": "numbers of a record, for policies and `gandiag explain`",
    "rules": "findings, for `gandiag explain`",
    "metrics": "values of --metrics",
    "features": "values of --features",
    "formats": "output formats of `gandiag report`",
    "gates": "output formats of `gandiag gate`",
    "readers": "file types that can be read",
    "families": "architectures that can be rebuilt",
    "logs": "training-log formats that can be read",
    "remedies": "values of `gandiag train --remedy`",
    "datasets": "data sets of `gandiag train`",
}

Row = tuple[str, str, str]  # (name, origin, title)


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]")
@json_option("print one JSON document")
def list_command(kind: str | None, as_json: bool) -> None:
    """List names and the plug-ins they come from.

    KIND: measurements, rules, metrics, features, formats, gates, readers, families, logs, remedies, datasets.
    """
    if kind is not None and kind not in KIND_TEXT:
        raise ConfigError(f"there is no kind called {kind!r}", close_match_hint(kind, list(KIND_TEXT)))
    sections = {name: list(_iter_rows(name)) for name in ([kind] if kind else KIND_TEXT)}
    if as_json:
        document = {
            name: [{"name": row[0], "origin": row[1], "title": row[2]} for row in rows]
            for name, rows in sections.items()
        }
        console.print_result(json.dumps(document, indent=2))
    else:
        console.print_result("\n\n".join(_format_section(name, rows) for name, rows in sections.items()))


def _iter_rows(kind: str) -> Iterator[Row]:
    entries = load_entries()
    if kind not in REGISTRY_PATHS:
        wants_rules = kind == "rules"
        yield from (
            (key, "gandiag", entry.title)
            for key, entry in sorted(entries.items())
            if key.startswith("GD") == wants_rules
        )
        return
    module, _, attr = REGISTRY_PATHS[kind].partition(":")
    registry: Registry = getattr(import_module(module), attr)
    for name in registry:
        entry = entries.get(name)
        yield name, registry.origin(name), entry.title if entry else _first_doc_line(registry, name)


def _first_doc_line(registry: Registry, name: str) -> str:
    """The first line of a plug-in's docstring; gandiag's own objects are not imported for it."""
    if registry.origin(name) == "gandiag":
        return ""
    try:
        return (getattr(registry.get(name), "__doc__", None) or "").strip().split("\n")[0]
    except PluginError as error:
        return f"broken: {error.message}"


def _format_section(kind: str, rows: Sequence[Row]) -> str:
    escaped = [tuple(map(formatting.escape_unprintable, row)) for row in rows]
    width = max((len(name) for name, _, _ in escaped), default=0)
    lines = [f"{kind}: {KIND_TEXT[kind]}"]
    for name, origin, title in escaped:
        suffix = "" if origin == "gandiag" else f" ({origin})"
        lines.append(f"  {name:<{width}}  {title}{suffix}".rstrip())
    return "\n".join(lines)
