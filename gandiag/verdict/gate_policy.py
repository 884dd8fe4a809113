"""Reads the policy of the gate: the [gate] table of a TOML file. Torch-free.

    [gate]                                  # in gandiag.toml; [tool.gandiag.gate] in pyproject.toml
    max-score = 0.2                         # the collapse score must stay below it; default: the limit in the record
    baseline = "audits/last.json"           # relative to this file
    max-regress = 0.05                      # how much worse than the baseline the score may be
    allow = ["inconclusive", "GD201"]       # of: inconclusive, degeneracy, unmeasured, and codes of findings
    forbid = ["GD201"]                      # findings that fail the gate

    [gate.limits]                           # any number of a record
    recall = { min = 0.6 }
    profile.missing = { max = 0.1 }
    classes."*" = { max = 0.3, max-regress = 0.1 }

A failing gate names the line of the policy. tomllib does not keep line numbers, so a second pass over the keys finds
them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.untrusted.files import is_plain_file
from gandiag.untrusted.settings_files import find_toml_lines, get_table, is_within_folder, read_toml_file
from gandiag.verdict.limits import Limit

ALLOWED_STATES = ("inconclusive", "degeneracy", "unmeasured")
POLICY_KEYS = ("max-score", "baseline", "max-regress", "allow", "forbid", "limits")
LIMIT_KEYS = ("min", "max", "max-regress")
# Files that may hold a policy, the first one first, with the table in each.
POLICY_FILES = (("gandiag.toml", ("gate",)), ("pyproject.toml", ("tool", "gandiag", "gate")))
DEFAULT_MAX_REGRESS = 0.05
_LIMIT_HINT = "write it as { max = 0.2 } or { min = 0.6 }"


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """A validated policy. `source`: its file, "" for none. `lines`: key of [gate] -> "gandiag.toml:3"."""

    max_score: float | None = None
    max_regress: float = DEFAULT_MAX_REGRESS
    baseline: str | None = None
    allow: frozenset[str] = frozenset()
    forbid: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    source: str = ""
    lines: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("max-score", self.max_score), ("max-regress", self.max_regress)):
            if value is not None and not value >= 0:  # also refuses NaN
                raise ConfigError(f"{name} is {value}", "give a number of at least 0")
        for name in sorted(self.allow):
            if not is_allowable(name):
                raise ConfigError(f"the policy allows {name!r}", close_match_hint(name, ALLOWED_STATES))


def is_allowable(name: str) -> bool:
    """Whether a policy may allow this: a state of a check, or the code of a finding such as GD201."""
    return name in ALLOWED_STATES or re.fullmatch(r"GD\d{3}", name) is not None


def read_policy(path: str | os.PathLike[str]) -> GatePolicy:
    """Read the [gate] or [tool.gandiag.gate] table of a TOML file.

    ConfigError if there is no such table or it holds an unknown key.
    """
    document, text = read_toml_file(Path(path), str(path))
    for _, keys in POLICY_FILES:
        table = get_table(document, keys)
        if table is not None:
            lines = {key: f"{path}:{number}" for key, number in find_toml_lines(text, keys).items()}
            return parse_policy(table, str(path), lines)
    raise ConfigError(
        f"{path} has no [gate] table", "start the policy with [gate], or [tool.gandiag.gate] in pyproject.toml"
    )


def find_policy(folder: Path) -> GatePolicy:
    """The policy of a folder: from gandiag.toml, else from pyproject.toml, else the default one."""
    for name, keys in POLICY_FILES:
        file = folder / name
        if is_plain_file(file) and get_table(read_toml_file(file, name)[0], keys) is not None:
            policy = read_policy(name if folder == Path.cwd() else file)
            _require_own_baseline(policy, folder)
            return policy
    return GatePolicy()


def _require_own_baseline(policy: GatePolicy, folder: Path) -> None:
    """ConfigError where a policy that nobody asked for reads a file outside its folder."""
    if policy.baseline is not None and not is_within_folder(folder, policy.baseline):
        where = policy.lines.get("baseline", policy.source)
        raise ConfigError(
            f"{where} sets a baseline outside this folder: a project's file may not",
            f"remove that line; if you want it, pass --policy {policy.source} or --baseline RECORD",
        )


def parse_policy(table: Any, source: str = "", lines: Mapping[str, str] | None = None) -> GatePolicy:
    """Validate a [gate] table. `source` and `lines` say where it comes from, for error messages."""
    lines, where = lines or {}, source or "the policy"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: gate is {ascii(table)[:60]}", "write a table: [gate]")
    for key in table:
        if key not in POLICY_KEYS:
            hint = close_match_hint(key, POLICY_KEYS)
            raise ConfigError(f"{lines.get(key, where)} sets {key!r}, which the gate does not know", hint)
    baseline = table.get("baseline")
    if baseline is not None:
        baseline = _parse_text(baseline, lines.get("baseline", where), "baseline")
        baseline = os.path.join(os.path.dirname(source), baseline) if source else baseline
    return GatePolicy(
        max_score=_parse_number(table, "max-score", lines.get("max-score", where)),
        max_regress=_parse_number(table, "max-regress", lines.get("max-regress", where), DEFAULT_MAX_REGRESS) or 0.0,
        baseline=baseline,
        allow=frozenset(_parse_texts(table, "allow", where)),
        forbid=_parse_texts(table, "forbid", where),
        limits=tuple(_parse_limits(table.get("limits", {}), where, lines)),
        source=source,
        lines=lines,
    )


def _parse_limits(table: Any, where: str, lines: Mapping[str, str], parents: tuple[str, ...] = ()) -> Iterator[Limit]:
    """The limits of a table. A table of tables is a section, so that profile.missing needs no quotes."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: the limit of {'.'.join(parents) or 'limits'} is {ascii(table)[:60]}", _LIMIT_HINT)
    for key, value in table.items():
        path = (*parents, key)
        name = ".".join(path)
        line = lines.get(f"limits.{name}", where)
        if not isinstance(value, Mapping) or not value:
            raise ConfigError(f"{line}: the limit of {name!r} is {ascii(value)[:60]}", _LIMIT_HINT)
        if any(isinstance(part, Mapping) for part in value.values()):
            yield from _parse_limits(value, line, lines, path)
            continue
        for part in value:
            if part not in LIMIT_KEYS:
                raise ConfigError(f"{line} sets {part!r} for {name!r}", close_match_hint(part, LIMIT_KEYS))
        low, high, max_regress = (_parse_number(value, part, line) for part in LIMIT_KEYS)
        yield Limit(name, low, high, max_regress, line)


def _parse_number(table: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float | None:
    value = table.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{where}: {key} is {ascii(value)[:60]}", "give a number")
    return float(value)


def _parse_text(value: Any, where: str, key: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key} is {ascii(value)[:60]}", "give a text in quotes")
    return value


def _parse_texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {key} is {ascii(value)[:60]}", f'give a list: {key} = ["…"]')
    return tuple(_parse_text(entry, where, key) for entry in value)
