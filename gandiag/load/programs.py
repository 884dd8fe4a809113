"""Generators whose whole computation is in the file and that run without its code: a program says what it is once the settings are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from gandiag.config import AuditConfig
    from gandiag.load.rebuild.ready import Ready


@runtime_checkable
class Program(Protocol):
    """An ONNX graph, or a pipeline of networks that its own library runs. `numbers`: parameters in it."""

    numbers: int

    def ready(self, config: AuditConfig, name: str, *, look: bool) -> Ready:
        """The finished generator. `look`: it will not be sampled, so that nothing is run that need not be. LoadError where it is none."""
        ...
