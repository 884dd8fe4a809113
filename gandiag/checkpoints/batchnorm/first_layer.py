"""Latent scale from the first BatchNorm, in closed form, where it directly follows the first linear layer.

Let x be the network's input with E[x] = m and independent latents of variance s², and let the first linear layer give
y_{c,p} = b_c + <w_{c,p}, x>, with c the channel and p the position (one for Linear, k*k for a transposed convolution on
a 1x1 input). The BatchNorm after it stores, for every channel, moments over batch *and* positions together:

    running_mean_c = b_c + <mean_p w_{c,p}, m>
    running_var_c  = E_p[ s² |w^z_{c,p}|² ] + Var_{k,p}[ w^labels_{c,p} r_k ]

(a prior of mean h s adds s² h² Var_p[ sum of w^z_{c,p} ]; where the class multiplies the latents by g_k, w^z is w^z
g_k, averaged or varied over k as well). With mean zero, the means of two positions differ only through the labels, and
that difference is inside the second term, a variance over classes k *and* positions p of what label k adds. The bias
adds no variance. Hence

    s² = (running_var_c - label term_c) / mean_p |w^z_{c,p}|²        once for every channel c

and the first equation, solved for m by least squares over the channels, shows the labels: their entries are the class
frequencies, all others the mean of the latents drawn in the last batches, s / sqrt(N). That also gives N, the number of
samples behind the statistics. With batches of B, torch's unbiased variance over B*P values is low by at most |mean_p
w|² / (B mean_p |w|²), which widens the interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.checkpoints.batchnorm.moments import read_batch_count
from gandiag.interfaces import Estimate

BATCHNORM_MOMENTUM = 0.1
_EFFECTIVE_BATCHES = (2 - BATCHNORM_MOMENTUM) / BATCHNORM_MOMENTUM  # averaged by an exponential average: 19
_WEIGHT_DRIFT = 0.05  # of a variance: how far weights move while the statistics of the last hundred batches fade


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """The first linear layer and the statistics after it, in float64: `weight` (D, C, P); `bias`, `mean`, `var` (C,).

    `latent_columns`: inputs that are latents. `class_offsets`: (K, D) what each class adds to the inputs;
    `class_scales`: (K, D) what it multiplies them by. `initial_weight`: weight of the initial variance 1 in `var`, if
    the average is exponential. `standardized_mean`: the latents' mean in units of their std. `bias_var`: (C,) variance
    of the bias over positions, already subtracted from `var`.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    latent_columns: list[int]
    class_offsets: Tensor | None = None
    initial_weight: float = 0.0
    standardized_mean: float = 0.0
    class_scales: Tensor | None = None
    bias_var: Tensor | None = None

    @property
    def non_latent_columns(self) -> list[int]:
        """Inputs that are labels."""
        latents = set(self.latent_columns)
        return [column for column in range(len(self.weight)) if column not in latents]


def build_first_layer(
    linear_state: Mapping[str, Tensor],
    batchnorm_state: Mapping[str, Tensor],
    latent_columns: list[int] | None = None,
    class_offsets: Tensor | None = None,
) -> FirstLayer | None:
    """The FirstLayer of a linear layer's state and that of the BatchNorm right after it.

    By default all inputs are latents. A Linear with more outputs than the BatchNorm has channels is reshaped to (C,
    size, size) before it. None where the statistics were never updated or the widths do not agree.
    """
    if "running_mean" not in batchnorm_state or "running_var" not in batchnorm_state:
        return None
    initial_weight = _initial_weight(
        batchnorm_state["running_mean"],
        batchnorm_state["running_var"],
        read_batch_count(batchnorm_state.get("num_batches_tracked")),
    )
    weight = linear_state["weight"].detach().double()
    weight = weight.T[:, :, None] if weight.ndim == 2 else weight.flatten(2)  # (D, C, P)
    channels = len(batchnorm_state["running_mean"])
    if initial_weight is None or weight.shape[1] % channels or (weight.shape[1] != channels and weight.shape[2] > 1):
        return None
    # After a reshape the bias differs between positions of one channel: it then has a variance, like the labels' means.
    bias = linear_state.get("bias", torch.zeros(weight.shape[1])).detach().double().reshape(channels, -1)
    mean = batchnorm_state["running_mean"].double() / (1 - initial_weight)
    bias_var = bias.var(1, unbiased=False)
    var = batchnorm_state["running_var"].double() - (1 - initial_weight) * bias_var
    return FirstLayer(
        weight.reshape(len(weight), channels, -1),
        bias.mean(1),
        mean,
        var,
        latent_columns or list(range(len(weight))),
        class_offsets,
        initial_weight,
        bias_var=bias_var,
    )


