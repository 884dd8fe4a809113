"""Converts real images to the channels, size and value range of generated ones, and describes every change."""

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

    Center-cropped to the output's aspect ratio, resized by antialiased bicubic interpolation, converted between
    grayscale and RGB, alpha dropped, and mapped from [0, 1] to the output's range ([-1, 1] where none is declared).
    """
    if isinstance(images, list):
        if len({(image.shape, image.dtype) for image in images}) > 1:
            return torch.cat([match_image_format(image[None], output) for image in images])
        images = torch.stack(images)
    channels, height, width = output.shape
    images = images.contiguous()  # kernels round by the layout in memory, which depends on how images are stored
    unit = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    unit = center_crop_resize(match_channels(unit, channels), height, width)
    low, high = output.range or DEFAULT_RANGE
    return unit.mul(high - low).add(low)  # (B, C, H, W)


def match_channels(images: Tensor, channels: int) -> Tensor:
    """(B, C, h, w) -> (B, channels, h, w): RGBA and LA lose alpha, grayscale is repeated, RGB becomes luma."""
    current = images.shape[1]
    if current == channels:
        return images
    if current in (2, 4):
        images, current = images[:, : current - 1], current - 1
    if current == channels:
        return images
    if current == 1:
        return images.expand(-1, channels, -1, -1)
    weights = images.new_tensor(_LUMA) if current == 3 else images.new_full((current,), 1 / current)
    return (images * weights[:, None, None]).sum(1, keepdim=True).expand(-1, channels, -1, -1)


def center_crop_resize(images: Tensor, height: int, width: int) -> Tensor:
    """(B, C, h, w) in [0, 1], center-cropped to the aspect ratio and resized: (B, C, height, width) in [0, 1]."""
    h, w = images.shape[2:]
    if (h, w) == (height, width):
        return images
    crop_h, crop_w = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    images = images[:, :, top : top + crop_h, left : left + crop_w]
    images = _average_blocks(images, min(crop_h // height, crop_w // width) // 3)
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _average_blocks(images: Tensor, factor: int) -> Tensor:
    """Average blocks of `factor` pixels: a large reduction at a third of the cost; bicubic resizing does the rest."""
    if factor < 2:
        return images
    h, w = images.shape[2:]
    top, left = h % factor // 2, w % factor // 2
    return F.avg_pool2d(images[:, :, top : top + h // factor * factor, left : left + w // factor * factor], factor)


def to_unit_range(samples: Tensor, output: OutputSpec) -> Tensor:
    """Clamp images (B, C, H, W) to the declared range and map them to [0, 1], float32."""
    low, high = output.range or DEFAULT_RANGE
    return samples.float().sub(low).div(high - low).clamp(0, 1)


def describe_image_conversion(source_shape: tuple[int, ...] | None, output: OutputSpec) -> tuple[Assumption, ...]:
    """What `match_image_format` changes about images of shape `source_shape` (C, h, w), None for several sizes."""
    channels, height, width = output.shape
    changes = []
    if source_shape is None:
        changes.append(
            Assumption(
                "real_images",
                "several sizes",
                "generator's output",
                note=f"center-cropped and resized to {height}x{width}",
            )
        )
    elif source_shape[1:] != (height, width):
        changes.append(
            Assumption(
                "real_images",
                f"{source_shape[1]}x{source_shape[2]}",
                "generator's output",
                note=f"center-cropped and resized to {height}x{width}",
            )
        )
    if source_shape is not None and source_shape[0] != channels:
        change = _describe_channel_conversion(source_shape[0], channels)
        changes.append(Assumption("real_channels", change, "generator's output"))
    if output.range is None:
        changes.append(Assumption("real_range", (-1.0, 1.0), "default"))
    return tuple(changes)


def _describe_channel_conversion(source_channels: int, channels: int) -> str:
    if source_channels < 3:
        return "grayscale, repeated over the channels"
    return "converted to grayscale" if channels == 1 else "alpha channel dropped"


def infer_value_range(low: float, high: float, dtype: np.dtype[np.generic] | torch.dtype) -> tuple[float, float] | None:
    """The nominal range of image values observed between `low` and `high`, or None where they match no common range."""
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
