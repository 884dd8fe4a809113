"""Specifications of single layers: their weights and how to build their module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from gandiag.checkpoints.inference.layer_list import LayerWeights

PIXEL_SHUFFLE_MODES = ("pixel-shuffle", "depth-to-space")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One module of a sequential network.

    `kind`: "layer" (with or without weights), "upsample" (both by `build`), "activation", "dropout", "flatten",
    "unflatten" (to `size`), "affine_norm" (gain and bias of a norm over maps, whose groups are open), or "norm_before"
    and "norm_after": a gap around an activation that may hold a norm without weights, or "resize_after": one that may
    hold pooling or upsampling. `build`: BatchNorm eps -> module.
    A dropout with a non-empty `size` drops whole channels (Dropout2d).
    """

    kind: str
    weights: LayerWeights | None = None
    build: Callable[[float], nn.Module] | None = None
    size: tuple[int, ...] = ()


class DepthToSpace(nn.Module):
    """Pixel shuffle in TensorFlow's channel order (four blocks of C): (B, 4 C, H, W) -> (B, C, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, 4, channels // 4, height, width).transpose(1, 2)
        return nn.functional.pixel_shuffle(blocks.reshape(batch, channels, height, width), 2)


def linear_layer_spec(layer: LayerWeights) -> LayerSpec:
    """A Linear."""
    out_features, in_features = layer.shape
    return LayerSpec("layer", layer, lambda eps: nn.Linear(in_features, out_features, bias="bias" in layer.tensors))


def batchnorm_layer_spec(layer: LayerWeights, spatial: bool, *, keep_default_eps: bool = False) -> LayerSpec:
    """A BatchNorm2d (`spatial`) or BatchNorm1d.

    `keep_default_eps`: its eps is 1e-5 where the others have the mistaken 0.8.
    """
    batchnorm = nn.BatchNorm2d if spatial else nn.BatchNorm1d
    affine = "weight" in layer.tensors
    return LayerSpec(
        "layer",
        layer,
        lambda eps: batchnorm(layer.shape[0], eps=1e-5 if keep_default_eps and eps == 0.8 else eps, affine=affine),
    )


def norm_layer_spec(layer: LayerWeights, spatial: bool, *, keep_default_eps: bool = False) -> LayerSpec:
    """A BatchNorm, another norm with gain and bias, or a PReLU. `spatial`: over images."""
    channels = layer.shape[0]
    if layer.kind == "norm":
        return batchnorm_layer_spec(layer, spatial, keep_default_eps=keep_default_eps)
    if layer.kind == "prelu":
        return LayerSpec("layer", layer, lambda eps: nn.PReLU(channels))
    if spatial:
        return LayerSpec("affine_norm", layer, lambda eps: nn.GroupNorm(channels, channels))
    return LayerSpec("layer", layer, lambda eps: nn.LayerNorm(channels))


def conv_layer_spec(layer: LayerWeights) -> LayerSpec:
    """A Conv2d with stride 1 that keeps the image size."""
    out_channels, in_channels, kernel, _ = layer.shape
    bias = "bias" in layer.tensors
    return LayerSpec(
        "layer", layer, lambda eps: nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    )


def upsample_layer_spec(mode: str) -> LayerSpec:
    """Upsampling by 2: "nearest", "bilinear", or four channels into one by "pixel-shuffle" or "depth-to-space"."""
    if mode in PIXEL_SHUFFLE_MODES:
        return LayerSpec(
            "upsample", None, lambda eps: nn.PixelShuffle(2) if mode == PIXEL_SHUFFLE_MODES[0] else DepthToSpace()
        )
    return LayerSpec(
        "upsample",
        None,
        lambda eps: nn.Upsample(scale_factor=2, mode=mode, align_corners=False if mode == "bilinear" else None),
    )


def transposed_conv_layer_spec(layer: LayerWeights, stride_spec: tuple[int, int, int]) -> LayerSpec:
    """A ConvTranspose2d. `stride_spec`: stride, padding, output padding."""
    in_channels, out_channels, kernel, _ = layer.shape
    bias = "bias" in layer.tensors
    return LayerSpec(
        "layer", layer, lambda eps: nn.ConvTranspose2d(in_channels, out_channels, kernel, *stride_spec, bias=bias)
    )


def strided_conv_layer_spec(layer: LayerWeights, stride: int, padding: int) -> LayerSpec:
    """A Conv2d that halves or keeps the image size."""
    out_channels, in_channels, kernel, _ = layer.shape
    bias = "bias" in layer.tensors
    return LayerSpec(
        "layer", layer, lambda eps: nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=bias)
    )
