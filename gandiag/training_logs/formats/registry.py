"""The formats of training logs, by name; plug-ins add theirs under the entry-point group `gandiag.logs`.

A format is an object with `sniff(path, head) -> bool`, which sees the first bytes of the file, and
`blocks(path, keep) -> Iterator[Block]`, which streams it. The first that recognises a file reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gandiag.registry import Registry
from gandiag.training_logs.series import Array

ColumnFilter = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some rows: name → values (n,), NaN where a row says nothing. `names`: every column met, kept or not."""

    columns: Mapping[str, Array]
    rows: int
    names: tuple[str, ...] = ()
    skipped: int = 0
    notes: tuple[str, ...] = field(default=())


class LogFormat(Protocol):
    """Reads one kind of log."""

    name: str

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the file is of this kind, told from its first bytes."""
        ...

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """The rows of the file in order, a block at a time; of the columns only those that `keep` wants."""
        ...


FORMATS = Registry(
    "logs",
    {
        "tensorboard": "gandiag.training_logs.formats.tensorboard:TENSORBOARD",
        "notebook": "gandiag.training_logs.formats.notebook:NOTEBOOK",
        "trainer state": "gandiag.training_logs.formats.jsonl:TRAINER_STATE",
        "json lines": "gandiag.training_logs.formats.jsonl:JSON_LINES",
        "table": "gandiag.training_logs.formats.delimited:TABLE",
        "text": "gandiag.training_logs.formats.text:TEXT",
    },
)
BUILTIN_FORMATS = ("tensorboard", "notebook", "trainer state", "json lines", "table", "text")


def detect_format(path: Path, head: bytes) -> LogFormat:
    """The format of a file; text, which reads whatever has names and numbers in it, where no other claims it."""
    plugins = [name for name in FORMATS if name not in BUILTIN_FORMATS]
    for name in (*plugins, *BUILTIN_FORMATS):
        form: LogFormat = FORMATS.get(name)
        if form.sniff(path, head):
            return form
    text: LogFormat = FORMATS.get("text")
    return text
