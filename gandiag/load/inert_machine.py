"""The pickle machine without its powers: every opcode is understood, nothing is imported, called or built. Torch-free.

Opcodes and their arguments are decoded by the standard library's `pickletools`; here is the stack. What the pickle would
have called becomes a record (`inert_records.py`), or plain data where a short table (`inert_calls.py`) says what the call
returns. Long byte strings stay in the file. Steps, bytes and depth are bounded, so that no file costs more than seconds.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gandiag.errors import LoadError
from gandiag.load.inert_calls import call
from gandiag.load.inert_records import Array, Blob, Damaged, Made, Name, Table, hashable

STEPS = 5_000_000  # opcodes; about as many as a checkpoint with millions of logged numbers has, and a few seconds
KEPT = 256 * 2**20  # bytes of strings and numbers in memory
LONG = 4096  # bytes from which a byte string is left in the file
_MARK = object()
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_BYTES = {"BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8, "BYTEARRAY8": 8}


@dataclass(slots=True)
class Budget:
    """What may still be spent on one file, and what its pickles named. Shared by pickles inside pickles."""

    size: int
    steps: int = STEPS
    kept: int = KEPT
    nested: int = 0
    protocol: int = 0
    names: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    calls: dict[str, None] = field(default_factory=dict)

    def keep(self, count: int) -> None:
        self.kept -= count
        if self.kept < 0:
            raise LoadError(f"the pickle in this file makes more than {KEPT >> 20} MiB of text and numbers: malformed or hostile", "save the weights alone")


class Machine:
    """One pickle of `stream` (a memory map or a BytesIO), from where it stands. `buffer` is what its offsets are in.

    `persistent` resolves what torch keeps outside the pickle, `nested` reads a torch file that stands inside it as bytes.
    """

    def __init__(self, stream: Any, buffer: Any, budget: Budget, *, persistent: Callable[[Any], Any] | None = None,
                 nested: Callable[[Any], Any] | None = None) -> None:  # fmt: skip
        self.stream, self.buffer, self.budget, self.persistent, self.nested = stream, buffer, budget, persistent, nested
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle describes. Damaged for what is no pickle, LoadError for what no honest writer makes."""
        read, budget = self.stream.read, self.budget
        while True:
            code = read(1)
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise Damaged("it ends early" if not code else f"unknown opcode {code.hex()}")
            budget.steps -= 1
            if budget.steps < 0:
                raise LoadError(f"the pickle in this file has more than {STEPS:,} steps: too long, or hostile", "save the weights alone")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _BYTES:
                self.stack.append(self._bytes(_BYTES[name], name))
                continue
            argument = opcode.arg.reader(self.stream) if opcode.arg is not None else None
            if isinstance(argument, (str, bytes)) or (type(argument) is int and argument > 2**64):
                budget.keep(len(argument) if not isinstance(argument, int) else argument.bit_length() >> 3)
            act = _ACTIONS.get(name)
            if act is None:
                raise LoadError(f"the pickle in this file uses {_REFUSED.get(name, name)}, which no checkpoint writer does", "do not load it")
            act(self, argument)

    def _bytes(self, width: int, name: str) -> Any:
        count = int.from_bytes(self.stream.read(width), "little")
        start = self.stream.tell()
        if start + count > len(self.buffer):
            raise Damaged(f"{count} bytes expected at {start}, where {max(0, len(self.buffer) - start)} are left")
        if count >= LONG:
            self.stream.seek(start + count)
            return Blob(self.buffer, start, count)
        self.budget.keep(count)
        return bytes(self.stream.read(count))

    # the stack

    def pop_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                found = self.stack[index + 1 :]
                del self.stack[index:]
                return found
        raise Damaged("no mark on the stack")

    def put(self, index: int) -> None:
        if not 0 <= index <= self.budget.size:
            raise LoadError(f"the pickle in this file uses memo index {index} in {self.budget.size} bytes: malformed or hostile", "do not load it")
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged("a global without a name")
        found = Name(module, name)
        self.budget.names[found.full] = None
        return found

    def build(self, state: Any) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.states.append(state)
        elif isinstance(target, Table) and isinstance(state, dict):
            target.state.update({key: value for key, value in state.items() if isinstance(key, str)})
            if target.name == "argparse.Namespace":
                target.update(target.state)
        elif isinstance(target, Array):
            _fill(target, state)
        elif isinstance(target, Name):
            self.budget.notes[f"would set attributes of {target.full}"] = None


def _fill(array: Array, state: Any) -> None:
    """numpy's (version, shape, dtype, is_fortran, data) of an array, or (version, byte order, …) of a type."""
    if not isinstance(state, tuple) or len(state) < 5:
        return
    if isinstance(state[1], tuple) and isinstance(state[2], Array):
        array.dtype, array.data, array.fortran = state[2].dtype, state[4], bool(state[3])
        array.shape = tuple(int(size) for size in state[1])
    elif state[1] == ">":
        array.dtype = ">" + array.dtype.lstrip("<")


