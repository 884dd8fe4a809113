"""What a pickle names, read opcode by opcode without running any of it. Torch-free.

`scan` lists the globals a pickle would import and refuses streams that no honest writer makes. It is information and a
budget check, never a gate: what may run is decided by torch's own weights_only reader.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from typing import BinaryIO

from gandiag.errors import LoadError

_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_STORES = {"PUT", "BINPUT", "LONG_BINPUT"}
_FETCHES = {"GET", "BINGET", "LONG_BINGET"}
# Globals that allocate memory from an integer argument: a kilobyte of file could ask for gigabytes.
_ALLOCATORS = {"builtins.bytearray", "__builtin__.bytearray", "torch.Tensor", "torch.FloatTensor"}
# Data, not code: what torch.save writes for tensors, plus training arguments and numpy numbers.
_PLAIN = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.\w+Storage|torch\.storage\.(Untyped|Typed)Storage|torch\.(Size|device|dtype|bfloat16|float\d+|u?int\d+|bool|complex\d+)"
    r"|torch\.nn\.parameter\.(Parameter|Buffer)|torch\.serialization\._get_layout|collections\.(OrderedDict|Counter|defaultdict)"
    r"|(builtins|__builtin__)\.(set|frozenset|complex|slice)|_codecs\.encode|argparse\.Namespace"
    r"|numpy\.(_core|core)\.multiarray\.(scalar|_reconstruct)|numpy\.(ndarray|dtype)|numpy\.dtypes\.\w+"
)


@dataclass(frozen=True, slots=True)
class Scan:
    """`names`: "module.name" of every global, in order of appearance. `protocol`: the highest one declared."""

    names: tuple[str, ...]
    protocol: int

    @property
    def foreign(self) -> tuple[str, ...]:
        """Globals that are not plain data: classes and functions that only running code could restore."""
        return tuple(name for name in self.names if not _PLAIN.fullmatch(name))


def scan(stream: BinaryIO, size: int, *, streams: int = 1) -> Scan:
    """Read up to `streams` concatenated pickles of a file of `size` bytes. LoadError if they are damaged or hostile."""
    names: dict[str, None] = {}
    protocol = 0
    try:
        for _ in range(streams):
            protocol = max(protocol, _scan_one(stream, size, names))
    except LoadError:
        raise
    except Exception as broken:
        # Damage surfaces as almost anything (ValueError, BadZipFile, zlib.error …); to the user it is one thing.
        raise LoadError(f"the pickle in this file is cut short or damaged ({_brief(broken)})", "copy it again and compare the sizes") from None
    return Scan(tuple(names), protocol)


def _scan_one(stream: BinaryIO, size: int, names: dict[str, None]) -> int:
    protocol, recent, memo = 0, [], {}  # type: int, list[str], dict[int, str]
    for opcode, argument, _ in pickletools.genops(stream):
        code = opcode.name
        if code == "PROTO":
            protocol = int(argument)  # type: ignore[arg-type]
        elif code in _STRINGS:
            recent = [*recent[-1:], str(argument)]
        elif code == "MEMOIZE":
            memo[len(memo)] = recent[-1] if recent else ""
        elif code in _STORES:
            memo[_index(argument, size)] = recent[-1] if recent else ""
        elif code in _FETCHES:
            recent = [*recent[-1:], memo.get(_index(argument, size), "")]
        elif code.startswith("EXT"):
            raise LoadError("the pickle in this file uses extension codes, which no checkpoint writer does", "do not load it")
        elif code in ("GLOBAL", "INST"):
            _note(str(argument).replace(" ", ".", 1), names)
        elif code == "STACK_GLOBAL":
            _note(".".join(recent[-2:]), names)
    return protocol


def _note(name: str, names: dict[str, None]) -> None:
    if name in _ALLOCATORS:
        raise LoadError(f"the pickle in this file calls {name}, which reserves memory that the file does not have: malformed or hostile",
                        "save it again as a state dict")
    names[name] = None


def _index(argument: object, size: int) -> int:
    """A memo index; one beyond the file's length would only serve to exhaust memory."""
    index = int(str(argument))
    if index > size:
        raise LoadError(f"the pickle in this file uses memo index {index} in {size} bytes: malformed or hostile", "do not load it")
    return index


def _brief(problem: Exception) -> str:
    return str(problem).splitlines()[0][:80] if str(problem) else type(problem).__name__
