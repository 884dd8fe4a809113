"""Settings stored with the weights: the header of a safetensors file, config.json beside it.

Data only, never code. Torch-free.

`gandiag train` writes a header entry "gandiag", a JSON text; a dict saved by torch may hold the same text under that
key, beside the weights:

    {"audit": {"latent_dim": 256, "prior": "normal", "activation": "relu"}, "trained_scale": 1.0,
     "run": {"dataset": "ring8", …}}

Command-line flags override it; entries of an unexpected type are ignored. Names of code in a config.json are never
followed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.untrusted.files import is_plain_file, open_regular, parse_json, read_text

_CONFIG_NAMES = ("config.json", ".config.json")
_MAX_BYTES = 1 << 20  # of a header or JSON file that is read
_ACTIVATION = re.compile(r"relu|tanh|sigmoid|gelu|elu|selu|silu|mish|softplus|leaky:0?\.\d{1,4}")
_PRIORS = ("normal", "uniform", "unit", "truncated", "sphere")


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What a header says. `audit_settings`: by the names of AuditConfig; `run_info`: which training run wrote the file.

    `trained_scale`: the latent scale of the training, in units of the prior.
    """

    audit_settings: Mapping[str, Any] = field(default_factory=dict)
    trained_scale: float | None = None
    run_info: Mapping[str, Any] = field(default_factory=dict)


def read_file_metadata(path: Path) -> FileMetadata:
    """Metadata in a safetensors header; empty for other files and for malformed headers."""
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length)) if 2 <= length <= _MAX_BYTES else {}
        return parse_metadata(header["__metadata__"]["gandiag"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return FileMetadata()


def parse_metadata(text: Any) -> FileMetadata:
    """Metadata as the JSON text of an entry "gandiag"; empty where it is anything else."""
    try:
        entry = parse_json(text)
        audit, scale, run = entry.get("audit"), entry.get("trained_scale"), entry.get("run")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return FileMetadata()
    valid_scale = isinstance(scale, (int, float)) and not isinstance(scale, bool) and math.isfinite(scale) and scale > 0
    return FileMetadata(
        _parse_settings(audit) if isinstance(audit, dict) else {},
        float(scale) if valid_scale else None,
        run if isinstance(run, dict) else {},
    )


def _parse_settings(entries: Mapping[Any, Any]) -> dict[str, Any]:
    """The settings with a valid value."""
    parsed = {name: _PARSERS[name](value) for name, value in entries.items() if name in _PARSERS}
    return {name: value for name, value in parsed.items() if value is not None}


def _parse_size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 20 else None


def _parse_prior(value: Any) -> str | None:
    return value if value in _PRIORS else None


def _parse_activation(value: Any) -> str | None:
    return value if isinstance(value, str) and _ACTIVATION.fullmatch(value) else None


def _parse_range(value: Any) -> tuple[float, float] | None:
    return (value[0], value[1]) if value in ([-1.0, 1.0], [0.0, 1.0]) else None


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "latent_dim": _parse_size,
    "image_size": _parse_size,
    "channels": _parse_size,
    "classes": _parse_size,
    "prior": _parse_prior,
    "activation": _parse_activation,
    "output_range": _parse_range,
}


# JSON files beside the weights


def read_checkpoint_config(path: Path) -> Mapping[str, Any]:
    """Settings of the first readable config.json or .config.json in the checkpoint's folder, else empty."""
    configs = (read_json_object(path.parent / name) for name in _CONFIG_NAMES)
    return next((config for config in configs if config), {})


def read_json_object(path: Path) -> Mapping[str, Any]:
    """The JSON object in a regular file; empty for links out of its folder, large files, damage and other JSON."""
    try:
        if is_plain_file(path) and _is_own_file(path):
            content = parse_json(read_text(path, _MAX_BYTES))
            return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        pass
    return {}


def _is_own_file(path: Path) -> bool:
    """A regular file, or a link of the Hub's cache from <repository>/snapshots/<commit>/ into <repository>/blobs/."""
    if not path.is_symlink():
        return True
    target, folder = path.resolve(), path.parent.resolve()
    return target.parent.name == "blobs" and any(
        parent.name == "snapshots" and parent.parent == target.parent.parent for parent in folder.parents
    )
