"""What a family that builds its own network hands over, and how the file's tensors get into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec


@dataclass(frozen=True, slots=True)
class RebuiltGenerator:
    """A finished generator: forward(z), or forward(z, labels) as `condition` says, in eval mode with the file's weights."""

    family: str
    module: nn.Module
    latent: LatentSpec
    output: OutputSpec
    classes: int | None = None
    condition: LabelEncoding | None = None
    assumptions: tuple[Assumption, ...] = ()


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The module (built on the meta device) with the file's tensors: every key used, every shape equal. NotThis names what disagrees."""
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
        told = [
            *wrong[:2],
            *(f"{name} is missing" for name in missing[:2]),
            *(f"{name} is not part of it" for name in unexpected[:2]),
        ]
        raise ArchitectureMismatch("; ".join(told))
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    return module.eval().requires_grad_(False)


def require_shape(tensors: Mapping[str, Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """A tensor's shape; NotThis where it is missing, empty or of another rank."""
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != ndim or tensor.numel() == 0 or not tensor.is_floating_point():
        raise ArchitectureMismatch(f"{name} is {'missing' if tensor is None else tuple(tensor.shape)}")
    return tuple(tensor.shape)


def resolve_output_activation(
    output_range: tuple[float, ...] | None, shape: tuple[int, ...], family: str
) -> tuple[OutputSpec, str, Assumption]:
    """Images, their activation, and who said so: the flag, else the family's tanh."""
    if output_range is None:
        return (
            OutputSpec("image", shape, (-1.0, 1.0)),
            "tanh",
            Assumption("output activation (--output-range)", "tanh, [-1, 1]", f"family ({family})"),
        )
    low, high = output_range[0], output_range[1]
    final = {(-1.0, 1.0): "tanh", (0.0, 1.0): "sigmoid"}.get((low, high), "none")
    return (
        OutputSpec("image", shape, (low, high)),
        final,
        Assumption("output activation (--output-range)", f"{final}, [{low:g}, {high:g}]", "flag"),
    )
