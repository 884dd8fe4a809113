"""Results of a long benchmark in a file of JSON lines, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class KeptResults:
    """Results by key: those in the file, if there is one, and each new one is written to it at once."""

    def __init__(self, path: str | None) -> None:
        self.path = Path(path) if path else None
        self.known: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
            text = self.path.read_text(encoding="utf-8")
            whole, _, torn = text.rpartition("\n")
            if torn:  # the run was stopped while it wrote
                self.path.write_text(whole + "\n" if whole else "", encoding="utf-8")
            self.known = dict(json.loads(line) for line in whole.splitlines())

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The result of `key`, computed unless it is known. Results must be JSON."""
        if key not in self.known:
            self.known[key] = compute()
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, self.known[key]]) + "\n")
        return self.known[key]
