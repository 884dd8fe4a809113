"""The folder of a run: every file whole or absent, whenever the run is stopped.

config.json             the plan                          log.csv         step, loss_d, loss_g
state.pt                where to go on                    coverage.csv    modes covered and the like, where the data tell
snapshots/step-N.safetensors                              generator.safetensors   the last step's raw weights
audits.json             the audit of every snapshot       samples.html    how the samples moved
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gandiag.errors import ConfigError, RecordError


class RunFolder:
    """Reads and writes one run's files. RecordError where the disk does not take them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generator_file = path / "generator.safetensors"
        self._state = path / "state.pt"

    def open(self, config: Mapping[str, Any]) -> bool:
        """Make the folder, or take up the run in it; whether there is one. ConfigError where that was another run."""
        known = self.read_config()
        if known is not None:
            _same(known, config, self.path)
        try:
            (self.path / "snapshots").mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise RecordError(f"{self.path} cannot be made: {problem.strerror}", "choose another --out") from None
        self.write("config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
        return known is not None

    def read_config(self) -> dict[str, Any] | None:
        """The plan of the run in this folder, or None."""
        file = self.path / "config.json"
        try:
            return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None
        except (OSError, ValueError):
            raise ConfigError(f"{file} cannot be read", "choose another --out, or remove the folder") from None

    def write(self, name: str, content: str | bytes) -> Path:
        """A file, whole or not at all; the old one stays until the new one is on the disk."""
        target = self.path / name
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with scratch.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, target)
        except OSError as problem:
            raise RecordError(
                f"{target} cannot be written: {problem.strerror}",
                "free some space and run the same command again: it goes on",
            ) from None
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
        return target

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Where to go on."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.write(self._state.name, buffer.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """Where the run stopped, or None."""
        if not self._state.exists():
            return None
        try:
            return dict(torch.load(self._state, weights_only=True))
        except Exception:
            raise RecordError(
                f"{self._state} is damaged", "remove it to start again, or choose another --out"
            ) from None

    def save_snapshot(self, step: int, content: bytes) -> Path:
        """The generator at a step."""
        return self.write(f"snapshots/step-{step:07d}.safetensors", content)

    def list_snapshots(self) -> dict[int, Path]:
        """Finished snapshots by step."""
        found = sorted((self.path / "snapshots").glob("step-*.safetensors"))
        return {int(entry.stem.removeprefix("step-")): entry for entry in found}

    def append_rows(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add rows to a table, which starts with its header."""
        file = self.path / name
        try:
            new = not file.exists()
            with file.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerows([header] if new else [])
                writer.writerows(rows)
        except OSError as problem:
            raise RecordError(
                f"{file} cannot be written: {problem.strerror}",
                "free some space and run the same command again: it goes on",
            ) from None

    def truncate_table(self, name: str, step: int) -> None:
        """Forget the rows of a table after a step: they will come again."""
        file = self.path / name
        if not file.exists():
            return
        header, *rows = file.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        kept = [row for row in rows if row.endswith("\n") and int(row.split(",", 1)[0]) <= step]
        self.write(name, "".join([header, *kept]))

    def read_table(self, name: str) -> list[dict[str, str]]:
        """The rows of a table; none where there is no such file."""
        file = self.path / name
        if not file.exists():
            return []
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))


def _same(known: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> None:
    """Only the length of a run may change."""
    asked = json.loads(json.dumps(config))
    differing = [name for name in asked if name not in ("steps", "snapshots") and asked[name] != known.get(name)]
    if differing:
        told = ", ".join(f"{name} {_short(known.get(name))}" for name in differing)
        raise ConfigError(f"{path} holds another run ({told})", "choose another --out, or remove the folder")


def _short(value: Any) -> str:
    return str(value.get("name", "…")) if isinstance(value, Mapping) else str(value)
