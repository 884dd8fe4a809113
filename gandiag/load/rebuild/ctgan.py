"""CTGAN's generator, and the table that its outputs are: `seq.N.fc`, `seq.N.bn`, and a last linear layer.

Xu et al. 2019, "Modeling Tabular Data using Conditional GAN": each layer's output is joined to its input. Columns are spans of
tanh (numbers) and softmax with temperature 0.2 (categories and modes), which the saved object lists; the package adds Gumbel
noise to the softmax and draws the condition by its frequency. Here the noise is left out, and conditions take turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Latent, Output
from gandiag.errors import LoadError
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.ready import Ready, fitted, shape_of
from gandiag.load.weights import Weights

_TAU = 0.2
Span = tuple[int, str]


def rebuild(weights: Weights, config: AuditConfig) -> Ready:
    """NotThis unless the keys are seq.N.fc, seq.N.bn and a last seq.K, and widths grow by what is joined."""
    tensors = weights.tensors
    if "seq.0.fc.weight" not in tensors or "seq.0.bn.running_mean" not in tensors:
        raise NotThis("")
    inputs = shape_of(tensors, "seq.0.fc.weight", 2)[1]
    found = weights.beside.get("_embedding_dim")
    dim = config.latent_dim or (found if isinstance(found, int) and 0 < found <= inputs else inputs - (config.classes or 0))
    if not 0 < dim <= inputs:
        raise LoadError(f"--latent-dim {dim} contradicts the weights: seq.0.fc.weight takes {inputs} inputs", "remove --latent-dim, or correct --classes")
    with torch.device("meta"):
        net = Table(tensors)
    fitted(net, tensors)
    net.spans = _spans(weights.beside, net.width)
    source = "flag" if config.latent_dim or config.classes else "file" if isinstance(found, int) else "shapes"
    said = (
        Assumption("latent size (--latent-dim)", f"{dim} of {inputs} inputs", source),
        Assumption("columns of the table", _shown(net.spans), "file" if net.spans else "default"),
        Assumption("batch norm (--bn)", "stored statistics; the package samples with the batch's own (--bn batch)", "default"),
        *((Assumption("Gumbel noise of the categories", "none: the categories of a latent do not vary", "gandiag"),) if net.spans else ()),
        *((Assumption("classes (--classes)", f"{inputs - dim} conditions, one-hot, joined after the latents", source),) if inputs > dim else ()),
    )
    latent = Latent(dim, config.prior or "normal")  # type: ignore[arg-type]
    return Ready("CTGAN", net, latent, Output("vector", (net.width,)), inputs - dim or None, "concat" if inputs > dim else None, said)


class Table(nn.Module):
    """seq.0 … seq.K; `spans`: (columns, activation) from left to right, empty for raw outputs."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in itertools.count():
            if f"seq.{index}.fc.weight" not in tensors:
                break
            layers.append(Joined(*shape_of(tensors, f"seq.{index}.fc.weight", 2)))
        self.width, into = shape_of(tensors, f"seq.{len(layers)}.weight", 2)
        self.seq = nn.Sequential(*layers, nn.Linear(into, self.width))
        self.spans: Sequence[Span] = ()

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.seq(z)
        if not self.spans:
            return out
        parts = torch.split_with_sizes(out, [size for size, _ in self.spans], dim=1)
        return torch.cat([torch.tanh(part) if kind == "tanh" else (part / _TAU).softmax(1) for part, (_, kind) in zip(parts, self.spans, strict=True)], 1)


class Joined(nn.Module):
    """ReLU(norm(linear(x))) beside x."""

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(into, out), nn.BatchNorm1d(out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.bn(self.fc(x)).relu(), x], 1)


def _spans(beside: Mapping[str, Any], width: int) -> tuple[Span, ...]:
    """The spans of the object's transformer: lists of (size, activation) records; nothing where they do not add up."""
    listed = getattr(beside.get("_transformer"), "attributes", beside.get("_transformer"))
    columns = listed.get("output_info_list") if isinstance(listed, Mapping) else None
    found: list[Span] = []
    for column in columns if isinstance(columns, list) else []:
        for span in column if isinstance(column, list) else []:
            args = getattr(span, "args", span)
            if not isinstance(args, tuple) or len(args) != 2 or type(args[0]) is not int or args[1] not in ("tanh", "softmax") or args[0] < 1:
                return ()
            found.append((args[0], args[1]))
    return tuple(found) if sum(size for size, _ in found) == width else ()


def _shown(spans: Sequence[Span]) -> str:
    if not spans:
        return "raw outputs: the file does not list them"
    return f"{sum(kind == 'tanh' for _, kind in spans)} tanh, {sum(kind == 'softmax' for _, kind in spans)} softmax of {sum(size for size, _ in spans)} values"
