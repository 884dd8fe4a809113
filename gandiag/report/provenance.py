"""What was audited and how, on a few lines: the model, its latent scale, features, device, seconds, versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gandiag.record import Record
from gandiag.report import formatting


def describe_trained_scale(record: Record) -> str:
    """The trained latent scale against the one sampled, or nothing."""
    latent = record.subject.get("latent") or {}
    found = latent.get("trained_scale")
    if not found:
        return ""
    source = f" (from {formatting.escape_unprintable(found['source'])})" if found.get("source") else ""
    return f"trained at latent scale {formatting.format_estimate(found, formatting.format_scale)}{source}; sampled at {formatting.format_scale(latent.get('scale', 1.0))}"


def describe_model(record: Record) -> str:
    """What the generator is, on one line."""
    about, latent, output = record.subject, record.subject.get("latent") or {}, record.subject.get("output") or {}
    parts = [formatting.describe_family(about["family"])] if about.get("family") else []
    parts += [f"{formatting.format_number(about['parameters'])} parameters"] if about.get("parameters") else []
    parts += (
        [
            f"latent {formatting.format_number(latent['dim'])} {formatting.escape_unprintable(latent.get('prior') or '')}".rstrip()
        ]
        if latent.get("dim")
        else []
    )
    parts += (
        [f"{formatting.escape_unprintable(output['kind'])} {format_shape(output.get('shape') or ())}".rstrip()]
        if output.get("kind")
        else []
    )
    parts += [f"{formatting.format_number(about['classes'])} classes"] if about.get("classes") else []
    parts += [f"{formatting.escape_unprintable(about['weights'])} weights"] if about.get("weights") else []
    return " · ".join(parts)


def format_shape(shape: Iterable[Any]) -> str:
    """(3, 64, 64) -> 3×64×64."""
    return "×".join(formatting.escape_unprintable(side) for side in shape)


def _named(value: Any) -> str:
    """{name: fingerprint, …} as "name (fingerprint), …"."""
    if not isinstance(value, Mapping):
        return formatting.format_value(value)
    return ", ".join(
        f"{formatting.escape_unprintable(key)} ({formatting.format_value(entry)})"
        for key, entry in formatting.sort_entries(value)
    )


def build_provenance_rows(record: Record) -> list[tuple[str, str]]:
    """Provenance in a few rows: features, device, seed, time, versions."""
    about = record.provenance
    seconds = about.get("seconds")
    rows = [(key, _named(about[key])) for key in ("features", "device", "seed") if about.get(key) is not None]
    if isinstance(seconds, Mapping):
        slow = sorted(
            ((float(took), formatting.key_to_text(stage)) for stage, took in seconds.items() if took), reverse=True
        )
        stages = ", ".join(f"{stage} {formatting.format_duration(took)}" for took, stage in slow[:4])
        rows.append(
            (
                "time",
                f"{formatting.format_duration(sum(took for took, _ in slow))} ({stages})"
                if slow
                else formatting.NOT_AVAILABLE,
            )
        )
    elif seconds is not None:
        rows.append(("time", formatting.format_duration(float(seconds))))
    chosen = [
        f"{formatting.key_to_text(key)} {formatting.format_value(entry.get('value'))} ({formatting.format_value(entry['source'])})"
        for key, entry in formatting.sort_entries(about.get("config") or {})
        if isinstance(entry, Mapping) and entry.get("source") not in (None, "default")
    ]
    rows += [("settings", ", ".join(chosen))] if chosen else []
    return rows + ([("versions", formatting.format_value(about["versions"]))] if about.get("versions") else [])


def collect_notes(record: Record) -> list[str]:
    """What the audit did that a reader should know: remarks of the measuring, notes on the file."""
    return [
        formatting.escape_unprintable(text)
        for text in (*(record.provenance.get("remarks") or ()), *(record.subject.get("notes") or ()))
    ]
