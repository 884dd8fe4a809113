"""Thousands of lines of one kind at the speed of C: proof that they are of one kind, then one pass over their numbers.

Without digits, signs, points and blanks every line of a kind is the same text; so a block is of one kind exactly if what is
left of it is that text, over and over. Then whatever is no number becomes a blank, and the block is a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.series import Array

NUMERIC_BYTES = b"0123456789.+-"
BLANK_TABLE = bytes(byte if byte in NUMERIC_BYTES or byte == 10 else 32 for byte in range(256))
TOKEN_PATTERN = re.compile(rb"\S+")
NUMBER_PATTERN = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)$")


@dataclass(frozen=True, slots=True)
class UniformLines:
    """One kind of line: what is left without its numbers, how many tokens it has, and which of them are columns."""

    remainder: bytes
    tokens_per_line: int
    column_tokens: tuple[int, ...]

    def parse(self, text: str) -> Array | None:
        """Values (lines, columns) of a text all of whose lines are of this kind; None where one is not."""
        if not text.isascii():
            return None
        data = text.encode("ascii")
        left = data.translate(None, NUMERIC_BYTES + b" ")
        lines = left.count(b"\n") + (not data.endswith(b"\n"))
        if left.rstrip(b"\n") != (self.remainder + b"\n") * (lines - 1) + self.remainder:
            return None
        values = np.array(data.translate(BLANK_TABLE).split(), dtype="S24")
        if len(values) != lines * self.tokens_per_line:
            return None
        try:
            return np.asarray(
                values.reshape(lines, self.tokens_per_line)[:, list(self.column_tokens)].astype(np.float64)
            )
        except ValueError:
            return None


def detect_uniform_lines(line: str, spans: list[tuple[int, int]]) -> UniformLines | None:
    """For a line whose columns stand at `spans`; None where a column is no plain number."""
    if not line.isascii():
        return None
    data = line.encode("ascii")
    tokens = [found.span() for found in TOKEN_PATTERN.finditer(data.translate(BLANK_TABLE))]
    if any(span not in tokens for span in spans) or not all(
        NUMBER_PATTERN.match(data[low:high]) for low, high in spans
    ):
        return None
    return UniformLines(
        data.translate(None, NUMERIC_BYTES + b" \n"), len(tokens), tuple(tokens.index(span) for span in spans)
    )
