"""Jupyter notebooks: the text that a training loop printed below its cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.formats.text import text_to_blocks


class NotebookFormat:
    """The stream and text outputs of all cells, in order."""

    name = "notebook"

    def sniff(self, path: Path, head: bytes) -> bool:
        return head.lstrip().startswith(b"{") and (path.suffix == ".ipynb" or b'"cell_type"' in head)

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            yield RowBlock({}, 0, (), 1)
            return
        yield from text_to_blocks(_outputs(document), keep)


def _outputs(document: Any) -> Iterator[str]:
    cells = document.get("cells", []) if isinstance(document, dict) else []
    for cell in cells:
        found = []
        for output in (cell.get("outputs") or []) if isinstance(cell, dict) else []:
            text = output.get("text") or (output.get("data") or {}).get("text/plain") or ""
            found.append("".join(text) if isinstance(text, list) else str(text))
        if found:
            yield "\n".join(part.rstrip("\n") for part in found) + "\n"


NOTEBOOK = NotebookFormat()
