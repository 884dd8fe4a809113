"""Wraps a torch.export program (.pt2) as a module: it cannot change mode, and its batch size may be fixed."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn


class ExportedModule(nn.Module):
    """forward(z[, labels]) of the program, called in batches of the exported size if that is fixed.

    `latent_dim`: values per latent in its first floating-point input, None if that size is dynamic. All submodules are
    marked as not training, which is how the program was exported.
    """

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.inner: nn.Module = program.module()
        for part in self.modules():
            part.training = False
        inputs = [entry for entry in _input_metadata(program) if entry is not None]
        latents = [entry for entry in inputs if entry.dtype.is_floating_point and entry.ndim > 1]
        batch_sizes = [entry.shape[0] for entry in inputs if entry.ndim]
        self.batch_size = next((size for size in batch_sizes if isinstance(size, int)), None)
        shape = list(latents[0].shape)[1:] if latents else []
        is_vector = bool(shape) and all(isinstance(size, int) for size in shape) and all(s == 1 for s in shape[1:])
        self.latent_dim = int(shape[0]) if is_vector else None

    def train(self, mode: bool = True) -> Self:
        return self  # an exported program keeps the mode it was exported in

    def forward(self, *inputs: Tensor) -> Any:
        if self.batch_size is None or not inputs:
            return self.inner(*inputs)
        count, parts = len(inputs[0]), []
        for start in range(0, count, self.batch_size):
            # A short last batch is filled up from the front.
            rows = torch.arange(start, start + self.batch_size, device=inputs[0].device) % count
            output = _extract_samples(self.inner(*(entry[rows] for entry in inputs)))
            parts.append(output[: count - start])
        return torch.cat(parts)


def _extract_samples(output: Any) -> Tensor:
    from gandiag.checkpoints.module_adapter import extract_samples

    return extract_samples(output)


def _input_metadata(program: Any) -> list[Tensor | None]:
    """The program's inputs in order, as tensors without data."""
    names = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    values = [node.meta.get("val") for node in nodes]
    return [value if isinstance(value, Tensor) else None for value in values]
