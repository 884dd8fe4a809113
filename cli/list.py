"""gandiag list: every name that gandiag knows, built in or from a plug-in, and what can be explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module

import click

from gandiag.catalogue import load_entries
from gandiag.errors import ConfigError, PluginError, close_match_hint
from gandiag.registry import Registry
from gandiag.report import formatting

from . import console

# Kind -> registry; only those that are asked for are imported.
REGISTRY_PATHS = {
    "metrics": "gandiag.pipeline.plan:METRICS",
    "features": "gandiag.features.extractors:EXTRACTORS",
    "formats": "gandiag.report.formats:FORMATS",
    "gates": "gandiag.report.gate_formats:GATE_FORMATS",
    "readers": "gandiag.checkpoints.readers:READERS",
    "families": "gandiag.checkpoints.architectures.registry:FAMILIES",
    "logs": "gandiag.training_logs.formats.registry:FORMATS",
    "remedies": "gandiag.trainer.remedies.registry:REMEDIES",
    "datasets": "gandiag.trainer.toy_data:DATASETS",
}
KIND_TEXT = {
    "measurements": "numbers of a record, for policies and `gandiag explain`",
    "rules": "findings, for `gandiag explain`",
    "metrics": "what --metrics takes",
    "features": "what --features takes",
    "formats": "of `gandiag report`",
    "gates": "formats of `gandiag gate`",
    "readers": "files that can be read",
    "families": "networks that can be rebuilt",
    "logs": "training logs that can be read",
    "remedies": "of `gandiag train`",
    "datasets": "of `gandiag train`",
}


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON document")
def list_command(kind: str | None, as_json: bool) -> None:
    """List names with where they come from. KIND: measurements, rules, metrics, features, formats, gates, readers, families, logs, remedies, datasets."""
    if kind is not None and kind not in KIND_TEXT:
        raise ConfigError(f"there is no kind called {kind!r}", close_match_hint(kind, list(KIND_TEXT)))
    found = {name: list(_rows(name)) for name in ([kind] if kind else KIND_TEXT)}
    if as_json:
        console.print_result(
            json.dumps(
                {
                    name: [{"name": row[0], "origin": row[1], "title": row[2]} for row in rows]
                    for name, rows in found.items()
                },
                indent=2,
            )
        )
    else:
        console.print_result("\n\n".join(_section(name, rows) for name, rows in found.items()))


def _rows(kind: str) -> Iterator[tuple[str, str, str]]:
    """(name, origin, title) of everything of a kind."""
    if kind not in REGISTRY_PATHS:
        rules = kind == "rules"
        yield from (
            (key, "gandiag", entry.title)
            for key, entry in sorted(load_entries().items())
            if key.startswith("GD") == rules
        )
        return
    module, _, attr = REGISTRY_PATHS[kind].partition(":")
    registry: Registry = getattr(import_module(module), attr)
    for name in registry:
        known = load_entries().get(name)
        yield name, registry.origin(name), known.title if known else _doc(registry, name)


def _doc(registry: Registry, name: str) -> str:
    """The first sentence of what a plug-in says of itself; nothing of gandiag's own is imported for it."""
    if registry.origin(name) == "gandiag":
        return ""
    try:
        return (getattr(registry.get(name), "__doc__", None) or "").strip().split("\n")[0]
    except PluginError as broken:
        return f"broken: {broken.message}"


def _section(kind: str, rows: list[tuple[str, str, str]]) -> str:
    width = max((len(formatting.escape_unprintable(row[0])) for row in rows), default=0)
    lines = [f"{kind}: {KIND_TEXT[kind]}"]
    for name, origin, title in rows:
        beside = "" if origin == "gandiag" else f" ({formatting.escape_unprintable(origin)})"
        lines.append(
            f"  {formatting.escape_unprintable(name):<{width}}  {formatting.escape_unprintable(title)}{beside}".rstrip()
        )
    return "\n".join(lines)
