"""Keeps what the search over readings found, by the content of the weights, so that a file is searched only once.

An entry is a JSON document in the user's own cache, named by a hash of everything that the search depends on: weights,
settings, budget and versions. It holds numbers alone, which are checked against a schema and a checksum; whatever is
wrong with an entry or the folder, the search runs again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gandiag import __version__
from gandiag.checkpoints.inference.search_state import PassResults, SearchState, search_budget
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig, setting_group
from gandiag.untrusted import schema
from gandiag.untrusted.cache_folder import find_cache_folder
from gandiag.untrusted.files import parse_json, read_bytes, write_file

SCHEMA = "gandiag.search/1"  # increment it when the way passes are run or named changes
_FOLDER, _MAX_ENTRIES = "searches", 500
_MAX_BYTES = 4 << 20
_MAX_PASSES, _MAX_NUMBERS = 20_000, 200
_GROUPS = ("load", "latent", "output")  # of settings that may change how weights are read
_DOCUMENT = schema.table(
    {
        "schema": schema.text(SCHEMA),
        "checksum": schema.text(),
        "passes": schema.mapping_of(
            schema.list_of(schema.optional(schema.number(low=0.0)), longest=_MAX_NUMBERS),
        ),
    },
    required=("schema", "checksum", "passes"),
    closed=True,
)


@dataclasses.dataclass(frozen=True, slots=True)
class SearchStore:
    """The entry of one file. `path`: None where nothing is kept."""

    path: Path | None
    budget: float

    @classmethod
    def of_weights(cls, weights: Weights, config: AuditConfig, *, inspect_only: bool) -> SearchStore:
        """The entry for these weights under these settings. Cost: one pass over the weights."""
        budget = search_budget(weights.n_parameters, inspect_only=inspect_only)
        root = find_cache_folder() if budget else None
        return cls(None if root is None else root / _FOLDER / f"{_hash_search(weights, config, budget)}.json", budget)

    def restore(self) -> SearchState:
        """A new search, with what an earlier one has found."""
        results: PassResults = {}
        if self.path is not None:
            with suppress(OSError, ValueError):
                results = _parse(read_bytes(self.path, _MAX_BYTES))
        return SearchState(self.budget, results)

    def keep(self, state: SearchState) -> None:
        """Store what the search found, if anything is new. Never fails."""
        if self.path is None or not state.n_new or len(state.results) > _MAX_PASSES:
            return
        passes = {key: [_to_json(number) for number in values] for key, values in state.results.items()}
        document = {"schema": SCHEMA, "checksum": _checksum(passes), "passes": passes}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.path, json.dumps(document, allow_nan=False).encode(), follow_links=False)
            _evict(self.path.parent)


def _hash_search(weights: Weights, config: AuditConfig, budget: float) -> str:
    """A hash of all that the search depends on."""
    digest = hashlib.blake2b(digest_size=20)
    settings = {name: getattr(config, name) for name in sorted(setting_group(*_GROUPS))}
    parts = (SCHEMA, __version__, torch.__version__, budget, settings, weights.module_names)
    digest.update(repr(parts).encode())
    for name, tensor in weights.tensors.items():
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(_tensor_bytes(tensor))
    return digest.hexdigest()


def _tensor_bytes(tensor: Tensor) -> bytes | memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _parse(content: bytes) -> PassResults:
    """The passes of a document. ValueError where it is not one of ours."""
    document = parse_json(content)
    schema.check(_DOCUMENT, document)
    passes: Mapping[str, list[float | None]] = document["passes"]
    if len(passes) > _MAX_PASSES or not all(passes.values()) or document["checksum"] != _checksum(passes):
        raise ValueError("the passes do not match their checksum")
    return {key: tuple(math.inf if number is None else number for number in values) for key, values in passes.items()}


def _checksum(passes: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(passes, sort_keys=True).encode(), digest_size=16).hexdigest()


def _to_json(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _evict(folder: Path) -> None:
    """Remove the oldest entries beyond the limit."""
    entries = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in entries[: max(0, len(entries) - _MAX_ENTRIES)]:
        path.unlink(missing_ok=True)
