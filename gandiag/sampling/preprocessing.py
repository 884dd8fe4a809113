"""Real images made comparable with generated ones: same channels, same size, same range; every change is said."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.interfaces import Assumption, OutputSpec

DEFAULT_RANGE = (-1.0, 1.0)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def match_image_format(images: Tensor | list[Tensor], output: OutputSpec) -> Tensor:
    """Images (B, C, h, w), or a list of (C, h, w) of any sizes, uint8 or float in [0, 1] -> (B, *output.shape) float32.

    Centre-cropped to the output's aspect ratio, resized by antialiased bicubic interpolation, grey and RGB made equal, alpha
    dropped, and mapped from [0, 1] to the output's range ([-1, 1] where none is declared).
    """
    if isinstance(images, list):
        if len({(image.shape, image.dtype) for image in images}) > 1:
            return torch.cat([match_image_format(image[None], output) for image in images])
        images = torch.stack(images)
    channels, height, width = output.shape
    unit = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    unit = center_crop_resize(match_channels(unit, channels), height, width)
    low, high = output.range or DEFAULT_RANGE
    return unit.mul(high - low).add(low)  # (B, C, H, W)


def match_channels(images: Tensor, channels: int) -> Tensor:
    """(B, C, h, w) -> (B, channels, h, w): RGBA and LA lose alpha, grey is repeated, RGB becomes luma."""
    have = images.shape[1]
    if have == channels:
        return images
    if have in (2, 4):
        images, have = images[:, : have - 1], have - 1
    if have == channels:
        return images
    if have == 1:
        return images.expand(-1, channels, -1, -1)
    weights = images.new_tensor(_LUMA) if have == 3 else images.new_full((have,), 1 / have)
    return (images * weights[:, None, None]).sum(1, keepdim=True).expand(-1, channels, -1, -1)


def center_crop_resize(images: Tensor, height: int, width: int) -> Tensor:
    """(B, C, h, w) in [0, 1], centre-cropped to the aspect ratio and resized: (B, C, height, width) in [0, 1]."""
    h, w = images.shape[2:]
    if (h, w) == (height, width):
        return images
    crop_h, crop_w = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    images = _reduced(
        images[:, :, top : top + crop_h, left : left + crop_w], min(crop_h // height, crop_w // width) // 3
    )
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _reduced(images: Tensor, factor: int) -> Tensor:
    """Averaged over blocks of `factor` pixels: most of a large reduction at a third of the cost, before the last 3x is done well."""
    if factor < 2:
        return images
    h, w = images.shape[2:]
    top, left = h % factor // 2, w % factor // 2
    return F.avg_pool2d(images[:, :, top : top + h // factor * factor, left : left + w // factor * factor], factor)


def to_unit_range(samples: Tensor, output: OutputSpec) -> Tensor:
    """Images of a declared range, clamped to it and mapped to [0, 1]: (B, C, H, W) float32."""
    low, high = output.range or DEFAULT_RANGE
    return samples.float().sub(low).div(high - low).clamp(0, 1)


def describe_image_conversion(source_shape: tuple[int, ...] | None, output: OutputSpec) -> tuple[Assumption, ...]:
    """What `fit_images` changes about images of shape `native` (C, h, w), or None where sizes differ."""
    channels, height, width = output.shape
    found = []
    if source_shape is None:
        found.append(
            Assumption(
                "real images", f"of several sizes, centre-cropped and resized to {height}x{width}", "generator's output"
            )
        )
    elif source_shape[1:] != (height, width):
        found.append(
            Assumption(
                "real images",
                f"centre-cropped and resized from {source_shape[1]}x{source_shape[2]} to {height}x{width}",
                "generator's output",
            )
        )
    if source_shape is not None and source_shape[0] != channels:
        change = (
            "grey, repeated over the channels"
            if source_shape[0] < 3
            else "turned to grey"
            if channels == 1
            else "without their alpha channel"
        )
        found.append(Assumption("real channels", change, "generator's output"))
    if output.range is None:
        found.append(Assumption("real range", "-1,1", "default"))
    return tuple(found)


def infer_value_range(low: float, high: float, dtype: np.dtype[np.generic] | torch.dtype) -> tuple[float, float] | None:
    """The nominal range of image values seen between `low` and `high`, or None where it is anybody's guess."""
    slack = 1e-3
    if str(dtype).removeprefix("torch.") in ("uint8", "bool"):
        return (0.0, 255.0) if high > 1 else (0.0, 1.0)
    if low >= -slack and high <= 1 + slack:
        return 0.0, 1.0
    if low >= -1 - slack and high <= 1 + slack:
        return -1.0, 1.0
    if low >= -slack and 100 <= high <= 255 + slack:
        return 0.0, 255.0
    return None
