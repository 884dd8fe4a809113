"""Documents every measurement and rule, read from gandiag/data/catalogue: formula, direction, caveats, source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from gandiag.errors import ConfigError, close_match_hint


@dataclass(frozen=True, slots=True)
class DocEntry:
    """Documentation of one measurement, profile entry or rule, as `gandiag explain` shows it."""

    key: str
    title: str
    summary: str = ""
    formula: str = ""
    better: str = "neither"
    bounds: tuple[float | None, float | None] = (None, None)
    unit: str = ""
    caveats: str = ""
    advice: str = ""
    source: str = ""
    published: str = ""


@cache
def load_entries() -> Mapping[str, DocEntry]:
    """All entries by key."""
    entries: dict[str, DocEntry] = {}
    for file in sorted(files("gandiag.data").joinpath("catalogue").iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            for key, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
                entries[key] = _parse_entry(key, table)
    published = _describe_published()
    return {key: replace(entry, published=published.get(key, "")) for key, entry in entries.items()}


def _describe_published() -> dict[str, str]:
    """Measurement -> how published generators stand on it, from data/published_generators.toml."""
    text = files("gandiag.data").joinpath("published_generators.toml").read_text(encoding="utf-8")
    rows: dict[str, list[str]] = {}
    for row in tomllib.loads(text)["row"]:
        rows.setdefault(row["measure"], []).append(
            f"{row['value']:g} ({row['model']}, {row['data']}; {row['features']}; {row['source']})"
        )
    return {key: "; ".join(parts) for key, parts in rows.items()}


def find_entry(key: str) -> DocEntry | None:
    """The entry of a measurement, or None; `frechet[imagenet]` is looked up as `frechet`, `score@1` as `score`."""
    entries = load_entries()
    return entries.get(key) or entries.get(key.partition("[")[0]) or entries.get(key.partition("@")[0])


def get_entry(key: str) -> DocEntry:
    """The entry of a key in any case; profile and aspect entries without their section ("missing").

    ConfigError for an unknown key, with close matches.
    """
    lower = key.lower()
    candidates = (key, key.upper() if lower.startswith("gd") else lower, f"profile.{lower}", f"aspects.{lower}")
    for candidate in candidates:
        entry = find_entry(candidate)
        if entry is not None:
            return entry
    short_names = sorted({name.rpartition(".")[2] for name in load_entries()})
    raise ConfigError(
        f"there is no metric or rule called {key!r}",
        close_match_hint(key, short_names, "`gandiag list` shows all names"),
    )


def _parse_entry(key: str, table: Mapping[str, Any]) -> DocEntry:
    bounds = [None if bound in ("", None) else float(bound) for bound in table.get("bounds", ("", ""))]
    low, high = (*bounds, None, None)[:2]
    texts = {name: str(table.get(name, "")) for name in ("title", "formula", "unit", "source")}
    return DocEntry(
        key=key,
        better=str(table.get("better", "neither")),
        bounds=(low, high),
        summary=str(table.get("means", "")),
        caveats=str(table.get("misleads", "")),
        advice=str(table.get("try", "")),
        **texts,
    )
