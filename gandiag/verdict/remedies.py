"""Which remedy helps against which finding: a table (gandiag/data/remedies.toml) that the tests check."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load_remedies() -> Mapping[str, Any]:
    """`remedies`: key -> {title, how, source, price}; `advice`: rule -> [{remedy, why}], best first."""
    return tomllib.loads(files("gandiag.data").joinpath("remedies.toml").read_text(encoding="utf-8"))


def get_remedies(rule: str) -> tuple[Mapping[str, Any], ...]:
    """Ranked remedies for a finding: {key, title, why, how, price, source}."""
    known = load_remedies()["remedies"]
    return tuple(
        {"key": row["remedy"], "why": row["why"], **known[row["remedy"]]}
        for row in load_remedies()["advice"].get(rule, ())
    )
