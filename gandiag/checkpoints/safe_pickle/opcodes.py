"""What every pickle opcode does to the stack of the inert machine; arguments are decoded by the standard library. Torch-free."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gandiag.checkpoints.safe_pickle.calls import resolve_call
from gandiag.checkpoints.safe_pickle.nodes import ArrayNode, CorruptPickleError, GlobalRef, ObjectNode, check_hashable

if TYPE_CHECKING:
    from gandiag.checkpoints.safe_pickle.machine import PickleMachine

MARK = object()
_BYTES = {"BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8, "BYTEARRAY8": 8}


def set_array_state(array: ArrayNode, state: Any) -> None:
    """numpy's (version, shape, dtype, is_fortran, data) of an array, or (version, byte order, …) of a type."""
    if not isinstance(state, tuple) or len(state) < 5:
        return
    if isinstance(state[1], tuple) and isinstance(state[2], ArrayNode):
        array.dtype, array.data, array.fortran_order = state[2].dtype, state[4], bool(state[3])
        array.shape = tuple(int(size) for size in state[1])
    elif state[1] == ">":
        array.dtype = ">" + array.dtype.lstrip("<")


def _append(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, ObjectNode):
        target.list_items.extend(values)
    elif isinstance(target, set):
        target.update(check_hashable(value) for value in values)
    else:
        raise CorruptPickleError(f"something is appended to a {type(target).__name__}")


def _set(target: Any, flat: list[Any]) -> None:
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if isinstance(target, dict):
        target.update((check_hashable(key), value) for key, value in pairs)
    elif isinstance(target, ObjectNode):
        target.dict_items.extend(pairs)
    else:
        raise CorruptPickleError(f"an item is set in a {type(target).__name__}")


def _tuple(count: int) -> Callable[[PickleMachine, Any], None]:
    def act(machine: PickleMachine, _: Any) -> None:
        if len(machine.stack) < count:
            raise CorruptPickleError("the stack is empty")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return act


def _called(machine: PickleMachine, function: Any, args: Any, kwargs: Any = None) -> None:
    if not isinstance(args, tuple):
        raise CorruptPickleError("a call without a tuple of arguments")
    machine.stack.append(resolve_call(machine, function, args, kwargs))


def _reduce(machine: PickleMachine, _: Any) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    _called(machine, function, args)


def _newobj_ex(machine: PickleMachine, _: Any) -> None:
    kwargs, args, cls = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    _called(machine, cls, args, kwargs)


def _inst(machine: PickleMachine, argument: Any) -> None:
    cls = machine.make_global(*str(argument).split(" ", 1))
    _called(machine, cls, tuple(machine.pop_mark()))


def _obj(machine: PickleMachine, _: Any) -> None:
    cls, *args = machine.pop_mark()
    _called(machine, cls, tuple(args))


def _global(machine: PickleMachine, argument: Any) -> None:
    machine.stack.append(machine.make_global(*str(argument).split(" ", 1)))


def _stack_global(machine: PickleMachine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.make_global(module, name))


def _persistent(machine: PickleMachine, identity: Any) -> None:
    if machine.persistent_load is None:
        machine.stack.append(ObjectNode(GlobalRef("", "persistent id"), (identity,)))
    else:
        machine.stack.append(machine.persistent_load(identity))


def _setitems(machine: PickleMachine, _: Any) -> None:
    flat = machine.pop_mark()
    _set(machine.stack[-1], flat)


def _setitem(machine: PickleMachine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set(machine.stack[-1], [key, value])


def _dict(machine: PickleMachine, _: Any) -> None:
    flat = machine.pop_mark()
    machine.stack.append({})
    _set(machine.stack[-1], flat)


def _appends(machine: PickleMachine, _: Any) -> None:
    values = machine.pop_mark()
    _append(machine.stack[-1], values)


def _append_one(machine: PickleMachine, _: Any) -> None:
    value = machine.stack.pop()
    _append(machine.stack[-1], [value])


def _pop(machine: PickleMachine, _: Any) -> None:
    machine.stack.pop()


def _build(machine: PickleMachine, _: Any) -> None:
    machine.apply_state(machine.stack.pop())


def _protocol(machine: PickleMachine, argument: Any) -> None:
    machine.budget.protocol = max(machine.budget.protocol, argument)


def _frozenset(machine: PickleMachine, _: Any) -> None:
    machine.stack.append(frozenset(check_hashable(value) for value in machine.pop_mark()))


UNSUPPORTED_OPCODES = {
    "EXT1": "extension codes",
    "EXT2": "extension codes",
    "EXT4": "extension codes",
    "NEXT_BUFFER": "buffers outside the file",
    "READONLY_BUFFER": "buffers outside the file",
}
_ARGUMENTS = (
    *_BYTES,
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "FLOAT",
    "BINFLOAT",
)
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: MARK,
}
_ACTIONS: dict[str, Callable[[PickleMachine, Any], object]] = {
    **{name: lambda machine, argument: machine.stack.append(argument) for name in _ARGUMENTS},
    **{name: lambda machine, _, make=make: machine.stack.append(make()) for name, make in _FRESH.items()},  # type: ignore[misc]
    **{name: lambda machine, argument: machine.put_memo(argument) for name in ("PUT", "BINPUT", "LONG_BINPUT")},
    **{
        name: lambda machine, argument: machine.stack.append(machine.memo[argument])
        for name in ("GET", "BINGET", "LONG_BINGET")
    },
    "MEMOIZE": lambda machine, _: machine.put_memo(len(machine.memo)),
    "PROTO": _protocol,
    "FRAME": lambda machine, _: None,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "DICT": _dict,
    "FROZENSET": _frozenset,
    "APPEND": _append_one,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _newobj_ex,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": _build,
    "PERSID": _persistent,
    "BINPERSID": lambda machine, _: _persistent(machine, machine.stack.pop()),
}


def _decoder(opcode: Any) -> Callable[[PickleMachine, Any], Any] | None:
    if opcode.name in _BYTES:
        return lambda machine, _, width=_BYTES[opcode.name]: machine.read_bytes(width)  # type: ignore[misc]
    if opcode.name in UNSUPPORTED_OPCODES:
        return lambda machine, _: None
    return None if opcode.arg is None else lambda machine, stream, reader=opcode.arg.reader: reader(stream)  # type: ignore[misc]


OPCODE_TABLE = {
    opcode.code.encode("latin-1"): (_decoder(opcode), _ACTIONS.get(opcode.name), opcode.name)
    for opcode in pickletools.opcodes
}
