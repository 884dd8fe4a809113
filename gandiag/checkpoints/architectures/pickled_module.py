"""A whole pickled module of standard layers: structure, strides, eps and activations come from the file.

Its forward() does not. A Sequential has none of its own. Any other class is assumed to run its parts in the order in
which they were registered, with the reshapes that this needs. Where that order cannot be the order of execution
(several layers held by name, an activation shared between them), the weights' shapes decide, as for a bare state dict.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.torch_layers import ACTIVATION_CLASSES, CONSTRUCTOR_ARGS, build_torch_layer
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerKind, LayerWeights
from gandiag.checkpoints.inference.layer_specs import LayerSpec
from gandiag.checkpoints.inference.output_activation import (
    FLAT_IMAGE_SHAPES,
    assume_output_activation,
    resolve_image_output,
)
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import UNDECIDED, Assumption, OutputSpec, SampleKind

_MAX_VALUES = 2**27  # values of one sample: 3 x 6,000 x 6,000
_WRAPPER_ATTRIBUTES = {"module", "_orig_mod"}  # DataParallel and averaged models, compiled models
_LAYER_KINDS: dict[str, LayerKind] = {"Linear": "linear", "BatchNorm1d": "norm", "BatchNorm2d": "norm"}
_ACTIVATION_RANGES = {
    "Tanh": (-1.0, 1.0),
    "Sigmoid": (0.0, 1.0),
    "Hardtanh": (-1.0, 1.0),
    "Hardsigmoid": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class LayerNode:
    """A layer, under the name that its tensors have in the file."""

    name: str
    node: ModuleNode

    @property
    def takes_vectors(self) -> bool | None:
        """Whether it takes vectors (B, C) rather than images; None if both."""
        layer_type = self.node.layer_type
        if layer_type in ("Linear", "BatchNorm1d"):
            return True
        if layer_type in ("Upsample", "PixelShuffle"):
            return False
        return False if layer_type.endswith("2d") and not layer_type.startswith("Dropout") else None

    @property
    def in_channels(self) -> int | None:
        """Channels that it takes, where its settings tell."""
        settings = self.node.settings
        names = ("in_channels", "num_features", "in_features")
        value = next((settings[name] for name in names if name in settings), None)
        return value if isinstance(value, int) else None


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """The layers of a pickled module.

    ArchitectureMismatch without one, and for parts or an order that the file does not settle.
    """
    root = unwrap_module(weights.structure)
    if root is None:
        raise ArchitectureMismatch("it is not a pickled module")
    leaves = list(_flatten(root, ""))
    first = next((leaf for leaf in leaves if leaf.node.tensors), None)
    if first is None or first.node.layer_type not in ("Linear", "ConvTranspose2d"):
        raise ArchitectureMismatch("its first layer takes no latent vector")
    layer_specs, shape = _stack_layers(leaves, weights.tensors, first)
    in_features = first.in_channels
    if in_features is None:
        raise ArchitectureMismatch("its first layer's settings do not state the input size")
    output, activation, assumptions = _resolve_output(root, leaves, shape, config)
    order = Assumption("forward", "layers in order", "file", note="as in Sequential")
    if root.layer_type != "Sequential":
        checked = any(leaf.node.layer_type.startswith("BatchNorm") and leaf.node.tensors for leaf in leaves)
        order = Assumption(
            "forward",
            "layers in the order of registration",
            "default" if checked else UNDECIDED,  # BatchNorm statistics show a wrong order, not what follows the last
            note=f"{root.cls} has a forward() of its own, which is not in the file and may do more than its parts",
        )
    return SequentialSpec(
        "pickled",
        tuple(layer_specs),
        in_features,
        first.node.layer_type == "ConvTranspose2d",
        output,
        activation,
        (order, *assumptions),
        settings_from_file=True,
    )


def unwrap_module(node: ModuleNode | None) -> ModuleNode | None:
    """The module inside DataParallel, compiled and averaging wrappers."""
    while node is not None and len(node.children) == 1 and next(iter(node.children)) in _WRAPPER_ATTRIBUTES:
        node = next(iter(node.children.values()))
    return node


def _flatten(node: ModuleNode, name: str) -> list[LayerNode]:
    """Every layer in the order of execution."""
    if node.layer_type in CONSTRUCTOR_ARGS:
        return [LayerNode(name, node)]
    if node.tensors:
        raise ArchitectureMismatch(f"{node.cls} holds weights of its own, and its forward() is not in the file")
    if not node.children and node.layer_type != "Sequential":
        raise ArchitectureMismatch(f"{node.cls} is not a standard layer, and its code is not in the file")
    if node.layer_type not in ("Sequential", "ModuleList"):
        _require_clear_order(node)
    return [leaf for key, child in node.children.items() for leaf in _flatten(child, f"{name}.{key}".lstrip("."))]


def _require_clear_order(node: ModuleNode) -> None:
    """ArchitectureMismatch unless registration order is execution order.

    It is where at most one layer with weights is held by name.
    """
    by_name = [name for name, child in node.children.items() if child.layer_type in CONSTRUCTOR_ARGS]
    weighted = [name for name in by_name if node.children[name].tensors]
    if len(weighted) > 1 or any(node.children[name].layer_type in ACTIVATION_CLASSES for name in by_name[:-1]):
        raise ArchitectureMismatch(
            f"{node.cls} holds {', '.join(by_name[:4])} by name, and its forward() is not in the file"
        )


def _stack_layers(
    leaves: list[LayerNode], tensors: Mapping[str, Tensor], first: LayerNode
) -> tuple[list[LayerSpec], tuple[int, ...]]:
    """Specs of the layers with the reshapes between them, and the output shape, by a run on the meta device."""
    n_inputs = first.in_channels or 0
    shape: tuple[int, ...] = (n_inputs, 1, 1) if first.node.layer_type == "ConvTranspose2d" else (n_inputs,)
    layer_specs: list[LayerSpec] = []
    for index, leaf in enumerate(leaves):
        reshaped = _infer_reshape(leaves[index:], shape)
        if reshaped:
            layer_specs.append(LayerSpec("unflatten", size=reshaped) if len(reshaped) == 3 else LayerSpec("flatten"))
            shape = reshaped
        own = {key.rsplit(".", 1)[-1]: entry for key, entry in tensors.items() if key.rpartition(".")[0] == leaf.name}
        shape = _run_on_meta(leaf, own, shape)
        if math.prod(shape) > _MAX_VALUES:
            raise LoadError(
                f"{leaf.name} would output {math.prod(shape):,} values per latent: the file is malformed or hostile",
                "do not use this file",
            )
        kind = _LAYER_KINDS.get(leaf.node.layer_type, "kernel")
        weights = LayerWeights(leaf.name, kind, own) if own else None
        layer_specs.append(LayerSpec("layer", weights, partial(_build_layer, leaf.node, own)))
    return layer_specs, shape


def _run_on_meta(leaf: LayerNode, own: dict[str, Tensor], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The layer's output shape. ArchitectureMismatch where its tensors or its input do not fit."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # about empty layers
        module = build_torch_layer(leaf.node, own).eval()
        _require_tensors(leaf, module, own)
        try:
            return tuple(module(torch.empty(2, *shape)).shape[1:])
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ArchitectureMismatch(
                f"{leaf.name} does not take {shape}: {str(error).splitlines()[0][:100]}"
            ) from None


def _require_tensors(leaf: LayerNode, module: nn.Module, own: Mapping[str, Tensor]) -> None:
    """ArchitectureMismatch unless the layer's tensors have its shapes; num_batches_tracked may be missing."""
    for name, entry in module.state_dict().items():
        if name != "num_batches_tracked" and (name not in own or own[name].shape != entry.shape):
            actual = tuple(own[name].shape) if name in own else "missing"
            raise ArchitectureMismatch(
                f"{leaf.name}.{name} is {actual}, but {leaf.node.layer_type} needs {tuple(entry.shape)}"
            )


