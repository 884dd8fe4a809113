"""Reads Jupyter notebooks: the text that a training loop printed below its cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gandiag.errors import SourceError
from gandiag.training_logs.formats.jsonl import MAX_DOCUMENT_BYTES, check_document_size
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.formats.text import text_to_blocks
from gandiag.untrusted.files import parse_json, read_bytes
from gandiag.untrusted.schema import SchemaError, either, list_of, optional, table, text

_TEXT = either(text(), list_of(text()), due="a text")
_OUTPUT = table({"text": optional(_TEXT), "data": optional(table({"text/plain": optional(_TEXT)}))})
_NOTEBOOK = table({"cells": list_of(table({"outputs": optional(list_of(_OUTPUT))}))})


class NotebookFormat:
    """The stream and text outputs of all cells, in order."""

    name = "notebook"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the file is a JSON object called .ipynb or with cells."""
        return head.lstrip().startswith(b"{") and (path.suffix == ".ipynb" or b'"cell_type"' in head)

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """One block for each cell with output; an invalid document is one skipped line."""
        check_document_size(path)
        try:
            document = parse_json(read_bytes(path, MAX_DOCUMENT_BYTES), allow_nan=True)
        except ValueError:
            yield RowBlock({}, 0, (), 1)
            return
        try:
            _NOTEBOOK(document, "")
        except SchemaError as wrong:
            raise SourceError(f"{path} is not a notebook: {wrong}", "open it and save it again") from None
        yield from text_to_blocks(_iter_outputs(document), keep)


def _iter_outputs(document: Any) -> Iterator[str]:
    """The text output of each cell that has any."""
    cells = document.get("cells", []) if isinstance(document, dict) else []
    for cell in cells:
        texts = []
        for output in (cell.get("outputs") or []) if isinstance(cell, dict) else []:
            text = output.get("text") or (output.get("data") or {}).get("text/plain") or ""
            texts.append("".join(text) if isinstance(text, list) else str(text))
        if texts:
            yield "\n".join(text.rstrip("\n") for text in texts) + "\n"


NOTEBOOK = NotebookFormat()
