"""The scale of the latents in training where an activation stands between the first layer and the first batch norm: tried, not solved.

Behind one linear map a variance gives the scale by a formula (`gandiag.checkpoints.batchnorm.first_layer`). Behind an activation it still grows with the scale, channel by
channel: latents of many scales are run to the first norm, and each channel says at which of them it has the variance that it remembers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from gandiag.checkpoints.batchnorm.scale_grid import SCALE_GRID, interpolate_scales
from gandiag.checkpoints.batchnorm.sequential import BatchNorm, bias_corrected_statistics, has_initial_statistics
from gandiag.checkpoints.loader import LoadedGenerator
from gandiag.interfaces import Estimate

MAX_LATENTS, _FEWEST, _BUDGET = 1024, 64, 4e8  # latents; at least; multiplications of one pass, about
MAX_MISMATCH = 0.15  # mean log ratio of the variances: with more, what stands before the norm is not what it was
MIN_LOG_SLOPE = (
    0.5  # least elasticity of the variance: with less it hangs on biases and labels, and hardly on the scale
)
_BEHIND = 304  # samples that the statistics stand for at least: 19 batches of 16
_MOVED = 0.1  # of the scale: weights move on, and averaged weights keep the raw ones' statistics
_PLAIN = (
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
    """The deviation of one latent in units of the prior's, and how many channels and layers it was read from."""

    scale: Estimate
    n_channels: int
    n_layers: int


def search_latent_scale(network: LoadedGenerator) -> ScaleEstimate | None:
    """The scale at which the first batch norm receives the variances that it remembers, with a 95 % interval.

    None where there is no such norm with statistics of its own, where the activation before it was guessed, where anything but linear layers and
    activations stands before it, where no scale fits (`FITS`), or where its variance hardly depends on the scale (`STEEP`).
    Cost: 25 passes to the first norm, a second or two on a CPU.
    """
    if any(entry.source == "undecided" and entry.what.startswith("hidden activation") for entry in network.assumptions):
        return None
    if not any(isinstance(part, BatchNorm) for part in network.module.modules()):
        return None
    first = _received(network, *_drawn(network, _FEWEST))
    if first is None:
        return None
    z, labels = _drawn(network, max(_FEWEST, min(MAX_LATENTS, 2 * int(_BUDGET / first[3] / 2))))
    received = [_received(network, scale * z, labels) for scale in SCALE_GRID]
    if any(seen is None for seen in received):
        return None
    told, layers = bias_corrected_statistics(first[0]), first[2]
    variances = torch.stack([channel_moments(seen[1])[1] for seen in received if seen is not None])  # (S, C)
    found = interpolate_scales(variances, told[1])
    usable = found.isfinite()
    if int(usable.sum()) < max(2, len(found) // 2):
        return None
    middle = float(found[usable].median())
    nearest = _received(network, math.exp(middle) * z, labels)
    slope = _elasticity(variances, middle)
    if nearest is None or _apart(nearest[1], told[1]) > MAX_MISMATCH or slope < MIN_LOG_SLOPE:
        return None
    spread = 1.4826 * float((found[usable] - middle).abs().median()) * 1.2533 / math.sqrt(int(usable.sum()))
    sampling = math.sqrt(2 / (_BEHIND * network.latent.dim)) / slope
    reach = 1.96 * math.hypot(spread, sampling) + _MOVED
    return ScaleEstimate(
        Estimate(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)), len(found), layers
    )


def _drawn(network: LoadedGenerator, n: int) -> tuple[Tensor, Tensor | None]:
    """Latents and labels, each latent with its mirror image under the same label."""
    return sample_prior(n, network.latent.shape, network.latent.prior, seed=1), paired_labels(
        n, None if network.condition is None else network.classes or 1
    )


def _received(network: LoadedGenerator, z: Tensor, labels: Tensor | None) -> tuple[BatchNorm, Tensor, int, int] | None:
    """The first batch norm that runs, what it receives, the layers with weights before it, and their weights; None where there is none, or something
    else ran before, at which the pass ends."""
    ran: list[nn.Module] = []
    seen: list[tuple[BatchNorm, Tensor]] = []

    def watch(part: nn.Module, given: tuple[Tensor, ...]) -> None:
        if isinstance(part, BatchNorm):
            seen.append((part, given[0].detach()))
            raise StopForward
        if not isinstance(part, _PLAIN):
            raise StopForward
        ran.append(part)

    hooks = [
        part.register_forward_pre_hook(watch)
        for part in network.module.modules()
        if not any(True for _ in part.children())
    ]
    place = module_device(network.module)
    try:
        with torch.no_grad(), enable_dropout(network.module):
            network.forward(z.to(place), None if labels is None else labels.to(place))
    except StopForward:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if not seen or has_initial_statistics(seen[0][0]):
        return None
    layers = [part for part in ran if isinstance(part, (nn.Linear, nn.ConvTranspose2d))]
    return *seen[0], len(layers), max(1, sum(part.weight.numel() for part in layers))


def _apart(given: Tensor, told: Tensor) -> float:
    """Mean |log ratio| of the variances (C,). Their means are left out: of tiny latents they move by many deviations while biases move on."""
    return float(((channel_moments(given)[1] + 1e-12) / (told.cpu().double() + 1e-12)).log().abs().mean())


def _elasticity(variances: Tensor, middle: float) -> float:
    """By how many per cent the variance grows with one per cent of scale, in the median channel."""
    logs = torch.tensor(SCALE_GRID, dtype=torch.float64).log()
    at = int((logs >= middle).double().argmax()) or 1
    grown = variances.double().clamp_min(1e-300).log()
    return float(((grown[at] - grown[at - 1]) / (logs[at] - logs[at - 1])).median())
