"""Reads torch files and pickles of any protocol without running them. Torch-free: no tensor is touched, only found.

`read_pickle(container)` gives a Reading: the tree of records that the file describes, with tensors by place. It knows the
zip format of torch 1.6 and later, the older stream, plain pickles, and torch files inside pickles (NVIDIA's, by way of
`_load_from_bytes`).
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
from gandiag.checkpoints.safe_pickle.calls import STORAGE_DTYPES, describe_sources, is_data_global
from gandiag.checkpoints.safe_pickle.machine import MAX_STEPS, ParseBudget, PickleMachine
from gandiag.checkpoints.safe_pickle.nodes import ITEMSIZE, CorruptPickleError, FileSlice, GlobalRef, Storage
from gandiag.errors import LoadError

_MAGIC_PICKLES = 3  # magic number, protocol version, system info
_NESTED = 4  # torch files inside pickles inside torch files …
_PICKLE = 256 * 2**20  # bytes of a zip's data.pkl


@dataclass(frozen=True, slots=True, eq=False)
class PickleContents:
    """What a file describes. `tree`: records; `names`: every global it names; `calls`, `notes`: what unpickling would have done."""

    tree: Any
    global_names: tuple[str, ...]
    protocol: int
    steps: int
    notes: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    @property
    def unsafe_globals(self) -> tuple[str, ...]:
        """Globals that are no plain data: classes and functions that only running code could restore."""
        return tuple(name for name in self.global_names if not is_data_global(name))


def parse_pickle(file_info: FileInfo) -> PickleContents:
    """The records of a torch-zip, torch-legacy or pickle container. LoadError if it is damaged or hostile. Cost: O(pickle)."""
    budget = ParseBudget(file_info.size)
    collecting = gc.isenabled()
    gc.disable()  # millions of records and no rubbish: the collector would take most of the time
    try:
        with file_info.path.open("rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        tree = _zip(file_info, whole, budget) if file_info.kind == "torch-zip" else _stream(whole, whole, 0, budget)
    except LoadError as known:
        raise LoadError(known.message.replace("this file", file_info.name, 1), known.hint) from None
    except Exception as broken:
        # Damage surfaces as almost anything (IndexError, KeyError, UnicodeDecodeError …); to the user it is one thing.
        raise LoadError(
            f"the pickle in {file_info.name} is cut short or damaged ({_brief(broken)})",
            "copy it again and compare the sizes",
        ) from None
    finally:
        if collecting:
            gc.enable()
    return PickleContents(
        tree,
        tuple(budget.global_names),
        budget.protocol,
        MAX_STEPS - budget.steps_left,
        (*budget.notes, *describe_sources(budget.sources)),
        tuple(budget.calls),
    )


def _zip(container: FileInfo, whole: Any, budget: ParseBudget) -> Any:
    with zipfile.ZipFile(container.path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        name = next(name for name in entries if name.rsplit("/", 1)[-1] == "data.pkl")
        if entries[name].file_size > _PICKLE:
            raise LoadError(
                f"the pickle in this file has {entries[name].file_size} bytes, without the weights: too long, or hostile",
                "save the weights alone",
            )
        head = name.removesuffix("data.pkl")
        order = archive.read(head + "byteorder") if head + "byteorder" in entries else b"little"
        packed = archive.read(name)
    if order != b"little":
        raise LoadError(
            "this file was written on a big-endian machine",
            "load and save it there with torch.save(..., byteorder little)",
        )
    keep = {key.removeprefix(head + "data/"): entry for key, entry in entries.items() if key.startswith(head + "data/")}

    def storage(identity: Any) -> Any:
        dtype, key, device, count = _identity(identity)
        blob = _record(whole, keep[key])
        return Storage(blob, dtype, count * ITEMSIZE[dtype], device)

    return PickleMachine(
        io.BytesIO(packed), packed, budget, persistent_load=storage, load_nested=lambda blob: _nested(blob, budget)
    ).run()


def _record(whole: Any, entry: zipfile.ZipInfo) -> FileSlice:
    """Where a stored entry's bytes stand: behind its local header, whose name and extra field may differ from the directory's."""
    start = entry.header_offset
    local = whole[start : start + 30]
    if len(local) < 30 or local[:4] != b"PK\x03\x04" or entry.compress_type != zipfile.ZIP_STORED:
        raise CorruptPickleError(f"no entry where {entry.filename[:40]!r} should be")
    begin = start + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    if begin + entry.file_size > len(whole):
        raise CorruptPickleError("an entry reaches beyond the file")
    return FileSlice(whole, begin, entry.file_size)


def _identity(identity: Any) -> tuple[str, str, str, int]:
    """torch's persistent id of a storage: ("storage", type, key, device, elements[, view])."""
    kind, made_of, key, device, count = identity[:5]
    dtype = STORAGE_DTYPES.get(made_of.name) if isinstance(made_of, GlobalRef) else None
    if (
        kind != "storage"
        or dtype is None
        or not isinstance(key, str)
        or type(count) is not int
        or not 0 <= count < 2**62
    ):
        raise CorruptPickleError("a storage that is none")
    return dtype, key, str(device)[:20], count


