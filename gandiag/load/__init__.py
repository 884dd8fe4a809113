"""From bytes on disk to a generator. `gandiag.load(path)` itself calls `gandiag.api.load`: a package and a verb of the same name."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """Importing anything in here binds this package to the name `gandiag.load`, over the function; so it can be called like it."""

    def __call__(self, path: Any, **settings: Any) -> Any:
        return import_module("gandiag.api").load(path, **settings)


sys.modules[__name__].__class__ = _Verb
