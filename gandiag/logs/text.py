"""Plain text: scrollback, redirected output, progress bars. Streamed in blocks of a few megabytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from gandiag.logs import names
from gandiag.logs.formats import Block, Keep
from gandiag.logs.lines import Template, cleaned, skeleton, template
from gandiag.logs.quick import comb
from gandiag.logs.series import Array
from gandiag.logs.table import column

CHUNK = 1 << 22  # characters
MANY_KINDS = 5_000  # kinds of line that are remembered
CARRIED = ("epoch", "step")
LONE = re.compile(r"^\s*(\d+)\s*:\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?|nan|inf)\s*$")


class Reader:
    """Lines to rows. A line with a loss is a row; an epoch or step that stands on a line of its own holds for the rows after it."""

    def __init__(self, keep: Keep, lone: str | None = None) -> None:
        self.keep = keep
        self.lone = lone
        self.templates: dict[str, Template] = {}
        self.recent: list[Template] = []
        self.carried: dict[str, str] = {}
        self.names: Counter[str] = Counter()

    def block(self, text: str) -> Block:
        """The rows of a piece of text that ends with a whole line."""
        if (fast := self._fast(text)) is not None:
            return fast
        rows: list[dict[str, str]] = []
        skipped = 0
        for line in text.replace("\r", "\n").split("\n"):
            row = self._row(line)
            if row is None:
                skipped += bool(line.strip())
            elif row:
                rows.append(row)
        keys = dict.fromkeys(key for row in rows for key in row)
        return Block({key: column([row.get(key, "") for row in rows]) for key in keys}, len(rows), tuple(self.names), skipped)

    def _fast(self, text: str) -> Block | None:
        """All lines of one kind, read by one expression; None where they are not."""
        if len(self.recent) != 1 or "\r" in text or "\x1b" in text:
            return None
        kind = self.recent[0]
        if (quick := self._quick(kind, text)) is not None:
            return quick
        found = kind.pattern.findall(text)
        if not kind.columns or len(found) < 100 or len(found) != text.count("\n") + (not text.endswith("\n")):
            return None
        parts = zip(*found, strict=True) if len(kind.columns) > 1 else [found]
        columns: dict[str, Array] = {name: column(list(part)) for name, part in zip(kind.columns, parts, strict=True)}
        return Block(self._held(kind, len(found)) | columns, len(found), tuple(self.names))

    def _quick(self, kind: Template, text: str) -> Block | None:
        """The same without a look at the single line, where all are alike to the letter."""
        hit = kind.pattern.match(text)
        teeth = comb(text[: text.find("\n")], [hit.span(at + 1) for at in range(len(kind.columns))]) if hit and kind.columns else None
        values = teeth.table(text) if teeth is not None else None
        if values is None:
            return None
        columns = {name: values[:, at].copy() for at, name in enumerate(kind.columns)}
        return Block(self._held(kind, len(values)) | columns, len(values), tuple(self.names))

    def _held(self, kind: Template, rows: int) -> dict[str, Array]:
        """The epoch or step of an earlier line, for lines that do not say theirs."""
        said = {names.place(name) for name in kind.columns}
        return {key: np.full(rows, float(value)) for key, value in self.carried.items() if key not in said}

    def _row(self, line: str) -> dict[str, str] | None:
        """Column → text of one line; {} for one that only moves the epoch; None for one that says nothing."""
        if self.lone is not None and (found := LONE.match(line)):
            self.names.update(("step", self.lone))
            return {"step": found[1], self.lone: found[2]}
        for kind in self.recent[:4]:
            if kind.columns and (hit := kind.pattern.match(line)):
                return self._said(kind, hit.groups())
        line = cleaned(line)
        if not line or len(line) > 4000:
            return None
        key = skeleton(line)
        known = self.templates.get(key)
        if known is None:
            known = template(line, self.keep)
            if len(self.templates) < MANY_KINDS:
                self.templates[key] = known
            self.names.update(known.names)
        hit = known.pattern.match(line) if known.columns else None
        if hit is None:
            return None
        if any(names.loss(name) for name in known.columns):
            self.recent = [known, *(kind for kind in self.recent if kind is not known)][:4]
        return self._said(known, hit.groups())

    def _said(self, kind: Template, values: tuple[str, ...]) -> dict[str, str]:
        row = dict(zip(kind.columns, values, strict=True))
        if any(names.loss(name) or names.score(name) for name in row):
            return {**{key: value for key, value in self.carried.items() if not any(names.place(name) == key for name in row)}, **row}
        for name, value in row.items():
            kindred = names.place(name)
            if kindred in CARRIED:
                self.carried[kindred] = value
        return {}


class Text:
    """Whatever has names and numbers in it."""

    name = "text"

    def sniff(self, path: Path, head: bytes) -> bool:
        return False  # the last resort: see `recognise`

    def blocks(self, path: Path, keep: Keep) -> Iterator[Block]:
        lone = path.stem if names.loss(path.stem) else None  # BigGAN: one file for each loss, named after it
        yield from blocks_of(_chunks(path), keep, lone)


def blocks_of(chunks: Iterable[str], keep: Keep, lone: str | None = None) -> Iterator[Block]:
    """Blocks from pieces of text, each ending with a whole line."""
    reader = Reader((lambda name: keep(name) or name == "batches"), lone)
    for chunk in chunks:
        yield reader.block(chunk)


def _chunks(path: Path) -> Iterator[str]:
    """Pieces of a few megabytes that end at a line's end; the first is short, so that the kind of line is known early."""
    size, rest = 1 << 16, ""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        while piece := file.read(size):
            piece, size = rest + piece, CHUNK
            cut = max(piece.rfind("\n"), piece.rfind("\r")) + 1
            if cut == 0 and len(piece) < 8 * CHUNK:
                rest = piece
                continue
            cut = cut or len(piece)
            rest = piece[cut:]
            yield piece[:cut].replace("\r\n", "\n")
    if rest:
        yield rest


TEXT = Text()
