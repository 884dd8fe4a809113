"""--spec FILE: records how a checkpoint was loaded and replays it, so that nothing is inferred again. Torch-free.

    {"schema": "gandiag.spec/1", "sha256": …, "family": …, "weights": …,
     "settings": {"latent_dim": 100, "prior": "normal", …}}

Settings are AuditConfig fields by name; command-line flags override them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.checkpoints.key_names import first_line
from gandiag.checkpoints.stored_settings import apply_settings
from gandiag.config import AuditConfig, assumption_options, option_name
from gandiag.errors import ConfigError, LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec
from gandiag.untrusted.files import parse_json, read_text, write_file

SCHEMA = "gandiag.spec/1"
_SETTINGS = (
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
_INTEGERS = ("latent_dim", "classes", "image_size", "channels")
_MAX_BYTES = 1 << 20
# Assumptions replayed by value: assumption -> the setting that gives the same value again.
_REPLAYED = {
    "activation": "activation",
    "class_place": "class_place",
    "bn_eps": "bn_eps",
    "upsampling": "upsampling",
    "pixel_shuffle_order": "upsampling",
}


@dataclass(frozen=True, slots=True)
class LoadingSpec:
    """Settings read from a spec. `sha256`: of the file that the spec was written for."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    def apply_to(self, config: AuditConfig) -> AuditConfig:
        """The configuration with these settings wherever the user left the default.

        Strides and image size determine each other: a flag for one of them drops the spec's value of the other.
        """
        settings = dict(self.settings)
        if config.strides:
            settings.pop("image_size", None)
        elif config.image_size not in (None, self.settings.get("image_size")):
            settings.pop("strides", None)
        return apply_settings(config, settings)


def read_loading_spec(path: str) -> LoadingSpec:
    """Read a spec. LoadError or ConfigError for a file that is not one, or that has invalid settings."""
    document = _read_document(path)
    settings = document.get("settings")
    if not isinstance(settings, dict):
        raise LoadError(
            f"--spec {path} is not a loading spec (schema {SCHEMA})", "name a file that --spec wrote, or a new one"
        )
    unknown = [name for name in settings if name not in _SETTINGS]
    if unknown:
        raise ConfigError(
            f"--spec {path} has an unknown setting {unknown[0]!r}", f"choose from: {', '.join(_SETTINGS)}"
        )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings.items()
        if value is not None
    }
    invalid = [name for name, value in values.items() if not _has_valid_type(name, value)]
    if invalid:
        name = invalid[0]
        raise ConfigError(
            f"--spec {path} sets {name} to {values[name]!r}, which has the wrong type", "correct the file"
        )
    AuditConfig(**values)  # checks the values
    sha256 = document.get("sha256")
    return LoadingSpec(values, sha256 if isinstance(sha256, str) else None)


def _read_document(path: str) -> dict[str, Any]:
    """The JSON object with the schema of a spec, else empty."""
    try:
        document = parse_json(read_text(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error, 100)
        raise LoadError(
            f"--spec {path} cannot be read: {reason}",
            "check the path and its permissions, or name a new file",
        ) from None
    return document if isinstance(document, dict) and document.get("schema") == SCHEMA else {}


def _has_valid_type(name: str, value: Any) -> bool:
    if name == "strides":
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if name == "output_range":
        return isinstance(value, tuple) and all(isinstance(bound, (int, float)) for bound in value)
    if name in _INTEGERS:
        return type(value) is int
    return isinstance(value, (int, float) if name == "bn_eps" else str)


def resolve_settings(
    config: AuditConfig,
    assumptions: Sequence[Assumption],
    generator_facts: tuple[LatentSpec, OutputSpec, int | None, str | None],
    strides: Sequence[str],
) -> dict[str, Any]:
    """Settings that load the file the same way again, flags included.

    `generator_facts`: latent, output, classes, condition. `strides`: of the network, as --strides takes them; recorded
    only where they had to be assumed.
    """
    latent, output, classes, condition = generator_facts
    settings = {name: getattr(config, name) for name in _SETTINGS if getattr(config, name) is not None}
    settings |= {
        "latent_dim": latent.dim,
        "prior": latent.prior,
        "output_range": None if output.range is None else list(output.range),
    }
    if output.kind == "image":
        settings |= {"channels": output.shape[0], "image_size": output.shape[1]}
    if classes is not None:
        settings |= {"classes": classes, "condition": condition}
    if any(option_name("strides") in assumption_options(entry.setting) for entry in assumptions):
        settings["strides"] = list(strides)
    settings |= {_REPLAYED[entry.setting]: entry.value for entry in assumptions if entry.setting in _REPLAYED}
    return {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}


def write_loading_spec(path: str, settings: Mapping[str, Any], subject: Mapping[str, Any]) -> None:
    """Write a spec. LoadError if that fails."""
    document = {
        "schema": SCHEMA,
        **{name: subject.get(name) for name in ("sha256", "family", "weights")},
        "settings": dict(settings),
    }
    try:
        write_file(Path(path), (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:
        raise LoadError(f"--spec {path} cannot be written: {error.strerror}", "choose another path") from None
