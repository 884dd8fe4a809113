"""What every measurement and rule is: formula, direction, when it misleads, source. Data, read from gandiag/data/catalogue."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from gandiag.errors import ConfigError, close_match_hint


@dataclass(frozen=True, slots=True)
class DocEntry:
    """One measurement, profile entry or rule, as `explain` shows it."""

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


@cache
def load_entries() -> Mapping[str, DocEntry]:
    """Every entry by key."""
    found: dict[str, DocEntry] = {}
    for file in sorted(files("gandiag.data").joinpath("catalogue").iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            for key, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
                found[key] = _entry(key, table)
    return found


def find_entry(key: str) -> DocEntry | None:
    """The entry of a measurement; `frechet[imagenet]` is looked up as `frechet`."""
    table = load_entries()
    return table.get(key) or table.get(key.partition("[")[0]) or table.get(key.partition("@")[0])


def get_entry(key: str) -> DocEntry:
    """The entry; a factor or an aspect goes without its section ("missing"). ConfigError with the nearest names."""
    low = key.lower()
    spelt = (key, key.upper() if low.startswith("gd") else low, f"profile.{low}", f"aspects.{low}")
    found = next((known for name in spelt if (known := find_entry(name)) is not None), None)
    if found is None:
        bare = sorted({name.rpartition(".")[2] for name in load_entries()})
        raise ConfigError(
            f"there is no metric or rule called {key!r}", close_match_hint(key, bare, "gandiag list has all names")
        )
    return found


def _entry(key: str, table: Mapping[str, Any]) -> DocEntry:
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
