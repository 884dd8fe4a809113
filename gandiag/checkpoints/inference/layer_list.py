"""A state dict as a list of layers, and where modules without weights stand between them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gandiag.checkpoints.state_dict import Weights

LayerKind = Literal["linear", "kernel", "norm"]
_BESIDE = re.compile(r"(^|[._])(c_)?(sc|skip|shortcut|bypass|conv_sc|conv_shortcut|identity_conv|residual)\d*($|[._])")
_EMBEDDING = re.compile(
    r"(?:^|[^a-zA-Z])[eE]mb|[a-z]Emb|(?:label|class)emb"
)  # label_emb, embed, classEmbedding; neither ensemble nor member
_NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


class ArchitectureMismatch(Exception):
    """The weights do not belong to this family; the message says which key, and why."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One module with weights. `kind`: a 2-D map, a 4-D kernel (convolution or its transpose), or a batch norm."""

    name: str
    kind: LayerKind
    tensors: Mapping[str, Tensor]  # by leaf name: weight, bias, running_mean …

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors["weight" if self.kind != "norm" else "running_mean"].shape)

    def accepts_out_channels(self, out_channels: int) -> bool:
        """May it have so many outputs? A bias has as many."""
        return "bias" not in self.tensors or len(self.tensors["bias"]) == out_channels

    @property
    def weight_key(self) -> str:
        return f"{self.name}.weight".lstrip(".")


def parse_layers(weights: Weights) -> list[LayerWeights]:
    """Every tensor in exactly one layer, in order. NotThis for anything but maps, kernels and batch norms."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.tensors.items():
        name, _, leaf = key.rpartition(".")
        grouped.setdefault(name, {})[leaf] = tensor
    beside = next((name for name in grouped if _BESIDE.search(name.lower())), None)
    if beside is not None:
        raise ArchitectureMismatch(f"{beside} stands beside other layers, as in residual blocks, and in no plain chain")
    return [_checked(LayerWeights(name, _kind(name, tensors), tensors)) for name, tensors in grouped.items()]


def _checked(layer: LayerWeights) -> LayerWeights:
    """Biases and statistics fit the layer they belong to, and nothing is empty."""
    widths = layer.shape[:2] if layer.kind == "kernel" else layer.shape[:1]
    for leaf, tensor in layer.tensors.items():
        if leaf == "num_batches_tracked" and tensor.numel() == 1:
            continue
        own = layer.kind != "norm" and leaf == "weight"
        if (
            not tensor.is_floating_point()
            or tensor.numel() == 0
            or (not own and (tensor.ndim != 1 or len(tensor) not in widths))
        ):
            raise ArchitectureMismatch(
                f"{layer.name}.{leaf} is {tensor.dtype} of shape {tuple(tensor.shape)}, which does not fit {layer.weight_key} {layer.shape}"
            )
    return layer


def _kind(name: str, tensors: Mapping[str, Tensor]) -> LayerKind:
    leaves = set(tensors)
    if {"running_mean", "running_var"} <= leaves <= _NORM:
        return "norm"
    weight = tensors.get("weight")
    if weight is None or leaves - {"weight", "bias"}:
        raise ArchitectureMismatch(
            f"{name or 'the top level'} holds {', '.join(sorted(leaves)[:4])}, which no plain layer does"
        )
    if weight.ndim == 2 and not any(map(is_embedding_name, name.split("."))):
        return "linear"
    if weight.ndim == 4:
        return "kernel"
    if weight.ndim == 2:
        raise ArchitectureMismatch(f"{name}.weight embeds {weight.shape[0]} classes, which no plain chain does")
    raise ArchitectureMismatch(
        f"{name}.weight has shape {tuple(weight.shape)}, which is no linear, convolution or batch-norm layer"
    )


def is_embedding_name(name: str) -> bool:
    """Whether a module is called an embedding. `name`: one part of its path."""
    return _EMBEDDING.search(name) is not None


def count_modules_between(layers: list[LayerWeights], module_names: tuple[str, ...] | None) -> list[int | None]:
    """How many modules without weights follow each layer; None where the file does not say.

    Numbered neighbours say it by themselves (main.1, main.3: one module between); `_metadata` says it inside nested
    blocks and after the last layer. Modules registered by name (self.relu) tell nothing about when they run.
    """
    leaves = (
        None
        if module_names is None
        else [name for name in module_names if not any(other.startswith(name + ".") for other in module_names)]
    )
    found = [_between(first, second, leaves) for first, second in itertools.pairwise(layers)]
    last = layers[-1].name
    return [*found, None if leaves is None or last not in leaves or not _numbered(last) else _after(last, leaves)]


def _between(first: LayerWeights, second: LayerWeights, leaves: list[str] | None) -> int | None:
    a, b = first.name.split("."), second.name.split(".")
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    steps = a[shared:], b[shared:]
    if not all(steps) or not steps[0][-1].isdigit():
        return None
    if leaves is not None and first.name in leaves and second.name in leaves:
        inside = leaves[leaves.index(first.name) + 1 : leaves.index(second.name)]
        return len([name for name in inside if _numbered(name)])
    if len(steps[0]) == len(steps[1]) == 1 and steps[1][0].isdigit():
        return max(0, int(steps[1][0]) - int(steps[0][0]) - 1)
    return None


def _after(last: str, leaves: list[str]) -> int:
    head = last.split(".")[0]
    # In a Sequential at the top level ("0", "2") every numbered module belongs to it; else those under the same name.
    inside = [
        name
        for name in leaves[leaves.index(last) + 1 :]
        if _numbered(name) and (head.isdigit() or name.split(".")[0] == head)
    ]
    return len(inside)


def _numbered(name: str) -> bool:
    return name.rsplit(".", 1)[-1].isdigit()
