"""What a few well-known calls return, as data: tensors, arrays, dictionaries, text. Every other call becomes a record. Torch-free.

Each entry is ours from end to end: it looks at the arguments and makes a record or plain data. None of the functions named
in a file is ever reached, so that nothing a pickle does to "them" (attributes, defaults) has anybody to do it to.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from typing import Any

from gandiag.checkpoints.safe_pickle.nodes import (
    ArrayNode,
    DictNode,
    FileSlice,
    GlobalRef,
    LazyTensor,
    ObjectNode,
    Storage,
    check_hashable,
)
from gandiag.errors import LoadError

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
# Data, not code: what torch.save writes for tensors and standard layers, training arguments, numpy numbers.
DATA_GLOBALS = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.(cuda\.)?\w+Storage|torch\.storage\.(UntypedStorage|TypedStorage|_load_from_bytes)"
    r"|torch\.(Size|device|dtype|bfloat16|float\d+|u?int\d+|bool|complex\d+|float8_\w+|Tensor|strided|contiguous_format)"
    r"|torch\.nn\.(parameter\.(Parameter|Buffer)|modules\.[\w.]+|init\.\w+)|torch\.serialization\._get_layout|torch\.torch_version\.TorchVersion"
    r"|collections\.(OrderedDict|Counter|defaultdict|deque)|copy_?reg\._reconstructor|copyreg\.__newobj(_ex)?__|pathlib\.\w*Path|pathlib\._local\.\w*Path"
    r"|(builtins|__builtin__)\.(set|frozenset|complex|slice|range|object|int|float|str|list|dict|tuple|bool|bytes)|_codecs\.encode|argparse\.Namespace"
    r"|numpy\.(_core|core)\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|numpy\.(ndarray|dtype|float\d+|u?int\d+|bool_)|numpy\.dtypes\.\w+"
)
_CALLS = 40
_NUMBERS = {
    "f8": "d",
    "f4": "f",
    "f2": "e",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
    "b1": "?",
}


class UnsupportedCallError(Exception):
    """The arguments are not those of the plain case: keep a record of the call."""


def is_data_global(name: str) -> bool:
    """Whether a global is one of those that only say how data were written."""
    return DATA_GLOBALS.fullmatch(name) is not None


def resolve_call(machine: Any, function: Any, args: tuple[Any, ...], kwargs: Any = None) -> Any:
    """What the call returns, where that is data; else a Made record of it."""
    handler = _KNOWN.get(function.full_name) if isinstance(function, GlobalRef) and not kwargs else None
    if handler is not None:
        try:
            return handler(machine, args)
        except (UnsupportedCallError, TypeError, ValueError, IndexError, AttributeError, struct.error, OverflowError):
            pass  # arguments that are not the usual ones: a record of the call, as for any other
    made = ObjectNode(function, args, kwargs)
    if isinstance(function, GlobalRef) and not is_data_global(function.full_name):
        _note(machine.budget, function.full_name, args)
    return made


def _note(budget: Any, name: str, args: tuple[Any, ...]) -> None:
    """What unpickling would have called, for `gandiag inspect`: the first forty."""
    if len(budget.calls) < _CALLS:
        budget.calls[f"{name}({', '.join(map(_brief, args[:4]))}{', …' if len(args) > 4 else ''})"] = None
    meta = args[0] if args and isinstance(args[0], dict) else {}
    text = meta.get("module_src")
    if isinstance(text, str) and (text in budget.sources or len(budget.sources) < _CALLS):
        classes = budget.sources.setdefault(text, {})
        if len(classes) < 25 * _CALLS:
            classes[_brief(meta.get("class_name"))] = None


def describe_sources(sources: dict[str, dict[str, None]]) -> list[str]:
    """The source texts in a file, each with the classes that carry it: NVIDIA's pickles repeat one for every kind of layer."""
    said = []
    for text, classes in sources.items():
        mark, names = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12], list(classes)
        more = f" and {len(names) - 6} more classes" if len(names) > 6 else ""
        said.append(
            f"carries source text ({len(text):,} characters, sha256 {mark}…) for {', '.join(names[:6])}{more}, which unpickling would run"
        )
    return said


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return repr(value[:60]) + ("…" if len(value) > 60 else "")
    if isinstance(value, GlobalRef):
        return value.full_name[:60]
    return str(value)[:30] if isinstance(value, (int, float)) and abs(value) < 1e18 else type(value).__name__