# streams: pickles one after another, storages behind them


def _stream(stream: Any, buffer: Any, start: int, budget: ParseBudget) -> Any:
    if bytes(buffer[start + 2 : start + 2 + len(LEGACY_TORCH_MAGIC)]) == LEGACY_TORCH_MAGIC:
        return _legacy(stream, buffer, budget)
    return PickleMachine(stream, buffer, budget, load_nested=lambda blob: _nested(blob, budget)).run()


def _legacy(stream: Any, buffer: Any, budget: ParseBudget) -> Any:
    """Magic number, version, system, the object, the keys of its storages, then each: an element count and the bytes."""
    _, _, system = [PickleMachine(stream, buffer, budget).run() for _ in range(_MAGIC_PICKLES)]
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise LoadError("this file was written on a big-endian machine", "load and save it there")
    wanted: dict[str, _Slot] = {}
    tree = PickleMachine(
        stream, buffer, budget, persistent_load=_slots(wanted), load_nested=lambda blob: _nested(blob, budget)
    ).run()
    keys = PickleMachine(stream, buffer, budget).run()
    for key in keys:
        slot = wanted.get(str(key)) if isinstance(key, str) else None
        count = int.from_bytes(stream.read(8), "little")
        if slot is None or count * slot.item > len(buffer) - stream.tell():
            raise CorruptPickleError(f"storage {str(key)[:20]} has {count} elements, and the file ends before")
        slot.blob = FileSlice(buffer, stream.tell(), count * slot.item)
        stream.seek(stream.tell() + count * slot.item)
    return tree


@dataclass(slots=True, eq=False)
class _Slot:
    """A storage whose place is known only after the pickle that names it."""

    item: int
    blob: FileSlice | None = None


def _slots(wanted: dict[str, _Slot]) -> Callable[[Any], Any]:
    def resolve(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity and identity[0] == "module":
            return identity[
                1
            ]  # ("module", class, file, source): old versions wrote a class's text to compare, never to run
        dtype, key, device, count = _identity(identity)
        slot = wanted.setdefault(key, _Slot(ITEMSIZE[dtype]))
        view = identity[5] if len(identity) > 5 else None
        start = view[1] * ITEMSIZE[dtype] if isinstance(view, tuple) and type(view[1]) is int and view[1] >= 0 else 0
        return Storage(LazySlice(slot, start), dtype, count * ITEMSIZE[dtype], device)  # type: ignore[arg-type]

    return resolve


class LazySlice:
    """Stands for the Blob of a storage until the stream behind the pickle has been read; empty if it is not there."""

    __slots__ = ("slot", "start")

    def __init__(self, slot: _Slot, start: int) -> None:
        self.slot, self.start = slot, start

    @property
    def buffer(self) -> Any:
        return self.slot.blob.buffer if self.slot.blob else b""

    @property
    def offset(self) -> int:
        return self.slot.blob.offset + self.start if self.slot.blob else 0

    @property
    def length(self) -> int:
        return max(0, self.slot.blob.length - self.start) if self.slot.blob else 0


def _nested(blob: bytes | FileSlice, budget: ParseBudget) -> Any:
    """A torch file inside a pickle: in place where it was left in the file, else in memory. The stream is put back."""
    if budget.nesting_depth >= _NESTED:
        raise LoadError(
            f"the pickle in this file holds torch files more than {_NESTED} deep: malformed or hostile",
            "do not load it",
        )
    budget.nesting_depth += 1
    try:
        if isinstance(blob, bytes) or not isinstance(blob.buffer, mmap.mmap):
            budget.use_bytes(len(blob) if isinstance(blob, bytes) else blob.length)
            content = blob if isinstance(blob, bytes) else blob.read()
            return _stream(io.BytesIO(content), content, 0, budget)
        before = blob.buffer.tell()
        blob.buffer.seek(blob.offset)
        found = _stream(blob.buffer, blob.buffer, blob.offset, budget)
        blob.buffer.seek(before)
        return found
    finally:
        budget.nesting_depth -= 1


def _brief(problem: Exception) -> str:
    return str(problem).splitlines()[0][:80] if str(problem) else type(problem).__name__
