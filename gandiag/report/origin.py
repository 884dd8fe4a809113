"""What was audited and how, on a few lines: the model, its latent scale, features, device, seconds, versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gandiag.record import Record
from gandiag.report import words


def describe_trained_scale(record: Record) -> str:
    """The trained latent scale against the one sampled, or nothing."""
    latent = record.subject.get("latent") or {}
    found = latent.get("trained_scale")
    if not found:
        return ""
    source = f" (from {words.escape_unprintable(found['source'])})" if found.get("source") else ""
    return f"trained at latent scale {words.format_estimate(found, words.format_scale)}{source}; sampled at {words.format_scale(latent.get('scale', 1.0))}"


def describe_model(record: Record) -> str:
    """What the generator is, on one line."""
    about, latent, output = record.subject, record.subject.get("latent") or {}, record.subject.get("output") or {}
    parts = [words.describe_family(about["family"])] if about.get("family") else []
    parts += [f"{words.format_number(about['parameters'])} parameters"] if about.get("parameters") else []
    parts += [f"latent {words.format_number(latent['dim'])} {words.escape_unprintable(latent.get('prior') or '')}".rstrip()] if latent.get("dim") else []
    parts += [f"{words.escape_unprintable(output['kind'])} {format_shape(output.get('shape') or ())}".rstrip()] if output.get("kind") else []
    parts += [f"{words.format_number(about['classes'])} classes"] if about.get("classes") else []
    parts += [f"{words.escape_unprintable(about['weights'])} weights"] if about.get("weights") else []
    return " · ".join(parts)


def format_shape(shape: Iterable[Any]) -> str:
    """(3, 64, 64) -> 3×64×64."""
    return "×".join(words.escape_unprintable(side) for side in shape)


def _named(value: Any) -> str:
    """{name: fingerprint, …} as "name (fingerprint), …"."""
    if not isinstance(value, Mapping):
        return words.format_value(value)
    return ", ".join(f"{words.escape_unprintable(key)} ({words.format_value(entry)})" for key, entry in words.sort_entries(value))


def build_provenance_rows(record: Record) -> list[tuple[str, str]]:
    """Provenance in a few rows: features, device, seed, time, versions."""
    about = record.provenance
    seconds = about.get("seconds")
    rows = [(key, _named(about[key])) for key in ("features", "device", "seed") if about.get(key) is not None]
    if isinstance(seconds, Mapping):
        slow = sorted(((float(took), words.key_to_text(stage)) for stage, took in seconds.items() if took), reverse=True)
        stages = ", ".join(f"{stage} {words.format_duration(took)}" for took, stage in slow[:4])
        rows.append(("time", f"{words.format_duration(sum(took for took, _ in slow))} ({stages})" if slow else words.NOT_AVAILABLE))
    elif seconds is not None:
        rows.append(("time", words.format_duration(float(seconds))))
    chosen = [f"{words.key_to_text(key)} {words.format_value(entry.get('value'))} ({words.format_value(entry['source'])})" for key, entry in words.sort_entries(about.get("config") or {})
              if isinstance(entry, Mapping) and entry.get("source") not in (None, "default")]
    rows += [("settings", ", ".join(chosen))] if chosen else []
    return rows + ([("versions", words.format_value(about["versions"]))] if about.get("versions") else [])


def collect_notes(record: Record) -> list[str]:
    """What the audit did that a reader should know: remarks of the measuring, notes on the file."""
    return [words.escape_unprintable(text) for text in (*(record.provenance.get("remarks") or ()), *(record.subject.get("notes") or ()))]
