"""The files of shards: safetensors with the batches of one part of an audit, and a header that says of which audit.

A file is complete or not there, and its checksum covers all of it. It holds no code, and nothing in it is believed:
`merge` compares every header with the others and with the audit that it opens itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gandiag.checkpoints.safetensors_header import read_header
from gandiag.errors import GandiagError, LoadError, RecordError
from gandiag.interfaces import Batch
from gandiag.sampling.module_state import tensor_to_bytes
from gandiag.sampling.shards import Shard, parse_shard
from gandiag.untrusted.files import open_regular, parse_json, write_file

SHARD_FORMAT = "gandiag.shard/1"
_NAME = "gandiag.shard"  # of the entry in the file's metadata


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """Of which audit a file is a part.

    `path`: the file. `subject`: what is audited, as given. `settings`: name -> {value, source}. `identity`: facts that
    must be the same in every shard, such as the hashes of weights and real data.
    """

    path: str
    shard: Shard
    subject: str
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]


def write_shard_file(
    header: ShardHeader, batches: Mapping[str, Sequence[Batch]], views: Mapping[str, Sequence[str]]
) -> None:
    """Write the batches of each role. `views`: role -> names of the views to store; "samples" are the raw samples."""
    tensors = {
        f"{role}/{name}": value.contiguous()
        for role, parts in batches.items()
        for name, value in _stack_batches(parts, views[role]).items()
    }
    strides = {
        f"{role}/{name}": list(value.stride())
        for role, parts in batches.items()
        for name, value in (_values(parts[0], views[role]) if parts else {}).items()
        if not value.is_contiguous()
        and value.stride(0) == max(value.stride())
        and _is_dense(value.shape, value.stride())
    }
    document = {
        "strides": strides,
        "format": SHARD_FORMAT,
        "shard": str(header.shard),
        "subject": header.subject,
        "settings": header.settings,
        "identity": header.identity,
    }
    text = json.dumps(document, allow_nan=False)
    write_file(Path(header.path), save(tensors, {_NAME: text, "sum": _checksum(text, tensors)}))


def read_shard_header(path: str) -> ShardHeader:
    """The header of a file, without its tensors. RecordError for a file that is no shard of this version."""
    try:
        _, metadata = read_header(Path(path))
        document = parse_json(metadata[_NAME])
        if document["format"] != SHARD_FORMAT:
            raise RecordError(
                f"{path} is of the format {str(document['format'])[:40]!r}, this gandiag reads {SHARD_FORMAT!r}",
                "make every shard and the merge with the same version",
            )
        shard, subject = parse_shard(document["shard"]), document["subject"]
        settings, identity = document["settings"], document["identity"]
        if not isinstance(subject, str) or not all(
            isinstance(entry, dict) for entry in (settings, identity, identity["versions"])
        ):
            raise TypeError
    except RecordError:
        raise
    except (GandiagError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        damage = f": {error.message}" if isinstance(error, LoadError) else ""
        raise RecordError(
            f"{path} is not a shard of an audit, or is damaged{damage}",
            "give files written by `gandiag audit --shard K/W -o FILE`",
        ) from None
    return ShardHeader(path, shard, subject, settings, identity)


def read_shard_batches(header: ShardHeader) -> dict[str, list[Batch]]:
    """Role -> its batches in this file. RecordError where the file is damaged."""
    try:
        _, metadata = read_header(Path(header.path))
        with open_regular(header.path) as stream:
            tensors = load(stream.read())
        if metadata["sum"] != _checksum(metadata[_NAME], tensors):
            raise ValueError
        roles = sorted({name.partition("/")[0] for name in tensors})
        strides = parse_json(metadata[_NAME])["strides"]
        return {role: _cut_batches(role, tensors, strides) for role in roles}
    except (GandiagError, SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError):
        raise RecordError(
            f"{header.path} is damaged", f"make it again: gandiag audit … --shard {header.shard} -o {header.path}"
        ) from None


def _stack_batches(parts: Sequence[Batch], views: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of one role: indices, size of each batch, labels, samples and features."""
    if not parts:
        return {"indices": torch.empty(0, dtype=torch.int64), "sizes": torch.empty(0, dtype=torch.int64)}
    tensors = {
        "indices": torch.cat([part.indices for part in parts]),
        "sizes": torch.tensor([len(part.indices) for part in parts]),
    }
    labels = [part.labels for part in parts if part.labels is not None]
    if len(labels) == len(parts):
        tensors["labels"] = torch.cat(labels)
    values = [_values(part, views) for part in parts]
    tensors |= {name: torch.cat([value[name] for value in values]) for name in values[0]}
    return {name: value.detach().cpu() for name, value in tensors.items()}


