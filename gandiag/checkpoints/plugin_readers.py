"""Kinds of file that others add, by the entry point gandiag.readers. Torch-free.

A reader is an object with two methods, `takes(head, path)` and `read(path)`. It is asked only about files that gandiag itself
would refuse, after every kind of its own; gandiag looks for the generator in what it returns as it does in any checkpoint.
Prove it with gandiag.testing.check_reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gandiag.checkpoints.file_type import UNSUPPORTED_KINDS, FileInfo
from gandiag.registry import Registry

HEADER_BYTES = 1024  # bytes that a reader decides by
PLUGIN_READERS = Registry("readers", {}, noun="reader")


@runtime_checkable
class Reader(Protocol):
    """A kind of file. Neither method may run code from the file."""

    def takes(self, head: bytes, path: Path) -> bool:
        """Is it this kind? By its first 1,024 bytes; by the suffix only where bytes cannot say."""
        ...

    def read(self, path: Path) -> Mapping[str, Any]:
        """Tensors on the CPU by name, or nested mappings of them, in the order of registration. LoadError for damaged files."""
        ...


def find_plugin_reader(file_info: FileInfo) -> tuple[str, Reader] | None:
    """The plug-in that takes a file which gandiag would refuse, with its name and package; None if there is none. Cost: one look at the plug-ins."""
    if file_info.kind not in UNSUPPORTED_KINDS or file_info.size == 0 or not (others := list(PLUGIN_READERS)):
        return None
    with file_info.path.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    for name in others:
        found = PLUGIN_READERS.get(name)
        if isinstance(found, Reader) and found.takes(head, file_info.path):
            return f"{name} (plug-in {PLUGIN_READERS.origin(name)})", found
    return None
