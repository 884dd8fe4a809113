"""The type of every column of a real and a generated table: number, category or date; or why it is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gandiag.errors import ConfigError, SourceError, close_match_hint
from gandiag.sampling.tables.columns import Numbers, RawColumn, RawTable, require_finite

ColumnKind = Literal["number", "category", "date"]
SKIP = "skip"
MAX_CATEGORY_INTEGERS = 10  # whole numbers with so few values, each common, are categories
MIN_ROWS_PER_VALUE = 20
MAX_DISTINCT_FRACTION = 0.5  # of strings; with more, they name rows and cannot be compared
MIN_IDENTIFIER_ROWS = 20
MIN_IDENTIFIER_DENSITY = 0.5  # of distinct whole numbers in their range, from which they number the rows
TEXT_WORDS, TEXT_CHARACTERS = 4, 60  # mean length from which strings are text
_IDENTIFIER_NAME = re.compile(r"(^|[_\W])(id|idx|index|uuid|guid|key|unnamed)($|[_\W\d])|[a-z]I[dD]$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """`kind`: how the column is compared, None where it is left out for `reason`. `is_given`: the user says so."""

    name: str
    kind: ColumnKind | None
    reason: str = ""
    is_given: bool = False


def parse_column_types(entries: Sequence[str] | None) -> dict[str, str]:
    """("age=number", "note=skip") as a mapping. ConfigError for anything else."""
    types: dict[str, str] = {}
    allowed = (*get_args(ColumnKind), SKIP)
    for entry in entries or ():
        name, equals, kind = entry.rpartition("=")
        if not equals or not name:
            raise ConfigError(f"--columns has {entry!r}", "write name=type, such as age=number,cut=category")
        if kind not in allowed:
            raise ConfigError(f"--columns gives {name!r} the type {kind!r}", close_match_hint(kind, allowed))
        types[name] = kind
    return types


def plan_columns(real: RawTable, fake: RawTable | None, given: Mapping[str, str]) -> tuple[ColumnPlan, ...]:
    """A plan for every column of the real data, and one for every column that only the generated table has.

    Without generated rows (`fake` None) the real table is planned alone. SourceError for a column that the generated
    table lacks, types that differ, and text.
    """
    unknown = next((name for name in given if name not in real.column_names), None)
    if unknown is not None:
        raise ConfigError(
            f"--columns names {unknown!r}, which is not a column of {real.name}",
            close_match_hint(unknown, list(real.column_names)),
        )
    fake_names = real.column_names if fake is None else fake.column_names
    if not set(fake_names) & set(real.column_names):
        raise SourceError(
            f"the generated and the real table share no column: {_listed(fake_names)} against "
            f"{_listed(real.column_names)}",
            "give both the same header",
        )
    plans = []
    for column in real.columns:
        wanted = given.get(column.name)
        if wanted == SKIP:
            plans.append(ColumnPlan(column.name, None, "as asked", is_given=True))
            continue
        if column.name not in fake_names:
            raise SourceError(
                f"the generated table has no column {column.name!r}",
                f"generate it, or leave it out: --columns {column.name}=skip",
            )
        other = None if fake is None else fake.column(column.name)
        require_finite(real.name, column)
        if fake is not None and other is not None:
            require_finite(fake.name, other)
        plans.append(_plan_given(column, other, wanted) if wanted else _plan_column(column, other))
    extra = [name for name in fake_names if name not in real.column_names]
    return (*plans, *(ColumnPlan(name, None, "not in the real data") for name in extra))


def _plan_given(real: RawColumn, fake: RawColumn | None, wanted: str) -> ColumnPlan:
    if wanted != "category":
        for column in (real, fake):
            if column is not None and not column.is_numeric:
                raise SourceError(
                    f"--columns calls {real.name!r} a {wanted}, but it holds {_example(column)}",
                    f"write --columns {real.name}=category",
                )
    kind: ColumnKind = next(kind for kind in get_args(ColumnKind) if kind == wanted)
    return ColumnPlan(real.name, kind, is_given=True)


def _plan_column(real: RawColumn, fake: RawColumn | None) -> ColumnPlan:
    known = real.known_values()
    fake_known = known if fake is None else fake.known_values()
    if not len(known):
        return ColumnPlan(real.name, None, "no values in the real data" if len(fake_known) else "no values")
    if fake is not None and len(known) and len(fake_known):
        _require_equal_types(real, fake)
    if not real.is_numeric:
        return _plan_words(real)
    if real.is_date:
        return ColumnPlan(real.name, "date")
    if _is_row_number(real):
        return ColumnPlan(real.name, None, "an identifier: every row has its own number")
    return ColumnPlan(real.name, "category" if _is_coded(real, fake) else "number")


def _require_equal_types(real: RawColumn, fake: RawColumn) -> None:
    """SourceError where one table has words and the other numbers or dates that are not among these words."""
    if real.is_numeric == fake.is_numeric and (not real.is_numeric or real.is_date == fake.is_date):
        return
    if not (real.is_date or fake.is_date):
        words, coded = (column.as_words() for column in ((real, fake) if not real.is_numeric else (fake, real)))
        if not real.is_numeric and set(coded) - {None} <= set(words):
            return
    raise SourceError(
        f"column {real.name!r} holds {_example(real)} in the real data and {_example(fake)} in the generated",
        f"write the same type in both, or leave it out: --columns {real.name}=skip",
    )


def _plan_words(column: RawColumn) -> ColumnPlan:
    words: list[str] = column.known_values().tolist()
    n_distinct = len(set(words))
    if n_distinct <= max(MIN_IDENTIFIER_ROWS, MAX_DISTINCT_FRACTION * len(words)):
        return ColumnPlan(column.name, "category")
    n_words = float(np.mean([len(word.split()) for word in words]))
    if n_words >= TEXT_WORDS or float(np.mean([len(word) for word in words])) >= TEXT_CHARACTERS:
        raise SourceError(
            f"column {column.name!r} is text ({_example(column)}), which a table is not compared by",
            f"leave it out: --columns {column.name}=skip",
        )
    reason = f"an identifier: {n_distinct:,} different values in {len(words):,} rows"
    return ColumnPlan(column.name, None, reason)


def _is_row_number(column: RawColumn) -> bool:
    """Whether whole numbers, all distinct, count the rows or carry the name of an identifier."""
    values = column.known_values().astype(np.float64)
    if len(values) < MIN_IDENTIFIER_ROWS or not _are_whole(values) or len(np.unique(values)) < len(values):
        return False
    density = len(values) / (values.max() - values.min() + 1)
    is_sorted = bool((np.diff(values) > 0).all())
    return density >= MIN_IDENTIFIER_DENSITY or is_sorted or bool(_IDENTIFIER_NAME.search(column.name))


def _is_coded(real: RawColumn, fake: RawColumn | None) -> bool:
    """Whether a column of numbers holds codes: few whole numbers, each common, and whole in the generated rows too."""
    values = real.known_values().astype(np.float64)
    fake_values = values if fake is None else fake.known_values().astype(np.float64)
    n_distinct = len(np.unique(values))
    if n_distinct <= 1:
        return True
    is_few = n_distinct <= min(MAX_CATEGORY_INTEGERS, max(2, len(values) // MIN_ROWS_PER_VALUE))
    return is_few and _are_whole(values) and _are_whole(fake_values)


def _are_whole(values: Numbers) -> bool:
    return bool((values == np.round(values)).all())


def _example(column: RawColumn) -> str:
    """ "numbers such as 3.5", "words such as 'Fair'"."""
    known = column.known_values()
    if column.is_date:
        return "dates"
    if column.is_numeric:
        return f"numbers such as {known[0]:g}" if len(known) else "numbers"
    longest: str = max(known.tolist(), key=len)
    return f"words such as {longest if len(longest) <= 40 else longest[:37] + '…'!r}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
