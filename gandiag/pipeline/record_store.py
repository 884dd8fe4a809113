"""Keeps finished records in the user's own cache, by the content of everything that they depend on.

A record that lies in a run's folder proves nothing: whoever made the folder may have written it, and the data may have
changed since. Only records of this store are reused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from gandiag import __version__
from gandiag.config import AuditConfig, ResolvedConfig
from gandiag.errors import GandiagError, RecordError
from gandiag.features.cache import FeatureCache
from gandiag.pipeline.build_record import package_version
from gandiag.pipeline.copy_probe import MAX_SEARCHED
from gandiag.pipeline.subject import open_real_data
from gandiag.record import Record, to_json_value, write_atomically
from gandiag.sampling.sources import open_samples
from gandiag.untrusted.files import hash_file

_FOLDER, _MAX_RECORDS = "records", 2_000
# Settings that do not change what a record of one checkpoint says, and paths whose content counts instead.
_IRRELEVANT_SETTINGS = ("log", "exhibits", "device", "batch_size", "real", "spec", "inception_weights")
_BESIDE = ("config.json", ".config.json")  # files in a checkpoint's folder that say how it is read


class RecordStore:
    """Records by content. Where the cache is off, or code of the user's decides the result, nothing is kept."""

    def __init__(self, resolved: ResolvedConfig) -> None:
        self.config = resolved.config
        root = FeatureCache.default().root
        self._folder = None if root is None or _runs_own_code(self.config) else root / _FOLDER
        self._shared_key: dict[str, Any] | None = None

    def get(self, checkpoint: Path) -> Record | None:
        """The record of a file with this content, under these settings and data; None if there is none."""
        if self._folder is None:
            return None
        path = self._path(checkpoint)
        try:
            return Record.read(path)
        except RecordError:
            return None

    def put(self, checkpoint: Path, record: Record) -> None:
        """Keep a record. Never fails: the next pass then audits again."""
        if self._folder is None:
            return
        with suppress(OSError, RecordError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(checkpoint), record.to_json() + "\n", follow_links=False)
            kept = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in kept[: max(0, len(kept) - _MAX_RECORDS)]:
                path.unlink(missing_ok=True)

    def _path(self, checkpoint: Path) -> Path:
        assert self._folder is not None
        beside = {name: _hash_if_there(checkpoint.parent / name) for name in _BESIDE}
        parts = {"checkpoint": _hash_if_there(checkpoint), "beside": beside, "shared": self._describe_shared()}
        text = json.dumps(parts, sort_keys=True)
        return self._folder / f"{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}.json"

    def _describe_shared(self) -> dict[str, Any]:
        """What all checkpoints of a run share: settings, the content of the data, versions."""
        if self._shared_key is None:
            config = self.config
            settings = {entry.name: getattr(config, entry.name) for entry in dataclasses.fields(config)}
            real = None
            if config.real is not None:
                # The samples that are used are among these, whatever the device; more are searched for copies.
                used = max(2 * config.n_samples("gpu"), max(MAX_SEARCHED.values()))
                real = open_real_data(config.real, config).fingerprint(used)
            self._shared_key = {
                "settings": {
                    name: value for name, value in to_json_value(settings).items() if name not in _IRRELEVANT_SETTINGS
                },
                "real": real,
                "files": [
                    _hash_if_there(path)
                    for path in (
                        config.spec,
                        config.inception_weights,
                        config.against,
                        config.holdout,
                        config.group_by and config.group_by.partition(":")[0],
                    )
                ],
                "versions": [package_version("gandiag") or __version__, package_version("torch")],
            }
        return self._shared_key


def _runs_own_code(config: AuditConfig) -> bool:
    """Whether code that may change decides the result."""
    named = (config.features or "", *config.metrics)
    return config.model is not None or config.trust or any(":" in name for name in named)


def _hash_if_there(path: Path | str | None) -> str | None:
    """The content of a file, or of a folder of samples; None where there is neither."""
    if path is None:
        return None
    try:
        return open_samples(path).fingerprint() if Path(path).is_dir() else hash_file(path)
    except (OSError, GandiagError):
        return None
