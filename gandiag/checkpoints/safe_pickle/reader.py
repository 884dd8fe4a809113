"""Reads torch files and pickles of any protocol without executing them. Torch-free: tensors are located, not read.

`parse_pickle(file_info)` returns the tree of nodes that a file describes, with tensors by their place in the file. It
reads the zip format of torch 1.6 and later, the older stream, plain pickles, and torch files inside pickles
(NVIDIA's, through `_load_from_bytes`).
"""

from __future__ import annotations

import gc
import io
import mmap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gandiag.checkpoints.file_type import LEGACY_TORCH_MAGIC, FileInfo
from gandiag.checkpoints.key_names import first_line
from gandiag.checkpoints.safe_pickle.budget import ParseBudget
from gandiag.checkpoints.safe_pickle.data_globals import STORAGE_DTYPES, is_data_global
from gandiag.checkpoints.safe_pickle.machine import PickleMachine
from gandiag.checkpoints.safe_pickle.nodes import ITEMSIZE, CorruptPickleError, FileSlice, GlobalRef, Storage
from gandiag.checkpoints.safe_pickle.opcodes import run_pickle
from gandiag.errors import LoadError
from gandiag.untrusted.files import map_regular, open_regular

_HEADER_PICKLES = 3  # legacy stream: magic number, protocol version, system info
_MAX_NESTING = 4  # torch files inside pickles inside torch files …
_MAX_PICKLE_BYTES = 256 * 2**20  # of a zip's data.pkl, which holds no weights


@dataclass(frozen=True, slots=True, eq=False)
class PickleContents:
    """What a file describes.

    `tree`: nodes; `global_names`: every global named; `calls`, `notes`: what unpickling would do.
    """

    tree: Any
    global_names: tuple[str, ...]
    protocol: int
    budget: ParseBudget
    notes: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    @property
    def unsafe_globals(self) -> tuple[str, ...]:
        """Classes and functions that only running code could restore."""
        return tuple(name for name in self.global_names if not is_data_global(name))


def parse_pickle(file_info: FileInfo) -> PickleContents:
    """Parse a torch-zip, torch-legacy or pickle file.

    LoadError if it is damaged or hostile. Cost: linear in the pickle.
    """
    budget = ParseBudget(file_info.size)
    collecting = gc.isenabled()
    gc.disable()  # millions of nodes, no garbage: collection would take most of the time
    try:
        mapped = map_regular(file_info.path)
        if file_info.kind == "torch-zip":
            tree = _parse_zip(file_info, mapped, budget)
        else:
            tree = _parse_stream(mapped, mapped, 0, budget)
    except LoadError as known:
        raise LoadError(known.message.replace("this file", file_info.name, 1), known.hint) from None
    except Exception as error:
        # Damage surfaces as almost any exception (IndexError, KeyError, UnicodeDecodeError …); users see one message.
        raise LoadError(
            f"the pickle in {file_info.name} is cut short or damaged ({first_line(error, 80)})",
            "copy it again and compare the sizes",
        ) from None
    finally:
        if collecting:
            gc.enable()
    return PickleContents(
        tree,
        tuple(budget.global_names),
        budget.protocol,
        budget,
        (*budget.notes, *budget.describe_sources()),
        tuple(budget.calls),
    )


# the zip format


def _parse_zip(file_info: FileInfo, mapped: Any, budget: ParseBudget) -> Any:
    with open_regular(file_info.path) as stream, zipfile.ZipFile(stream) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        name = next(name for name in entries if name.rsplit("/", 1)[-1] == "data.pkl")
        if entries[name].file_size > _MAX_PICKLE_BYTES:
            raise LoadError(
                f"the pickle in this file has {entries[name].file_size} bytes without the weights: "
                "too long, or malicious",
                "save the weights alone",
            )
        prefix = name.removesuffix("data.pkl")
        byte_order = archive.read(prefix + "byteorder") if prefix + "byteorder" in entries else b"little"
        pickled = archive.read(name)
    if byte_order != b"little":
        raise LoadError(
            "this file was written on a big-endian machine",
            "load and save it there with torch.save(..., byteorder little)",
        )
    data = prefix + "data/"
    stored = {name.removeprefix(data): entry for name, entry in entries.items() if name.startswith(data)}

    def load_storage(identity: Any) -> Storage:
        dtype, key, device, count = _parse_storage_id(identity)
        return Storage(_locate_entry(mapped, stored[key]), dtype, count * ITEMSIZE[dtype], device)

    return _run(io.BytesIO(pickled), pickled, budget, load_storage)


