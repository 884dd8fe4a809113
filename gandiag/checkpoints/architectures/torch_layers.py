"""torch's own layers from what a pickled module says of itself: stride, padding, eps, slope. Built on the meta device, without weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.safe_pickle.modules import ModuleNode

_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_POOL = ("kernel_size", "stride", "padding")
# class -> the settings that its constructor takes; everything else in the pickle is bookkeeping
CONSTRUCTOR_ARGS: dict[str, tuple[str, ...]] = {
    "Linear": ("in_features", "out_features"),
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "ConvTranspose1d": (*_CONV, "output_padding"),
    "ConvTranspose2d": (*_CONV, "output_padding"),
    "BatchNorm1d": _NORM,
    "BatchNorm2d": _NORM,
    "InstanceNorm1d": _NORM,
    "InstanceNorm2d": _NORM,
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    "ReLU": (),
    "ReLU6": (),
    "LeakyReLU": ("negative_slope",),
    "ELU": ("alpha",),
    "SELU": (),
    "GELU": ("approximate",),
    "SiLU": (),
    "Mish": (),
    "Softplus": ("beta", "threshold"),
    "Hardtanh": ("min_val", "max_val"),
    "PReLU": ("num_parameters",),
    "Tanh": (),
    "Sigmoid": (),
    "Hardswish": (),
    "Hardsigmoid": (),
    "Softsign": (),
    "Softmax": ("dim",),
    "Identity": (),
    "Dropout": ("p",),
    "Dropout2d": ("p",),
    "AlphaDropout": ("p",),
    "Upsample": ("size", "scale_factor", "mode", "align_corners"),
    "UpsamplingNearest2d": ("size", "scale_factor"),
    "UpsamplingBilinear2d": ("size", "scale_factor"),
    "PixelShuffle": ("upscale_factor",),
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
    "ZeroPad2d": ("padding",),
    "ReflectionPad2d": ("padding",),
    "ReplicationPad2d": ("padding",),
    "AvgPool2d": _POOL,
    "MaxPool2d": _POOL,
}
ACTIVATION_CLASSES = {
    "ReLU",
    "ReLU6",
    "LeakyReLU",
    "ELU",
    "SELU",
    "GELU",
    "SiLU",
    "Mish",
    "Softplus",
    "Hardtanh",
    "PReLU",
    "Tanh",
    "Sigmoid",
    "Hardswish",
    "Hardsigmoid",
    "Softsign",
}
_LARGEST = 2**24


def build_torch_layer(node: ModuleNode, tensors: dict[str, Any]) -> nn.Module:
    """The layer, its parameters still empty. NotThis for a class that is not standard, or a setting that cannot be one."""
    names = CONSTRUCTOR_ARGS.get(node.layer_type)
    if names is None:
        raise ArchitectureMismatch(f"{node.cls} is no standard layer, and its code is not in the file")
    given = {name: _checked(node, name) for name in names if name in node.settings}
    if "weight" in names or node.layer_type in ("Linear", "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"):
        given["bias"] = "bias" in tensors
    try:
        made: nn.Module = getattr(nn, node.layer_type)(**given)
    except (TypeError, ValueError, RuntimeError) as wrong:
        raise ArchitectureMismatch(
            f"{node.layer_type} cannot have these settings: {str(wrong).splitlines()[0][:120]}"
        ) from None
    return made


def _checked(node: ModuleNode, name: str) -> Any:
    value = node.settings[name]
    if (
        isinstance(value, (list, tuple))
        and len(value) <= 6
        and all(type(entry) in (int, float) and abs(entry) <= _LARGEST for entry in value)
    ):
        return tuple(value)
    if (
        value is None
        or isinstance(value, bool)
        or (isinstance(value, (int, float)) and abs(value) <= _LARGEST)
        or (isinstance(value, str) and len(value) < 20)
    ):
        return value
    raise ArchitectureMismatch(f"{name} of {node.layer_type} is no setting that gandiag can take over")
