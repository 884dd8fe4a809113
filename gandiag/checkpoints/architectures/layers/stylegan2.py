"""The layers of StyleGAN2, in the arithmetic that its PyTorch versions share.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2.2: the style scales the input
channels of a convolution, and its effect on the size of the outputs is divided out (demodulation). Weights are kept at
unit variance and scaled when used (Karras et al. 2018, section 4.1); images and feature maps are upsampled through a
small low-pass filter.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.interfaces import Assumption

DEFAULT_LR_MULTIPLIER = 0.01  # the usual learning-rate multiplier of a mapping network
UNBOUNDED_OUTPUT = "that of its training data: nothing bounds the outputs"
_EPS = 1e-8


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Rows (B, D) of mean square 1: only a latent's direction matters."""
    return x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt()


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, times sqrt(2), which keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class EqualizedLinear(nn.Module):
    """Linear; its stored weight has std 1 / lr_multiplier, scaled by lr_multiplier / sqrt(inputs) when used."""

    def __init__(self, shape: tuple[int, ...], lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[0]))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        return F.linear(x, self.weight * scale, self.bias * self.lr_multiplier)


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, blur: Tensor | None = None
) -> Tensor:
    """x (B, I, H, W) through weight (O, I, k, k) scaled by style (B, I). `blur`, a filter of sum 1: upsamples by 2.

    The style scales x instead of the weight, and demodulation scales the output: the same numbers without B copies of
    the weight.
    """
    # Checked here because a single channel would be broadcast to many, and a dry run on the meta device accepts that.
    if not x.shape[1] == style.shape[1] == weight.shape[1]:
        raise RuntimeError(f"{x.shape[1]} channels and {style.shape[1]} styles for a weight of {tuple(weight.shape)}")
    x = x * style[:, :, None, None]
    if blur is None:
        out = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    else:
        excess = blur.shape[-1] - 2 - (weight.shape[-1] - 1)
        upsampled = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        out = filter2d(upsampled, 4 * blur, padding=((excess + 1) // 2 + 1, excess // 2 + 1))
    if not demodulate:
        return out
    squared_norms = style.square() @ weight.square().sum((2, 3)).T  # (B, O)
    return out * (squared_norms + _EPS).rsqrt()[:, :, None, None]


def upsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Twice the resolution: zeros between the pixels, then a filter whose sum is 4."""
    n, channels, height, width = x.shape
    spaced = x.new_zeros(n, channels, height, 2, width, 2)
    spaced[:, :, :, 0, :, 0] = x
    excess = kernel.shape[-1] - 2
    padding = ((excess + 1) // 2 + 1, excess // 2)
    return filter2d(spaced.reshape(n, channels, 2 * height, 2 * width), kernel, padding=padding)


def filter2d(x: Tensor, kernel: Tensor, padding: tuple[int, int]) -> Tensor:
    """Every channel convolved with kernel (k, k); `padding`: zeros before and after, on both axes."""
    before, after = padding
    x = F.pad(x, (before, after, before, after))
    channels = x.shape[1]
    return F.conv2d(x, kernel.flip(0, 1).expand(channels, 1, *kernel.shape), groups=channels)


def assume_own_w_avg(n_samples: int, note: str = "") -> Assumption:
    """The mean style of a file that stores none: gandiag averages `n_samples` mapped latents."""
    return Assumption("w_avg", f"mean of {n_samples:,} mapped latents", "gandiag", note=note)


def check_w_avg(name: str, w_avg: Tensor, w_samples: Tensor) -> Assumption:
    """The mean style that a file stores, and its distance from the mean of styles drawn here (N, W).

    A mapping rebuilt wrongly has another mean. ArchitectureMismatch if the sizes differ.
    """
    if w_samples.shape[1:] != w_avg.shape:
        raise ArchitectureMismatch(f"{name} holds {w_avg.numel()} numbers, and styles have {w_samples.shape[1]}")
    shift = (w_samples.mean(0) - w_avg.to(w_samples)) / w_samples.std(0).clamp_min(1e-12)
    distance = float(shift.square().mean().sqrt())
    warning = "" if distance < 1 else ", which is far: the mapping may be wrong, or the mean belongs to another network"
    note = f"{distance:.2g} stds from the mean of {len(w_samples)} mapped latents{warning}"
    return Assumption("w_avg", name, "file", note=note)


def infer_lr_multiplier(weight: Tensor, file_value: Any, n_layers: int) -> Assumption:
    """The learning-rate multiplier of a mapping network: the file's, else inferred from the std of a layer's weights.

    Weights start with std 1 / multiplier and training moves them little in comparison; multipliers in use are powers of
    ten. The source is "file" if the std is within a factor 1.5 of such a power, else "weights".
    """
    layers = f"{n_layers} layers"
    if isinstance(file_value, (int, float)) and 0 < file_value <= 1:
        return Assumption("lr_multiplier", float(file_value), "file", note=layers)
    std = float(weight.float().std()) if weight.numel() > 1 else 1 / DEFAULT_LR_MULTIPLIER
    if not (math.isfinite(std) and std > 0):
        return Assumption("lr_multiplier", DEFAULT_LR_MULTIPLIER, "family", "StyleGAN2", note=layers)
    multiplier = 10.0 ** min(0, max(-3, -round(math.log10(std))))
    is_clear = abs(math.log(multiplier * std)) < math.log(1.5)
    note = f"{layers}; their weights have std {std:.3g}, which starts at 1 / multiplier"
    return Assumption("lr_multiplier", multiplier, "file" if is_clear else "weights", note=note)
