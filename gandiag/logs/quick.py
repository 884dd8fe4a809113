"""Thousands of lines of one kind at the speed of C: proof that they are of one kind, then one pass over their numbers.

Without digits, signs, points and blanks every line of a kind is the same text; so a block is of one kind exactly if what is
left of it is that text, over and over. Then whatever is no number becomes a blank, and the block is a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gandiag.logs.series import Array

NUMERIC = b"0123456789.+-"
BLANKED = bytes(byte if byte in NUMERIC or byte == 10 else 32 for byte in range(256))
TOKEN = re.compile(rb"\S+")
PLAIN = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)$")


@dataclass(frozen=True, slots=True)
class Comb:
    """One kind of line: what is left without its numbers, how many tokens it has, and which of them are columns."""

    residue: bytes
    tokens: int
    places: tuple[int, ...]

    def table(self, text: str) -> Array | None:
        """Values (lines, columns) of a text all of whose lines are of this kind; None where one is not."""
        if not text.isascii():
            return None
        data = text.encode("ascii")
        left = data.translate(None, NUMERIC + b" ")
        lines = left.count(b"\n") + (not data.endswith(b"\n"))
        if left.rstrip(b"\n") != (self.residue + b"\n") * (lines - 1) + self.residue:
            return None
        values = np.array(data.translate(BLANKED).split(), dtype="S24")
        if len(values) != lines * self.tokens:
            return None
        try:
            return np.asarray(values.reshape(lines, self.tokens)[:, list(self.places)].astype(np.float64))
        except ValueError:
            return None


def comb(line: str, spans: list[tuple[int, int]]) -> Comb | None:
    """For a line whose columns stand at `spans`; None where a column is no plain number."""
    if not line.isascii():
        return None
    data = line.encode("ascii")
    tokens = [found.span() for found in TOKEN.finditer(data.translate(BLANKED))]
    if any(span not in tokens for span in spans) or not all(PLAIN.match(data[low:high]) for low, high in spans):
        return None
    return Comb(data.translate(None, NUMERIC + b" \n"), len(tokens), tuple(tokens.index(span) for span in spans))
