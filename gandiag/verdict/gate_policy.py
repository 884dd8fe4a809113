"""A gate's policy as people write it: the [gate] table of a TOML file. Torch-free.

    [gate]                                  # in gandiag.toml; [tool.gandiag.gate] in pyproject.toml
    max-score = 0.2                         # the collapse score must stay below it; by default the limit of the record
    baseline = "audits/last.json"           # relative to this file
    max-regress = 0.05                      # how much worse than the baseline the score may be
    allow = ["inconclusive"]                # of: inconclusive, degeneracy, unmeasured
    forbid = ["GD201"]                      # findings that fail the gate

    [gate.limits]                           # any number of a record
    recall = { min = 0.6 }
    profile.missing = { max = 0.1 }
    classes."*" = { max = 0.3, max-regress = 0.1 }

tomllib forgets lines, and a gate must name the one that failed: they are found again by reading the keys.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.verdict.limits import Limit

ALLOWED_STATES = ("inconclusive", "degeneracy", "unmeasured")
POLICY_KEYS = ("max-score", "baseline", "max-regress", "allow", "forbid", "limits")
LIMIT_KEYS = ("min", "max", "max-regress")
POLICY_FILES = (("gandiag.toml", ("gate",)), ("pyproject.toml", ("tool", "gandiag", "gate")))
DEFAULT_MAX_REGRESS = 0.05


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """A policy, checked. `source`: the file it comes from, "" for none. `lines`: key of [gate] -> "gandiag.toml:3"."""

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
            if value is not None and not value >= 0:  # NaN too
                raise ConfigError(f"{name} is {value}", "give a number of at least 0")
        for name in sorted(self.allow):
            if name not in ALLOWED_STATES:
                raise ConfigError(f"the policy allows {name!r}", close_match_hint(name, ALLOWED_STATES))


def read_policy(path: str | os.PathLike[str]) -> GatePolicy:
    """The policy in a TOML file: its [gate] or [tool.gandiag.gate] table. ConfigError where there is none, or a key is unknown."""
    file = Path(path)
    table, text = _parsed(file)
    for _, at in POLICY_FILES:
        found = _at(table, at)
        if found is not None:
            return parse_policy(found, str(path), {key: f"{path}:{line}" for key, line in _lines(text, at).items()})
    raise ConfigError(
        f"{path} has no [gate] table", "start the policy with [gate], or [tool.gandiag.gate] in pyproject.toml"
    )


def find_policy(folder: Path) -> GatePolicy:
    """The policy of a folder: that of gandiag.toml, else of pyproject.toml, else none."""
    for name, at in POLICY_FILES:
        file = folder / name
        if file.is_file() and _at(_parsed(file)[0], at) is not None:
            return read_policy(name if folder == Path.cwd() else file)
    return GatePolicy()


def parse_policy(table: Any, source: str = "", lines: Mapping[str, str] | None = None) -> GatePolicy:
    """A policy from a [gate] table."""
    lines, where = lines or {}, source or "the policy"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: gate is {table!r}", "write a table: [gate]")
    for key in table:
        if key not in POLICY_KEYS:
            raise ConfigError(
                f"{lines.get(key, where)} sets {key!r}, which is no setting of a gate",
                close_match_hint(key, POLICY_KEYS),
            )
    baseline = table.get("baseline")
    if baseline is not None:
        baseline = _text(baseline, lines.get("baseline", where), "baseline")
        baseline = os.path.join(os.path.dirname(source), baseline) if source else baseline
    return GatePolicy(
        max_score=_number(table, "max-score", lines.get("max-score", where)),
        max_regress=_number(table, "max-regress", lines.get("max-regress", where), DEFAULT_MAX_REGRESS) or 0.0,
        baseline=baseline,
        allow=frozenset(_texts(table, "allow", where)),
        forbid=_texts(table, "forbid", where),
        limits=tuple(_limits(table.get("limits", {}), where, lines)),
        source=source,
        lines=lines,
    )


def _limits(table: Any, where: str, lines: Mapping[str, str], at: tuple[str, ...] = ()) -> Iterator[Limit]:
    """The limits of a table; tables inside it are sections, so that profile.missing needs no quotes."""
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"{where}: the limit of {'.'.join(at) or 'limits'} is {table!r}",
            "write it as { max = 0.2 } or { min = 0.6 }",
        )
    for key, value in table.items():
        path = (*at, key)
        name = ".".join(path)
        here = lines.get(f"limits.{name}", where)
        if not isinstance(value, Mapping) or not value:
            raise ConfigError(
                f"{here}: the limit of {name!r} is {value!r}", "write it as { max = 0.2 } or { min = 0.6 }"
            )
        if any(isinstance(part, Mapping) for part in value.values()):
            yield from _limits(value, here, lines, path)
            continue
        for part in value:
            if part not in LIMIT_KEYS:
                raise ConfigError(f"{here} sets {part!r} for {name!r}", close_match_hint(part, LIMIT_KEYS))
        low, high, worse = (_number(value, part, here) for part in LIMIT_KEYS)
        yield Limit(name, low, high, worse, here)


def _number(table: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float | None:
    value = table.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ConfigError(f"{where}: {key} is {value!r}", "give a number")
    return float(value)


def _text(value: Any, where: str, key: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key} is {value!r}", "give a text in quotes")
    return value


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {key} is {value!r}", f'give a list: {key} = ["…"]')
    return tuple(_text(entry, where, key) for entry in value)


def _parsed(file: Path) -> tuple[dict[str, Any], str]:
    try:
        text = file.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except OSError as problem:
        raise ConfigError(f"{file} cannot be read: {problem.strerror}", "give a policy in TOML") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise ConfigError(f"{file} is not valid TOML: {broken}", "correct the file") from None


def _at(table: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        table = table.get(part) if isinstance(table, Mapping) else None
    return table


def _lines(text: str, below: tuple[str, ...]) -> dict[str, int]:
    """Dotted key under the table `below` -> number of the line that sets it."""
    found: dict[str, int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            table = _path(line.strip()) or table
        key = (*table, *_key(line))
        if key[: len(below)] == below and len(key) > len(below):
            found.setdefault(".".join(key[len(below) :]), number)
    return found


def _key(line: str) -> tuple[str, ...]:
    """The key that a line sets: what stands before the first `=` that makes it valid TOML."""
    at = line.find("=")
    while at >= 0:
        if path := _path(line[:at] + "= 0"):
            return path
        at = line.find("=", at + 1)
    return ()


def _path(line: str) -> tuple[str, ...]:
    """The one path of keys in a line of TOML; nothing where it is none."""
    try:
        table: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path = []
    while isinstance(table, Mapping) and table:
        key, table = next(iter(table.items()))
        path.append(key)
    return tuple(path)
