"""A whole pickled module of standard layers: structure, strides, eps and activations come out of the file.

What does not is forward(). A Sequential has none of its own. Another class is taken to run its parts in the order in which
they were registered, with the reshapes that this needs; where that order cannot be the order of running (several layers
held by name, an activation shared between them), the weights' shapes decide, as for a bare state dict.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from gandiag.checkpoints.architectures.torch_layers import ACTIVATION_CLASSES, CONSTRUCTOR_ARGS, build_torch_layer
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerKind, LayerWeights
from gandiag.checkpoints.inference.output_activation import FLAT_IMAGE_SHAPES, resolve_image_output
from gandiag.checkpoints.inference.sequential import LayerSpec, SequentialSpec
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, OutputSpec

_LARGEST = 2**27  # values of one sample: 3 x 6,000 x 6,000
_WRAPPERS = {"module": "module", "_orig_mod": "_orig_mod"}
_KINDS: dict[str, LayerKind] = {"Linear": "linear", "BatchNorm1d": "norm", "BatchNorm2d": "norm"}
_RANGES = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0), "Hardtanh": (-1.0, 1.0), "Hardsigmoid": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class LayerNode:
    """A layer of the chain, under the name that its tensors have in the file."""

    name: str
    node: ModuleNode

    @property
    def takes_vectors(self) -> bool | None:
        """Whether it takes (B, C) rather than pictures; None if both."""
        if self.node.layer_type in ("Linear", "BatchNorm1d"):
            return True
        pictures = self.node.layer_type.endswith("2d") or self.node.layer_type in ("Upsample", "PixelShuffle")
        return False if pictures and not self.node.layer_type.startswith("Dropout") else None

    @property
    def in_channels(self) -> int | None:
        """Channels that it takes, where its settings say so."""
        found = next(
            (
                self.node.settings[name]
                for name in ("in_channels", "num_features", "in_features")
                if name in self.node.settings
            ),
            None,
        )
        return found if isinstance(found, int) else None


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """The chain of a pickled module. NotThis without one, and for parts or an order that the file does not settle."""
    root = unwrap_module(weights.structure)
    if root is None:
        raise ArchitectureMismatch("it is no pickled module")
    leaves = list(_chain(root, ""))
    first = next((leaf for leaf in leaves if leaf.node.tensors), None)
    if first is None or first.node.layer_type not in ("Linear", "ConvTranspose2d"):
        raise ArchitectureMismatch("its first layer takes no latent vector")
    steps, shape = _steps(leaves, weights.tensors, first)
    inputs = first.in_channels
    if inputs is None:
        raise ArchitectureMismatch("its first layer does not say how wide it is")
    output, final, said = _output(root, leaves, shape, config)
    order = (
        "the parts one after another, as in Sequential"
        if root.layer_type == "Sequential"
        else f"the parts in the order of registration: {root.cls} has its own"
    )
    told = Assumption("forward() (--model)", order, "file")
    return SequentialSpec(
        "pickled",
        tuple(steps),
        inputs,
        first.node.layer_type == "ConvTranspose2d",
        output,
        final,
        (told, *said),
        settings_from_file=True,
    )


def unwrap_module(node: ModuleNode | None) -> ModuleNode | None:
    """Without DataParallel, compiled and averaging wrappers around it."""
    while node is not None and len(node.children) == 1 and next(iter(node.children)) in _WRAPPERS:
        node = next(iter(node.children.values()))
    return node


def _chain(node: ModuleNode, name: str) -> list[LayerNode]:
    """Every layer in the order in which it runs."""
    if node.layer_type in CONSTRUCTOR_ARGS:
        return [LayerNode(name, node)]
    if node.tensors:
        raise ArchitectureMismatch(f"{node.cls} holds weights of its own, and its forward() is not in the file")
    if not node.children and node.layer_type != "Sequential":
        raise ArchitectureMismatch(f"{node.cls} is no standard layer, and its code is not in the file")
    if node.layer_type not in ("Sequential", "ModuleList"):
        _demand_order(node)
    return [leaf for key, child in node.children.items() for leaf in _chain(child, f"{name}.{key}".lstrip("."))]


def _demand_order(node: ModuleNode) -> None:
    """Registration tells the order of running only where at most one layer with weights is held by name."""
    held = [name for name, child in node.children.items() if child.layer_type in CONSTRUCTOR_ARGS]
    weighty = [name for name in held if node.children[name].tensors]
    if len(weighty) > 1 or any(node.children[name].layer_type in ACTIVATION_CLASSES for name in held[:-1]):
        raise ArchitectureMismatch(
            f"{node.cls} holds {', '.join(held[:4])} by name, and its forward() is not in the file"
        )


def _steps(
    leaves: list[LayerNode], tensors: Mapping[str, Tensor], first: LayerNode
) -> tuple[list[LayerSpec], tuple[int, ...]]:
    """Steps with the reshapes between flat layers and pictures; the shape at the end, by a run on the meta device."""
    import torch

    shape: tuple[int, ...] = (
        (first.in_channels or 0, 1, 1) if first.node.layer_type == "ConvTranspose2d" else (first.in_channels or 0,)
    )
    steps: list[LayerSpec] = []
    for index, leaf in enumerate(leaves):
        size = _reshape(leaves[index:], shape)
        if size:
            steps.append(
                LayerSpec("unflatten", size=size)
                if len(size) == 3
                else LayerSpec("layer", build=lambda eps: torch.nn.Flatten())
            )
            shape = size
        inside = {
            key.rsplit(".", 1)[-1]: entry for key, entry in tensors.items() if key.rpartition(".")[0] == leaf.name
        }
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # that layers are empty
            module = build_torch_layer(leaf.node, inside).eval()
            _demand_tensors(leaf, module, inside)
            try:
                shape = tuple(module(torch.empty(2, *shape)).shape[1:])
            except (RuntimeError, ValueError, IndexError, TypeError) as wrong:
                raise ArchitectureMismatch(
                    f"{leaf.name} does not take {shape}: {str(wrong).splitlines()[0][:100]}"
                ) from None
        if math.prod(shape) > _LARGEST:
            raise LoadError(
                f"{leaf.name} would make {math.prod(shape):,} values of one latent: malformed or hostile",
                "do not use this file",
            )
        layer = LayerWeights(leaf.name, _KINDS.get(leaf.node.layer_type, "kernel"), inside) if inside else None
        steps.append(LayerSpec("layer", layer, partial(_built, leaf.node, inside)))
    return steps, shape


def _demand_tensors(leaf: LayerNode, module: nn.Module, inside: Mapping[str, Tensor]) -> None:
    """Every tensor that the layer needs is there and of its shape; only the count of batches may be missing."""
    for name, entry in module.state_dict().items():
        if name != "num_batches_tracked" and (name not in inside or inside[name].shape != entry.shape):
            there = tuple(inside[name].shape) if name in inside else "missing"
            raise ArchitectureMismatch(
                f"{leaf.name}.{name} is {there}, where {leaf.node.layer_type} has {tuple(entry.shape)}"
            )


def _built(node: ModuleNode, inside: dict[str, Tensor], eps: float) -> nn.Module:
    return build_torch_layer(node, inside)


def _reshape(coming: list[LayerNode], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the next layers need, where it is another than the one there is."""
    want = next((leaf for leaf in coming if leaf.takes_vectors is not None), None)
    if want is None or want.takes_vectors == (len(shape) == 1) or coming[0].takes_vectors is None:
        return ()
    if want.takes_vectors:
        return (shape[0] * shape[1] * shape[2],) if len(shape) == 3 else ()
    channels = next((leaf.in_channels for leaf in coming if leaf.in_channels and leaf.takes_vectors is False), None)
    side = round((shape[0] / channels) ** 0.5) if channels else 0
    if not channels or channels * side * side != shape[0]:
        raise ArchitectureMismatch(f"{shape[0]} values are no square picture of {channels} channels")
    return (channels, side, side)