def _initial_weight(mean: Tensor, var: Tensor, n_batches: int | None) -> float | None:
    """Weight of the initial 0 and 1 after n batches: 0.9^n; 0 where n is unknown.

    None if the statistics were never updated.
    """
    remainder = 0.0 if n_batches is None else (1 - BATCHNORM_MOMENTUM) ** n_batches
    return None if remainder == 1.0 or bool((mean == 0).all() and (var == 1).all()) else remainder


def estimate_input_means(layer: FirstLayer) -> Tensor | None:
    """The mean of every input (D,) that explains the running means; None with fewer channels than 1.2 D."""
    n_inputs, channels, _ = layer.weight.shape
    if channels < 1.2 * n_inputs:
        return None
    position_mean = layer.weight.mean(2)  # (D, C)
    if not bool(position_mean.isfinite().all() and layer.mean.isfinite().all() and layer.bias.isfinite().all()):
        return None
    means: Tensor = torch.linalg.lstsq(position_mean.T, (layer.mean - layer.bias)[:, None], driver="gelsd").solution[
        :, 0
    ]
    return means  # (D,)


def estimate_latent_std(layer: FirstLayer) -> Estimate | None:
    """Standard deviation of one latent, with a 95 % interval; None where the statistics cannot be explained at all."""
    power = _unit_variance(layer)
    means = estimate_input_means(layer) if layer.class_scales is None else None
    usable = power > 1e-12 * float(power.max())
    if int(usable.sum()) < 2:
        return None
    # Plain averages (momentum None, re-estimated statistics) keep nothing of the initial values, exponential ones do,
    # and the file does not state which it has: the right hypothesis is the one under which the channels agree.
    variances = [(layer.var - remainder) / (1 - remainder) for remainder in dict.fromkeys((0.0, layer.initial_weight))]
    label_var = _label_variance(layer, means)
    hypotheses = [((var - label_var) / power)[usable] for var in variances]  # each (C,), s² by every channel
    ratios = min(hypotheses, key=_relative_spread)
    variance = float(ratios.median())
    if not variance > 0:
        return None
    bias_var = torch.zeros_like(power) if layer.bias_var is None else layer.bias_var
    subtracted = [float((part / power)[usable].median()) / variance for part in (label_var, bias_var)]
    return _estimate_interval(layer, variance, ratios, means, subtracted)


def _unit_variance(layer: FirstLayer) -> Tensor:
    """The variance (C,) that latents of variance 1 give each channel."""
    rows = layer.weight[layer.latent_columns]
    if layer.class_scales is None:
        return rows.square().sum(0).mean(1) + layer.standardized_mean**2 * rows.sum(0).var(1, unbiased=False)
    scales = layer.class_scales[:, layer.latent_columns]
    power = torch.einsum("d,dcp->c", scales.square().mean(0), rows.square()) / rows.shape[2]
    if layer.standardized_mean == 0:
        return power
    return power + layer.standardized_mean**2 * _class_variance(scales, _uniform_frequencies(scales), rows)


def _relative_spread(ratios: Tensor) -> float:
    """Median absolute deviation over the median; infinite where the median is not positive."""
    median = float(ratios.median())
    return float((ratios - median).abs().median()) / median if median > 0 else math.inf


