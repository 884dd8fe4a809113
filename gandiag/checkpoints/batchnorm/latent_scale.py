"""The latent scale a generator was trained at, read from its checkpoint's BatchNorm statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from gandiag.checkpoints.batchnorm.first_layer import FirstLayer, estimate_latent_std
from gandiag.checkpoints.batchnorm.first_layer_capture import capture_first_layer
from gandiag.checkpoints.batchnorm.moments import prior_std, standardized_prior_mean
from gandiag.checkpoints.batchnorm.scale_search import search_latent_scale

if TYPE_CHECKING:
    from gandiag.checkpoints.generator import LoadedGenerator

# Weights move on while the statistics of the last hundred batches fade, and averaged weights keep the raw ones'
# statistics: an error that sampling does not show. A published DCGAN sampled as it was trained reads 1.003 [1.001,
# 1.006] without it.
DRIFT_MARGIN = 0.05
_PRIOR_NAMES = {
    "normal": "a standard normal prior",
    "uniform": "a uniform prior on [-1, 1]",
    "unit": "a uniform prior on [0, 1]",
    "truncated": "a normal prior cut at 2",
}


@dataclass(frozen=True, slots=True)
class TrainedScale:
    """Latent scale in units of the declared prior (1: sampled as trained), its 95 % interval, and its source.

    The interval of a closed-form estimate is widened by DRIFT_MARGIN.
    """

    value: float
    low: float
    high: float
    source: str


def estimate_trained_scale(network: LoadedGenerator) -> TrainedScale | None:
    """The latent scale of the training, from the BatchNorm statistics after the first layer; needs no data.

    Derivation and formula: `batchnorm.first_layer`; after activations, by grid search: `batchnorm.scale_search`. In
    units of the prior's own std: with --prior uniform, 1 means uniform on [-1, 1]. None without BatchNorm, with
    statistics never updated, or where anything but linear layers and activations precedes the first one. A scale stated
    in the file is used as it is. Reads high or low when the weights are averages (EMA) and the statistics are not; the
    interval allows for it. Cost: one forward of a few samples.
    """
    if network.trained_scale is not None:
        return TrainedScale(
            network.trained_scale, network.trained_scale, network.trained_scale, "the file's own header"
        )
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.module.modules()):
        return None  # nothing is run to find that out: not to inspect a graph, above all
    layer = capture_first_layer(
        network.forward, network.module, network.latent.shape, network.classes if network.condition else None
    )
    return _search_scale(network) if layer is None else _solve_scale(network, layer)


def _solve_scale(network: LoadedGenerator, layer: FirstLayer) -> TrainedScale | None:
    """In closed form, where a BatchNorm directly follows the first layer."""
    std = estimate_latent_std(replace(layer, standardized_mean=standardized_prior_mean(network.latent.prior)))
    if std is None:
        return None
    unit = prior_std(network.latent.prior)
    low, high = std.low * (1 - DRIFT_MARGIN), std.high * (1 + DRIFT_MARGIN)
    source = f"BatchNorm variance after the first layer, {len(layer.var)} channels: latents of std {std.value:.3g}"
    if layer.class_offsets is not None:
        source += f", without the variance of {network.classes} labels"
    elif layer.class_scales is not None:
        source += f", times the vector of each of {network.classes} classes"
    return TrainedScale(
        std.value / unit, low / unit, high / unit, source + _suggest_prior(low, high, network.latent.prior)
    )


def _search_scale(network: LoadedGenerator) -> TrainedScale | None:
    """By grid search, where activations precede the first BatchNorm."""
    estimate = search_latent_scale(network)
    if estimate is None:
        return None
    unit, scale = prior_std(network.latent.prior), estimate.scale
    layers = f"{estimate.n_layers} layer{'s' * (estimate.n_layers != 1)}"
    source = f"variances at the first BatchNorm, {estimate.n_channels} channels after {layers}: "
    source += f"latents of std {unit * scale.value:.3g}"
    suggestion = _suggest_prior(unit * scale.low, unit * scale.high, network.latent.prior)
    return TrainedScale(scale.value, scale.low, scale.high, source + suggestion)


def _suggest_prior(low: float, high: float, prior: str) -> str:
    """Text naming another prior whose std lies in the interval, if the declared one's does not; empty otherwise."""
    if low <= prior_std(prior) <= high or high > 2 * low:
        return ""
    fitting = [name for name in _PRIOR_NAMES if name != prior and low <= prior_std(name) <= high]
    if not fitting:
        return ""
    return f"; {_PRIOR_NAMES[fitting[0]]} (--prior {fitting[0]}, std {prior_std(fitting[0]):.3f}) would explain it"
