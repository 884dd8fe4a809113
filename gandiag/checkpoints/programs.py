"""Generators whose whole computation is in the file and that run without its code: a program says what it is once the settings are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from gandiag.checkpoints.architectures.base import RebuiltGenerator
    from gandiag.config import AuditConfig


@runtime_checkable
class GeneratorProgram(Protocol):
    """An ONNX graph, or a pipeline of networks that its own library runs. `numbers`: parameters in it."""

    n_parameters: int

    def build_generator(self, config: AuditConfig, name: str, *, inspect_only: bool) -> RebuiltGenerator:
        """The finished generator. `look`: it will not be sampled, so that nothing is run that need not be. LoadError where it is none."""
        ...
