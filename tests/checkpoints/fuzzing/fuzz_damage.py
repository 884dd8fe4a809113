"""Damages a file in ways that fit its format: bytes, zip entries, pickle opcodes, tensors, headers, JSON, protobuf.

    damage(seed, rng) -> Seed       one to three changes to one of its files

Everything is drawn from `rng`, so a case is identified by a number.
"""

from __future__ import annotations

import copy
import io
import json
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_buffers import encode_message, list_fields, parse_message
from fuzz_seeds import Seed, torch_bytes, zipped
from torch import Tensor

Rng = np.random.Generator
Change = Callable[[bytes, Rng], bytes]
JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    3,
    2**31,
    2**63,
    10**30,
    1e300,
    float("nan"),
    float("inf"),
    -0.0,
    "",
    "x",
    "../../etc/passwd",
    "0.weight",
    "\x1b[31m",
    "\ud800",
    [],
    [1],
    [[[]]],
    {},
    {"a": {}},
    "9" * 5000,
    [0] * 64,
)
SIZES = (0, 1, 2, 3, 5, 7, 8, 64, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**64 - 1)
DTYPES = (
    torch.int64,
    torch.bool,
    torch.uint8,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
    torch.int32,
)
OPCODES = [bytes([code]) for code in b"Rbsut\x85\x86\x87\x9302(}]NQ\x81lda1eJKMq\x8ch\x94\x92\x90cio"]


def damage(seed: Seed, rng: Rng) -> Seed:
    """The seed with one file changed, and rarely another missing."""
    name = _pick(rng, sorted(seed.files))
    content = seed.files[name]
    for turn in range(int(rng.integers(1, 4))):
        # Only undamaged content is unpickled here; damaged content is left to gandiag.
        changes = [change for change in _list_changes(name, content) if turn == 0 or change is not change_tensors]
        content = _pick(rng, changes)(content, rng)
    files = {**seed.files, name: content}
    if len(files) > 1 and rng.random() < 0.05:
        del files[_pick(rng, sorted(set(files) - {seed.target}))]
    return replace(seed, files=files)


def _list_changes(name: str, content: bytes) -> list[Change]:
    """Changes for a file, by its bytes. The more a change keeps of the format, the deeper it gets into the reader."""
    if content.startswith(b"PK"):
        samples = {".npz": [change_npz] * 3, ".zip": [scramble]}.get(Path(name).suffix)
        torch_changes = [change_inner_pickle] * 2 + [change_tensors] * 4
        return [scramble, change_entries, change_directory, *(samples or torch_changes)]
    if content[:1] == b"\x80" or name.endswith(".pkl"):
        return [scramble, change_opcodes, change_opcodes, change_opcodes] + (
            [change_tensors] * 2 if content[2:4] == b"\x8a\x0a" else []
        )
    if content.startswith(b"\x93NUMPY"):
        return [scramble, change_npy]
    if content[8:9] == b"{":
        return [scramble, change_header, change_header, change_safetensors, change_safetensors]
    if content[:1] in (b"{", b"["):
        return [scramble, replace_text, change_json, change_json, change_json]
    return [scramble, change_fields, change_fields, change_fields] if name.endswith(".onnx") else [scramble]


