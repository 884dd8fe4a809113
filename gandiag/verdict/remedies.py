"""Which remedies help against which finding: the table gandiag/data/remedies.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load_remedies() -> Mapping[str, Any]:
    """The table.

    `remedies`: key -> {title, how, price, source}, with `commands` that try the remedy on a toy problem if the bundled
    trainer implements it. `advice`: rule code -> [{remedy, why}], best first.
    """
    return tomllib.loads(files("gandiag.data").joinpath("remedies.toml").read_text(encoding="utf-8"))


def get_remedies(rule: str) -> tuple[Mapping[str, Any], ...]:
    """The remedies for a rule code, best first: {key, title, why, how, price, source} each; () for none.

    `how` ends with the commands.
    """
    remedies = []
    for row in load_remedies()["advice"].get(rule, ()):
        fields = dict(load_remedies()["remedies"][row["remedy"]])
        commands = fields.pop("commands", ())
        if commands:
            fields["how"] += f" Try it: {', or '.join(commands)}"
        remedies.append({"key": row["remedy"], "why": row["why"], **fields})
    return tuple(remedies)
