"""What an architecture that builds its own network returns, and how the file's tensors are loaded into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.output_activation import activation_for_range, assume_output_activation
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec


@dataclass(frozen=True, slots=True)
class RebuiltGenerator:
    """A complete generator in eval mode: forward(z), or forward(z, labels) with labels encoded as `condition`."""

    family: str
    module: nn.Module
    latent: LatentSpec
    output: OutputSpec
    classes: int | None = None
    condition: LabelEncoding | None = None
    assumptions: tuple[Assumption, ...] = ()


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Load the file's tensors into a module built on the meta device: every key used, every shape equal.

    Returns the module in eval mode, without gradients. ArchitectureMismatch names what disagrees.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    shared = [name for name in own if name in tensors]
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
        for name in shared
        if tensors[name].shape != own[name].shape
    ]
    wrong += [
        f"{name} holds {tensors[name].dtype}"
        for name in shared
        if own[name].is_floating_point() and not tensors[name].is_floating_point()
    ]
    if missing or unexpected or wrong:
        reasons = [
            *wrong[:2],
            *(f"{name} is missing" for name in missing[:2]),
            *(f"{name} is not part of it" for name in unexpected[:2]),
        ]
        raise ArchitectureMismatch("; ".join(reasons))
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    return module.eval().requires_grad_(False)


def require_shape(tensors: Mapping[str, Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """A tensor's shape.

    ArchitectureMismatch where it is missing, empty, not floating-point, or has another number of axes.
    """
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != ndim or tensor.numel() == 0 or not tensor.is_floating_point():
        raise ArchitectureMismatch(f"{name} is {'missing' if tensor is None else tuple(tensor.shape)}")
    return tuple(tensor.shape)


def resolve_output_activation(
    output_range: tuple[float, ...] | None, shape: tuple[int, ...], family: str
) -> tuple[OutputSpec, str, Assumption]:
    """An image output, its activation, and its source: --output-range, else the architecture's tanh."""
    if output_range is None:
        assumption = assume_output_activation("tanh", (-1.0, 1.0), "family", origin=family)
        return OutputSpec("image", shape, (-1.0, 1.0)), "tanh", assumption
    low, high = output_range[0], output_range[1]
    activation = activation_for_range(output_range)
    return (
        OutputSpec("image", shape, (low, high)),
        activation,
        assume_output_activation(activation, output_range, "flag"),
    )