def _output(
    root: ModuleNode, leaves: list[LayerNode], shape: tuple[int, ...], config: AuditConfig
) -> tuple[OutputSpec, str, tuple[Assumption, ...]]:
    """Range and shape: by the last activation of the file, else by flags and custom, as functions leave no trace in it."""
    last = leaves[-1].node.layer_type
    said: tuple[Assumption, ...] = ()
    if (
        len(shape) == 1
        and (flat := FLAT_IMAGE_SHAPES.get(shape[0]))
        and (last in _RANGES or root.layer_type != "Sequential")
    ):
        shape, said = (
            flat,
            (
                Assumption(
                    "image shape (--image-size, --channels)",
                    f"{shape[0]} outputs are read as {'x'.join(map(str, flat))}",
                    "default",
                ),
            ),
        )
    kind = "image" if len(shape) == 3 else "vector" if len(shape) == 1 else "series"
    if config.output_range is None and last in _RANGES:
        told = Assumption("output activation (--output-range)", f"{last.lower()}, [{_RANGES[last][0]:g}, 1]", "file")
        return OutputSpec(kind, shape, _RANGES[last]), "none", (*said, told)  # type: ignore[arg-type]
    if kind != "image":
        given = None if config.output_range is None else (config.output_range[0], config.output_range[1])
        return OutputSpec(kind, shape, given), "none", said  # type: ignore[arg-type]
    if root.layer_type == "Sequential":
        told = Assumption("output range (--output-range)", "[-1, 1]; the last layer has no activation", "default")
        bounds = config.output_range or (-1.0, 1.0)
        return (
            OutputSpec("image", shape, (bounds[0], bounds[1])),
            "none",
            (*said, replace(told, source="flag") if config.output_range else told),
        )
    output, final, more = resolve_image_output(shape, 0, config)
    return output, final, (*said, *more)
