"""Which latent scale was this generator trained at? The checkpoint remembers: batch norm keeps the variance that it saw."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gandiag.checkpoints.batchnorm.first_layer import capture_first_layer, estimate_latent_std
from gandiag.checkpoints.batchnorm.moments import prior_std, standardized_prior_mean
from gandiag.checkpoints.batchnorm.scale_search import search_latent_scale
from gandiag.checkpoints.loader import LoadedGenerator
from gandiag.interfaces import Estimate

# Weights move on while the statistics of the last hundred batches fade, and averaged weights keep the raw ones' statistics: what
# sampling error cannot show. A published DCGAN sampled as it was trained reads 1.003 [1.001, 1.006] without it.
DRIFT_MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class TrainedScale:
    """Latent scale in units of the declared prior (1: trained as sampled), its 95 % interval widened by DRIFT, and how it is known."""

    value: float
    low: float
    high: float
    source: str


def estimate_trained_scale(network: LoadedGenerator) -> TrainedScale | None:
    """The scale of the latents in training, read from the batch-norm statistics behind the first layer; no data needed.

    Derivation and formula: `gandiag.checkpoints.batchnorm.first_layer`; behind activations, by trial: `gandiag.checkpoints.batchnorm.scale_search`. In units of the prior's own
    deviation: with --prior uniform, 1 means uniform on [-1, 1]. None without batch norm, with statistics never updated, or where more than linear
    layers and activations stands before the first one.
    A file that states its scale is believed. Reads high or low when the weights are an average and the statistics are not; the interval widens with it.
    Cost: one forward of a few samples.
    """
    if network.trained_scale is not None:
        return TrainedScale(
            network.trained_scale, network.trained_scale, network.trained_scale, "the file's own header"
        )
    seen = capture_first_layer(
        network.forward, network.module, network.latent.shape, network.classes if network.condition else None
    )
    found = (
        None
        if seen is None
        else estimate_latent_std(replace(seen, standardized_mean=standardized_prior_mean(network.latent.prior)))
    )
    if seen is None or found is None:
        return _searched(network) if seen is None else None
    unit = prior_std(network.latent.prior)
    found = Estimate(found.value, found.low * (1 - DRIFT_MARGIN), found.high * (1 + DRIFT_MARGIN))
    told = (
        f"batch-norm variance behind the first layer, {len(seen.var)} channels: latents of deviation {found.value:.3g}"
    )
    if seen.class_offsets is not None:
        told += f", after the share of {network.classes} labels"
    elif seen.class_scales is not None:
        told += f", times the vector of each of {network.classes} classes"
    return TrainedScale(
        found.value / unit,
        found.low / unit,
        found.high / unit,
        told + _explained(found.low, found.high, network.latent.prior),
    )


def _searched(network: LoadedGenerator) -> TrainedScale | None:
    """By trying scales, where activations stand before the first norm."""
    found = search_latent_scale(network)
    if found is None:
        return None
    unit, scale = prior_std(network.latent.prior), found.scale
    told = f"the variances at the first batch norm, {found.n_channels} channels behind {found.n_layers} layer{'s' * (found.n_layers != 1)}: latents of "
    told += f"deviation {unit * scale.value:.3g}"
    explained = _explained(unit * scale.low, unit * scale.high, network.latent.prior)
    return TrainedScale(scale.value, scale.low, scale.high, told + explained)


def _explained(low: float, high: float, prior: str) -> str:
    """Another prior at scale 1 that has this deviation, if the declared one has not, and if that is known well enough to tell."""
    if low <= prior_std(prior) <= high or high > 2 * low:
        return ""
    others = {
        "normal": "a standard normal prior",
        "uniform": "a uniform prior on [-1, 1]",
        "unit": "a uniform prior on [0, 1]",
        "truncated": "a normal prior cut at 2",
    }
    fitting = [name for name in others if name != prior and low <= prior_std(name) <= high]
    return (
        f"; {others[fitting[0]]} (--prior {fitting[0]}, deviation {prior_std(fitting[0]):.3f}) would explain it"
        if fitting
        else ""
    )
