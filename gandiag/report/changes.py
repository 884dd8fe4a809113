"""A comparison of two records, as text, Markdown or JSON: what got worse first, then what got better, then what only moved."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.errors import ConfigError, ExitCode, near
from gandiag.judge.baseline import Change, Comparison
from gandiag.judge.limits import Check, Quantity
from gandiag.record import plain
from gandiag.report import words
from gandiag.report.markdown import code, prose, table

SCHEMA = "gandiag.compare/1"
WORDS = {"violated": "REGRESSED", "passed": "NO REGRESSION", "inconclusive": "UNCLEAR", "unmeasured": "UNCLEAR"}
ORDER = ("worse", "better", "moved", "same")


@dataclass(frozen=True, slots=True)
class Compared:
    """What there is to show: the two names, the comparison, and the score held against the most that it may regress."""

    old: str
    new: str
    found: Comparison
    check: Check

    @property
    def code(self) -> ExitCode:
        """1 where the score got worse by more than it may, 3 where that cannot be told, else 0."""
        if self.check.good:
            return ExitCode.OK
        return ExitCode.COLLAPSED if self.check.state == "violated" else ExitCode.INSUFFICIENT

    def sorted(self) -> list[Change]:
        """The score, then by direction; the order of the record within one."""
        return sorted(self.found.changes, key=lambda change: (change.key != "score", ORDER.index(change.direction)))


def render(compared: Compared, form: str, *, verbose: bool = False) -> str:
    """The comparison in a format by name."""
    if form not in FORMATS:
        raise ConfigError(f"there is no format called {form!r}", near(form, list(FORMATS)))
    return FORMATS[form](compared, verbose)


def _text(compared: Compared, verbose: bool) -> str:
    shown, hidden = _shown(compared, verbose)
    lines = [f"{WORDS[compared.check.state]}  {words.clean(compared.old)} → {words.clean(compared.new)}", *textwrap.wrap(_sentence(compared), 100), ""]
    rows = [("", "old", "new", "change", ""), *(_cells(change) for change in shown)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines += ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", f"{hidden} more are the same within their intervals (-v shows them)"] if hidden else []
    for remark in compared.found.remarks:
        lines += textwrap.wrap(words.clean(remark), 100, initial_indent="note: ", subsequent_indent="      ")
    return "\n".join(lines) + "\n"


def _markdown(compared: Compared, verbose: bool) -> str:
    shown, hidden = _shown(compared, verbose)
    lines = [f"## {WORDS[compared.check.state]}: {code(compared.old)} → {code(compared.new)}", "", prose(_sentence(compared)), ""]
    lines += table(("number", "old", "new", "change", ""), [tuple(code(cell) if cell else "" for cell in _cells(change)) for change in shown])
    lines += [f"{hidden} more are the same within their intervals.", ""] if hidden else []
    return "\n".join([*lines, *(f"- {prose(remark)}" for remark in compared.found.remarks)]).rstrip() + "\n"


def _json(compared: Compared, verbose: bool) -> str:
    changes = {change.key: _document(change) for change in compared.found.changes}
    document = {
        "schema": SCHEMA, "code": int(compared.code), "old": compared.old, "new": compared.new, "regress": compared.check,
        "remarks": compared.found.remarks, "changes": changes,
    }  # fmt: skip
    return json.dumps(plain(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _document(change: Change) -> Mapping[str, Any]:
    rows = {name: {"value": found.value, "low": found.low, "high": found.high} for name, found in (("old", change.old), ("new", change.new))}
    difference = {name: getattr(change, name) for name in ("delta", "low", "high", "better", "direction", "paired")}
    return {**rows, **difference}


def _sentence(compared: Compared) -> str:
    change, check = compared.found.change("score"), compared.check
    if change is None:
        return "There is no score in both records: nothing can be said of a regression."
    told = f"The collapse score went from {_number(change.old)} to {_number(change.new)}: {_signed(change)}, and may get worse by {check.must.split(',')[0]}."
    return told + (" The interval of the difference uses the replicates that both records hold." if change.paired else "")


def _shown(compared: Compared, verbose: bool) -> tuple[list[Change], int]:
    shown = [change for change in compared.sorted() if verbose or change.key == "score" or change.direction != "same"]
    return shown, len(compared.found.changes) - len(shown)


def _cells(change: Change) -> tuple[str, ...]:
    return words.clean(change.key), _number(change.old), _number(change.new), _signed(change), change.direction


def _number(found: Quantity) -> str:
    return words.estimate({"value": found.value, "low": found.low, "high": found.high}, words.number)


def _signed(change: Change) -> str:
    fact = change.low == change.high
    return _plus(change.delta) if fact else f"{_plus(change.delta)} {words.interval(change.low, change.high, _plus)}"


def _plus(value: float) -> str:
    return ("+" if value > 0 else "") + words.number(value).replace("-", "−")


FORMATS: Mapping[str, Callable[[Compared, bool], str]] = {"text": _text, "json": _json, "markdown": _markdown}