# tensors


def _sizes(given: Any) -> tuple[int, ...]:
    if (
        not isinstance(given, (tuple, list))
        or len(given) > 64
        or not all(type(size) is int and 0 <= size < 2**62 for size in given)
    ):
        raise UnsupportedCallError
    return tuple(given)


def _tensor(machine: Any, args: tuple[Any, ...], *, dtype: Any = None) -> LazyTensor:
    """torch._utils._rebuild_tensor, _v2, _v3: (storage, offset, size, stride, …)."""
    storage, offset = args[0], args[1]
    if not isinstance(storage, Storage) or type(offset) is not int or not 0 <= offset < 2**62:
        raise UnsupportedCallError
    shape, stride = _sizes(args[2]), _sizes(args[3])
    if len(shape) != len(stride):
        raise UnsupportedCallError
    return LazyTensor(storage, torch_dtype_name(dtype) if dtype is not None else storage.dtype, shape, stride, offset)


def torch_dtype_name(dtype_global: Any) -> str:
    if not isinstance(dtype_global, GlobalRef) or dtype_global.module != "torch":
        raise UnsupportedCallError
    return dtype_global.name


def _meta(machine: Any, args: tuple[Any, ...]) -> LazyTensor:
    return LazyTensor(Storage(None, "", 0, "meta"), torch_dtype_name(args[0]), _sizes(args[1]), _sizes(args[2]))


def _odd(what: str) -> Callable[[Any, tuple[Any, ...]], LazyTensor]:
    return lambda machine, args: LazyTensor(Storage(None, "float32", 0), "float32", (), (), unsupported_reason=what)


def _of_type(machine: Any, args: tuple[Any, ...]) -> Any:
    """torch._tensor._rebuild_from_type_v2(function, type, arguments, state): subclasses, and tensors with attributes."""
    if not isinstance(args[2], tuple):
        raise UnsupportedCallError
    return resolve_call(machine, args[0], args[2])


def _parameter(machine: Any, args: tuple[Any, ...]) -> Any:
    if not isinstance(args[0], LazyTensor):
        raise UnsupportedCallError
    return args[0]


def _nested(machine: Any, args: tuple[Any, ...]) -> Any:
    """torch.storage._load_from_bytes: a whole torch file inside the pickle, read by the same rules."""
    if machine.load_nested is None or not isinstance(args[0], (bytes, FileSlice)):
        raise UnsupportedCallError
    return machine.load_nested(args[0])


# numpy


def _dtype(machine: Any, args: tuple[Any, ...]) -> ArrayNode:
    """numpy.dtype("f4", False, True): a scalar type, whose byte order BUILD may still set (it is little everywhere we know)."""
    if not isinstance(args[0], str) or len(args[0]) > 8:
        raise UnsupportedCallError
    return ArrayNode("<" + args[0].lstrip("<|="), ())


def _reconstruct(machine: Any, args: tuple[Any, ...]) -> ArrayNode:
    return ArrayNode("", ())


def _frombuffer(machine: Any, args: tuple[Any, ...]) -> ArrayNode:
    data, dtype, shape, order = args
    return ArrayNode(dtype.dtype, _sizes(shape), data, order == "F")


