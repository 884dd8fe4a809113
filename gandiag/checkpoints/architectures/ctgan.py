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

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_TAU = 0.2
ColumnSpan = tuple[int, str]


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are seq.N.fc, seq.N.bn and a last seq.K, and widths grow by what is joined."""
    tensors = weights.tensors
    if "seq.0.fc.weight" not in tensors or "seq.0.bn.running_mean" not in tensors:
        raise ArchitectureMismatch("")
    inputs = require_shape(tensors, "seq.0.fc.weight", 2)[1]
    found = weights.extra_settings.get("_embedding_dim")
    dim = config.latent_dim or (
        found if isinstance(found, int) and 0 < found <= inputs else inputs - (config.classes or 0)
    )
    if not 0 < dim <= inputs:
        raise LoadError(
            f"--latent-dim {dim} contradicts the weights: seq.0.fc.weight takes {inputs} inputs",
            "remove --latent-dim, or correct --classes",
        )
    with torch.device("meta"):
        net = TabularGenerator(tensors)
    load_strict(net, tensors)
    net.columns = _spans(weights.extra_settings, net.out_features)
    source = "flag" if config.latent_dim or config.classes else "file" if isinstance(found, int) else "shapes"
    said = (
        Assumption("latent size (--latent-dim)", f"{dim} of {inputs} inputs", source),
        Assumption("columns of the table", _shown(net.columns), "file" if net.columns else "default"),
        Assumption(
            "batch norm (--bn)", "stored statistics; the package samples with the batch's own (--bn batch)", "default"
        ),
        *(
            (Assumption("Gumbel noise of the categories", "none: the categories of a latent do not vary", "gandiag"),)
            if net.columns
            else ()
        ),
        *(
            (
                Assumption(
                    "classes (--classes)", f"{inputs - dim} conditions, one-hot, joined after the latents", source
                ),
            )
            if inputs > dim
            else ()
        ),
    )
    latent = LatentSpec(dim, config.prior or "normal")  # type: ignore[arg-type]
    return RebuiltGenerator(
        "CTGAN",
        net,
        latent,
        OutputSpec("vector", (net.out_features,)),
        inputs - dim or None,
        "concat" if inputs > dim else None,
        said,
    )


class TabularGenerator(nn.Module):
    """seq.0 … seq.K; `spans`: (columns, activation) from left to right, empty for raw outputs."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in itertools.count():
            if f"seq.{index}.fc.weight" not in tensors:
                break
            layers.append(ConcatResidual(*require_shape(tensors, f"seq.{index}.fc.weight", 2)))
        self.out_features, into = require_shape(tensors, f"seq.{len(layers)}.weight", 2)
        self.seq = nn.Sequential(*layers, nn.Linear(into, self.out_features))
        self.columns: Sequence[ColumnSpan] = ()

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.seq(z)
        if not self.columns:
            return out
        parts = torch.split_with_sizes(out, [size for size, _ in self.columns], dim=1)
        return torch.cat(
            [
                torch.tanh(part) if kind == "tanh" else (part / _TAU).softmax(1)
                for part, (_, kind) in zip(parts, self.columns, strict=True)
            ],
            1,
        )


class ConcatResidual(nn.Module):
    """ReLU(norm(linear(x))) beside x."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(in_features, out_features), nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.bn(self.fc(x)).relu(), x], 1)


def _spans(beside: Mapping[str, Any], width: int) -> tuple[ColumnSpan, ...]:
    """The spans of the object's transformer: lists of (size, activation) records; nothing where they do not add up."""
    listed = getattr(beside.get("_transformer"), "attributes", beside.get("_transformer"))
    columns = listed.get("output_info_list") if isinstance(listed, Mapping) else None
    found: list[ColumnSpan] = []
    for column in columns if isinstance(columns, list) else []:
        for span in column if isinstance(column, list) else []:
            args = getattr(span, "args", span)
            if (
                not isinstance(args, tuple)
                or len(args) != 2
                or type(args[0]) is not int
                or args[1] not in ("tanh", "softmax")
                or args[0] < 1
            ):
                return ()
            found.append((args[0], args[1]))
    return tuple(found) if sum(size for size, _ in found) == width else ()


def _shown(spans: Sequence[ColumnSpan]) -> str:
    if not spans:
        return "raw outputs: the file does not list them"
    return f"{sum(kind == 'tanh' for _, kind in spans)} tanh, {sum(kind == 'softmax' for _, kind in spans)} softmax of {sum(size for size, _ in spans)} values"
