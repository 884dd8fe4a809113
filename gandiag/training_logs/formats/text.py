"""Plain text: scrollback, redirected output, progress bars. Streamed in blocks of a few megabytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from gandiag.training_logs import column_names
from gandiag.training_logs.formats.delimited import parse_column
from gandiag.training_logs.formats.fast_path import detect_uniform_lines
from gandiag.training_logs.formats.line_templates import (
    LineTemplate,
    make_line_signature,
    make_line_template,
    strip_terminal_codes,
)
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.series import Array

CHUNK_SIZE = 1 << 22  # characters
MAX_TEMPLATES = 5_000  # kinds of line that are remembered
CONTEXT_COLUMNS = ("epoch", "step")
STEP_VALUE_PATTERN = re.compile(r"^\s*(\d+)\s*:\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?|nan|inf)\s*$")


class TextParser:
    """Lines to rows. A line with a loss is a row; an epoch or step that stands on a line of its own holds for the rows after it."""

    def __init__(self, keep: ColumnFilter, loss_name: str | None = None) -> None:
        self.keep = keep
        self.loss_name = loss_name
        self.templates: dict[str, LineTemplate] = {}
        self.recent_templates: list[LineTemplate] = []
        self.context: dict[str, str] = {}
        self.column_names: Counter[str] = Counter()

    def parse_block(self, text: str) -> RowBlock:
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
        return RowBlock(
            {key: parse_column([row.get(key, "") for row in rows]) for key in keys},
            len(rows),
            tuple(self.column_names),
            skipped,
        )

    def _fast(self, text: str) -> RowBlock | None:
        """All lines of one kind, read by one expression; None where they are not."""
        if len(self.recent_templates) != 1 or "\r" in text or "\x1b" in text:
            return None
        kind = self.recent_templates[0]
        if (quick := self._quick(kind, text)) is not None:
            return quick
        found = kind.pattern.findall(text)
        if not kind.columns or len(found) < 100 or len(found) != text.count("\n") + (not text.endswith("\n")):
            return None
        parts = zip(*found, strict=True) if len(kind.columns) > 1 else [found]
        columns: dict[str, Array] = {
            name: parse_column(list(part)) for name, part in zip(kind.columns, parts, strict=True)
        }
        return RowBlock(self._held(kind, len(found)) | columns, len(found), tuple(self.column_names))

    def _quick(self, kind: LineTemplate, text: str) -> RowBlock | None:
        """The same without a look at the single line, where all are alike to the letter."""
        hit = kind.pattern.match(text)
        teeth = (
            detect_uniform_lines(text[: text.find("\n")], [hit.span(at + 1) for at in range(len(kind.columns))])
            if hit and kind.columns
            else None
        )
        values = teeth.parse(text) if teeth is not None else None
        if values is None:
            return None
        columns = {name: values[:, at].copy() for at, name in enumerate(kind.columns)}
        return RowBlock(self._held(kind, len(values)) | columns, len(values), tuple(self.column_names))

    def _held(self, kind: LineTemplate, rows: int) -> dict[str, Array]:
        """The epoch or step of an earlier line, for lines that do not say theirs."""
        said = {column_names.infer_step_role(name) for name in kind.columns}
        return {key: np.full(rows, float(value)) for key, value in self.context.items() if key not in said}

    def _row(self, line: str) -> dict[str, str] | None:
        """Column → text of one line; {} for one that only moves the epoch; None for one that says nothing."""
        if self.loss_name is not None and (found := STEP_VALUE_PATTERN.match(line)):
            self.column_names.update(("step", self.loss_name))
            return {"step": found[1], self.loss_name: found[2]}
        for kind in self.recent_templates[:4]:
            if kind.columns and (hit := kind.pattern.match(line)):
                return self._said(kind, hit.groups())
        line = strip_terminal_codes(line)
        if not line or len(line) > 4000:
            return None
        key = make_line_signature(line)
        known = self.templates.get(key)
        if known is None:
            known = make_line_template(line, self.keep)
            if len(self.templates) < MAX_TEMPLATES:
                self.templates[key] = known
            self.column_names.update(known.names)
        hit = known.pattern.match(line) if known.columns else None
        if hit is None:
            return None
        if any(column_names.infer_loss_role(name) for name in known.columns):
            self.recent_templates = [known, *(kind for kind in self.recent_templates if kind is not known)][:4]
        return self._said(known, hit.groups())

    def _said(self, kind: LineTemplate, values: tuple[str, ...]) -> dict[str, str]:
        row = dict(zip(kind.columns, values, strict=True))
        if any(column_names.infer_loss_role(name) or column_names.infer_score_role(name) for name in row):
            return {
                **{
                    key: value
                    for key, value in self.context.items()
                    if not any(column_names.infer_step_role(name) == key for name in row)
                },
                **row,
            }
        for name, value in row.items():
            kindred = column_names.infer_step_role(name)
            if kindred in CONTEXT_COLUMNS:
                self.context[kindred] = value
        return {}


class TextFormat:
    """Whatever has names and numbers in it."""

    name = "text"

    def sniff(self, path: Path, head: bytes) -> bool:
        return False  # the last resort: see `recognise`

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        lone = (
            path.stem if column_names.infer_loss_role(path.stem) else None
        )  # BigGAN: one file for each loss, named after it
        yield from text_to_blocks(_chunks(path), keep, lone)


def text_to_blocks(chunks: Iterable[str], keep: ColumnFilter, loss_name: str | None = None) -> Iterator[RowBlock]:
    """Blocks from pieces of text, each ending with a whole line."""
    reader = TextParser((lambda name: keep(name) or name == "batches"), loss_name)
    for chunk in chunks:
        yield reader.parse_block(chunk)


def _chunks(path: Path) -> Iterator[str]:
    """Pieces of a few megabytes that end at a line's end; the first is short, so that the kind of line is known early."""
    size, rest = 1 << 16, ""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        while piece := file.read(size):
            piece, size = rest + piece, CHUNK_SIZE
            cut = max(piece.rfind("\n"), piece.rfind("\r")) + 1
            if cut == 0 and len(piece) < 8 * CHUNK_SIZE:
                rest = piece
                continue
            cut = cut or len(piece)
            rest = piece[cut:]
            yield piece[:cut].replace("\r\n", "\n")
    if rest:
        yield rest


TEXT = TextFormat()
