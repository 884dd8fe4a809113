"""Errors of the Python API name keyword arguments: latent_dim=128 where those of the command say --latent-dim 128."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager

from gandiag.config import AuditConfig, option_name
from gandiag.errors import GandiagError

_ENTRIES = {option_name(entry.name): entry for entry in dataclasses.fields(AuditConfig)}
# An option, and what follows it if that can be its value: a number, a list, a choice, a placeholder, pkg.mod:factory.
_OPTION = re.compile(r"(?<![\w-])(-n|--[a-z][a-z-]*[a-z])(?![\w-])(?:[ =](?P<value>[^\s;,]+(?:,[^\s;,]+)*))?")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
_PLACEHOLDER = re.compile(r"[A-Z]+")
_NAME = re.compile(r"[A-Za-z_]\w*([./:=]\w+)+")


@contextmanager
def naming_keywords() -> Iterator[None]:
    """Rewrite the options in the text of a GandiagError that leaves this block."""
    try:
        yield
    except GandiagError as error:
        error.message, error.hint = name_keywords(error.message), name_keywords(error.hint)
        error.args = tuple(name_keywords(part) if isinstance(part, str) else part for part in error.args)
        raise


def name_keywords(text: str) -> str:
    """ "pass --latent-dim 128 or --trust" -> "pass latent_dim=128 or trust=True". Other options stay as they are."""
    return _OPTION.sub(_rewrite, text)


def _rewrite(match: re.Match[str]) -> str:
    option, value = match[1], (match["value"] or "").rstrip(".)")
    if option == "--no-exhibits":
        return "exhibits=False" + match[0].removeprefix(option)
    entry = _ENTRIES.get("--n" if option == "-n" else option)
    if entry is None:
        return match[0]
    if str(entry.type).startswith("bool"):
        return f"{entry.name}=True" + match[0].removeprefix(option)
    shown = _show_value(entry, value)
    if shown is None:
        rest = match[0].removeprefix(option)
        return entry.name + ("" if value in ("is", "contradicts", "needs", "states") else "=…") + rest
    return f"{entry.name}={shown}" + match["value"].removeprefix(value)


def _show_value(entry: dataclasses.Field[object], value: str) -> str | None:
    """The value of an option as Python; None where the word after the option is not one."""
    kind, parts = str(entry.type), value.split(",")
    is_placeholder = _PLACEHOLDER.fullmatch(value) is not None
    is_number = all(_NUMBER.fullmatch(part) for part in parts)
    if not (is_number or is_placeholder or value in entry.metadata["choices"] or _NAME.fullmatch(value)):
        return None
    if kind.startswith("tuple"):
        shown = [part if kind.startswith("tuple[float") else repr(part) for part in parts]
        return f"({', '.join(shown)}{',' * (len(shown) == 1)})"
    return repr(value) if kind.startswith("str") and not is_placeholder else value
