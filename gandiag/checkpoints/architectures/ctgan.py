"""CTGAN's generator, TVAE's decoder, and the table columns that their outputs encode.

Xu et al. 2019, "Modeling Tabular Data using Conditional GAN". CTGAN: `seq.N.fc`, `seq.N.bn`, a last linear layer;
each layer's output is concatenated to its input. Columns are spans of tanh (numbers) and softmax with temperature 0.2
(categories and modes), listed by the saved object; the package adds Gumbel noise to the softmax and draws the condition
by its frequency. Here the noise is left out, and conditions take turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import assume_latent
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, OutputSpec

_TAU = 0.2
ColumnSpan = tuple[int, str]  # (values, "tanh" or "softmax")


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """CTGAN's generator.

    ArchitectureMismatch unless the keys are seq.N.fc, seq.N.bn and a last seq.K, and widths fit.
    """
    tensors = weights.tensors
    if "seq.0.fc.weight" not in tensors or "seq.0.bn.running_mean" not in tensors:
        raise ArchitectureMismatch("")
    in_features = require_shape(tensors, "seq.0.fc.weight", 2)[1]
    latent_dim, source = _resolve_latent_dim(weights.extra_settings.get("_embedding_dim"), in_features, config)
    with torch.device("meta"):
        net = TabularGenerator(tensors)
    load_strict(net, tensors)
    net.columns = _read_columns(weights.extra_settings, net.out_features)
    n_conditions = in_features - latent_dim
    assumptions = [
        Assumption("latent_dim", latent_dim, source, note=f"of {in_features} inputs"),
        _state_columns(net.columns),
        Assumption("bn", "eval", "default", note="the package samples with batch statistics (--bn batch)"),
    ]
    if net.columns:
        note = "the categories of one latent do not vary"
        assumptions.append(Assumption("gumbel_noise", None, "gandiag", note=note))
    if n_conditions:
        note = "conditions, one-hot, concatenated after the latents"
        assumptions.append(Assumption("classes", n_conditions, source, note=note))
    return RebuiltGenerator(
        "CTGAN",
        net,
        assume_latent(latent_dim, config.prior, "CTGAN")[0],
        OutputSpec("vector", (net.out_features,)),
        n_conditions or None,
        "concat" if n_conditions else None,
        tuple(assumptions),
    )


def rebuild_decoder(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """TVAE's decoder (the same package): linear layers at even places with ReLU between them, and `sigma`.

    The package takes the largest of the categories' outputs, and adds noise of deviation sigma to the numbers; here
    both stay as the network gives them. ArchitectureMismatch for other keys.
    """
    tensors = weights.tensors
    if "sigma" not in tensors or "seq.0.weight" not in tensors:
        raise ArchitectureMismatch("")
    with torch.device("meta"):
        net = TableDecoder(tensors)
    load_strict(net, tensors)
    latent_dim = require_shape(tensors, "seq.0.weight", 2)[1]
    net.columns = _read_columns(weights.extra_settings, len(net.sigma))
    notes = [_state_columns(net.columns)]
    if net.columns:
        notes.append(Assumption("noise", None, "gandiag", note="the package adds noise of deviation sigma to numbers"))
    return RebuiltGenerator(
        "TVAE",
        net,
        assume_latent(latent_dim, config.prior, "TVAE")[0],
        OutputSpec("vector", (len(net.sigma),)),
        None,
        None,
        (Assumption("latent_dim", latent_dim, "shapes"), *notes),
    )


def _resolve_latent_dim(file_value: Any, in_features: int, config: AuditConfig) -> tuple[int, str]:
    """The latent size and its source: --latent-dim, else the file's value, else all inputs that are not classes."""
    is_in_file = isinstance(file_value, int) and 0 < file_value <= in_features
    latent_dim = config.latent_dim or (file_value if is_in_file else in_features - (config.classes or 0))
    if not 0 < latent_dim <= in_features:
        raise LoadError(
            f"--latent-dim {latent_dim} contradicts the weights: seq.0.fc.weight takes {in_features} inputs",
            "remove --latent-dim, or correct --classes",
        )
    if config.latent_dim or config.classes:
        return latent_dim, "flag"
    return latent_dim, "file" if isinstance(file_value, int) else "shapes"


class TabularGenerator(nn.Module):
    """seq.0 … seq.K; `columns`: (values, activation) from left to right, empty for raw outputs."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in itertools.count():
            if f"seq.{index}.fc.weight" not in tensors:
                break
            layers.append(ConcatResidual(*require_shape(tensors, f"seq.{index}.fc.weight", 2)))
        self.out_features, in_features = require_shape(tensors, f"seq.{len(layers)}.weight", 2)
        self.seq = nn.Sequential(*layers, nn.Linear(in_features, self.out_features))
        self.columns: Sequence[ColumnSpan] = ()

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.seq(z)
        if not self.columns:
            return out
        return activate_columns(out, self.columns)


class TableDecoder(nn.Module):
    """Linear layers seq.0, seq.2 … with ReLU between them; `columns` as of TabularGenerator."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in itertools.count(step=2):
            if f"seq.{index}.weight" not in tensors:
                break
            out_features, in_features = require_shape(tensors, f"seq.{index}.weight", 2)
            layers += [*([nn.ReLU()] if layers else []), nn.Linear(in_features, out_features)]
        self.seq = nn.Sequential(*layers)
        self.sigma = nn.Parameter(torch.empty(require_shape(tensors, "sigma", 1)))
        self.columns: Sequence[ColumnSpan] = ()

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.seq(z)
        return activate_columns(out, self.columns) if self.columns else out.tanh()


def activate_columns(out: Tensor, columns: Sequence[ColumnSpan]) -> Tensor:
    """Tanh of the spans of numbers, softmax with temperature 0.2 of those of categories: (B, D) to (B, D)."""
    spans = torch.split_with_sizes(out, [size for size, _ in columns], dim=1)
    activated = [
        torch.tanh(span) if kind == "tanh" else (span / _TAU).softmax(1)
        for span, (_, kind) in zip(spans, columns, strict=True)
    ]
    return torch.cat(activated, 1)


class ConcatResidual(nn.Module):
    """ReLU(norm(linear(x))) concatenated with x."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(in_features, out_features), nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.bn(self.fc(x)).relu(), x], 1)


def _read_columns(settings: Mapping[str, Any], width: int) -> tuple[ColumnSpan, ...]:
    """The spans that the transformer lists as (size, activation) records; empty if they do not add up to `width`."""
    stored = settings.get("_transformer", settings.get("transformer"))
    transformer = getattr(stored, "attributes", stored)
    listed = transformer.get("output_info_list") if isinstance(transformer, Mapping) else None
    spans: list[ColumnSpan] = []
    for column in listed if isinstance(listed, list) else []:
        for record in column if isinstance(column, list) else []:
            fields = getattr(record, "args", record)
            if not isinstance(fields, tuple) or len(fields) != 2:
                return ()
            size, activation = fields
            if type(size) is not int or size < 1 or activation not in ("tanh", "softmax"):
                return ()
            spans.append((size, activation))
    return tuple(spans) if sum(size for size, _ in spans) == width else ()


def _state_columns(columns: Sequence[ColumnSpan]) -> Assumption:
    if not columns:
        return Assumption("columns", "raw outputs", "default", note="the file does not list its columns")
    n_tanh = sum(kind == "tanh" for _, kind in columns)
    n_values = sum(size for size, _ in columns)
    return Assumption("columns", f"{n_tanh} tanh, {len(columns) - n_tanh} softmax", "file", note=f"{n_values} values")