def _append(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, Made):
        target.entries.extend(values)
    elif isinstance(target, set):
        target.update(hashable(value) for value in values)
    else:
        raise Damaged(f"something is appended to a {type(target).__name__}")


def _set(target: Any, flat: list[Any]) -> None:
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if isinstance(target, dict):
        target.update((hashable(key), value) for key, value in pairs)
    elif isinstance(target, Made):
        target.items.extend(pairs)
    else:
        raise Damaged(f"an item is set in a {type(target).__name__}")


def _tuple(count: int) -> Callable[[Machine, Any], None]:
    def act(machine: Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise Damaged("the stack is empty")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]
    return act


def _called(machine: Machine, function: Any, args: Any, kwargs: Any = None) -> None:
    if not isinstance(args, tuple):
        raise Damaged("a call without a tuple of arguments")
    machine.stack.append(call(machine, function, args, kwargs))


def _reduce(machine: Machine, _: Any) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    _called(machine, function, args)


def _newobj_ex(machine: Machine, _: Any) -> None:
    kwargs, args, cls = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    _called(machine, cls, args, kwargs)


def _inst(machine: Machine, argument: Any) -> None:
    cls = machine.name(*str(argument).split(" ", 1))
    _called(machine, cls, tuple(machine.pop_mark()))


def _obj(machine: Machine, _: Any) -> None:
    cls, *args = machine.pop_mark()
    _called(machine, cls, tuple(args))


def _global(machine: Machine, argument: Any) -> None:
    machine.stack.append(machine.name(*str(argument).split(" ", 1)))


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.name(module, name))


def _persistent(machine: Machine, identity: Any) -> None:
    if machine.persistent is None:
        machine.stack.append(Made(Name("", "persistent id"), (identity,)))
    else:
        machine.stack.append(machine.persistent(identity))


def _setitems(machine: Machine, _: Any) -> None:
    flat = machine.pop_mark()
    _set(machine.stack[-1], flat)


def _setitem(machine: Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set(machine.stack[-1], [key, value])


def _dict(machine: Machine, _: Any) -> None:
    flat = machine.pop_mark()
    machine.stack.append({})
    _set(machine.stack[-1], flat)


def _appends(machine: Machine, _: Any) -> None:
    values = machine.pop_mark()
    _append(machine.stack[-1], values)


def _append_one(machine: Machine, _: Any) -> None:
    value = machine.stack.pop()
    _append(machine.stack[-1], [value])


def _pop(machine: Machine, _: Any) -> None:
    machine.stack.pop()


def _build(machine: Machine, _: Any) -> None:
    machine.build(machine.stack.pop())


def _protocol(machine: Machine, argument: Any) -> None:
    machine.budget.protocol = max(machine.budget.protocol, argument)


def _frozenset(machine: Machine, _: Any) -> None:
    machine.stack.append(frozenset(hashable(value) for value in machine.pop_mark()))


_REFUSED = {"EXT1": "extension codes", "EXT2": "extension codes", "EXT4": "extension codes", "NEXT_BUFFER": "buffers outside the file",
            "READONLY_BUFFER": "buffers outside the file"}  # fmt: skip
_ARGUMENTS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE",
              "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "FLOAT", "BINFLOAT")  # fmt: skip
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict, "EMPTY_SET": set, "MARK": lambda: _MARK,
}  # fmt: skip
_ACTIONS: dict[str, Callable[[Machine, Any], object]] = {
    **{name: lambda machine, argument: machine.stack.append(argument) for name in _ARGUMENTS},
    **{name: lambda machine, _, make=make: machine.stack.append(make()) for name, make in _FRESH.items()},  # type: ignore[misc]
    **{name: lambda machine, argument: machine.put(argument) for name in ("PUT", "BINPUT", "LONG_BINPUT")},
    **{name: lambda machine, argument: machine.stack.append(machine.memo[argument]) for name in ("GET", "BINGET", "LONG_BINGET")},
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "PROTO": _protocol, "FRAME": lambda machine, _: None,
    "POP": _pop, "POP_MARK": lambda machine, _: machine.pop_mark(), "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())), "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()), "DICT": _dict, "FROZENSET": _frozenset,
    "APPEND": _append_one, "APPENDS": _appends, "ADDITEMS": _appends, "SETITEM": _setitem, "SETITEMS": _setitems,
    "GLOBAL": _global, "STACK_GLOBAL": _stack_global, "REDUCE": _reduce, "NEWOBJ": _reduce, "NEWOBJ_EX": _newobj_ex, "INST": _inst, "OBJ": _obj,
    "BUILD": _build, "PERSID": _persistent, "BINPERSID": lambda machine, _: _persistent(machine, machine.stack.pop()),
}  # fmt: skip
