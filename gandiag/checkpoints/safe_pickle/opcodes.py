"""Opcode table and run loop of the restricted unpickler. Torch-free.

Arguments of opcodes are decoded by the standard library's `pickletools`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from gandiag.checkpoints.safe_pickle.budget import DICT_BYTES, OBJECT_BYTES
from gandiag.checkpoints.safe_pickle.calls import resolve_call
from gandiag.checkpoints.safe_pickle.keys import check_hashable
from gandiag.checkpoints.safe_pickle.machine import MARK, PickleMachine
from gandiag.checkpoints.safe_pickle.nodes import CorruptPickleError, ObjectNode
from gandiag.errors import LoadError

Decoder = Callable[[PickleMachine, Any], Any]  # (machine, stream) -> argument
Action = Callable[[PickleMachine, Any], object]  # (machine, argument) -> ignored

_BYTES = {"BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8, "BYTEARRAY8": 8}  # opcode -> bytes of its length field
_UNSUPPORTED = {
    "EXT1": "extension codes",
    "EXT2": "extension codes",
    "EXT4": "extension codes",
    "NEXT_BUFFER": "buffers outside the file",
    "READONLY_BUFFER": "buffers outside the file",
}


def run_pickle(machine: PickleMachine) -> Any:
    """The value that the pickle describes.

    CorruptPickleError for damage, LoadError for what no checkpoint writer produces.
    """
    stream, stack, budget = machine.stream, machine.stack, machine.budget
    read = stream.read
    while True:
        code = read(1)
        entry = OPCODES.get(code)
        if entry is None:
            raise CorruptPickleError("it ends early" if not code else f"unknown opcode {code.hex()}")
        budget.use_steps()
        decode, action, name = entry
        if decode is None:
            if action is None:  # STOP
                return stack.pop()
            action(machine, None)
            continue
        argument = decode(machine, stream)
        if isinstance(argument, (str, bytes)):
            budget.use_bytes(len(argument))
        elif type(argument) is int and argument > 2**64:
            budget.use_bytes(argument.bit_length() >> 3)
        if action is None:
            raise LoadError(
                f"the pickle in this file uses {_UNSUPPORTED.get(name, name)}, which no checkpoint writer does",
                "do not load it",
            )
        action(machine, argument)


def _append_items(machine: PickleMachine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, ObjectNode):
        target.list_items.extend(values)
    elif isinstance(target, set):
        target.update(check_hashable(value, machine.budget) for value in values)
    else:
        raise CorruptPickleError(f"it appends to a {type(target).__name__}")


def _set_items(machine: PickleMachine, flat: list[Any]) -> None:
    """Set key, value, key, value … on the top of the stack."""
    target, pairs = machine.stack[-1], list(zip(flat[::2], flat[1::2], strict=True))
    if isinstance(target, dict):
        target.update((check_hashable(key, machine.budget), value) for key, value in pairs)
    elif isinstance(target, ObjectNode):
        target.dict_items.extend(pairs)
    else:
        raise CorruptPickleError(f"it sets an item of a {type(target).__name__}")


def _push_dict(machine: PickleMachine, _: Any) -> None:
    flat = machine.pop_mark()
    machine.budget.use_bytes(DICT_BYTES)
    machine.stack.append({})
    _set_items(machine, flat)


def _call(machine: PickleMachine, function: Any, args: Any, kwargs: Any = None) -> None:
    if not isinstance(args, tuple):
        raise CorruptPickleError("a call whose arguments are not a tuple")
    machine.budget.use_bytes(OBJECT_BYTES)
    machine.budget.use_steps(len(args) >> 3)
    machine.stack.append(resolve_call(machine, function, args, kwargs))


def _call_marked(machine: PickleMachine, _: Any) -> None:
    """OBJ: the class and its arguments are above the mark."""
    cls, *args = machine.pop_mark()
    _call(machine, cls, tuple(args))


def _push_new(factory: Callable[[], Any]) -> Action:
    return lambda machine, _: machine.stack.append(factory())


def _push_counted(factory: Callable[[], Any]) -> Action:
    """Push a container, which takes memory though it is empty."""

    def push(machine: PickleMachine, _: Any) -> None:
        machine.budget.use_bytes(DICT_BYTES)
        machine.stack.append(factory())

    return push


def _push_frozenset(machine: PickleMachine, _: Any) -> None:
    machine.stack.append(frozenset(check_hashable(value, machine.budget) for value in machine.pop_mark()))


def _global(machine: PickleMachine, argument: Any) -> Any:
    """The reference behind GLOBAL's or INST's "module name"."""
    return machine.make_global(*str(argument).split(" ", 1))


_PUSHED = (  # opcodes that push their argument
    *_BYTES,
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)
_ACTIONS: dict[str, Action] = {
    **dict.fromkeys(_PUSHED, lambda machine, argument: machine.stack.append(argument)),
    "NONE": _push_new(lambda: None),
    "NEWTRUE": _push_new(lambda: True),
    "NEWFALSE": _push_new(lambda: False),
    "EMPTY_LIST": _push_counted(list),
    "EMPTY_TUPLE": _push_new(tuple),
    "EMPTY_DICT": _push_counted(dict),
    "EMPTY_SET": _push_counted(set),
    "MARK": _push_new(lambda: MARK),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, index: machine.put_memo(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.stack.append(machine.memo[index])),
    "MEMOIZE": lambda machine, _: machine.put_memo(len(machine.memo)),
    "PROTO": lambda machine, version: machine.budget.record_protocol(version),
    "FRAME": lambda machine, _: None,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop_values(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop_values(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop_values(3))),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "DICT": _push_dict,
    "FROZENSET": _push_frozenset,
    "APPEND": lambda machine, _: _append_items(machine, machine.pop_values(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: _append_items(machine, machine.pop_mark())),
    "SETITEM": lambda machine, _: _set_items(machine, machine.pop_values(2)),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_mark()),
    "GLOBAL": lambda machine, argument: machine.stack.append(_global(machine, argument)),
    "STACK_GLOBAL": lambda machine, _: machine.stack.append(machine.make_global(*machine.pop_values(2))),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: _call(machine, *machine.pop_values(2))),
    "NEWOBJ_EX": lambda machine, _: _call(machine, *machine.pop_values(3)),
    "INST": lambda machine, argument: _call(machine, _global(machine, argument), tuple(machine.pop_mark())),
    "OBJ": _call_marked,
    "BUILD": lambda machine, _: machine.apply_state(machine.stack.pop()),
    "PERSID": lambda machine, identity: machine.stack.append(machine.resolve_persistent(identity)),
    "BINPERSID": lambda machine, _: machine.stack.append(machine.resolve_persistent(machine.stack.pop())),
}


def _decoder(opcode: pickletools.OpcodeInfo) -> Decoder | None:
    if opcode.name in _BYTES:
        return lambda machine, _, width=_BYTES[opcode.name]: machine.read_bytes(width)  # type: ignore[misc]
    if opcode.name in _UNSUPPORTED:
        return lambda machine, _: None
    return None if opcode.arg is None else lambda machine, stream, reader=opcode.arg.reader: reader(stream)  # type: ignore[misc]


OPCODES = {
    opcode.code.encode("latin-1"): (_decoder(opcode), _ACTIONS.get(opcode.name), opcode.name)
    for opcode in pickletools.opcodes
}
