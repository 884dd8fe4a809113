"""Parses a state dict into an ordered list of layers, and counts the weightless modules between them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gandiag.checkpoints.state_dict import Weights

LayerKind = Literal["linear", "kernel", "norm", "affine", "prelu"]
_SHORTCUT = re.compile(
    r"(^|[._])(c_)?(sc|skip|shortcut|bypass|conv_sc|conv_shortcut|identity_conv|residual)\d*($|[._])"
)
# label_emb, embed, classEmbedding; not ensemble, not member
_EMBEDDING = re.compile(r"(?:^|[^a-zA-Z])[eE]mb|[a-z]Emb|(?:label|class)emb")
_BATCHNORM_KEYS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


class ArchitectureMismatch(Exception):
    """The weights do not belong to this architecture; the message says which key disagrees, and why."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One module with weights.

    `kind`: "linear" (2-D weight), "kernel" (4-D: a convolution or its transpose), "norm" (BatchNorm), "affine" (another
    norm with gain and bias) or "prelu".
    """

    name: str
    kind: LayerKind
    tensors: Mapping[str, Tensor]  # by leaf name: weight, bias, running_mean …

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, or of a BatchNorm's running mean."""
        return tuple(self.tensors["weight" if self.kind != "norm" else "running_mean"].shape)

    def accepts_out_channels(self, out_channels: int) -> bool:
        """Whether its bias, if it has one, allows this number of outputs."""
        return "bias" not in self.tensors or len(self.tensors["bias"]) == out_channels

    @property
    def keeps_channels(self) -> bool:
        """Whether it has as many outputs as inputs: a norm or a PReLU."""
        return self.kind not in ("linear", "kernel")

    def accepts_channels(self, channels: int) -> bool:
        """Whether a norm or a PReLU fits this many inputs. A PReLU may have one slope for all."""
        return self.shape[0] == channels or (self.kind == "prelu" and self.shape[0] == 1)

    @property
    def weight_key(self) -> str:
        """Key of the weight in the state dict."""
        return f"{self.name}.weight".lstrip(".")


def parse_layers(weights: Weights, *, with_affine: bool = False) -> list[LayerWeights]:
    """Group the tensors into layers, in order.

    ArchitectureMismatch for anything but linear layers, kernels and BatchNorm, and `with_affine` norms of other kinds
    and PReLU.
    """
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.tensors.items():
        name, _, leaf = key.rpartition(".")
        grouped.setdefault(name, {})[leaf] = tensor
    shortcut = next((name for name in grouped if _SHORTCUT.search(name.lower())), None)
    if shortcut is not None:
        raise ArchitectureMismatch(f"{shortcut} is a shortcut branch, so the network is not sequential")
    layers = [
        _check_shapes(LayerWeights(name, _classify_layer(name, tensors, with_affine), tensors))
        for name, tensors in grouped.items()
    ]
    prelus = [layer.name for layer in layers if layer.kind == "prelu"]
    if len(prelus) == 1 and not _is_numbered(prelus[0]) and sum(not layer.keeps_channels for layer in layers) > 2:
        raise ArchitectureMismatch(f"{prelus[0]} is one PReLU, which several layers may share")
    return layers


def _check_shapes(layer: LayerWeights) -> LayerWeights:
    """The layer, if its biases and statistics fit its weight and nothing is empty; else ArchitectureMismatch."""
    widths = layer.shape[:2] if layer.kind == "kernel" else layer.shape[:1]
    for leaf, tensor in layer.tensors.items():
        if leaf == "num_batches_tracked" and tensor.numel() == 1:
            continue
        is_weight = layer.kind != "norm" and leaf == "weight"
        if (
            not tensor.is_floating_point()
            or tensor.numel() == 0
            or (not is_weight and (tensor.ndim != 1 or len(tensor) not in widths))
        ):
            raise ArchitectureMismatch(
                f"{layer.name}.{leaf} is {tensor.dtype} of shape {tuple(tensor.shape)}, which does not fit "
                f"{layer.weight_key} {layer.shape}"
            )
    return layer


