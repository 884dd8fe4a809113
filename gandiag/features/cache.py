"""Caches real features by content, so that a second audit against the same data costs the generated samples only.

An entry is one view of one set of samples: a safetensors file, named by a hash of the files' contents, the features,
the output that the samples were fitted to, and the subset. The cache never makes an audit fail: a folder that cannot be
written or a damaged entry leads to a note, and the features are computed again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gandiag.features.views import FeatureView, embed_batch, noise_seed_for
from gandiag.interfaces import Batch, OutputSpec
from gandiag.sampling.latents import chunk_slices
from gandiag.sampling.module_state import tensor_to_bytes
from gandiag.sampling.shards import WHOLE, Shard
from gandiag.sampling.sources import SampleSet
from gandiag.untrusted.cache_folder import find_cache_folder
from gandiag.untrusted.files import read_bytes

FORMAT = "gandiag.features/3"  # increment it when the way samples are read or fitted changes
MAX_CACHE_BYTES = 2 << 30  # of the folder; least recently used entries are removed first
_ABANDONED_SECONDS = 86_400  # age from which an unfinished file is removed


class FeatureCache:
    """Features on disk under `root`; None disables the cache. `notes` lists, once each, what failed."""

    def __init__(self, root: Path | None, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self.root, self.max_bytes = root, max_bytes
        self.notes: list[str] = []

    @classmethod
    def default(cls, environ: Mapping[str, str] | None = None) -> FeatureCache:
        """$GANDIAG_CACHE ("off" disables it), else $XDG_CACHE_HOME/gandiag, else ~/.cache/gandiag."""
        return cls(find_cache_folder(environ))

    def get(self, key: str, shape: tuple[int, int]) -> Tensor | None:
        """The features stored under `key`, (n, D) float32; None if missing, damaged or of another shape."""
        if self.root is None:
            return None
        path = self._path(key)
        try:
            features = _read_entry(path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            self._note(f"a cached entry could not be read and is computed again ({type(error).__name__})")
            return None
        if features is None or tuple(features.shape) != shape or features.dtype != torch.float32:
            self._note("a cached entry was damaged and is computed again")
            return None
        with suppress(OSError):
            os.utime(path)  # marks the entry as recently used
        return features

    def put(self, key: str, features: Tensor) -> None:
        """Store (n, D) float32 features atomically. Never fails: `notes` says why nothing was stored."""
        if self.root is None or features.numel() * 4 > self.max_bytes:
            return
        scratch = self.root / f".{secrets.token_hex(8)}.part"
        checksum = torch.tensor(list(_checksum(features)), dtype=torch.uint8)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(save({"features": features.contiguous(), "sum": checksum}))
            os.replace(scratch, self._path(key))
            self._evict()
        except OSError as error:
            self._note(f"features were not cached: {error.strerror or error}")
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert self.root is not None
        return self.root / f"{key}.safetensors"

    def _evict(self) -> None:
        """Bring the folder under its size limit, and remove what crashed writers left; safe with other processes."""
        assert self.root is not None
        entries = []
        for path in self.root.iterdir():
            with suppress(FileNotFoundError):
                stat = path.stat()
                if path.suffix == ".safetensors":
                    entries.append((stat.st_mtime, stat.st_size, path))
                elif path.suffix == ".part" and time.time() - stat.st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
        total = 0
        for _, size, path in sorted(entries, reverse=True):
            total += size
            if total > self.max_bytes:
                path.unlink(missing_ok=True)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, slots=True)
class CachedRealFeatures:
    """Iterates over the real data with every view filled, from the cache where possible. `shard`: only its batches."""

    samples: SampleSet
    views: Sequence[FeatureView]
    fit: OutputSpec
    limit: int | None = None
    cache: FeatureCache = field(default_factory=lambda: FeatureCache(None))
    shard: Shard = WHOLE

    def batches(self, batch_size: int, *, with_samples: bool = True) -> Iterator[Batch]:
        """Batches by ascending key. Computed features are stored once the iterator is exhausted, those of a part never.

        `with_samples=False`: the samples themselves are not needed. Where every view is cached, they are then not
        converted, and `batch.samples` is (B, 0).
        """
        positions = self.samples.choose(self.limit)
        keys = self._cache_keys()
        cached = self._load_cached(keys, len(positions))
        positions = self.shard.choose_rows(positions, batch_size)
        cached = {name: self.shard.choose_rows(features, batch_size) for name, features in cached.items()}
        slices = chunk_slices(len(positions), batch_size)
        if not with_samples and len(cached) == len(self.views) and self._labels_known:
            yield from self._cached_batches(positions, cached, slices)
            return
        computed: dict[str, list[Tensor]] = {name: [] for name in keys if name not in cached}
        sample_batches = self.samples.read_rows(positions, batch_size, self.fit)
        for rows, batch in zip(slices, sample_batches, strict=True):
            partial = replace(batch, features={name: features[rows] for name, features in cached.items()})
            embedded = embed_batch(partial, self.views, self.fit, noise_seed=noise_seed_for("real"))
            for name, parts in computed.items():
                parts.append(embedded.features[name])
            yield embedded
        for name, parts in computed.items() if self.shard.is_whole else ():
            self.cache.put(keys[name], torch.cat(parts))

    def _cached_batches(
        self, positions: Tensor, cached: Mapping[str, Tensor], slices: Sequence[slice]
    ) -> Iterator[Batch]:
        labels = self.samples.labels
        for rows in slices:
            chosen = positions[rows]
            batch_labels = None if labels is None else labels[chosen]
            features = {name: values[rows] for name, values in cached.items()}
            yield Batch(torch.empty(len(chosen), 0), self.samples.keys[chosen], batch_labels, features)

    @property
    def _labels_known(self) -> bool:
        return self.samples.labels is not None or not hasattr(self.samples.reader, "dataset")

    def _cache_keys(self) -> dict[str, str]:
        """View -> cache key, for the views worth storing."""
        cacheable = [view for view in self.views if getattr(view.extractor, "cacheable", True)]
        if self.cache.root is None or not cacheable:
            return {}
        content_hash = self.samples.fingerprint(self.limit)
        return {view.name: cache_key(content_hash, view, self.fit, self.limit) for view in cacheable}

    def _load_cached(self, keys: Mapping[str, str], n: int) -> dict[str, Tensor]:
        """View -> its cached features (n, D), for the entries that exist."""
        cached = {}
        for view in self.views:
            features = self.cache.get(keys[view.name], (n, view.dim)) if view.name in keys else None
            if features is not None:
                cached[view.name] = features
        return cached


def cache_key(content_hash: str, view: FeatureView, fit: OutputSpec, limit: int | None) -> str:
    """The key of an entry: a hash of everything that features of real data depend on."""
    parts = (FORMAT, content_hash, view.fingerprint, fit.kind, fit.shape, fit.range, limit)
    return hashlib.blake2b(repr(parts).encode(), digest_size=20).hexdigest()


def _read_entry(path: Path) -> Tensor | None:
    """The features of an entry, or None if they do not match their checksum."""
    # Read the file once: between two reads another process may replace it.
    stored = load(read_bytes(path, MAX_CACHE_BYTES))
    return stored["features"] if bytes(stored["sum"].tolist()) == _checksum(stored["features"]) else None


def _checksum(features: Tensor) -> bytes:
    return hashlib.blake2b(tensor_to_bytes(features), digest_size=16).digest()