def _pick(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


# bytes


def scramble(whole: bytes, rng: Rng) -> bytes:
    """A few bytes set, removed, doubled or moved."""
    out = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        at, other, length = (int(rng.integers(most)) for most in (len(out) or 1, len(out) or 1, 24))
        piece = [
            rng.bytes(1),
            rng.bytes(4),
            b"",
            bytes(out[at : at + length]) * 2,
            bytes(out[other : other + length]),
            b"\xff" * 8,
        ][int(rng.integers(6))]
        out[at : at + (len(piece) if len(piece) in (1, 4, 8) else length)] = piece
    return bytes(out[: int(rng.integers(len(out) + 1))] if rng.random() < 0.1 else out)


# zip archives


def unzipped(whole: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return {}


def change_entries(whole: bytes, rng: Rng) -> bytes:
    """An entry dropped, renamed, truncated, compressed, swapped or added."""
    parts = unzipped(whole)
    if not parts:
        return scramble(whole, rng)
    name, other, choice = _pick(rng, list(parts)), _pick(rng, list(parts)), int(rng.integers(7))
    if choice == 0:
        del parts[name]
    elif choice == 1:
        new = _pick(
            rng,
            [
                "../x",
                "/etc/x",
                "a" * 300,
                "é\u202e",
                name + "x",
                name.upper(),
                "constants.pkl",
                "a/.data/extern_modules",
                other.replace("/", "\\"),
                "",
            ],
        )
        parts = {new if key == name else key: entry for key, entry in parts.items()}
    elif choice == 2:
        parts[name] = parts[name][: int(rng.integers(len(parts[name]) + 1))]
    elif choice == 3:
        return zipped(parts, (name,))
    elif choice == 4:
        parts[name], parts[other] = parts[other], parts[name]
    elif choice == 5:
        parts[name] = scramble(parts[name] or b"\0", rng)
    else:
        parts[_pick(rng, ["archive/byteorder", "archive/data/0", "archive/.format_version", "archive/code/x.py"])] = (
            _pick(rng, [b"big", b"", bytes(8), b"3\n"])
        )
    return zipped(parts)


def change_directory(whole: bytes, rng: Rng) -> bytes:
    """Bytes of the central directory: offsets, sizes, names, counts."""
    start = max(0, whole.find(b"PK\x01\x02"))
    return whole[:start] + scramble(whole[start:], rng)


def change_inner_pickle(whole: bytes, rng: Rng) -> bytes:
    """The pickle of a torch archive, by its opcodes."""
    parts = unzipped(whole)
    pickles = [name for name in parts if name.endswith(".pkl")]
    if not pickles:
        return scramble(whole, rng)
    name = _pick(rng, pickles)
    parts[name] = change_opcodes(parts[name], rng)
    return zipped(parts)


# pickles


def _ops(whole: bytes) -> Iterator[tuple[int, int, str, Any]]:
    """(start, end, name, argument) of every opcode of every pickle in a stream, as far as they can be parsed."""
    start = 0
    while start < len(whole):
        ops = []
        try:
            for op, argument, place in pickletools.genops(whole[start : start + 400_000]):
                ops.append((start + (place or 0), op.name, argument))
        except Exception:
            return
        ends = [place for place, _, _ in ops[1:]] + [ops[-1][0] + 1]
        yield from ((place, end, name, argument) for (place, name, argument), end in zip(ops, ends, strict=True))
        start = ends[-1]


def change_opcodes(whole: bytes, rng: Rng) -> bytes:
    """An opcode dropped, doubled, moved or replaced; or its argument: another number, another name."""
    ops = list(_ops(whole))
    if not ops:
        return scramble(whole, rng)
    with_argument = [op for op in ops if isinstance(op[3], (int, str)) and not isinstance(op[3], bool)]
    start, end, name, argument = _pick(rng, with_argument if with_argument and rng.random() < 0.6 else ops)
    first, last = _pick(rng, ops)[:2]
    choice = int(rng.integers(4))
    if name in ("BININT", "BININT1", "BININT2", "LONG1") and rng.random() < 0.7:
        new = _encode_number(int(_pick(rng, [*SIZES, argument + 1, argument - 1, -argument, argument * 2])))
    elif name in ("BINUNICODE", "SHORT_BINUNICODE") and rng.random() < 0.7:
        text = str(
            _pick(
                rng,
                [op[3] for op in ops if isinstance(op[3], str)]
                + ["", "weight", "0", "..", "\ud800", "x" * 300, argument + "1", argument[:-1]],
            )
        )
        coded = text.encode("utf-8", "surrogatepass")
        new = b"X" + struct.pack("<I", len(coded)) + coded
    else:
        new = [b"", whole[start:end] * 2, whole[first:last], _pick(rng, OPCODES)][choice]
    return whole[:start] + new + whole[end:]


def _encode_number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    coded = value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(coded)]) + coded


# tensors


