"""Reads plain text: scrollback, redirected output, progress bars. Streams in chunks of a few megabytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gandiag.training_logs import column_names
from gandiag.training_logs.bounded_store import check_column_count
from gandiag.training_logs.formats.cells import parse_column
from gandiag.training_logs.formats.fast_path import detect_uniform_lines
from gandiag.training_logs.formats.line_templates import (
    LineTemplate,
    make_line_signature,
    make_line_template,
    strip_terminal_codes,
)
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.series import LINE_KIND, Array
from gandiag.untrusted.files import open_text

CHUNK_SIZE = 1 << 22  # characters
FIRST_CHUNK_SIZE = 1 << 16  # short, so that the kind of line is known early
MAX_TEMPLATES = 1_000  # kinds of lines that are analyzed; a log has a few, and further ones are skipped
MAX_RECENT_TEMPLATES = 4  # templates tried before the signature of a line is looked up
MAX_LINE_LENGTH = 4_000  # characters; longer lines are not parsed
MAX_RAW_LENGTH = 20_000  # the same before terminal codes and bars are taken out
MIN_FAST_LINES = 100  # lines below which a chunk is parsed line by line
CONTEXT_COLUMNS = ("epoch", "step")
STEP_VALUE_PATTERN = re.compile(r"^\s*(\d+)\s*:\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?|nan|inf)\s*$")


class TextParser:
    """Parses lines to rows. A line with a loss is a row.

    An epoch or step on a line of its own (the context) applies to the rows after it.
    """

    def __init__(self, keep: ColumnFilter, loss_name: str | None = None) -> None:
        self.keep = keep
        self.loss_name = loss_name
        self.templates: dict[str, LineTemplate] = {}
        self.recent_templates: list[LineTemplate] = []
        self.context: dict[str, str] = {}
        self.column_names: Counter[str] = Counter()

    def parse_block(self, text: str) -> RowBlock:
        """The rows of a piece of text that ends with a whole line."""
        if (block := self._parse_with_one_template(text)) is not None:
            return block
        rows: list[dict[str, str]] = []
        skipped = 0
        for line in text.replace("\r", "\n").split("\n"):
            row = self._parse_line(line)
            if row is None:
                skipped += bool(line.strip())
            elif row:
                rows.append(row)
        rows = merge_rows(rows)
        keys = dict.fromkeys(key for row in rows for key in row)
        check_column_count(len(keys))
        columns = {key: parse_column([row.get(key, "") for row in rows]) for key in keys}
        return RowBlock(columns, len(rows), tuple(self.column_names), skipped)

    def _parse_with_one_template(self, text: str) -> RowBlock | None:
        """The rows of a text whose lines all match the one recent template, else None."""
        if len(self.recent_templates) != 1 or "\r" in text or "\x1b" in text:
            return None
        template = self.recent_templates[0]
        if template.pattern is None:
            return None
        if (block := self._parse_uniform(template, text)) is not None:
            return block
        matches = template.pattern.findall(text)
        n_lines = text.count("\n") + (not text.endswith("\n"))
        if not template.columns or len(matches) < MIN_FAST_LINES or len(matches) != n_lines:
            return None
        cells = zip(*matches, strict=True) if len(template.columns) > 1 else [matches]
        columns: dict[str, Array] = {
            name: parse_column(list(column)) for name, column in zip(template.columns, cells, strict=True)
        }
        return self._make_block(template, columns, len(matches))

    def _parse_uniform(self, template: LineTemplate, text: str) -> RowBlock | None:
        """The same without a regular expression per line, if all lines differ only in their numbers."""
        match = template.pattern.match(text) if template.pattern is not None else None
        if match is None or not template.columns:
            return None
        spans = [match.span(group + 1) for group in range(len(template.columns))]
        kind = detect_uniform_lines(text[: text.find("\n")], spans)
        values = kind.parse(text) if kind is not None else None
        if values is None:
            return None
        columns = {name: values[:, index].copy() for index, name in enumerate(template.columns)}
        return self._make_block(template, columns, len(values))

    def _make_block(self, template: LineTemplate, columns: dict[str, Array], n_rows: int) -> RowBlock:
        """The columns with the context, where the lines do not give it themselves."""
        roles = {column_names.infer_step_role(name) for name in template.columns}
        context = {key: np.full(n_rows, float(value)) for key, value in self.context.items() if key not in roles}
        kind = {LINE_KIND: np.full(n_rows, float(template.kind))}
        return RowBlock(context | columns | kind, n_rows, tuple(self.column_names))

    def _parse_line(self, line: str) -> dict[str, str] | None:
        """Column -> text of one line; {} for a line that only changes the context, None for a line without values."""
        if self.loss_name is not None and (match := STEP_VALUE_PATTERN.match(line)):
            self.column_names.update(("step", self.loss_name))
            return {"step": match[1], self.loss_name: match[2]}
        if len(line) > MAX_RAW_LENGTH:
            return None
        for recent in self.recent_templates:
            if recent.pattern is not None and (match := recent.pattern.match(line)):
                return self._make_row(recent, match.groups())
        line = strip_terminal_codes(line)
        if not line or len(line) > MAX_LINE_LENGTH:
            return None
        template = self._get_template(line)
        match = template.pattern.match(line) if template is not None and template.pattern is not None else None
        if match is None or template is None:
            return None
        if any(map(column_names.is_value_column, template.columns)):
            others = (recent for recent in self.recent_templates if recent is not template)
            self.recent_templates = [template, *others][:MAX_RECENT_TEMPLATES]
        return self._make_row(template, match.groups())

    def _get_template(self, line: str) -> LineTemplate | None:
        """The template of this kind of line; None for one more kind than are analyzed."""
        signature = make_line_signature(line)
        template = self.templates.get(signature)
        if template is None and len(self.templates) < MAX_TEMPLATES:
            template = replace(make_line_template(line, self.keep), kind=len(self.templates))
            self.templates[signature] = template
            self.column_names.update(template.names)
        return template

    def _make_row(self, template: LineTemplate, values: tuple[str, ...]) -> dict[str, str]:
        """The row with the context; a line without losses and scores updates the context and gives {}."""
        row = dict(zip(template.columns, values, strict=True))
        roles = {column_names.infer_step_role(name) for name in row}
        if any(map(column_names.is_value_column, row)):
            context = {key: value for key, value in self.context.items() if key not in roles}
            return context | row | {LINE_KIND: str(template.kind)}
        for name, value in row.items():
            role = column_names.infer_step_role(name)
            if role in CONTEXT_COLUMNS:
                self.context[role] = value
        return {}


def merge_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows that hold different columns of one step as one row: each loss may have been printed on its own line."""
    if all(row.keys() == rows[0].keys() for row in rows):
        return rows
    merged: list[dict[str, str]] = []
    for row in rows:
        if merged and _complements(merged[-1], row):
            merged[-1] |= row
        else:
            merged.append(dict(row))
    return merged


