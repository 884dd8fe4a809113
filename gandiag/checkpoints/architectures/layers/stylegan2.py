"""The layers of StyleGAN2, in the arithmetic that its PyTorch versions share.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2.2: the style scales the input channels of
a convolution, and what that does to the size of its outputs is divided out (demodulation). Weights are kept at unit variance
and scaled when used (Karras et al. 2018, section 4.1); images and feature maps are doubled through a small low-pass filter.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.interfaces import Assumption, Prior

DEFAULT_LR_MULTIPLIER = 0.01  # the usual learning-rate factor of a mapping network
_EPS = 1e-8


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Rows (B, D) of mean square 1: only a latent's direction matters."""
    return x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt()


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, times sqrt(2), which keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class EqualizedLinear(nn.Module):
    """A linear layer whose stored weight is of deviation 1 / rate, scaled by rate / sqrt(inputs) when used."""

    def __init__(self, shape: tuple[int, ...], lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[0]))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(
            x, self.weight * (self.lr_multiplier / math.sqrt(self.weight.shape[1])), self.bias * self.lr_multiplier
        )


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, blur: Tensor | None = None
) -> Tensor:
    """x (B, I, H, W) through weight (O, I, k, k) scaled by style (B, I). With `blur` (a filter of sum 1) the side is doubled.

    The style scales x instead of the weight, and demodulation the output: the same numbers, without B copies of the weight.
    """
    if (
        not x.shape[1] == style.shape[1] == weight.shape[1]
    ):  # one channel would be stretched to many, and a run without numbers takes it
        raise RuntimeError(f"{x.shape[1]} channels and {style.shape[1]} styles for a weight of {tuple(weight.shape)}")
    x = x * style[:, :, None, None]
    if blur is None:
        out = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    else:
        wide = blur.shape[-1] - 2 - (weight.shape[-1] - 1)
        out = filter2d(
            F.conv_transpose2d(x, weight.transpose(0, 1), stride=2),
            4 * blur,
            padding=((wide + 1) // 2 + 1, wide // 2 + 1),
        )
    if not demodulate:
        return out
    sizes = style.square() @ weight.square().sum((2, 3)).T  # (B, O)
    return out * (sizes + _EPS).rsqrt()[:, :, None, None]


def upsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Twice the side: zeros between the pixels, then a filter whose sum is 4."""
    n, channels, height, width = x.shape
    spaced = x.new_zeros(n, channels, height, 2, width, 2)
    spaced[:, :, :, 0, :, 0] = x
    wide = kernel.shape[-1] - 2
    return filter2d(
        spaced.reshape(n, channels, 2 * height, 2 * width), kernel, padding=((wide + 1) // 2 + 1, wide // 2)
    )


def filter2d(x: Tensor, kernel: Tensor, padding: tuple[int, int]) -> Tensor:
    """Every channel convolved with kernel (k, k), `pad` pixels of zeros before and after on both axes."""
    before, after = padding
    x = F.pad(x, (before, after, before, after))
    channels = x.shape[1]
    return F.conv2d(x, kernel.flip(0, 1).expand(channels, 1, *kernel.shape), groups=channels)


def infer_output_range(output_range: tuple[float, ...] | None, family: str) -> tuple[tuple[float, float], Assumption]:
    """The range of pictures that nothing bounds: the flag's, else the one that the training data had."""
    what = "output range (--output-range)"
    if output_range is not None:
        return (output_range[0], output_range[1]), Assumption(
            what, f"[{output_range[0]:g}, {output_range[1]:g}]", "flag"
        )
    return (-1.0, 1.0), Assumption(
        what, "[-1, 1], that of its training data: nothing bounds the outputs", f"family ({family})"
    )


def normalized_latent_prior(requested: str | None, normalized_values: str, family: str) -> tuple[Prior, Assumption]:
    """The prior of a latent that is normalised: the flag's, else a normal one. `what` is normalised."""
    prior: Prior = requested or "normal"  # type: ignore[assignment]
    said = f"{prior}, of which only the direction matters: {normalized_values} normalised"
    return prior, Assumption("latent prior (--prior)", said, "flag" if requested else f"family ({family})")


def check_w_avg(name: str, w_avg: Tensor, w_samples: Tensor) -> Assumption:
    """The mean style that a file keeps, and how well its mapping (some styles of it, (N, W)) agrees: a wrong mapping has another mean."""
    if w_samples.shape[1:] != w_avg.shape:
        raise ArchitectureMismatch(f"{name} holds {w_avg.numel()} numbers, and styles have {w_samples.shape[1]}")
    away = float(((w_samples.mean(0) - w_avg.to(w_samples)) / w_samples.std(0).clamp_min(1e-12)).square().mean().sqrt())
    verdict = "" if away < 1 else ", which is far: the mapping may be read wrongly, or the mean is not its own"
    return Assumption(
        "mean style",
        f"{name} of the file, {away:.2g} deviations from the mean of {len(w_samples)} mapped z{verdict}",
        "file",
    )


def infer_lr_multiplier(weight: Tensor, file_value: Any) -> tuple[float, str, str]:
    """The learning-rate factor of a mapping layer, in words, and its source: what the file tells, else by its weights' deviation.

    Weights start at deviation 1 / factor and training moves them by little of that; factors in use are powers of ten.
    """
    if isinstance(file_value, (int, float)) and 0 < file_value <= 1:
        return float(file_value), f"{file_value:g}", "file"
    deviation = float(weight.float().std()) if weight.numel() > 1 else 1 / DEFAULT_LR_MULTIPLIER
    if not (math.isfinite(deviation) and deviation > 0):
        return DEFAULT_LR_MULTIPLIER, f"{DEFAULT_LR_MULTIPLIER:g}", "family (StyleGAN2)"
    rate = 10.0 ** min(0, max(-3, -round(math.log10(deviation))))
    clear = abs(math.log(rate * deviation)) < math.log(1.5)
    return (
        rate,
        f"{rate:g} (its weights have deviation {deviation:.3g}, which starts at 1 / factor)",
        "file" if clear else "weights",
    )
