"""What a safetensors file says of its generator in its header, under the key "gandiag": data, never code.

    {"audit": {"latent_dim": 256, "prior": "normal", "activation": "relu"}, "trained_scale": 1.0, "run": {"dataset": "ring8", …}}

`gandiag train` writes it. Flags win over it; what is not of the expected type is left out.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.config import AuditConfig, option_name
from gandiag.interfaces import Assumption

_LONGEST = 1 << 20  # bytes of header that are looked at
_PRIORS = ("normal", "uniform", "unit", "truncated", "sphere")


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """Settings by the names of AuditConfig, the latent scale of the training in units of the prior, and which run wrote the file."""

    audit_settings: Mapping[str, Any] = field(default_factory=dict)
    trained_scale: float | None = None
    run_info: Mapping[str, Any] = field(default_factory=dict)

    def apply_to(self, config: AuditConfig) -> AuditConfig:
        """The settings, completed where the user left them open."""
        return dataclasses.replace(
            config, **{name: value for name, value in self.audit_settings.items() if getattr(config, name) is None}
        )

    def attribute_source(self, assumption: Assumption, config: AuditConfig) -> Assumption:
        """An assumption with the file as its source, where the file made it and no flag did."""
        mine = [
            name
            for name in self.audit_settings
            if getattr(config, name) is None and option_name(name) in assumption.what
        ]
        return dataclasses.replace(assumption, source="file") if mine and assumption.source == "flag" else assumption


def read_file_metadata(path: Path) -> FileMetadata:
    """What the header says; nothing for other files, and for headers that make no sense."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 2 <= length <= _LONGEST else {}
        found = json.loads(header["__metadata__"]["gandiag"])
        told, scale, run = found.get("audit"), found.get("trained_scale"), found.get("run")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return FileMetadata()
    sound = isinstance(scale, (int, float)) and not isinstance(scale, bool) and math.isfinite(scale) and scale > 0
    audit = (
        {name: _KNOWN[name](value) for name, value in told.items() if name in _KNOWN} if isinstance(told, dict) else {}
    )
    return FileMetadata(
        {name: value for name, value in audit.items() if value is not None},
        float(scale) if sound else None,
        run if isinstance(run, dict) else {},
    )


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 20 else None


def _prior(value: Any) -> str | None:
    return value if value in _PRIORS else None


def _activation(value: Any) -> str | None:
    return (
        value
        if isinstance(value, str)
        and re.fullmatch(r"(relu|tanh|sigmoid|gelu|elu|selu|silu|softplus|leaky:0?\.\d{1,4})", value)
        else None
    )


def _range(value: Any) -> tuple[float, float] | None:
    return (value[0], value[1]) if value in ([-1.0, 1.0], [0.0, 1.0]) else None


_KNOWN = {
    "latent_dim": _size,
    "image_size": _size,
    "channels": _size,
    "classes": _size,
    "prior": _prior,
    "activation": _activation,
    "output_range": _range,
}
