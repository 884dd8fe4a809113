"""The real pass, kept by content: a second audit against the same data costs the generated side only.

An entry is one view of one set of samples: safetensors, named by a hash of the files' contents, the features, the output
that the samples were fitted to, and the subset. Nothing here can stop an audit: a folder that cannot be written, or an
entry that is damaged, is a note and a recomputation.
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
from gandiag.sampling.sources import SampleSet, select_indices

FORMAT = "gandiag.features/2"  # raise it when the way samples are read or fitted changes
MAX_CACHE_BYTES = 2 << 30  # bytes in the folder; the entries that were used longest ago go first
_STALE = 86_400  # seconds after which an unfinished file is nobody's


class FeatureCache:
    """Features on disk under `root`; None keeps nothing. `notes` says, once each, what did not work."""

    def __init__(self, root: Path | None, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self.root, self.max_bytes = root, max_bytes
        self.notes: list[str] = []

    @classmethod
    def default(cls, environ: Mapping[str, str] | None = None) -> FeatureCache:
        """$GANDIAG_CACHE ("off" keeps nothing), else $XDG_CACHE_HOME/gandiag, else ~/.cache/gandiag."""
        environ = os.environ if environ is None else environ
        chosen = environ.get("GANDIAG_CACHE", "")
        if chosen.lower() == "off":
            return cls(None)
        if chosen:
            return cls(Path(chosen).expanduser())
        try:
            home = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError:  # no home at all
            return cls(None)
        return cls(Path(home) / "gandiag")

    def get(self, key: str, shape: tuple[int, int]) -> Tensor | None:
        """The features stored under `key`, (n, D) float32; None where there are none, or they are damaged or of another shape."""
        if self.root is None:
            return None
        path = self._path(key)
        try:
            found = _read(path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as broken:
            self._note(f"a cached entry could not be read and is computed again ({type(broken).__name__})")
            return None
        if found is None or tuple(found.shape) != shape or found.dtype != torch.float32:
            self._note("a cached entry was damaged and is computed again")
            return None
        with suppress(OSError):
            os.utime(path)  # used now: the last to be evicted
        return found

    def put(self, key: str, features: Tensor) -> None:
        """Keep (n, D) float32 features, atomically; at worst nothing is kept and `notes` says why."""
        if self.root is None or features.numel() * 4 > self.max_bytes:
            return
        scratch = self.root / f".{secrets.token_hex(8)}.part"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(
                save({"features": features.contiguous(), "sum": torch.tensor(list(_sum(features)), dtype=torch.uint8)})
            )
            os.replace(scratch, self._path(key))
            self._evict()
        except OSError as problem:
            self._note(f"features were not cached: {problem.strerror or problem}")
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert self.root is not None
        return self.root / f"{key}.safetensors"

    def _evict(self) -> None:
        """Bring the folder under its cap, and sweep up what crashed writers left. Others may write and evict meanwhile."""
        assert self.root is not None
        found = []
        for path in self.root.iterdir():
            with suppress(FileNotFoundError):
                facts = path.stat()
                if path.suffix == ".safetensors":
                    found.append((facts.st_mtime, facts.st_size, path))
                elif path.suffix == ".part" and time.time() - facts.st_mtime > _STALE:
                    path.unlink()
        held = 0
        for _, size, path in sorted(found, reverse=True):
            held += size
            if held > self.max_bytes:
                path.unlink(missing_ok=True)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, slots=True)
class CachedRealFeatures:
    """The walk over the real data with every view filled, from the cache where it holds them."""

    samples: SampleSet
    views: Sequence[FeatureView]
    fit: OutputSpec
    limit: int | None = None
    cache: FeatureCache = field(default_factory=lambda: FeatureCache(None))

    def batches(self, batch_size: int, *, with_samples: bool = True) -> Iterator[Batch]:
        """Batches in index order. What had to be computed is kept when the stream was read to its end.

        `raw=False`: nobody looks at the samples themselves; where every view is cached, no file is decoded and
        `batch.samples` is (B, 0).
        """
        chosen = select_indices(self.samples.n, self.limit)
        keys = self._keys()
        held = self._held(keys, len(chosen))
        parts = chunk_slices(len(chosen), batch_size)
        if not with_samples and len(held) == len(self.views) and self._labels_known:
            labels = self.samples.labels
            for part in parts:
                rows = chosen[part]
                yield Batch(
                    torch.empty(len(rows), 0),
                    rows,
                    None if labels is None else labels[rows],
                    {name: kept[part] for name, kept in held.items()},
                )
            return
        computed: dict[str, list[Tensor]] = {name: [] for name in keys if name not in held}
        for part, batch in zip(
            parts, self.samples.iter_batches(batch_size, output=self.fit, limit=self.limit), strict=True
        ):
            known = replace(batch, features={name: kept[part] for name, kept in held.items()})
            filled = embed_batch(known, self.views, self.fit, noise_seed=noise_seed_for("real"))
            for name, rows_so_far in computed.items():
                rows_so_far.append(filled.features[name])
            yield filled
        for name, found in computed.items():
            self.cache.put(keys[name], torch.cat(found))

    @property
    def _labels_known(self) -> bool:
        return self.samples.labels is not None or not hasattr(self.samples.reader, "dataset")

    def _keys(self) -> dict[str, str]:
        """View -> name of its entry, for the views worth keeping."""
        costly = [view for view in self.views if getattr(view.extractor, "cacheable", True)]
        if self.cache.root is None or not costly:
            return {}
        contents = self.samples.fingerprint(self.limit)
        return {view.name: cache_key(contents, view, self.fit, self.limit) for view in costly}

    def _held(self, keys: Mapping[str, str], count: int) -> dict[str, Tensor]:
        """View -> its cached rows (n, D), for those that are there."""
        found = {
            view.name: self.cache.get(keys[view.name], (count, view.dim)) for view in self.views if view.name in keys
        }
        return {name: rows for name, rows in found.items() if rows is not None}


def cache_key(content_hash: str, view: FeatureView, fit: OutputSpec, limit: int | None) -> str:
    """The name of an entry: a hash of everything that the features of real data depend on."""
    parts = (FORMAT, content_hash, view.fingerprint, fit.kind, fit.shape, fit.range, limit)
    return hashlib.blake2b(repr(parts).encode(), digest_size=20).hexdigest()


def _read(path: Path) -> Tensor | None:
    """The features of an entry, or None where they do not match their sum."""
    # In one read: whoever opens the file twice may find it replaced in between.
    stored = load(path.read_bytes())
    return stored["features"] if bytes(stored["sum"].tolist()) == _sum(stored["features"]) else None


def _sum(features: Tensor) -> bytes:
    return hashlib.blake2b(tensor_to_bytes(features), digest_size=16).digest()
