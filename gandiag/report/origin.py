"""What was audited and how, on a few lines: the model, its latent scale, features, device, seconds, versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gandiag.record import Record
from gandiag.report import words


def trained(record: Record) -> str:
    """The trained latent scale against the one sampled, or nothing."""
    latent = record.subject.get("latent") or {}
    found = latent.get("trained_scale")
    if not found:
        return ""
    source = f" (from {words.clean(found['source'])})" if found.get("source") else ""
    return f"trained at latent scale {words.estimate(found, words.scale)}{source}; sampled at {words.scale(latent.get('scale', 1.0))}"


def model(record: Record) -> str:
    """What the generator is, on one line."""
    about, latent, output = record.subject, record.subject.get("latent") or {}, record.subject.get("output") or {}
    parts = [words.family(about["family"])] if about.get("family") else []
    parts += [f"{words.number(about['parameters'])} parameters"] if about.get("parameters") else []
    parts += [f"latent {words.number(latent['dim'])} {words.clean(latent.get('prior') or '')}".rstrip()] if latent.get("dim") else []
    parts += [f"{words.clean(output['kind'])} {times(output.get('shape') or ())}".rstrip()] if output.get("kind") else []
    parts += [f"{words.number(about['classes'])} classes"] if about.get("classes") else []
    parts += [f"{words.clean(about['weights'])} weights"] if about.get("weights") else []
    return " · ".join(parts)


def times(shape: Iterable[Any]) -> str:
    """(3, 64, 64) -> 3×64×64."""
    return "×".join(words.clean(side) for side in shape)


def _named(value: Any) -> str:
    """{name: fingerprint, …} as "name (fingerprint), …"."""
    if not isinstance(value, Mapping):
        return words.shown(value)
    return ", ".join(f"{words.clean(key)} ({words.shown(entry)})" for key, entry in words.ordered(value))


def circumstances(record: Record) -> list[tuple[str, str]]:
    """Provenance in a few rows: features, device, seed, time, versions."""
    about = record.provenance
    seconds = about.get("seconds")
    rows = [(key, _named(about[key])) for key in ("features", "device", "seed") if about.get(key) is not None]
    if isinstance(seconds, Mapping):
        slow = sorted(((float(took), words.name(stage)) for stage, took in seconds.items() if took), reverse=True)
        stages = ", ".join(f"{stage} {words.duration(took)}" for took, stage in slow[:4])
        rows.append(("time", f"{words.duration(sum(took for took, _ in slow))} ({stages})" if slow else words.NONE))
    elif seconds is not None:
        rows.append(("time", words.duration(float(seconds))))
    chosen = [f"{words.name(key)} {words.shown(entry.get('value'))} ({words.shown(entry['source'])})" for key, entry in words.ordered(about.get("config") or {})
              if isinstance(entry, Mapping) and entry.get("source") not in (None, "default")]
    rows += [("settings", ", ".join(chosen))] if chosen else []
    return rows + ([("versions", words.shown(about["versions"]))] if about.get("versions") else [])


def remarks(record: Record) -> list[str]:
    """What the audit did that a reader should know: remarks of the measuring, notes on the file."""
    return [words.clean(text) for text in (*(record.provenance.get("remarks") or ()), *(record.subject.get("notes") or ()))]
