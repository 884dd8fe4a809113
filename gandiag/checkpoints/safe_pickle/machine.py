"""The pickle machine without its powers: every opcode is understood, nothing is imported, called or built. Torch-free.

Opcodes and their arguments are decoded by the standard library's `pickletools`; here is the stack. What the pickle would
have called becomes a record (`inert_records.py`), or plain data where a short table (`inert_calls.py`) says what the call
returns. Long byte strings stay in the file. Steps, bytes and depth are bounded, so that no file costs more than seconds.
"""

from __future__ import annotations

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
from gandiag.checkpoints.safe_pickle.opcodes import MARK, OPCODE_TABLE, UNSUPPORTED_OPCODES, set_array_state
from gandiag.errors import LoadError

MAX_STEPS = 3_000_000  # opcodes; about as many as a checkpoint with millions of logged numbers has, and a few seconds
MAX_MEMORY_BYTES = 192 * 2**20  # bytes of strings and numbers in memory
MIN_SLICE_BYTES = 4096  # bytes from which a byte string is left in the file


@dataclass(slots=True)
class ParseBudget:
    """What may still be spent on one file, and what its pickles named. Shared by pickles inside pickles."""

    file_size: int
    steps_left: int = MAX_STEPS
    bytes_left: int = MAX_MEMORY_BYTES
    nesting_depth: int = 0
    protocol: int = 0
    global_names: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    sources: dict[str, dict[str, None]] = field(default_factory=dict)  # source text -> classes that carry it
    calls: dict[str, None] = field(default_factory=dict)

    def use_bytes(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise LoadError(
                f"the pickle in this file makes more than {MAX_MEMORY_BYTES >> 20} MiB of text and numbers: malformed or hostile",
                "save the weights alone",
            )


class PickleMachine:
    """One pickle of `stream` (a memory map or a BytesIO), from where it stands. `buffer` is what its offsets are in.

    `persistent` resolves what torch keeps outside the pickle, `nested` reads a torch file that stands inside it as bytes.
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
        self.stream, self.buffer, self.budget, self.persistent_load, self.load_nested = (
            stream,
            buffer,
            budget,
            persistent_load,
            load_nested,
        )
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle describes. Damaged for what is no pickle, LoadError for what no honest writer makes."""
        read, stream, budget = self.stream.read, self.stream, self.budget
        while True:
            code = read(1)
            found = OPCODE_TABLE.get(code)
            if found is None:
                raise CorruptPickleError("it ends early" if not code else f"unknown opcode {code.hex()}")
            budget.steps_left -= 1
            if budget.steps_left < 0:
                raise LoadError(
                    f"the pickle in this file has more than {MAX_STEPS:,} steps: too long, or hostile",
                    "save the weights alone",
                )
            decode, act, name = found
            if decode is None:
                if act is None:
                    return self.stack.pop()
                act(self, None)
                continue
            argument = decode(self, stream)
            if isinstance(argument, (str, bytes)) or (type(argument) is int and argument > 2**64):
                budget.use_bytes(len(argument) if not isinstance(argument, int) else argument.bit_length() >> 3)
            if act is None:
                raise LoadError(
                    f"the pickle in this file uses {UNSUPPORTED_OPCODES.get(name, name)}, which no checkpoint writer does",
                    "do not load it",
                )
            act(self, argument)

    def read_bytes(self, length_bytes: int) -> Any:
        """A byte string whose length has `width` bytes: itself where it is short, else its place."""
        count = int.from_bytes(self.stream.read(length_bytes), "little")
        start = self.stream.tell()
        if start + count > len(self.buffer):
            raise CorruptPickleError(
                f"{count} bytes expected at {start}, where {max(0, len(self.buffer) - start)} are left"
            )
        if count >= MIN_SLICE_BYTES:
            self.stream.seek(start + count)
            return FileSlice(self.buffer, start, count)
        return bytes(self.stream.read(count))

    # the stack

    def pop_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                found = self.stack[index + 1 :]
                del self.stack[index:]
                return found
        raise CorruptPickleError("no mark on the stack")

    def put_memo(self, index: int) -> None:
        if not 0 <= index <= self.budget.file_size:
            raise LoadError(
                f"the pickle in this file uses memo index {index} in {self.budget.file_size} bytes: malformed or hostile",
                "do not load it",
            )
        self.memo[index] = self.stack[-1]

    def make_global(self, module: Any, name: Any) -> GlobalRef:
        if not isinstance(module, str) or not isinstance(name, str):
            raise CorruptPickleError("a global without a name")
        found = GlobalRef(module, name)
        self.budget.global_names[found.full_name] = None
        return found

    def apply_state(self, state: Any) -> None:
        target = self.stack[-1]
        if isinstance(target, ObjectNode):
            target.states.append(state)
        elif isinstance(target, DictNode) and isinstance(state, dict):
            target.state.update({key: value for key, value in state.items() if isinstance(key, str)})
            if target.name == "argparse.Namespace":
                target.update(target.state)
        elif isinstance(target, ArrayNode):
            set_array_state(target, state)
        elif isinstance(target, GlobalRef):
            self.budget.notes[f"would set attributes of {target.full_name}"] = None