def _classify_layer(name: str, tensors: Mapping[str, Tensor], with_affine: bool = False) -> LayerKind:
    leaves = set(tensors)
    if {"running_mean", "running_var"} <= leaves <= _BATCHNORM_KEYS:
        return "norm"
    weight = tensors.get("weight")
    if weight is None or leaves - {"weight", "bias"}:
        raise ArchitectureMismatch(
            f"{name or 'the top level'} holds {', '.join(sorted(leaves)[:4])}: not a linear, convolution or BatchNorm "
            "layer"
        )
    if with_affine and weight.ndim == 1:
        return _classify_vector(name, weight, has_bias="bias" in leaves)
    if weight.ndim == 2 and not any(map(is_embedding_name, name.split("."))):
        return "linear"
    if weight.ndim == 4:
        return "kernel"
    if weight.ndim == 2:
        raise ArchitectureMismatch(
            f"{name}.weight embeds {weight.shape[0]} classes, and sequential networks have no embedding"
        )
    raise ArchitectureMismatch(
        f"{name}.weight has shape {tuple(weight.shape)}: not a linear, convolution or BatchNorm layer"
    )


def _classify_vector(name: str, weight: Tensor, *, has_bias: bool) -> LayerKind:
    """A norm with gain and bias, or a PReLU, whose slopes start at 0.25. ArchitectureMismatch for other vectors."""
    if has_bias:
        return "affine"
    if weight.numel() == 1 or float((weight.float() - 0.25).abs().mean()) < float((weight.float() - 1).abs().mean()):
        return "prelu"
    raise ArchitectureMismatch(f"{name}.weight is a gain without a bias: not a layer of a plain stack")


def is_embedding_name(name: str) -> bool:
    """Whether a module is called an embedding. `name`: one part of its path."""
    return _EMBEDDING.search(name) is not None


def count_modules_between(layers: list[LayerWeights], module_names: tuple[str, ...] | None) -> list[int | None]:
    """The number of weightless modules after each layer; None where the file does not tell.

    Consecutive numbers tell by themselves (main.1, main.3: one module between); `_metadata` tells inside nested blocks
    and after the last layer. Modules registered by name (self.relu) tell nothing about when they run.
    """
    leaves = None
    if module_names is not None:
        leaves = [name for name in module_names if not any(other.startswith(name + ".") for other in module_names)]
    counts = [_count_between(first, second, leaves) for first, second in itertools.pairwise(layers)]
    counts = [  # a PReLU is the activation that other layers have as a module without weights
        None if count is None else count + (layer.kind == "prelu") for layer, count in zip(layers, counts, strict=False)
    ]
    last = layers[-1].name
    after_last = None if leaves is None or last not in leaves or not _is_numbered(last) else _count_after(last, leaves)
    return [*counts, after_last]


def _count_between(first: LayerWeights, second: LayerWeights, leaves: list[str] | None) -> int | None:
    first_path, second_path = first.name.split("."), second.name.split(".")
    depth = next(
        (i for i, (a, b) in enumerate(zip(first_path, second_path, strict=False)) if a != b),
        min(len(first_path), len(second_path)),
    )
    first_rest, second_rest = first_path[depth:], second_path[depth:]
    if not first_rest or not second_rest or not first_rest[-1].isdigit():
        return None
    is_one_container = len(first_rest) == len(second_rest) == 1 and second_rest[0].isdigit()
    if leaves is not None and first.name in leaves and second.name in leaves:
        between = leaves[leaves.index(first.name) + 1 : leaves.index(second.name)]
        count = len([name for name in between if _is_numbered(name)])
        # Between containers an activation may be a function, and a norm is hardly ever followed by none.
        return None if not count and first.kind == "norm" and not is_one_container else count
    if is_one_container:
        return max(0, int(second_rest[0]) - int(first_rest[0]) - 1)
    return None


def _count_after(last: str, leaves: list[str]) -> int:
    head = last.split(".")[0]
    # In a Sequential at the top level ("0", "2") every numbered module belongs to it; else those under the same name.
    after = [
        name
        for name in leaves[leaves.index(last) + 1 :]
        if _is_numbered(name) and (head.isdigit() or name.split(".")[0] == head)
    ]
    return len(after)


def _is_numbered(name: str) -> bool:
    return name.rsplit(".", 1)[-1].isdigit()
