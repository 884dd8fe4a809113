"""--spec FILE: the whole reading of a checkpoint, written once and replayed: what had to be inferred then is given now. Torch-free.

    {"schema": "gandiag.spec/1", "sha256": …, "family": …, "weights": …, "settings": {"latent_dim": 100, "prior": "normal", …}}

Settings are those of AuditConfig by name; a flag on the command line wins over them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.config import AuditConfig, option_name
from gandiag.errors import ConfigError, LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

SCHEMA = "gandiag.spec/1"
_NAMES = (
    "key",
    "weights",
    "latent_dim",
    "prior",
    "classes",
    "condition",
    "class_place",
    "image_size",
    "channels",
    "strides",
    "upsampling",
    "activation",
    "output_range",
    "bn_eps",
)
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class LoadingSpec:
    """A reading that was written down. `sha256`: of the file that it was written for."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    def apply_to(self, config: AuditConfig) -> AuditConfig:
        """The settings, completed where the user left them open."""
        default = AuditConfig()
        beaten = (
            {"image_size"}
            if config.strides
            else {"strides"}
            if config.image_size not in (None, self.settings.get("image_size"))
            else set()
        )
        open_ones = [
            name for name in self.settings if name not in beaten and getattr(config, name) == getattr(default, name)
        ]
        return dataclasses.replace(config, **{name: self.settings[name] for name in open_ones})

    def attribute_source(self, assumption: Assumption, config: AuditConfig) -> Assumption:
        """An assumption with the spec as its source, where the spec made it and no flag did."""
        mine = any(getattr(config, name) is None and option_name(name) in assumption.what for name in self.settings)
        return dataclasses.replace(assumption, source="spec") if mine else assumption


def read_loading_spec(path: str) -> LoadingSpec:
    """LoadError or ConfigError for a file that is no spec, or whose settings are none."""
    file = Path(path)
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size <= _LONGEST else {}
    except (OSError, ValueError, RecursionError) as broken:
        raise LoadError(
            f"--spec {path} cannot be read: {str(broken).splitlines()[0][:100]}",
            "delete it, and run with --spec once more",
        ) from None
    found = found if isinstance(found, dict) and found.get("schema") == SCHEMA else {}
    settings = found.get("settings")
    if not isinstance(settings, dict):
        raise LoadError(
            f"--spec {path} is no reading of a checkpoint (schema {SCHEMA})",
            "name a file that --spec wrote, or a new one",
        )
    unknown = [name for name in settings if name not in _NAMES]
    if unknown:
        raise ConfigError(
            f"--spec {path} sets {unknown[0]!r}, which is no setting of a reading", f"choose from: {', '.join(_NAMES)}"
        )
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings.items()
        if value is not None
    }
    odd = [name for name, value in plain.items() if not _fits(name, value)]
    if odd:
        raise ConfigError(
            f"--spec {path} sets {odd[0]} to {plain[odd[0]]!r}, which is of the wrong type", "correct the file"
        )
    AuditConfig(**plain)
    sha256 = found.get("sha256")
    return LoadingSpec(plain, sha256 if isinstance(sha256, str) else None)


def _fits(name: str, value: Any) -> bool:
    if name == "strides":
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if name == "output_range":
        return isinstance(value, tuple) and all(isinstance(bound, (int, float)) for bound in value)
    if name in ("latent_dim", "classes", "image_size", "channels"):
        return type(value) is int
    return isinstance(value, (int, float) if name == "bn_eps" else str)


def resolve_settings(
    config: AuditConfig,
    assumptions: Sequence[Assumption],
    generator_facts: tuple[LatentSpec, OutputSpec, int | None, str | None],
    strides: Sequence[str],
) -> dict[str, Any]:
    """The settings that lead to this reading again, flags included. `strides`: of the network, as --strides takes them; kept where they had to be told."""
    latent, output, classes, condition = generator_facts
    found = {name: getattr(config, name) for name in _NAMES if getattr(config, name) is not None}
    found |= {
        "latent_dim": latent.dim,
        "prior": latent.prior,
        "output_range": None if output.range is None else list(output.range),
    }
    if output.kind == "image":
        found |= {"channels": output.shape[0], "image_size": output.shape[1]}
    if classes is not None:
        found |= {"classes": classes, "condition": condition}
    if any(option_name("strides") in entry.what for entry in assumptions):
        found["strides"] = list(strides)
    for entry in assumptions:
        value = entry.value.split(" ")[0]
        if entry.what.startswith("hidden activation"):
            found["activation"] = value
        elif entry.what.startswith("place of the class"):
            found["class_place"] = value
        elif entry.what.startswith("batch-norm eps"):
            found["bn_eps"] = float(value)
        elif entry.what.startswith(("upsampling (--upsampling", "order of shuffled pixels")):
            found["upsampling"] = value.rstrip(",")
    return {name: found[name] for name in _NAMES if found.get(name) is not None}


def write_loading_spec(path: str, settings: Mapping[str, Any], subject: Mapping[str, Any]) -> None:
    """Write a reading. LoadError where that fails."""
    document = {
        "schema": SCHEMA,
        **{name: subject.get(name) for name in ("sha256", "family", "weights")},
        "settings": dict(settings),
    }
    try:
        Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as problem:
        raise LoadError(f"--spec {path} cannot be written: {problem.strerror}", "choose another path") from None