def _locate_entry(mapped: Any, entry: zipfile.ZipInfo) -> FileSlice:
    """Place of a stored entry's bytes, after its local header: name and extra field may differ from the directory's."""
    start = entry.header_offset
    header = mapped[start : start + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04" or entry.compress_type != zipfile.ZIP_STORED:
        raise CorruptPickleError(f"no entry where {entry.filename[:40]!r} should be")
    begin = start + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if begin + entry.file_size > len(mapped):
        raise CorruptPickleError("an entry reaches beyond the file")
    return FileSlice(mapped, begin, entry.file_size)


def _parse_storage_id(identity: Any) -> tuple[str, str, str, int]:
    """(dtype, key, device, elements) of torch's persistent id ("storage", type, key, device, elements[, view])."""
    kind, storage_type, key, device, count = identity[:5]
    dtype = STORAGE_DTYPES.get(storage_type.name) if isinstance(storage_type, GlobalRef) else None
    valid_count = type(count) is int and 0 <= count < 2**62
    if kind != "storage" or dtype is None or not isinstance(key, str) or not valid_count:
        raise CorruptPickleError("an invalid storage")
    return dtype, key, device[:20] if isinstance(device, str) else "", count


# streams: pickles one after another, then the storages


def _run(stream: Any, buffer: Any, budget: ParseBudget, persistent_load: Callable[[Any], Any] | None = None) -> Any:
    """One pickle from where the stream stands; torch files inside it are read too."""

    def load_nested(content: bytes | FileSlice) -> Any:
        return _parse_nested(content, budget)

    machine = PickleMachine(stream, buffer, budget, persistent_load=persistent_load, load_nested=load_nested)
    return run_pickle(machine)


def _parse_stream(stream: Any, buffer: Any, start: int, budget: ParseBudget) -> Any:
    if bytes(buffer[start + 2 : start + 2 + len(LEGACY_TORCH_MAGIC)]) == LEGACY_TORCH_MAGIC:
        return _parse_legacy(stream, buffer, budget)
    return _run(stream, buffer, budget)


def _parse_legacy(stream: Any, buffer: Any, budget: ParseBudget) -> Any:
    """Magic number, version, system info, object, keys of its storages; then each storage: element count and bytes."""
    _, _, system_info = [run_pickle(PickleMachine(stream, buffer, budget)) for _ in range(_HEADER_PICKLES)]
    if isinstance(system_info, dict) and system_info.get("little_endian") is False:
        raise LoadError("this file was written on a big-endian machine", "load and save it there")
    slots: dict[str, _Slot] = {}
    tree = _run(stream, buffer, budget, _storage_loader(slots))
    keys = run_pickle(PickleMachine(stream, buffer, budget))
    if not isinstance(keys, (list, tuple)):
        raise CorruptPickleError("the names of its storages are missing")
    budget.use_steps(len(keys))
    for key in keys:
        slot = slots.get(key) if isinstance(key, str) else None
        head = stream.read(8)
        count = int.from_bytes(head, "little")
        if slot is None or len(head) < 8 or count * slot.itemsize > len(buffer) - stream.tell():
            shown = key[:20] if isinstance(key, str) else "?"
            raise CorruptPickleError(f"storage {shown} has {count} elements, and the file ends before that")
        slot.file_slice = FileSlice(buffer, stream.tell(), count * slot.itemsize)
        stream.seek(stream.tell() + count * slot.itemsize)
    return tree


@dataclass(slots=True, eq=False)
class _Slot:
    """A storage whose place is known only after the pickle that names it."""

    itemsize: int
    file_slice: FileSlice | None = None


def _storage_loader(slots: dict[str, _Slot]) -> Callable[[Any], Any]:
    def load_storage(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity and identity[0] == "module":
            # ("module", class, file, source): old versions of torch kept a class's source only to compare it.
            return identity[1]
        dtype, key, device, count = _parse_storage_id(identity)
        itemsize = ITEMSIZE[dtype]
        slot = slots.setdefault(key, _Slot(itemsize))
        view = identity[5] if len(identity) > 5 else None
        start = view[1] * itemsize if isinstance(view, tuple) and type(view[1]) is int and view[1] >= 0 else 0
        return Storage(LazySlice(slot, start), dtype, count * itemsize, device)  # type: ignore[arg-type]

    return load_storage


class LazySlice:
    """Stands in for a storage's FileSlice until the stream after the pickle is read; empty if it is missing."""

    __slots__ = ("slot", "start")

    def __init__(self, slot: _Slot, start: int) -> None:
        self.slot, self.start = slot, start

    @property
    def buffer(self) -> Any:
        return self.slot.file_slice.buffer if self.slot.file_slice else b""

    @property
    def offset(self) -> int:
        return self.slot.file_slice.offset + self.start if self.slot.file_slice else 0

    @property
    def length(self) -> int:
        return max(0, self.slot.file_slice.length - self.start) if self.slot.file_slice else 0


def _parse_nested(content: bytes | FileSlice, budget: ParseBudget) -> Any:
    """Parse a torch file inside a pickle: in place if it stayed in the file, else in memory.

    Restores the stream's position.
    """
    if budget.nesting_depth >= _MAX_NESTING:
        raise LoadError(
            f"the pickle in this file holds torch files more than {_MAX_NESTING} deep: malformed or hostile",
            "do not load it",
        )
    budget.nesting_depth += 1
    try:
        if isinstance(content, bytes) or not isinstance(content.buffer, mmap.mmap):
            budget.use_bytes(len(content) if isinstance(content, bytes) else content.length)
            data = content if isinstance(content, bytes) else content.read()
            return _parse_stream(io.BytesIO(data), data, 0, budget)
        position = content.buffer.tell()
        content.buffer.seek(content.offset)
        tree = _parse_stream(content.buffer, content.buffer, content.offset, budget)
        content.buffer.seek(position)
        return tree
    finally:
        budget.nesting_depth -= 1
