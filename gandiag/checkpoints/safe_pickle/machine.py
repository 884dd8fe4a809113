"""State of the restricted unpickler: stack, memo and budget. Nothing is imported, called or built. Torch-free.

What each opcode does is in `opcodes.py`. Calls become nodes (`nodes.py`), or plain data where a short allow-list
(`calls.py`) knows what they return. Long byte strings stay in the file. Steps, memory and nesting are bounded: no file
costs more than seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gandiag.checkpoints.safe_pickle.budget import ParseBudget
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
_MAX_NAME = 500  # characters of a global's name
MIN_SLICE_BYTES = 4096  # byte strings from this length on stay in the file


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
        if len(module) + len(name) > _MAX_NAME:
            raise CorruptPickleError(f"a global whose name has {len(module) + len(name):,} characters")
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
        parts = state if isinstance(state, tuple) else (state,)
        self.budget.use_steps(len(parts) + sum(len(part) for part in parts[:8] if isinstance(part, dict)))
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
