"""Applies settings from a loading spec or from the file's metadata, and attributes assumptions to them. Torch-free."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from gandiag.config import AuditConfig, assumption_options, option_name
from gandiag.interfaces import Assumption


def apply_settings(config: AuditConfig, settings: Mapping[str, Any]) -> AuditConfig:
    """The configuration with these settings (by field name) wherever the user left the default."""
    default = AuditConfig()
    unset = {name: value for name, value in settings.items() if getattr(config, name) == getattr(default, name)}
    return dataclasses.replace(config, **unset)


def attribute_settings(
    assumptions: Iterable[Assumption], settings: Mapping[str, Any], config: AuditConfig, source: Literal["spec", "file"]
) -> tuple[Assumption, ...]:
    """The assumptions with `source` where these settings made them. `config`: the user's own, whose flags come first.

    Applied settings look like flags to the rest of the loader. A spec also repeats what was inferred when it was
    written, so it is the source whatever the loader reports; metadata are the source only of what would count as a
    flag.
    """
    options = {option_name(name) for name in settings if getattr(config, name) is None}

    def is_attributable(entry: Assumption) -> bool:
        if getattr(config, entry.setting, None) is not None:  # the user's own flag, such as --strides beside a spec
            return False
        answered = options.intersection(assumption_options(entry.setting))
        return bool(answered) and (source == "spec" or entry.source == "flag")

    return tuple(
        dataclasses.replace(entry, source=source) if is_attributable(entry) else entry for entry in assumptions
    )