def _values(batch: Batch, views: Sequence[str]) -> dict[str, Tensor]:
    """The samples and features of a batch, by their names in the file."""
    features = {f"view:{name}": batch.features[name] for name in views if name != "samples"}
    return features | ({"samples": batch.samples} if "samples" in views else {})


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether values of these strides fill their memory."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return min(strides) >= 1 and span == math.prod(shape)


def _with_strides(value: Tensor, strides: Sequence[int] | None) -> Tensor:
    """The same values in the order in memory that they had, by which sums round. ValueError for impossible strides."""
    if strides is None:
        return value
    if not _is_dense(value.shape, strides):
        raise ValueError("strides")
    return torch.empty_strided(tuple(value.shape), tuple(strides), dtype=value.dtype).copy_(value)


def _cut_batches(role: str, tensors: Mapping[str, Tensor], strides: Mapping[str, Sequence[int]]) -> list[Batch]:
    """The batches of one role, from the tensors of its file."""
    sizes = [int(size) for size in tensors[f"{role}/sizes"]]
    parts = {
        name.partition("/")[2]: [_with_strides(part, strides.get(name)) for part in torch.split(values, sizes)]
        for name, values in tensors.items()
        if name.startswith(f"{role}/") and name != f"{role}/sizes"
    }
    views = [name for name in parts if name.startswith("view:")]
    return [
        Batch(
            parts["samples"][at] if "samples" in parts else torch.empty(size, 0),
            parts["indices"][at],
            parts["labels"][at] if "labels" in parts else None,
            {name.removeprefix("view:"): parts[name][at] for name in views},
        )
        for at, size in enumerate(sizes)
    ]


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        total.update(f"\0{name}\0{tensors[name].dtype}{tuple(tensors[name].shape)}".encode())
        total.update(tensor_to_bytes(tensors[name]))
    return total.hexdigest()


# the set of files


def check_shard_set(headers: Sequence[ShardHeader]) -> None:
    """RecordError unless the files are all shards of one audit, each once. Names the files."""
    first = headers[0]
    for header in headers[1:]:
        _require_same_audit(first, header)
    seen: dict[int, str] = {}
    for header in headers:
        other = seen.get(header.shard.number)
        seen[header.shard.number] = header.path
        if other is not None:
            files = header.path if header.path == other else f"{other} and {header.path}"
            raise RecordError(f"shard {header.shard} is there twice: {files}", "give each shard once")
    count = first.shard.count
    missing = [number for number in range(1, count + 1) if number not in seen]
    if missing:
        raise RecordError(
            f"{len(missing)} of {count} shards {'is' if len(missing) == 1 else 'are'} missing: {_list(missing)}",
            f"make each: gandiag audit … --shard {missing[0]}/{count} -o FILE",
        )


def _list(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:10])
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"


def _require_same_audit(first: ShardHeader, other: ShardHeader) -> None:
    difference = describe_difference(_facts(first), _facts(other))
    if difference:
        what, expected, found = difference
        raise RecordError(
            f"{other.path} is a shard of another audit than {first.path}: {what} is {found}, not {expected}",
            "give the shards of one audit",
        )


def _facts(header: ShardHeader) -> dict[str, Any]:
    """What must agree, the plainest reasons first."""
    settings = {
        f"the setting {name}": entry.get("value") if isinstance(entry, dict) else entry
        for name, entry in header.settings.items()
    }
    subject, count = {"the subject": header.subject}, {"the number of shards": header.shard.count}
    return {**count, **header.identity["versions"], **subject, **settings, **header.identity}


def describe_difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first fact that differs, with both values as short text."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        ours, theirs = expected.get(name), found.get(name)
        if ours != theirs:
            return name, _shorten(ours), _shorten(theirs)
    return None


def _shorten(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
