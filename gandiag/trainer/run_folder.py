"""Reads and writes the folder of a run. Every file is complete or absent, whenever the run is stopped.

config.json                   configuration of the run
state.pt                      complete training state, to resume from
log.csv                       step, loss_d, loss_g
coverage.csv                  mode coverage over the run, if the dataset's modes are known
snapshots/step-N.safetensors  the generator at step N
generator.safetensors         the raw weights of the last step
audits.json                   audit of every snapshot
samples.html, samples.png     samples of every snapshot
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gandiag.errors import ConfigError, RecordError
from gandiag.untrusted.files import is_plain_file, make_own_folder, open_regular, open_text, parse_json, read_text

CONFIG_FILE, SNAPSHOT_FOLDER, LOCK_FILE = "config.json", "snapshots", ".lock"
_SNAPSHOT_NAME = re.compile(r"step-([0-9]{1,18})")


class RunFolder:
    """The files of one run. Raises RecordError if a file cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generator_file = path / "generator.safetensors"
        self._state_file = path / "state.pt"

    def open(self, config: Mapping[str, Any]) -> bool:
        """Create the folder, or resume the run in it. Returns whether there was one.

        Raises ConfigError if the folder holds a run with another configuration.
        """
        existing = self.read_config()
        if existing is not None:
            _check_same_run(existing, config, self.path)
        self.create()
        self.write(CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")
        return existing is not None

    def create(self) -> None:
        """Create the folder if there is none."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            make_own_folder(self.path / SNAPSHOT_FOLDER)
        except OSError as error:
            raise RecordError(f"{self.path} cannot be created: {error.strerror}", "choose another --out") from None

    def read_config(self) -> dict[str, Any] | None:
        """Return the configuration of the run in this folder, or None if there is none."""
        file = self.path / CONFIG_FILE
        try:
            return dict(parse_json(read_text(file))) if file.exists() else None
        except (OSError, ValueError, TypeError):
            raise ConfigError(f"{file} cannot be read", "choose another --out, or remove the folder") from None

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file atomically: the old one stays until the new one is on disk."""
        target = self.path / name
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with scratch.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, target)
        except OSError as error:
            raise _write_error(target, error) from None
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
        return target

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the training state."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.write(self._state_file.name, buffer.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """Return the saved training state, or None if there is none."""
        if not self._state_file.exists():
            return None
        try:
            with open_regular(self._state_file) as stream:
                return dict(torch.load(stream, weights_only=True))
        except Exception:
            raise RecordError(
                f"{self._state_file} is damaged", "remove it to start over, or choose another --out"
            ) from None

    def save_snapshot(self, step: int, content: bytes) -> Path:
        """Write the generator at a step."""
        return self.write(f"{SNAPSHOT_FOLDER}/step-{step:07d}.safetensors", content)

    def list_snapshots(self) -> dict[int, Path]:
        """Return the complete snapshots by step, in order."""
        paths = sorted((self.path / SNAPSHOT_FOLDER).glob("step-*.safetensors"))
        return {int(found[1]): path for path in paths if (found := _SNAPSHOT_NAME.fullmatch(path.stem))}

    def append_rows(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Append rows to a CSV table, which starts with its header."""
        file = self.path / name
        try:
            is_new = not file.exists() or file.stat().st_size == 0
            if os.path.lexists(file) and (file.is_symlink() or not is_plain_file(file)):
                raise OSError(errno.EINVAL, "it is a link, or not a regular file")
            with file.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerows([header] if is_new else [])
                writer.writerows(rows)
        except OSError as error:
            raise _write_error(file, error) from None

    def truncate_table(self, name: str, step: int) -> None:
        """Drop the rows of a table after a step, which the resumed run will write again."""
        file = self.path / name
        if not file.exists():
            return
        with _report_damage(file), open_text(file) as stream:
            header, *rows = stream.read().splitlines(keepends=True) or [""]
        if not header.endswith("\n"):  # the disk was full: the first rows bring the header again
            header, rows = "", []
        kept = [row for row in rows if row.endswith("\n") and _parse_step(row) <= step]
        self.write(name, "".join([header, *kept]))

    def read_table(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a table; empty if there is no such file."""
        file = self.path / name
        if not file.exists():
            return []
        with _report_damage(file), open_text(file) as stream:
            return list(csv.DictReader(stream))


def _parse_step(row: str) -> float:
    """The step at the start of a row; infinity where there is none, so that the row is dropped."""
    text = row.split(",", 1)[0]
    return int(text) if text.isdecimal() and len(text) < 19 else math.inf


@contextlib.contextmanager
def _report_damage(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error):
        raise RecordError(
            f"{file} cannot be read", "remove the folder to start over, or choose another --out"
        ) from None


def _write_error(path: Path, error: OSError) -> RecordError:
    return RecordError(
        f"{path} cannot be written: {error.strerror}",
        "free some disk space and run the same command again, which resumes the run",
    )


def _check_same_run(existing: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError if anything but the length of the run differs."""
    requested = json.loads(json.dumps(config))
    differing = [
        name for name in requested if name not in ("steps", "snapshots") and requested[name] != existing.get(name)
    ]
    if differing:
        settings = ", ".join(f"{name} {_shorten(existing.get(name))}" for name in differing)
        raise ConfigError(f"{path} holds another run ({settings})", "choose another --out, or remove the folder")


def _shorten(value: Any) -> str:
    return str(value.get("name", "…")) if isinstance(value, Mapping) else str(value)


@contextlib.contextmanager
def lock_folder(folder: Path, name: str) -> Iterator[bool]:
    """Yield whether this process got the folder's lock, which is released when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # this system has no such locks
        yield True
        return
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(folder / name, flags, 0o666)
    except OSError as error:
        raise _write_error(folder / name, error) from None
    with os.fdopen(descriptor, "rb+", buffering=0) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