def change_tensors(whole: bytes, rng: Rng) -> bytes:
    """The content of a torch file with a key or a tensor changed, saved again."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=False)
    except Exception:
        return change_inner_pickle(whole, rng) if whole.startswith(b"PK") else change_opcodes(whole, rng)
    if not isinstance(tree, dict):
        return change_inner_pickle(whole, rng) if whole.startswith(b"PK") else change_opcodes(whole, rng)
    tree = copy.deepcopy(tree)
    change_tree(tree, rng)
    try:
        return torch_bytes(tree, zipped=whole.startswith(b"PK"))
    except Exception:
        return scramble(whole, rng)


def change_safetensors(whole: bytes, rng: Rng) -> bytes:
    from safetensors.torch import load, save

    try:
        tree: dict[Any, Any] = load(whole)
        change_tree(tree, rng)
        return save({str(name): entry.contiguous() for name, entry in tree.items() if isinstance(entry, Tensor)})
    except Exception:
        return scramble(whole, rng)


def change_tree(tree: dict[Any, Any], rng: Rng) -> None:
    """One change to one mapping of a nested tree, most often one with tensors."""
    mappings = list(_iter_mappings(tree))
    with_tensors = [entry for entry in mappings if sum(isinstance(value, Tensor) for value in entry.values()) > 1]
    node = _pick(rng, with_tensors if with_tensors and rng.random() < 0.85 else mappings)
    if not node:
        return
    key, other, choice = _pick(rng, list(node)), _pick(rng, list(node)), int(rng.integers(10))
    if choice == 0:
        del node[key]
    elif choice == 1:
        new = _pick(
            rng,
            [
                f"{key}x",
                f"module.{key}",
                str(key).replace("0", "1"),
                str(key).rpartition(".")[2],
                other,
                7,
                "",
                f"{key}.weight",
                str(key).upper(),
            ],
        )
        node[new] = node.pop(key)
    elif choice == 2:
        node[key], node[other] = node[other], node[key]
    elif choice == 3:
        node[key] = _pick(rng, JUNK[:18])
    elif choice <= 6:
        _resize(node, str(key), rng)
    elif isinstance(node[key], Tensor):
        node[key] = _alter(node[key], rng)


def _iter_mappings(tree: Any) -> Iterator[dict[Any, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _iter_mappings(value)


def _resize(node: dict[Any, Any], key: str, rng: Rng) -> None:
    """Change one width in all tensors below part of the key's path: it may fit its own layer, but not the next."""
    parts = key.split(".")
    head = ".".join(parts[: int(rng.integers(len(parts) + 1))])
    sizes = [
        size
        for name, entry in node.items()
        if str(name).startswith(head) and isinstance(entry, Tensor)
        for size in entry.shape
    ]
    if not sizes:
        return
    old = _pick(rng, sizes)
    new = int(_pick(rng, [1, 2, 3, old + 1, max(1, old - 1), 2 * old, max(1, old // 2)]))
    only_axis = None if rng.random() < 0.5 else int(rng.integers(4))
    for name, entry in node.items():
        if str(name).startswith(head) and isinstance(entry, Tensor):
            for axis, size in enumerate(entry.shape):
                if size == old and only_axis in (None, axis):
                    entry = entry.index_select(axis, torch.arange(new) % max(1, old)) if old else entry
            node[name] = entry


def _alter(entry: Tensor, rng: Rng) -> Tensor:
    choices: list[Callable[[], Tensor]] = [
        lambda: entry.transpose(0, -1) if entry.ndim else entry,
        lambda: entry[None],
        lambda: entry.reshape(-1),
        lambda: entry[:0] if entry.ndim else entry,
        lambda: entry[:1] if entry.ndim else entry[None],
        lambda: entry.to(_pick(rng, DTYPES)),
        lambda: entry * float("nan"),
        lambda: entry * 0,
        lambda: entry * 1e30,
        lambda: torch.cat([entry, entry]) if entry.ndim else entry,
        lambda: entry.mean() if entry.is_floating_point() else entry,
        lambda: entry.unsqueeze(-1),
        lambda: entry[..., :1] if entry.ndim else entry,
        lambda: entry * -1,
        lambda: entry.reshape(-1)[:1].expand(5, 5),
    ]
    try:
        return _pick(rng, choices)()
    except Exception:
        return entry


# headers, JSON, arrays


def change_header(whole: bytes, rng: Rng) -> bytes:
    """The table of a safetensors file."""
    length = int.from_bytes(whole[:8], "little")
    new = change_json(whole[8 : 8 + length], rng)
    claimed = len(new) if rng.random() < 0.9 else int(_pick(rng, SIZES))
    return struct.pack("<Q", claimed) + new + whole[8 + length :]


def change_json(whole: bytes, rng: Rng) -> bytes:
    """A value of a JSON text replaced, dropped, or moved to another key."""
    try:
        root = json.loads(whole)
    except (ValueError, RecursionError):
        return scramble(whole, rng)
    locations = list(_iter_locations(root))
    if not locations:
        return json.dumps(_pick(rng, JUNK)).encode()
    holder, key = _pick(rng, locations)
    choice = int(rng.integers(5))
    if choice == 0:
        del holder[key]
    elif choice == 1 and isinstance(holder, dict):
        holder[str(_pick(rng, ["", "x", "_class_name", "__metadata__", "settings"]))] = holder.pop(key)
    elif choice == 2:
        holder[key], other = _pick(rng, SIZES), holder[key]
        holder[key] = -other if isinstance(other, int) and rng.random() < 0.3 else holder[key]
    else:
        holder[key] = _pick(rng, JUNK)
    return json.dumps(root).encode()


def _iter_locations(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    if isinstance(node, (dict, list)):
        for key, entry in node.items() if isinstance(node, dict) else enumerate(node):
            yield node, key
            yield from _iter_locations(entry)


def replace_text(whole: bytes, rng: Rng) -> bytes:
    return bytes(
        _pick(
            rng,
            [
                b"",
                b"{",
                b"[" * 100_000,
                b"null",
                b'{"a": 1, "a": 2}',
                b"\xff\xfe",
                whole[:-1],
                whole * 2,
                b'{"a": ' * 5000,
                b"9" * 10_000,
            ],
        )
    )


def change_npy(whole: bytes, rng: Rng) -> bytes:
    """The header of an .npy array: its type, order and shape."""
    length = int.from_bytes(whole[8:10], "little")
    text = whole[10 : 10 + length].decode("latin1")
    old = _pick(rng, ["(", ")", "6", "8", "3", "False", "|u1", "<i8", "<f8", "'", "{", "shape", ","])
    junk = (
        "",
        "(",
        "-1",
        "0",
        "9" * 12,
        "2**9",
        "True",
        "|O",
        "<U4",
        ">f8",
        "<c16",
        "<m8[s]",
        "'",
        "None",
        "[",
        "1, " * 40,
        "x",
        "\\x00",
        "(" * 500,
    )
    new = text.replace(old, _pick(rng, junk), int(rng.integers(1, 3))).encode("latin1")
    claimed = len(new) if rng.random() < 0.9 else int(rng.integers(65_536))
    return whole[:8] + struct.pack("<H", claimed % 65_536) + new + whole[10 + length :]


def change_npz(whole: bytes, rng: Rng) -> bytes:
    parts = unzipped(whole)
    if not parts:
        return scramble(whole, rng)
    name = _pick(rng, list(parts))
    parts[name] = change_npy(parts[name], rng)
    return zipped(parts)


# protocol buffers


def change_fields(whole: bytes, rng: Rng) -> bytes:
    """A field dropped, doubled, renumbered, retyped or given another value, at any depth."""
    locations: list[tuple[list[Any], int]] = []
    root = parse_message(whole, 0)
    if root is None:
        return scramble(whole, rng)
    list_fields(root, locations)
    if not locations:
        return whole
    holder, index = _pick(rng, locations)
    number, wire, value = holder[index]
    choice = int(rng.integers(6))
    if choice == 0:
        del holder[index]
    elif choice == 1:
        holder.insert(index, holder[index])
    elif choice == 2:
        holder[index] = (int(_pick(rng, [1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 14, 0, 1000])), wire, value)
    elif choice == 3 or wire == 0:
        holder[index] = (number, 0, int(_pick(rng, SIZES)))
    elif choice == 4:
        other, place = _pick(rng, locations)
        if place < len(other) and other is not holder:
            holder[index] = (number, *other[place][1:])
    elif isinstance(value, bytes):
        holder[index] = (
            number,
            wire,
            _pick(rng, [b"", scramble(value or b"a", rng), value * 2, b"..", b"\xff\xfe", b"x" * 300]),
        )
    return encode_message(root)


def write(seed: Seed, folder: Path) -> Path:
    """Write the files of a seed into a folder; returns the path to load."""
    for name, content in seed.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / seed.target if seed.target else folder
