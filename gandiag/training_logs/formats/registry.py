"""The formats of training logs by name. Plug-ins add theirs under the entry-point group `gandiag.logs`.

A format is an object with `sniff(path, head) -> bool`, which gets the first bytes of the file, and
`blocks(path, keep) -> Iterator[RowBlock]`, which streams it. The first format that recognizes a file reads it.
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
    """Some rows of a log.

    `columns`: name -> values (n,), NaN where a row has none. `names`: every column of the file so far, kept or not.
    `skipped`: lines that were not understood.
    """

    columns: Mapping[str, Array]
    rows: int
    names: tuple[str, ...] = ()
    skipped: int = 0
    notes: tuple[str, ...] = field(default=())


class LogFormat(Protocol):
    """Reads one format of training log."""

    name: str

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the file has this format, judged by its first bytes."""
        ...

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """The rows of the file in order, block by block, with only the columns that `keep` accepts."""
        ...


FORMATS = Registry(
    "logs",
    {
        "tensorboard": "gandiag.training_logs.formats.tensorboard:TENSORBOARD",
        "wandb": "gandiag.training_logs.formats.wandb_run:WANDB_RUN",
        "mlflow": "gandiag.training_logs.formats.mlflow:MLFLOW",
        "html": "gandiag.training_logs.formats.html_table:HTML_TABLE",
        "notebook": "gandiag.training_logs.formats.notebook:NOTEBOOK",
        "trainer state": "gandiag.training_logs.formats.jsonl:TRAINER_STATE",
        "json lines": "gandiag.training_logs.formats.jsonl:JSON_LINES",
        "long table": "gandiag.training_logs.formats.exported_series:LONG_TABLE",
        "table": "gandiag.training_logs.formats.delimited:TABLE",
        "text": "gandiag.training_logs.formats.text:TEXT",
    },
)
BUILTIN_FORMATS = (
    "tensorboard",
    "wandb",
    "mlflow",
    "html",
    "notebook",
    "trainer state",
    "json lines",
    "long table",
    "table",
    "text",
)


def detect_format(path: Path, head: bytes) -> LogFormat:
    """The format of a file, plug-ins first; text where none recognizes it, which reads any names with numbers."""
    plugins = [name for name in FORMATS if name not in BUILTIN_FORMATS]
    for name in (*plugins, *BUILTIN_FORMATS):
        log_format: LogFormat = FORMATS.get(name)
        if log_format.sniff(path, head):
            return log_format
    text: LogFormat = FORMATS.get("text")
    return text
