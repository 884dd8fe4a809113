"""Cells of logs as numbers: thousands, decimal commas, tensors, brackets. What is no number is a gap, and is said."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from gandiag.training_logs.series import Array

MAX_DECORATED_CELL = 300  # characters of a cell that is no plain number
NUMBER = r"[-+]?(?:\d+(?:[.,]\d+)*\.?|[.,]\d+)(?:[eE][-+]?\d+)?"
TENSOR_PATTERN = re.compile(
    rf"[A-Za-z_.]*(?:ensor|array|float\d*|item|Array|ndarray)\(\s*\[*\s*({NUMBER}|nan|inf)\s*\]*(?:[,)].*)$"
    rf"|<.*numpy=({NUMBER}|nan|inf)|\[+\s*({NUMBER}|nan|inf)\s*\]+$",
    re.DOTALL,
)
THOUSANDS_PATTERN = re.compile(r"\s*[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?\s*$")
DECIMAL_COMMA_PATTERN = re.compile(r"\s*[-+]?\d[\d.]*,\d+(?:[eE][-+]?\d+)?\s*$")
PLACEHOLDERS = {"", "-", "--", "n/a", "na", "none", "null", "nil", "–", "—", "missing"}
MAX_SHOWN_TEXT = 40  # characters


def parse_number(text: str, decimal_comma: bool = False) -> float:
    """A cell as a number: NaN (a gap) if it is empty or a word, infinity if it says NaN, which is a broken loss.

    Thousands may be separated by commas; a value may stand in a call, "tensor(1.02, device='cuda:0')", or in brackets.
    """
    try:
        value = float(text)
    except (ValueError, TypeError):
        return _parse_decorated(str(text)[:MAX_DECORATED_CELL], decimal_comma)
    return value if value == value else math.inf


def _parse_decorated(text: str, decimal_comma: bool) -> float:
    text = text.strip().strip("'\"").strip()
    if match := TENSOR_PATTERN.match(text):
        text = match[1] or match[2] or match[3]
    if "," in text:
        text = text.replace(".", "").replace(",", ".") if decimal_comma else text
        text = text.replace(",", "") if THOUSANDS_PATTERN.match(text) else text.replace(",", ".")
    try:
        value = float(text.rstrip("%"))
    except ValueError:
        return math.nan
    return value if value == value else math.inf


def parse_column(cells: Sequence[str]) -> Array:
    """Cells (n,) as float64; fast if all of them are numbers."""
    try:
        column = np.array(list(map(float, cells)), dtype=np.float64)
        column[np.isnan(column)] = np.inf
        return column
    except ValueError:
        # One cell that cannot be thousands shows that the comma is decimal.
        commas = [cell for cell in cells if "," in cell and "(" not in cell]
        decimal_comma = any(DECIMAL_COMMA_PATTERN.match(cell) and not THOUSANDS_PATTERN.match(cell) for cell in commas)
        return np.array([parse_number(cell, decimal_comma) for cell in cells], dtype=np.float64)


def is_no_number(text: str) -> bool:
    """Whether a cell holds a text in place of a number: neither a number nor a usual word for a gap."""
    return text.strip().lower() not in PLACEHOLDERS and math.isnan(parse_number(text))


def describe_texts(texts: Mapping[str, str]) -> tuple[str, ...]:
    """A note for each loss with a cell that is no number, by example."""
    return tuple(
        f"some values of {name} are no numbers, such as {text[:MAX_SHOWN_TEXT]!r}: they are left out"
        for name, text in texts.items()
    )
