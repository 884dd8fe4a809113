"""What reading one file may cost: steps, bytes and comparisons, counted once for the whole file. Torch-free.

A pickle of a kilobyte can ask for years: parts that share parts, tables copied again and again, keys that hash alike,
one long text used a million times. Whatever the trick, it takes steps or bytes, and both run out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from gandiag.checkpoints.safe_pickle.nodes import GlobalRef
from gandiag.errors import LoadError

MAX_STEPS = 3_000_000  # opcodes: a checkpoint with millions of logged numbers, or a few seconds
MAX_MEMORY_BYTES = 192 * 2**20  # strings, numbers and containers held in memory
_FREE_STEPS, _STEPS_PER_BYTE = 20_000, 2  # a file whose parts are read again and again has more
_FREE_WALK, _WALK_PER_STEP = 50_000, 4  # visits of nodes, after parsing
_FREE_COPIES, _COPIES_PER_BYTE = 64 * 2**20, 8  # bytes of tensors, views of the same bytes counted each
_MAX_UNSAFE_KEYS = 2_000  # keys whose hashes whoever wrote the file can choose
OBJECT_BYTES, DICT_BYTES = 600, 150  # of an empty object and dict, here and in what is built from them
_CHARACTERS_PER_STEP = 64
_MAX_CALLS = 40  # calls and source texts that are recorded


@dataclass(slots=True)
class ParseBudget:
    """What reading a file may still cost, and what its pickles name. Shared with pickles nested inside."""

    file_size: int
    steps_left: int = MAX_STEPS
    bytes_left: int = MAX_MEMORY_BYTES
    unsafe_keys_left: int = _MAX_UNSAFE_KEYS
    copies_left: int = 0
    walk_left: int = 0
    nesting_depth: int = 0
    protocol: int = 0
    global_names: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    sources: dict[str, dict[str, None]] = field(default_factory=dict)  # source text -> classes that carry it
    calls: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps_left = min(MAX_STEPS, _FREE_STEPS + _STEPS_PER_BYTE * self.file_size)
        self.copies_left = _FREE_COPIES + _COPIES_PER_BYTE * self.file_size
        self.walk_left = self.max_walk()

    @property
    def steps(self) -> int:
        """Steps taken."""
        return min(MAX_STEPS, _FREE_STEPS + _STEPS_PER_BYTE * self.file_size) - self.steps_left

    def max_walk(self) -> int:
        """Visits of nodes that one walk over everything may take."""
        return _FREE_WALK + _WALK_PER_STEP * self.steps

    def use_steps(self, count: int = 1) -> None:
        """Count opcodes, or entries that one opcode copies. LoadError beyond the limit."""
        self.steps_left -= count
        if self.steps_left < 0:
            raise LoadError(
                f"the pickle in this file has too many steps for its {self.file_size:,} bytes: too long, or malicious",
                "save the weights alone",
            )

    def use_bytes(self, count: int) -> None:
        """Count bytes of text, numbers and containers. LoadError beyond `MAX_MEMORY_BYTES`."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise LoadError(
                f"the pickle in this file makes more than {MAX_MEMORY_BYTES >> 20} MiB of text, numbers and objects: "
                "malformed or hostile",
                "save the weights alone",
            )

    def use_key(self, key: Any) -> None:
        """Count a key whose hash its author can choose: many that hash alike take quadratic time."""
        if isinstance(key, tuple) or (type(key) in (int, float, complex) and not abs(key) < 2**60):
            self.unsafe_keys_left -= 1
            if self.unsafe_keys_left < 0:
                raise LoadError(
                    f"the pickle in this file has more than {_MAX_UNSAFE_KEYS:,} keys that are tuples or huge numbers: "
                    "malformed or hostile",
                    "save the weights alone",
                )

    def begin_walk(self) -> None:
        """Start a walk over everything that was parsed."""
        self.walk_left = self.max_walk()

    def use_walk(self, count: int = 1, text: str = "") -> None:
        """Count visits of nodes, and the characters of a path that is made. LoadError beyond the limit."""
        self.walk_left -= count + len(text) // _CHARACTERS_PER_STEP
        if self.walk_left < 0:
            raise LoadError(
                "the parts of this file refer to each other without end: malformed or hostile", "do not load it"
            )

    def use_copies(self, count: int) -> None:
        """Count bytes of tensors. LoadError for many tensors that are made of the same bytes."""
        self.copies_left -= count
        if self.copies_left < 0:
            raise LoadError(
                f"the tensors of this file claim far more than its {self.file_size:,} bytes: malformed or hostile",
                "do not load it",
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
