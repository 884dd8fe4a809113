"""Training latent scale by grid search, where an activation lies between the first layer and the first BatchNorm.

After a single linear layer the variance gives the scale in closed form (`first_layer`). After an activation the
variance still grows with the scale, channel by channel: latents at many scales are run to the first BatchNorm, and each
channel tells at which scale it has its stored variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import (
    StopForward,
    channel_moments,
    enable_dropout,
    module_device,
    paired_labels,
    sample_prior,
)
from gandiag.checkpoints.batchnorm.sequential import BatchNorm, bias_corrected_statistics, has_initial_statistics
from gandiag.checkpoints.batchnorm.thresholds import GOOD_MISMATCH
from gandiag.interfaces import Estimate

if TYPE_CHECKING:
    from gandiag.checkpoints.generator import LoadedGenerator

SCALE_GRID = tuple(2 ** (step / 2) for step in range(-16, 9))  # 1/256 to 16
MIN_LATENTS, MAX_LATENTS = 64, 1024
MIN_LOG_SLOPE = (
    0.5  # least elasticity of the variance: below it, biases and labels dominate and the scale hardly matters
)
_MAC_BUDGET = 4e8  # multiplications of one pass, roughly
_MIN_SAMPLES = 304  # least number of samples behind the statistics: 19 batches of 16
_DRIFT = 0.1  # of the scale: weights move on, and averaged weights keep the raw ones' statistics
_ALLOWED_LAYERS = (
    nn.Linear,
    nn.ConvTranspose2d,
    nn.Embedding,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
)


@dataclass(frozen=True, slots=True)
class ScaleEstimate:
    """The std of one latent in units of the prior's, and the number of channels and layers it was read from."""

    scale: Estimate
    n_channels: int
    n_layers: int


@dataclass(frozen=True, slots=True, eq=False)
class _FirstBatchNorm:
    """The first BatchNorm that runs, its input (B, C, …), and the number and size of the weighted layers before it."""

    layer: BatchNorm
    input: Tensor
    n_layers: int
    n_weights: int


def search_latent_scale(network: LoadedGenerator) -> ScaleEstimate | None:
    """The scale at which the first BatchNorm receives its stored variances, with a 95 % interval.

    None where there is no BatchNorm with statistics of its own, where the activation before it was undecided, where
    anything but linear layers and activations precedes it, where no scale fits (GOOD_MISMATCH), or where its variance
    hardly depends on the scale (MIN_LOG_SLOPE). Cost: 25 passes to the first BatchNorm, a second or two on a CPU.
    """
    if any(entry.undecided and entry.setting == "activation" for entry in network.assumptions):
        return None
    if not any(isinstance(part, BatchNorm) for part in network.module.modules()):
        return None
    first = _run_to_first_batchnorm(network, *_draw_latents(network, MIN_LATENTS))
    if first is None:
        return None
    n_latents = max(MIN_LATENTS, min(MAX_LATENTS, 2 * int(_MAC_BUDGET / first.n_weights / 2)))
    z, labels = _draw_latents(network, n_latents)
    runs = [_run_to_first_batchnorm(network, scale * z, labels) for scale in SCALE_GRID]
    if any(run is None for run in runs):
        return None
    stored_var = bias_corrected_statistics(first.layer)[1]
    variances = torch.stack([channel_moments(run.input)[1] for run in runs if run is not None])  # (S, C)
    log_scales = interpolate_log_scales(variances, stored_var)
    usable = log_scales.isfinite()
    if int(usable.sum()) < max(2, len(log_scales) // 2):
        return None
    median = float(log_scales[usable].median())
    best = _run_to_first_batchnorm(network, math.exp(median) * z, labels)
    slope = _elasticity(variances, median)
    if best is None or _variance_mismatch(best.input, stored_var) > GOOD_MISMATCH or slope < MIN_LOG_SLOPE:
        return None
    spread = 1.4826 * float((log_scales[usable] - median).abs().median()) * 1.2533 / math.sqrt(int(usable.sum()))
    sampling_error = math.sqrt(2 / (_MIN_SAMPLES * network.latent.dim)) / slope
    width = 1.96 * math.hypot(spread, sampling_error) + _DRIFT
    interval = Estimate(math.exp(median), math.exp(median - width), math.exp(median + width))
    return ScaleEstimate(interval, len(log_scales), first.n_layers)


def interpolate_log_scales(variances: Tensor, target_variances: Tensor) -> Tensor:
    """Logarithm of the scale at which each channel has its target variance (C,).

    Interpolates in `variances` (S, C), measured at SCALE_GRID; infinite where no scale of the grid reaches the target.
    """
    log_grid = torch.tensor(SCALE_GRID, dtype=torch.float64).log()
    log_variances = variances.double().clamp_min(1e-300).log()
    target = target_variances.cpu().double().clamp_min(1e-300).log()
    above = (log_variances >= target).double().argmax(0)  # the first scale that reaches it; 0 where none does or all do
    below = (above - 1).clamp_min(0)
    channels = torch.arange(log_variances.shape[1])
    low, high = log_variances[below, channels], log_variances[above, channels]
    fraction = (target - low) / (high - low).clamp_min(1e-12)
    log_scales = log_grid[below] + fraction * (log_grid[above] - log_grid[below])
    return torch.where(above > 0, log_scales, torch.inf)


def _draw_latents(network: LoadedGenerator, n: int) -> tuple[Tensor, Tensor | None]:
    """Latents and labels; each latent and its mirror image share a label."""
    labels = paired_labels(n, None if network.condition is None else network.classes or 1)
    return sample_prior(n, network.latent.shape, network.latent.prior, seed=1), labels


def _run_to_first_batchnorm(network: LoadedGenerator, z: Tensor, labels: Tensor | None) -> _FirstBatchNorm | None:
    """Run to the first BatchNorm. None where it has no statistics, or where another kind of layer runs before it."""
    layers_run: list[nn.Module] = []
    reached: list[tuple[BatchNorm, Tensor]] = []

    def watch(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(part, BatchNorm):
            reached.append((part, inputs[0].detach()))
            raise StopForward
        if not isinstance(part, _ALLOWED_LAYERS):
            raise StopForward
        layers_run.append(part)

    leaves = [part for part in network.module.modules() if not any(True for _ in part.children())]
    hooks = [part.register_forward_pre_hook(watch) for part in leaves]
    device = module_device(network.module)
    try:
        with torch.no_grad(), enable_dropout(network.module):
            network.forward(z.to(device), None if labels is None else labels.to(device))
    except StopForward:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if not reached or has_initial_statistics(reached[0][0]):
        return None
    weighted = [part for part in layers_run if isinstance(part, (nn.Linear, nn.ConvTranspose2d))]
    return _FirstBatchNorm(*reached[0], len(weighted), max(1, sum(part.weight.numel() for part in weighted)))


def _variance_mismatch(inputs: Tensor, stored_var: Tensor) -> float:
    """Mean |log ratio| of the variances (C,).

    Means are left out: for tiny latents they shift by many stds as biases train on.
    """
    return float(((channel_moments(inputs)[1] + 1e-12) / (stored_var.cpu().double() + 1e-12)).log().abs().mean())


def _elasticity(variances: Tensor, log_scale: float) -> float:
    """d log variance / d log scale of the median channel at this scale."""
    log_grid = torch.tensor(SCALE_GRID, dtype=torch.float64).log()
    index = int((log_grid >= log_scale).double().argmax()) or 1
    log_variances = variances.double().clamp_min(1e-300).log()
    slopes = (log_variances[index] - log_variances[index - 1]) / (log_grid[index] - log_grid[index - 1])
    return float(slopes.median())
