"""Looks up objects by name: built in, registered, from entry points, or written as `module:attr`."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from typing import Any

from gandiag.errors import PluginError, close_match_hint


class Registry:
    """A lazy table of named objects of one kind.

    Targets are strings "module:attr", imported on first use, so listing names is cheap. Third parties add names through
    the entry-point group `gandiag.<kind>`, which is read only when a built-in name is not found or names are listed.
    """

    def __init__(self, kind: str, builtin: dict[str, str], noun: str = "") -> None:
        self.kind = kind
        self.noun = noun or kind  # singular, for messages
        self._targets: dict[str, Any] = dict(builtin)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(sorted(self._targets))})"

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._targets, *self._plugins()}))

    def origin(self, name: str) -> str:
        """Where a name comes from: "gandiag", "registered", or the name of the plug-in's distribution."""
        if name in self._targets:
            return "gandiag" if isinstance(self._targets[name], str) else "registered"
        plugin = self._plugins().get(name)
        return plugin.dist.name if plugin is not None and plugin.dist is not None else "unknown"

    def register(self, name: str, target: Any) -> None:
        """Add an object (or "module:attr") under a new name. PluginError for a name that exists."""
        if name in self._targets:
            raise PluginError(f"the {self.noun} name {name!r} is taken", "choose another name")
        self._targets[name] = target

    def get(self, name: str) -> Any:
        """The object called `name`, or at `module:attr`. PluginError where it does not exist or cannot be imported."""
        if name in self._targets:
            return import_target(self._targets[name], self.noun)
        if ":" in name:
            return import_target(name, self.noun)
        plugins = self._plugins()
        if name in plugins:
            try:
                return plugins[name].load()
            except Exception as broken:
                raise PluginError(
                    f"the {self.noun} plug-in {name!r} cannot be loaded: {broken}", "update or uninstall it"
                ) from broken
        raise PluginError(
            f"there is no {self.noun} called {name!r}", close_match_hint(name, [*self._targets, *plugins])
        )

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=f"gandiag.{self.kind}")}


def import_target(target: Any, kind: str = "object") -> Any:
    """The object at "module:attr"; anything but a string is returned unchanged. PluginError where the import fails."""
    if not isinstance(target, str):
        return target
    module, _, attributes = target.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            value = getattr(value, attribute)
    except (ImportError, AttributeError) as missing:
        raise PluginError(
            f"the {kind} {target!r} cannot be imported: {missing}", "check the spelling, and that it is installed"
        ) from missing
    return value
