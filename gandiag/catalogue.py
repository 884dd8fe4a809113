"""What every measurement and rule is: formula, direction, when it misleads, source. Data, read from gandiag/data/catalogue."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from gandiag.errors import ConfigError, near


@dataclass(frozen=True, slots=True)
class Entry:
    """One measurement, profile entry or rule, as `explain` shows it."""

    key: str
    title: str
    means: str = ""
    formula: str = ""
    better: str = "neither"
    bounds: tuple[float | None, float | None] = (None, None)
    unit: str = ""
    misleads: str = ""
    try_: str = ""
    source: str = ""


@cache
def entries() -> Mapping[str, Entry]:
    """Every entry by key."""
    found: dict[str, Entry] = {}
    for file in sorted(files("gandiag.data").joinpath("catalogue").iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            for key, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
                found[key] = _entry(key, table)
    return found


def entry(key: str) -> Entry | None:
    """The entry of a measurement; `frechet[imagenet]` is looked up as `frechet`."""
    table = entries()
    return table.get(key) or table.get(key.partition("[")[0]) or table.get(key.partition("@")[0])


def explain(key: str) -> Entry:
    """The entry; a factor or an aspect goes without its section ("missing"). ConfigError with the nearest names."""
    low = key.lower()
    spelt = (key, key.upper() if low.startswith("gd") else low, f"profile.{low}", f"aspects.{low}")
    found = next((known for name in spelt if (known := entry(name)) is not None), None)
    if found is None:
        bare = sorted({name.rpartition(".")[2] for name in entries()})
        raise ConfigError(f"there is no metric or rule called {key!r}", near(key, bare, "gandiag list has all names"))
    return found


def _entry(key: str, table: Mapping[str, Any]) -> Entry:
    bounds = [None if bound in ("", None) else float(bound) for bound in table.get("bounds", ("", ""))]
    low, high = (*bounds, None, None)[:2]
    texts = {name: str(table.get(name, "")) for name in ("title", "means", "formula", "unit", "misleads", "source")}
    return Entry(key=key, better=str(table.get("better", "neither")), bounds=(low, high), try_=str(table.get("try", "")), **texts)
