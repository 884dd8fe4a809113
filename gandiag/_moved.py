"""Old import paths of the plug-in contracts, served for one release with a DeprecationWarning.

A finder answers for them, so that no folder of the old names remains. `gandiag.load` stays the public function.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old module -> new module, and the names in it that changed.
_MOVED: dict[str, tuple[str, dict[str, str]]] = {
    "gandiag.load.rebuild.noise": ("gandiag.checkpoints.architectures.layers.noise_input", {"Noise": "NoiseInput"}),
    "gandiag.load.rebuild.styles": ("gandiag.checkpoints.architectures.layers.truncation", {"Psi": "Truncation"}),
    "gandiag.load.rebuild.layers": ("gandiag.checkpoints.inference.layer_list", {"NotThis": "ArchitectureMismatch"}),
    "gandiag.load.rebuild.ready": (
        "gandiag.checkpoints.architectures.base",
        {"Ready": "RebuiltGenerator", "fitted": "load_strict"},
    ),
    "gandiag.reference.objectives.contract": ("gandiag.trainer.remedies.base", {"Turn": "TrainingBatch"}),
    "gandiag.pytest_plugin": ("gandiag.integrations.pytest_plugin", {}),
    "gandiag.features.request": ("gandiag.features.extractors", {"Request": "ExtractorRequest"}),
}
_PARENTS = ("gandiag.load", "gandiag.load.rebuild", "gandiag.reference", "gandiag.reference.objectives")


class _MovedModule(ModuleType):
    """Stands for an old module.

    Importing anything below `gandiag.load` binds that name to a module, so this one can be called like the function.
    """

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return import_module("gandiag.api").load(*args, **settings)

    def __getattr__(self, name: str) -> Any:
        home, renamed = _MOVED.get(self.__name__, ("", {}))
        if not home or name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), renamed.get(name, name))


class _MovedLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ in _MOVED:
            new = _MOVED[module.__name__][0]
            warnings.warn(
                f"{module.__name__} has moved to {new}; the old path goes away in the next release",
                DeprecationWarning,
                stacklevel=2,
            )


class _MovedFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _MOVED and fullname not in _PARENTS:
            return None
        return ModuleSpec(fullname, _MovedLoader(), is_package=fullname in _PARENTS)


def install() -> None:
    """Answer for the old paths; nothing is imported until one of them is asked for."""
    sys.meta_path.insert(0, _MovedFinder())  # before folders that an old installation left behind
