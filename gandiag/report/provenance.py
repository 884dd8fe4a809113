"""Words what was audited and how, in a few rows: model, latent scale, features, device, run time, versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gandiag.record import Record
from gandiag.report import formatting

MAX_STAGES = 4  # the slowest stages that are listed


def describe_trained_scale(record: Record) -> str:
    """The latent scale in training and the one sampled at; empty if the former is unknown."""
    latent = record.subject.get("latent") or {}
    trained = latent.get("trained_scale")
    if not trained:
        return ""
    source = f" (from {formatting.escape_unprintable(trained['source'])})" if trained.get("source") else ""
    estimate = formatting.format_estimate(trained, formatting.format_scale)
    sampled = formatting.format_scale(latent.get("scale", 1.0))
    return f"trained at latent scale {estimate}{source}; sampled at {sampled}"


def describe_model(record: Record) -> str:
    """The generator on one line: family, parameters, latent, output, classes, weights."""
    about = record.subject
    latent, output = about.get("latent") or {}, about.get("output") or {}
    parts = []
    if about.get("family"):
        parts.append(formatting.describe_family(about["family"]))
    if about.get("parameters"):
        parts.append(f"{formatting.format_number(about['parameters'])} parameters")
    if latent.get("dim"):
        prior = formatting.escape_unprintable(latent.get("prior") or "")
        parts.append(f"latent {formatting.format_number(latent['dim'])} {prior}".rstrip())
    if output.get("kind"):
        parts.append(
            f"{formatting.escape_unprintable(output['kind'])} {format_shape(output.get('shape') or ())}".rstrip()
        )
    if about.get("classes"):
        parts.append(f"{formatting.format_number(about['classes'])} classes")
    if about.get("weights"):
        parts.append(f"weights: {formatting.escape_unprintable(about['weights'])}")
    return " · ".join(parts)


def format_shape(shape: Iterable[Any]) -> str:
    """(3, 64, 64) -> 3×64×64."""
    return "×".join(formatting.escape_unprintable(size) for size in shape)


def build_provenance_rows(record: Record) -> list[tuple[str, str]]:
    """(label, text) rows: features, device, seed, run time, settings that are not defaults, versions."""
    about = record.provenance
    rows = [
        (key, _format_fingerprints(about[key])) for key in ("features", "device", "seed") if about.get(key) is not None
    ]
    if about.get("seconds") is not None:
        rows.append(("time", _format_seconds(about["seconds"])))
    settings = [
        f"{formatting.key_to_text(key)} {formatting.format_value(entry.get('value'))}"
        f" ({formatting.format_value(entry['source'])})"
        for key, entry in formatting.sort_entries(about.get("config") or {})
        if isinstance(entry, Mapping) and entry.get("source") not in (None, "default")
    ]
    rows += [("settings", ", ".join(settings))] if settings else []
    return rows + ([("versions", formatting.format_value(about["versions"]))] if about.get("versions") else [])


def _format_fingerprints(value: Any) -> str:
    """{name: fingerprint, …} as "name (fingerprint), …"; other values as they are."""
    if not isinstance(value, Mapping):
        return formatting.format_value(value)
    return ", ".join(
        f"{formatting.escape_unprintable(key)} ({formatting.format_value(entry)})"
        for key, entry in formatting.sort_entries(value)
    )


def _format_seconds(seconds: Any) -> str:
    """The total time, followed by the slowest stages where the record has them."""
    if not isinstance(seconds, Mapping):
        return formatting.format_duration(float(seconds))
    stages = sorted(
        ((float(duration), formatting.key_to_text(stage)) for stage, duration in seconds.items() if duration),
        reverse=True,
    )
    if not stages:
        return formatting.NOT_AVAILABLE
    slowest = ", ".join(f"{stage} {formatting.format_duration(duration)}" for duration, stage in stages[:MAX_STAGES])
    return f"{formatting.format_duration(sum(duration for duration, _ in stages))} ({slowest})"


def collect_notes(record: Record) -> list[str]:
    """Notes on the audit and on the file."""
    return [
        formatting.escape_unprintable(text)
        for text in (*(record.provenance.get("remarks") or ()), *(record.subject.get("notes") or ()))
    ]
