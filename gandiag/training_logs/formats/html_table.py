"""Reads the largest table of an HTML page: reports, notebooks saved as pages, tables copied from a browser."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from gandiag.training_logs.formats.cells import parse_column
from gandiag.training_logs.formats.jsonl import check_document_size
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.untrusted.files import open_text

MAX_CELL = 200  # characters
MAX_COLUMNS = 1_000
CHUNK = 1 << 20


class _TableParser(HTMLParser):
    """Collects the rows of every table. Only text in cells counts; nothing is loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._is_in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th") and self.tables and self.tables[-1] and len(self.tables[-1][-1]) < MAX_COLUMNS:
            self.tables[-1][-1].append("")
            self._is_in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._is_in_cell = False

    def handle_data(self, data: str) -> None:
        if self._is_in_cell and len(self.tables[-1][-1][-1]) < MAX_CELL:
            self.tables[-1][-1][-1] += data.strip()[:MAX_CELL]


class HtmlFormat:
    """The longest table of a page, its first row as header."""

    name = "HTML table"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the file begins like HTML and holds a table."""
        start = head.lstrip()[:200].lower()
        is_html = start.startswith((b"<!doctype html", b"<html", b"<table", b"<div", b"<body"))
        return is_html and (b"<table" in head.lower() or path.suffix in (".html", ".htm"))

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """The table as one block."""
        check_document_size(path)
        parser = _TableParser()
        with open_text(path, encoding="utf-8-sig") as file:
            while chunk := file.read(CHUNK):
                parser.feed(chunk)
        rows = max(parser.tables, key=len, default=[])
        header = rows[0] if rows else []
        complete = [row for row in rows[1:] if len(row) == len(header)]
        cells = list(zip(*complete, strict=True)) if complete else [()] * len(header)
        names = tuple(name for name in dict.fromkeys(header) if name)
        columns = {name: parse_column(cells[header.index(name)]) for name in names if keep(name)}
        yield RowBlock(columns, len(complete), names, len(rows) - 1 - len(complete) if rows else 0)


HTML_TABLE = HtmlFormat()
