"""A torch.export program (.pt2) as a module that can be audited: it has no modes to switch, and may take one size of batch only."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn


class ExportedModule(nn.Module):
    """forward(z[, labels]) as the program's, in batches of the size that it was exported with, if that is fixed.

    `latent_dim`: numbers in its first floating-point input, None where that is open. The program's own flags say that it is not training.
    """

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.inner: nn.Module = program.module()
        for part in self.modules():
            part.training = False
        shapes = [entry for entry in _inputs(program) if entry is not None]
        floating = [entry for entry in shapes if entry.dtype.is_floating_point and entry.ndim > 1]
        sizes = [entry.shape[0] for entry in shapes if entry.ndim]
        self.batch_size = next((size for size in sizes if isinstance(size, int)), None)
        latent = list(floating[0].shape)[1:] if floating else []
        plain = bool(latent) and all(isinstance(size, int) for size in latent) and all(size == 1 for size in latent[1:])
        self.latent_dim = int(latent[0]) if plain else None

    def train(self, mode: bool = True) -> Self:
        return self  # an exported program keeps the mode that it was exported in

    def forward(self, *given: Tensor) -> Any:
        if self.batch_size is None or not given:
            return self.inner(*given)
        count, parts = len(given[0]), []
        for start in range(0, count, self.batch_size):
            rows = (
                torch.arange(start, start + self.batch_size, device=given[0].device) % count
            )  # a short batch is filled up
            parts.append(_first(self.inner(*(entry[rows] for entry in given)))[: count - start])
        return torch.cat(parts)


def _first(made: Any) -> Tensor:
    from gandiag.checkpoints.module_adapter import extract_samples

    return extract_samples(made)


def _inputs(program: Any) -> list[Tensor | None]:
    """The user's inputs in order, as tensors without numbers."""
    named = set(program.graph_signature.user_inputs)
    places = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in named]
    return [found if isinstance(found := node.meta.get("val"), Tensor) else None for node in places]
