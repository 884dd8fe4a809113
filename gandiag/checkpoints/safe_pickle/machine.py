"""State of the restricted unpickler: stack, memo and budget. Nothing is imported, called or built. Torch-free.

What each opcode does is in `opcodes.py`. Calls become nodes (`nodes.py`), or plain data where a short allow-list
(`calls.py`) knows what they return. Long byte strings stay in the file. Steps, memory and nesting are bounded: no file
costs more than seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gandiag.checkpoints.safe_pickle.nodes import (
    ArrayNode,
    CorruptPickleError,
    DictNode,
    FileSlice,
    GlobalRef,
    ObjectNode,
)
from gandiag.errors import LoadError

MARK = object()  # stack marker of the MARK opcode
MAX_STEPS = 3_000_000  # opcodes: a checkpoint with millions of logged numbers, or a few seconds
MAX_MEMORY_BYTES = 192 * 2**20  # strings and numbers held in memory
_MAX_CALLS = 40  # calls and source texts that are recorded
MIN_SLICE_BYTES = 4096  # byte strings from this length on stay in the file


@dataclass(slots=True)
class ParseBudget:
    """What parsing one file may still cost, and what its pickles name. Shared with pickles nested inside."""

    file_size: int
    steps_left: int = MAX_STEPS
    bytes_left: int = MAX_MEMORY_BYTES
    nesting_depth: int = 0
    protocol: int = 0
    global_names: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    sources: dict[str, dict[str, None]] = field(default_factory=dict)  # source text -> classes that carry it
    calls: dict[str, None] = field(default_factory=dict)

    def use_step(self) -> None:
        """Count one opcode. LoadError beyond `MAX_STEPS`."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise LoadError(
                f"the pickle in this file has more than {MAX_STEPS:,} steps: too long, or malicious",
                "save the weights alone",
            )

    def use_bytes(self, count: int) -> None:
        """Count bytes of text and numbers. LoadError beyond `MAX_MEMORY_BYTES`."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise LoadError(
                f"the pickle in this file makes more than {MAX_MEMORY_BYTES >> 20} MiB of text and numbers: "
                "malformed or hostile",
                "save the weights alone",
            )

    def record_protocol(self, version: int) -> None:
        """Keep the highest protocol seen."""
        self.protocol = max(self.protocol, version)

    def record_call(self, name: str, args: tuple[Any, ...]) -> None:
        """Keep what unpickling would call, and the source text it carries, for `gandiag inspect`; the first forty."""
        if len(self.calls) < _MAX_CALLS:
            self.calls[f"{name}({', '.join(map(_abbreviate, args[:4]))}{', …' if len(args) > 4 else ''})"] = None
        meta = args[0] if args and isinstance(args[0], dict) else {}
        text = meta.get("module_src")
        if isinstance(text, str) and (text in self.sources or len(self.sources) < _MAX_CALLS):
            classes = self.sources.setdefault(text, {})
            if len(classes) < 25 * _MAX_CALLS:
                classes[_abbreviate(meta.get("class_name"))] = None

    def describe_sources(self) -> list[str]:
        """One sentence per source text in the file. NVIDIA's pickles repeat it for every layer class."""
        sentences = []
        for text, classes in self.sources.items():
            digest, names = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12], list(classes)
            more = f" and {len(names) - 6} more classes" if len(names) > 6 else ""
            sentences.append(
                f"carries source text ({len(text):,} characters, sha256 {digest}…) for {', '.join(names[:6])}{more}, "
                "which unpickling would run"
            )
        return sentences


def _abbreviate(value: Any) -> str:
    if isinstance(value, str):
        return repr(value[:60]) + ("…" if len(value) > 60 else "")
    if isinstance(value, GlobalRef):
        return value.full_name[:60]
    return str(value)[:30] if isinstance(value, (int, float)) and abs(value) < 1e18 else type(value).__name__


class PickleMachine:
    """Stack and memo of one pickle in `stream` (a memory map or a BytesIO).

    `buffer` holds the bytes that offsets refer to.

    `persistent_load` resolves what torch keeps outside the pickle; `load_nested` reads a torch file embedded as
    bytes.
    """

    def __init__(
        self,
        stream: Any,
        buffer: Any,
        budget: ParseBudget,
        *,
        persistent_load: Callable[[Any], Any] | None = None,
        load_nested: Callable[[Any], Any] | None = None,
    ) -> None:
        self.stream, self.buffer, self.budget = stream, buffer, budget
        self.persistent_load, self.load_nested = persistent_load, load_nested
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read_bytes(self, length_bytes: int) -> bytes | FileSlice:
        """A byte string preceded by its length in `length_bytes` bytes: the bytes, or their place if long."""
        count = int.from_bytes(self.stream.read(length_bytes), "little")
        start = self.stream.tell()
        if start + count > len(self.buffer):
            raise CorruptPickleError(
                f"{count} bytes expected at {start}, only {max(0, len(self.buffer) - start)} are left"
            )
        if count >= MIN_SLICE_BYTES:
            self.stream.seek(start + count)
            return FileSlice(self.buffer, start, count)
        return bytes(self.stream.read(count))

    def pop_values(self, count: int) -> list[Any]:
        """The top `count` values, bottom first."""
        if len(self.stack) < count:
            raise CorruptPickleError("the stack is empty")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def pop_mark(self) -> list[Any]:
        """The values above the topmost mark, which is removed with them."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise CorruptPickleError("no mark on the stack")

    def put_memo(self, index: int) -> None:
        """Store the top of the stack. LoadError for an index that no file of this size needs."""
        if not 0 <= index <= self.budget.file_size:
            raise LoadError(
                f"the pickle in this file uses memo index {index} in {self.budget.file_size} bytes: "
                "malformed or hostile",
                "do not load it",
            )
        self.memo[index] = self.stack[-1]

    def make_global(self, module: Any, name: Any) -> GlobalRef:
        """A reference to a global; its name is recorded in the budget."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise CorruptPickleError("a global without a name")
        reference = GlobalRef(module, name)
        self.budget.global_names[reference.full_name] = None
        return reference

    def resolve_persistent(self, identity: Any) -> Any:
        """The object behind a persistent id; a node where nothing resolves it."""
        if self.persistent_load is None:
            return ObjectNode(GlobalRef("", "persistent id"), (identity,))
        return self.persistent_load(identity)

    def apply_state(self, state: Any) -> None:
        """BUILD: give the top of the stack its state."""
        target = self.stack[-1]
        if isinstance(target, ObjectNode):
            target.states.append(state)
        elif isinstance(target, DictNode) and isinstance(state, dict):
            target.state.update({key: value for key, value in state.items() if isinstance(key, str)})
            if target.name == "argparse.Namespace":
                target.update(target.state)
        elif isinstance(target, ArrayNode):
            target.set_state(state)
        elif isinstance(target, GlobalRef):
            self.budget.notes[f"would set attributes of {target.full_name}"] = None
