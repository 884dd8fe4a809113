"""The settings as keyword arguments of the Python API: their types for editors, their signature and help for `help()`.

Types repeat those of AuditConfig, as type checkers need them written out; a test compares them. Defaults and texts are
AuditConfig's own. A keyword that is not given stays unset, so that environment and TOML files apply.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, get_type_hints

from gandiag.config import AuditConfig
from gandiag.keywords.errors import name_keywords

Function = TypeVar("Function", bound=Callable[..., Any])


class LoadSettings(TypedDict, total=False):
    """Settings that say how a file is read and where it runs."""

    key: str | None
    weights: str
    model: str | None
    init: tuple[str, ...]
    trust: bool
    strict: bool
    spec: str | None
    npz_key: str | None
    skip_broken: bool
    columns: tuple[str, ...] | None
    latent_dim: int | None
    prior: str | None
    scale: float
    psi: float
    noise: str
    classes: int | None
    condition: str | None
    class_place: str | None
    class_: int | None
    image_size: int | None
    channels: int | None
    strides: tuple[str, ...] | None
    upsampling: str | None
    activation: str | None
    hidden_norm: str | None
    output_range: tuple[float, ...] | None
    bn: str
    bn_eps: float | None
    device: str
    batch_size: int | None
    download: bool
    inception_weights: str | None


class AuditSettings(LoadSettings, total=False):
    """All settings but `real`, `holdout` and `against`, which take objects too."""

    group_by: str | None
    per_class: int | None
    log: str | None
    budget: str
    n: int | None
    neighbours_max: int | None
    scales: tuple[float, ...]
    seed: int
    features: str | None
    metrics: tuple[str, ...]
    limit: float
    exhibits: bool


def document_settings(settings: type) -> Callable[[Function], Function]:
    """Give a function with **settings a signature with every keyword, and their meanings in its docstring."""

    def decorate(function: Function) -> Function:
        entries = {entry.name: entry for entry in dataclasses.fields(AuditConfig)}
        hints = get_type_hints(AuditConfig)
        shown = [entries[name] for name in entries if name in settings.__annotations__]
        signature = inspect.signature(function)
        own = [part for part in signature.parameters.values() if part.kind is not part.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=hints[entry.name]
            )
            for entry in shown
        ]
        function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        if function.__doc__:  # None under python -OO
            rows = "\n".join(_describe_setting(entry) for entry in shown)
            function.__doc__ = f"{inspect.cleandoc(function.__doc__)}\n\nSettings:\n\n{rows}\n"
        return function

    return decorate


def _describe_setting(entry: dataclasses.Field[Any]) -> str:
    choices = f" [{', '.join(entry.metadata['choices'])}]" if entry.metadata["choices"] else ""
    text = f"{entry.name}: {name_keywords(entry.metadata['help'])}{choices}"
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="      ")
