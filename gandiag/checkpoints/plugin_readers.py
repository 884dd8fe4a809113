"""File formats added by plug-ins through the entry point `gandiag.readers`.

Torch-free, so that a refusal costs no import of torch.

A reader is an object with two methods, `takes(head, path)` and `read(path)`. It is asked only about files that no
built-in reader takes; the generator is then looked for in what it returns, as in any checkpoint.
`gandiag.testing.check_reader` tests a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gandiag.checkpoints.file_type import UNSUPPORTED_KINDS, FileInfo
from gandiag.registry import Registry
from gandiag.untrusted.files import open_regular

HEADER_BYTES = 1024  # passed to Reader.takes
PLUGIN_READERS = Registry("readers", {}, noun="reader")


@runtime_checkable
class Reader(Protocol):
    """Reader of one file format. Neither method may run code from the file."""

    def takes(self, head: bytes, path: Path) -> bool:
        """Whether the file has this format, by its first 1,024 bytes; by its suffix only if bytes cannot tell."""
        ...

    def read(self, path: Path) -> Mapping[str, Any]:
        """CPU tensors by name, or nested mappings of them, in registration order. LoadError for damaged files."""
        ...


def find_plugin_reader(file_info: FileInfo) -> tuple[str, Reader] | None:
    """Display name and reader of the plug-in that takes a file gandiag itself refuses; None without one.

    Cost: one pass over the installed plug-ins.
    """
    if file_info.kind not in UNSUPPORTED_KINDS or file_info.size == 0:
        return None
    names = list(PLUGIN_READERS)
    if not names:
        return None
    with open_regular(file_info.path) as stream:
        head = stream.read(HEADER_BYTES)
    for name in names:
        reader = PLUGIN_READERS.get(name)
        if isinstance(reader, Reader) and reader.takes(head, file_info.path):
            return f"{name} (plug-in {PLUGIN_READERS.origin(name)})", reader
    return None