def _complements(last: dict[str, str], row: dict[str, str]) -> bool:
    """Whether the rows agree where both have a value, in steps only, and no loss is in both."""
    shared = (last.keys() & row.keys()) - {LINE_KIND}
    return all(column_names.infer_step_role(key) and last[key] == row[key] for key in shared)


class TextFormat:
    """Any text with names and numbers."""

    name = "text"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Never: text is the last resort of `detect_format`."""
        return False

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """One block for each chunk. A file named after a loss (BigGAN) may hold "step: value" lines of that loss."""
        loss_name = path.stem if column_names.infer_loss_role(path.stem) else None
        yield from text_to_blocks(_read_chunks(path), keep, loss_name)


def text_to_blocks(chunks: Iterable[str], keep: ColumnFilter, loss_name: str | None = None) -> Iterator[RowBlock]:
    """Blocks from pieces of text, each ending with a whole line."""
    parser = TextParser((lambda name: keep(name) or name == "batches"), loss_name)
    for chunk in chunks:
        yield parser.parse_block(chunk)


def _read_chunks(path: Path) -> Iterator[str]:
    """Pieces of CHUNK_SIZE characters that end with a line; a line longer than eight of them is cut."""
    size, rest = FIRST_CHUNK_SIZE, ""
    with open_text(path) as file:
        while chunk := file.read(size):
            chunk, size = rest + chunk, CHUNK_SIZE
            end = max(chunk.rfind("\n"), chunk.rfind("\r")) + 1
            if end == 0 and len(chunk) < 8 * CHUNK_SIZE:
                rest = chunk
                continue
            end = end or len(chunk)
            rest = chunk[end:]
            yield chunk[:end].replace("\r\n", "\n")
    if rest:
        yield rest


TEXT = TextFormat()