def _scalar(machine: Any, args: tuple[Any, ...]) -> Any:
    """A numpy number as Python's own."""
    code = _NUMBERS.get(args[0].dtype.lstrip("<|>="))
    raw = args[1].encode("latin-1") if isinstance(args[1], str) else args[1]
    if code is None:
        raise UnsupportedCallError
    return struct.unpack("<" + code, raw)[0]


# containers and text


def _table(name: str) -> Callable[[Any, tuple[Any, ...]], Any]:
    def make(machine: Any, args: tuple[Any, ...]) -> DictNode:
        entries = next((entry for entry in args if isinstance(entry, (dict, list, tuple))), ())
        pairs = entries.items() if isinstance(entries, dict) else entries
        return DictNode([(check_hashable(key), value) for key, value in pairs], name=name)

    return make


def _set_of(machine: Any, args: tuple[Any, ...]) -> Any:
    return {check_hashable(entry) for entry in args[0]} if args else set()


def _encode(machine: Any, args: tuple[Any, ...]) -> bytes:
    """_codecs.encode(text, "latin1"): how protocol 2 writes bytes."""
    text = args[0]
    if (
        not isinstance(text, str)
        or len(args) > 2
        or (len(args) == 2 and args[1] not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"))
    ):
        raise UnsupportedCallError
    machine.budget.use_bytes(len(text))
    return text.encode(args[1] if len(args) == 2 else "utf-8")


def _bytes(machine: Any, args: tuple[Any, ...]) -> bytes:
    if args and not isinstance(args[0], bytes):
        raise UnsupportedCallError
    return args[0] if args else b""


def _allocator(name: str) -> Callable[[Any, tuple[Any, ...]], Any]:
    def refuse(machine: Any, args: tuple[Any, ...]) -> Any:
        if any(type(entry) is int and entry > 4096 for entry in args):
            raise LoadError(
                f"the pickle in this file calls {name}, which reserves memory that the file does not have: malformed or hostile",
                "save it again as a state dict",
            )
        raise UnsupportedCallError

    return refuse


def _reconstructor(machine: Any, args: tuple[Any, ...]) -> Any:
    """copyreg._reconstructor(cls, base, state): protocol 0's way to say `cls`."""
    return resolve_call(machine, args[0], () if args[2] is None else (args[2],))


def _one(machine: Any, args: tuple[Any, ...]) -> Any:
    if len(args) != 1 or not isinstance(args[0], str):
        raise UnsupportedCallError
    return args[0]


_KNOWN: dict[str, Callable[[Any, tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": lambda machine, args: _tensor(machine, args, dtype=args[6]),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_sparse_tensor": _odd("is sparse, not dense"),
    "torch._utils._rebuild_sparse_csr_tensor": _odd("is sparse, not dense"),
    "torch._utils._rebuild_qtensor": _odd("is quantized, nested or not on the CPU"),
    "torch._utils._rebuild_nested_tensor": _odd("is quantized, nested or not on the CPU"),
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.storage._load_from_bytes": _nested,
    "torch.Size": lambda machine, args: _sizes(args[0]),
    "torch.device": lambda machine, args: ":".join(str(part)[:20] for part in args),
    "torch.torch_version.TorchVersion": _one,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
    "numpy.dtype": _dtype,
    **{
        name: _table(name)
        for name in ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "argparse.Namespace")
    },
    **{
        f"{module}.{name}": make
        for module in ("builtins", "__builtin__")
        for name, make in (("dict", _table("dict")), ("set", _set_of), ("bytes", _bytes))
    },
    "_codecs.encode": _encode,
    **{
        name: _allocator(name)
        for name in ("builtins.bytearray", "__builtin__.bytearray", "torch.Tensor", "torch.FloatTensor")
    },
    **{f"{module}._reconstructor": _reconstructor for module in ("copyreg", "copy_reg")},
    **{
        f"pathlib.{name}": lambda machine, args: "/".join(str(part)[:200] for part in args)
        for name in ("PosixPath", "Path", "WindowsPath", "PurePosixPath")
    },
}