def _build_layer(node: ModuleNode, own: dict[str, Tensor], eps: float) -> nn.Module:
    return build_torch_layer(node, own)


def _infer_reshape(following: list[LayerNode], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the next layers need; empty where it is the present one."""
    target = next((leaf for leaf in following if leaf.takes_vectors is not None), None)
    if target is None or target.takes_vectors == (len(shape) == 1) or following[0].takes_vectors is None:
        return ()
    if target.takes_vectors:
        return (shape[0] * shape[1] * shape[2],) if len(shape) == 3 else ()
    channels = next((leaf.in_channels for leaf in following if leaf.in_channels and leaf.takes_vectors is False), None)
    size = round((shape[0] / channels) ** 0.5) if channels else 0
    if not channels or channels * size * size != shape[0]:
        raise ArchitectureMismatch(f"{shape[0]} features cannot be reshaped to {channels} square maps")
    return (channels, size, size)


def _resolve_output(
    root: ModuleNode, leaves: list[LayerNode], shape: tuple[int, ...], config: AuditConfig
) -> tuple[OutputSpec, str, tuple[Assumption, ...]]:
    """Range and shape: by the file's last activation, else by flags and defaults, as functions leave no trace."""
    last = leaves[-1].node.layer_type
    is_sequential = root.layer_type == "Sequential"
    assumptions: tuple[Assumption, ...] = ()
    image_shape = FLAT_IMAGE_SHAPES.get(shape[0]) if len(shape) == 1 else None
    if image_shape is not None and (last in _ACTIVATION_RANGES or not is_sequential):
        assumptions = (Assumption("image_shape", image_shape, "default", note=f"read from {shape[0]} outputs"),)
        shape = image_shape
    kinds: dict[int, SampleKind] = {3: "image", 1: "vector"}
    kind = kinds.get(len(shape), "series")
    given = config.output_range
    if given is None and last in _ACTIVATION_RANGES:
        low, high = _ACTIVATION_RANGES[last]
        assumption = assume_output_activation(last.lower(), (low, high), "file")
        return OutputSpec(kind, shape, (low, high)), "none", (*assumptions, assumption)
    if kind != "image":
        return OutputSpec(kind, shape, None if given is None else (given[0], given[1])), "none", assumptions
    if is_sequential:
        low, high = given or (-1.0, 1.0)
        assumption = Assumption(
            "output_range", (low, high), "flag" if given else "default", note="the last layer has no activation"
        )
        return OutputSpec("image", shape, (low, high)), "none", (*assumptions, assumption)
    output, activation, more = resolve_image_output(shape, 0, config)
    return output, activation, (*assumptions, *more)
