"""Builds torch's own layers, without weights, from a pickled module's settings: stride, padding, eps, slope."""

from __future__ import annotations

from collections.abc import Mapping
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
_BIASED_LAYERS = ("Linear", "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d")
_MAX_SETTING = 2**24


def build_torch_layer(node: ModuleNode, tensors: Mapping[str, object]) -> nn.Module:
    """The layer with uninitialized parameters; inside `torch.device("meta")` it takes no memory.

    ArchitectureMismatch for a class that is not standard, or settings that its constructor rejects.
    """
    names = CONSTRUCTOR_ARGS.get(node.layer_type)
    if names is None:
        raise ArchitectureMismatch(f"{node.cls} is not a standard layer, and its code is not in the file")
    arguments = {name: _check_setting(node, name) for name in names if name in node.settings}
    if node.layer_type in _BIASED_LAYERS:
        arguments["bias"] = "bias" in tensors
    try:
        layer: nn.Module = getattr(nn, node.layer_type)(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArchitectureMismatch(
            f"{node.layer_type} rejects these settings: {str(error).splitlines()[0][:120]}"
        ) from None
    return layer


def _check_setting(node: ModuleNode, name: str) -> Any:
    """A setting that is plain data of modest size. ArchitectureMismatch for anything else."""
    value = node.settings[name]
    if _is_short_number_list(value):
        return tuple(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and abs(value) <= _MAX_SETTING:
        return value
    if isinstance(value, str) and len(value) < 20:
        return value
    raise ArchitectureMismatch(
        f"{name} of {node.layer_type} is not a number, a short string or a short list of numbers"
    )


def _is_short_number_list(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) > 6:
        return False
    return all(type(entry) in (int, float) and abs(entry) <= _MAX_SETTING for entry in value)
