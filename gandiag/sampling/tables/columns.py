"""A table as columns: numbers with NaN for missing values, or strings with None."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gandiag.errors import SourceError

MISSING_WORDS = frozenset(("", "na", "n/a", "#n/a", "nan", "-nan", "<na>", "null", "nat"))  # compared in lower case
DATE_FORMATS = ("%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S")
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?")
_LEADING_ZERO = re.compile(r"[+-]?0\d")  # as in postal codes: a label, not a number
_TRUTH_WORDS = {"true": 1.0, "false": 0.0}
_EPOCH = dt.datetime(1970, 1, 1)

Numbers = npt.NDArray[np.float64]
Words = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class RawColumn:
    """`values`: (n,) float64 with NaN where missing, or objects: str, None where missing.

    Dates are seconds since 1970.
    """

    name: str
    values: Numbers | Words
    is_date: bool = False

    @property
    def is_numeric(self) -> bool:
        return self.values.dtype.kind == "f"

    @property
    def is_missing(self) -> npt.NDArray[np.bool_]:
        """(n,) bool."""
        if self.is_numeric:
            return np.isnan(self.values.astype(np.float64))
        return np.array([value is None for value in self.values], dtype=bool)

    def known_values(self) -> Numbers | Words:
        """The values that are not missing."""
        return self.values[~self.is_missing]

    def as_words(self) -> Words:
        """The values as category names; whole numbers without a decimal point."""
        if not self.is_numeric:
            return np.asarray(self.values, dtype=object)
        words = [None if value != value else format_number(value) for value in self.values.tolist()]
        return np.array(words, dtype=object)

    def take(self, rows: npt.NDArray[np.int64]) -> RawColumn:
        return RawColumn(self.name, self.values[rows], self.is_date)


@dataclass(frozen=True, slots=True)
class RawTable:
    """Columns of equal length, by name."""

    name: str
    columns: tuple[RawColumn, ...]

    @property
    def n(self) -> int:
        return len(self.columns[0].values) if self.columns else 0

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> RawColumn:
        return next(column for column in self.columns if column.name == name)

    def take(self, rows: npt.NDArray[np.int64]) -> RawTable:
        return RawTable(self.name, tuple(column.take(rows) for column in self.columns))

    def fingerprint(self) -> str:
        """A hash of names and contents."""
        digest = hashlib.blake2b(digest_size=16)
        for column in self.columns:
            digest.update(f"|{column.name}|{column.is_date}|".encode())
            if column.is_numeric:
                digest.update(np.ascontiguousarray(column.values).tobytes())
            else:
                digest.update("\0".join("\1" if value is None else value for value in column.values).encode())
        return digest.hexdigest()


def make_table(name: str, columns: Iterable[RawColumn]) -> RawTable:
    """A table. SourceError for repeated column names."""
    table = RawTable(name, tuple(columns))
    if not table.columns:
        raise SourceError(f"{name} has no columns", "pass a table with a header and rows")
    seen: set[str] = set()
    for column in table.columns:
        if column.name in seen:
            raise SourceError(f"{name} has two columns called {column.name!r}", "rename one of them")
        seen.add(column.name)
    return table


def table_from_array(array: npt.NDArray[Any], name: str, column_names: Sequence[str] = ()) -> RawTable:
    """The columns of an (N, D) array of numbers, called `column_names`, or "column 1" to "column D"."""
    names = column_names or [f"column {index + 1}" for index in range(array.shape[1])]
    values = np.asarray(array, dtype=np.float64)
    return make_table(name, (RawColumn(title, values[:, index]) for index, title in enumerate(names)))


def _is_missing_word(word: str) -> bool:
    """Whether a cell is empty or says so: as pandas does, "None" is missing and "none" is a category."""
    return word.lower() in MISSING_WORDS or word == "None"


def column_from_cells(name: str, cells: Sequence[str]) -> RawColumn:
    """A column of text cells: numbers or dates where all cells are, else words."""
    words = [None if _is_missing_word(cell.strip()) else cell.strip() for cell in cells]
    known = [word for word in words if word is not None]
    if known and all(word.lower() in _TRUTH_WORDS for word in known):
        return RawColumn(name, _scatter(words, np.array([_TRUTH_WORDS[word.lower()] for word in known])))
    numbers = _parse_numbers(known)
    if numbers is not None:
        return RawColumn(name, _scatter(words, numbers))
    seconds = _parse_dates(known)
    if seconds is not None:
        return RawColumn(name, _scatter(words, seconds), is_date=True)
    return RawColumn(name, np.array(words, dtype=object))


def column_from_objects(name: str, values: Sequence[Any]) -> RawColumn:
    """A column of Python objects: numbers, booleans, strings, dates; None, NaN, NaT and NA are missing."""
    cleaned = [None if _is_missing(value) else value for value in values]
    known = [value for value in cleaned if value is not None]
    if all(isinstance(value, (dt.date, np.datetime64)) for value in known) and known:
        return RawColumn(name, _scatter(cleaned, np.array([_to_seconds(value) for value in known])), is_date=True)
    if all(isinstance(value, (int, float, np.number, np.bool_)) for value in known):  # True and False are 1 and 0
        return RawColumn(name, _scatter(cleaned, np.array(known, dtype=np.float64)))
    if all(isinstance(value, str) for value in known):
        return column_from_cells(name, ["" if value is None else value for value in cleaned])
    return RawColumn(name, np.array([None if value is None else str(value) for value in cleaned], dtype=object))


def format_number(value: float) -> str:
    """12.0 -> "12", 0.1 -> "0.1"."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


def format_date(seconds: float) -> str:
    """Seconds since 1970 as a day, with the time where it is not midnight."""
    try:
        moment = _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError:
        return format_number(seconds)
    return f"{moment:%Y-%m-%d}" if moment.time() == dt.time() else f"{moment:%Y-%m-%d %H:%M}"


def require_finite(table: str, column: RawColumn) -> None:
    """SourceError for infinite values."""
    if not column.is_numeric:
        return
    bad = np.isinf(column.values.astype(np.float64))
    if bad.any():
        raise SourceError(
            f"{table}: column {column.name!r} has {int(bad.sum()):,} infinite values, the first in row "
            f"{int(bad.argmax()) + 1:,}",
            f"correct them, or leave the column out: --columns {column.name}=skip",
        )


def _scatter(values: Sequence[Any], known: Numbers) -> Numbers:
    """The parsed values in their rows, NaN elsewhere."""
    result = np.full(len(values), np.nan)
    result[[value is not None for value in values]] = known
    return result


def _parse_numbers(words: Sequence[str]) -> Numbers | None:
    if not words or any(_LEADING_ZERO.match(word) for word in words):
        return np.empty(0) if not words else None
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        return None


def _parse_dates(words: Sequence[str]) -> Numbers | None:
    """Seconds since 1970; None unless every word is a date of one format. Time zones are dropped."""
    if all(_ISO_DATE.fullmatch(word) for word in words):
        try:
            return np.array([word[:19].rstrip("Z").replace(" ", "T") for word in words], "datetime64[s]").astype(float)
        except ValueError:
            return None
    for pattern in DATE_FORMATS:
        try:
            return np.array([_to_seconds(dt.datetime.strptime(word, pattern)) for word in words])
        except ValueError:
            continue
    return None


def _to_seconds(value: Any) -> float:
    if isinstance(value, np.datetime64):
        return float(value.astype("datetime64[s]").astype(float))
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    return float((value.replace(tzinfo=None) - _EPOCH).total_seconds())


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating, np.datetime64)) and bool(value != value)