def _estimate_interval(
    layer: FirstLayer, variance: float, ratios: Tensor, means: Tensor | None, subtracted: list[float]
) -> Estimate:
    """The 95 % interval: spread over channels, finite number of samples, and unknown batch size.

    `subtracted`: the variance of the labels and that of the biases, over the latents'. The labels' was observed on as
    few samples, and either may have changed since.
    """
    spread = 1.4826 * float((ratios - variance).abs().median())
    channel_error = 1.2533 * spread / variance / math.sqrt(len(ratios))
    n_samples = _count_samples(layer, variance, means)
    rows = layer.weight[layer.latent_columns]
    latent_power = rows.square().mean((1, 2))
    # A few latents may carry most of the variance.
    sampling_error = math.sqrt(2 * float(latent_power.square().sum()) / (n_samples * float(latent_power.sum()) ** 2))
    low_bias = 0.0
    if rows.shape[2] > 1:
        position_power = rows.mean(2).square().sum(0) / rows.square().sum(0).mean(1).clamp_min(1e-30)
        low_bias = float(position_power.median())
    low_bias = low_bias * _EFFECTIVE_BATCHES / n_samples
    width = 1.96 * math.hypot(
        channel_error, sampling_error, subtracted[0] * math.sqrt(2 / n_samples), _WEIGHT_DRIFT * sum(subtracted)
    )
    return Estimate(
        math.sqrt(variance), math.sqrt(variance * max(0.0, 1 - width)), math.sqrt(variance * (1 + width + low_bias))
    )


def _count_samples(layer: FirstLayer, variance: float, means: Tensor | None) -> float:
    """A lower bound on the samples behind the statistics: by the latents' means, at least 19 batches of 16."""
    n_samples = _EFFECTIVE_BATCHES * 16.0
    if means is None:
        return n_samples
    offsets = means[layer.latent_columns] - layer.standardized_mean * math.sqrt(variance)
    observed = variance / max(1e-12, float(offsets.square().mean()))
    return min(1e7, max(n_samples, observed * _low_chi_square(len(layer.latent_columns))))


def _low_chi_square(dof: int) -> float:
    """The 5 % quantile of chi²/dof (Wilson and Hilferty 1931): how well D means determine the number of samples."""
    return max(0.0, 1 - 2 / (9 * dof) - 1.645 * math.sqrt(2 / (9 * dof))) ** 3


def _label_variance(layer: FirstLayer, means: Tensor | None) -> Tensor:
    """Variance (C,) over classes and positions of what the labels add to each channel; zero without labels."""
    if layer.class_offsets is None:
        return torch.zeros_like(layer.var)
    frequencies = _uniform_frequencies(layer.class_offsets)
    columns = layer.non_latent_columns
    one_hot = len(columns) == len(frequencies) and torch.equal(
        layer.class_offsets[:, columns], torch.eye(len(frequencies), dtype=frequencies.dtype)
    )
    if means is not None and one_hot:  # one-hot labels: their means are the actual class frequencies
        observed = means[columns].clamp_min(0)
        frequencies = observed / observed.sum().clamp_min(1e-12)
    return _class_variance(layer.class_offsets, frequencies, layer.weight)


def _uniform_frequencies(class_vectors: Tensor) -> Tensor:
    return torch.full((len(class_vectors),), 1 / len(class_vectors), dtype=torch.float64)


def _class_variance(class_vectors: Tensor, frequencies: Tensor, weight: Tensor) -> Tensor:
    """Variance (C,) over classes and positions of what each class's vector (K, D) adds through `weight` (D, C, P).

    The sum of the variance over classes within positions and the variance of the positions' means. Nothing here has as
    many entries as classes times channels.
    """
    used = class_vectors.abs().sum(0) > 0
    flat, vectors = weight[used].flatten(1), class_vectors[:, used]  # (D', C P)
    mean = frequencies @ vectors
    centered = vectors - mean
    within = (flat * ((centered * frequencies[:, None]).T @ centered @ flat)).sum(0).reshape(weight.shape[1:]).mean(1)
    across: Tensor = (mean @ flat).reshape(weight.shape[1:]).var(1, unbiased=False)
    return within + across
