"""Checks documents that come from outside against a declared shape, once, where they enter. Torch-free.

    SCORE = table({"value": optional(number()), "n_fake": integer(low=0)}, required=("value",))
    check(SCORE, document, "score")       # SchemaError: "score.n_fake is 'x', where a whole number is due"

A check is a function of (value, path). Unknown keys are let through: a later version may write more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Check = Callable[[Any, str], None]

_MAX_SHOWN = 40


class SchemaError(ValueError):
    """A value of the wrong type or out of range; the message names its path."""


def _fail(value: Any, path: str, due: str) -> None:
    kinds = {dict: "a table", list: "a list", tuple: "a list", type(None): "null"}
    shown = kinds.get(type(value)) or ascii(str(value)[:_MAX_SHOWN] if isinstance(value, str) else value)[:_MAX_SHOWN]
    raise SchemaError(f"{path or 'the document'} is {shown}, where {due} is due")


def anything(value: Any, path: str) -> None:
    """Any value."""


def number(low: float | None = None, high: float | None = None) -> Check:
    """A finite number within bounds; not a bool."""

    def check_number(value: Any, path: str) -> None:
        if type(value) not in (int, float) or not math.isfinite(value):
            _fail(value, path, "a number")
        if low is not None and not value >= low:
            _fail(value, path, f"a number of at least {low:g}")
        if high is not None and not value <= high:
            _fail(value, path, f"a number of at most {high:g}")

    return check_number


def integer(low: int | None = None, high: int | None = None) -> Check:
    """A whole number within bounds; not a bool."""

    def check_integer(value: Any, path: str) -> None:
        if type(value) is not int:
            _fail(value, path, "a whole number")
        number(low, high)(value, path)

    return check_integer


def boolean(value: Any, path: str) -> None:
    """true or false."""
    if type(value) is not bool:
        _fail(value, path, "true or false")


def text(*choices: str) -> Check:
    """A string; with `choices`, one of these."""

    def check_text(value: Any, path: str) -> None:
        if not isinstance(value, str):
            _fail(value, path, "a text")
        if choices and value not in choices:
            _fail(value, path, f"one of {', '.join(choices)}")

    return check_text


def optional(check: Check) -> Check:
    """null, or what `check` accepts."""
    return lambda value, path: None if value is None else check(value, path)


def either(*checks: Check, due: str) -> Check:
    """What any of the checks accepts. `due`: all of them in words."""

    def check_either(value: Any, path: str) -> None:
        for check in checks:
            try:
                return check(value, path)
            except SchemaError:
                continue
        _fail(value, path, due)
        return None

    return check_either


def list_of(check: Check, *, longest: int | None = None) -> Check:
    """A list whose entries pass."""

    def check_list(value: Any, path: str) -> None:
        if not isinstance(value, (list, tuple)):
            _fail(value, path, "a list")
        if longest is not None and len(value) > longest:
            raise SchemaError(f"{path} has {len(value):,} entries, where at most {longest:,} are due")
        for index, entry in enumerate(value):
            check(entry, f"{path}[{index}]")

    return check_list


def mapping_of(check: Check) -> Check:
    """A table with any keys, whose values pass."""

    def check_mapping(value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            _fail(value, path, "a table")
        for key, entry in value.items():
            check(entry, _join(path, key))

    return check_mapping


def table(checks: Mapping[str, Check], required: Sequence[str] = (), *, closed: bool = False) -> Check:
    """A table whose known keys pass. `required`: keys that must be there; `closed`: there may be no others."""

    def check_table(value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            _fail(value, path, "a table")
        for key in required:
            if key not in value:
                raise SchemaError(f"{_join(path, key)} is missing")
        for key, entry in value.items():
            if key in checks:
                checks[key](entry, _join(path, key))
            elif closed:
                raise SchemaError(f"{_join(path, key)} is not a key of it")

    return check_table


def check(schema: Check, document: Any, path: str = "") -> None:
    """Check a document. SchemaError with the path of the first offending key."""
    schema(document, path)


def _join(path: str, key: Any) -> str:
    shown = ascii(str(key)[:_MAX_SHOWN])[1:-1]
    return f"{path}.{shown}" if path else shown
