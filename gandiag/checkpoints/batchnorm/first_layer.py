"""What batch norm remembers of the inputs: their scale, and which of them are one-hot labels.

Let x be the network's input with E[x] = m and independent latents of variance s², and let the first linear map give
y_{c,p} = b_c + <w_{c,p}, x>, with c the channel and p the position (one for Linear, k*k for a transposed convolution on a
1x1 input). The batch norm behind it stores, for every channel, moments over batch *and* positions together:

    running_mean_c = b_c + <mean_p w_{c,p}, m>
    running_var_c  = E_p[ s² |w^z_{c,p}|² ] + Var_{k,p}[ w^labels_{c,p} r_k ]

(a prior of mean h s adds s² h² Var_p[ sum of w^z_{c,p} ]; where the class multiplies the latents by g_k, w^z is w^z g_k, averaged or
varied over k as well). With mean zero, a position's mean differs from another's only through
the labels, and that difference is inside the second term, a variance over classes k *and* positions p of what label k adds.
The bias moves no variance. Hence

    s² = (running_var_c - label term_c) / mean_p |w^z_{c,p}|²        once for every channel c

and the first equation, solved for m by least squares over the channels, shows the labels: their entries are the class
shares, all others the mean of the latents drawn in the last batches, s / sqrt(N). That also gives N, the number of samples
the statistics stand for. With batches of B, torch's unbiased variance over B*P values is low by at most
|mean_p w|² / (B mean_p |w|²), which widens the interval.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import StopForward, module_device, read_batch_count
from gandiag.interfaces import Estimate

BATCHNORM_MOMENTUM = 0.1
_WINDOW = (2 - BATCHNORM_MOMENTUM) / BATCHNORM_MOMENTUM  # batches that an exponential average stands for: 19
_DRAWS = 4
_MOVED = 0.05  # of a variance: how far weights move while the statistics of the last hundred batches fade
_CODES, _SURPRISE = (
    4,
    10.0,
)  # at most so many codes behind the labels, and what must speak for them, in units of twice the log-likelihood
_KINDS = 512  # classes that are looked at, of as many as there are
_FEWEST = 4  # latents: fewer do not show how far from 0 their means are


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """The first map and the statistics behind it, in float64: `weight` (D, C, P), `bias`, `mean`, `var` (C,).

    `labels`: (K, D) what each class adds to the inputs; `gains`: (K, D) what it multiplies them with; `latents`: columns that are latents.
    `shift`: the latents' mean in units of their deviation.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    latent_columns: list[int]
    class_offsets: Tensor | None = None
    initial_weight: float = 0.0  # of the initial variance 1 in `var`, if the average is an exponential one
    standardized_mean: float = 0.0
    class_scales: Tensor | None = None
    bias_var: Tensor | None = None  # (C,) of the bias over positions: it was taken off `var`

    @property
    def non_latent_columns(self) -> list[int]:
        known = set(self.latent_columns)
        return [column for column in range(len(self.weight)) if column not in known]


def _left(mean: Tensor, var: Tensor, batches: int | None) -> float | None:
    """What is left after n batches of the start at 0 and 1: 0.9^n. None if the statistics were never updated."""
    left = 0.0 if batches is None else (1 - BATCHNORM_MOMENTUM) ** batches
    return None if left == 1.0 or bool((mean == 0).all() and (var == 1).all()) else left


def estimate_input_means(layer: FirstLayer) -> Tensor | None:
    """The mean of every input (D,) that explains the running means; None with fewer channels than 1.2 D."""
    inputs, channels, _ = layer.weight.shape
    if channels < 1.2 * inputs:
        return None
    average = layer.weight.mean(2)  # (D, C)
    if not bool(average.isfinite().all() and layer.mean.isfinite().all() and layer.bias.isfinite().all()):
        return None
    solved: Tensor = torch.linalg.lstsq(average.T, (layer.mean - layer.bias)[:, None], driver="gelsd").solution[:, 0]
    return solved  # (D,)


@dataclass(frozen=True, slots=True)
class LabelSplit:
    """K one-hot labels among the inputs, `first` or last; or with so many `codes` behind them, as in InfoGAN (Chen et al. 2016)."""

    classes: int
    labels_first: bool
    continuous_codes: int = 0


def find_label_split(means: Tensor) -> LabelSplit | None:
    """The split of the inputs into latents and one-hot labels that their means show, or None where they show none.

    Under a split, latents have means N(0, v) with v unknown, and labels 1/K, of which 15 % (unequal classes) and the
    sampling of 500 draws may be off. The likeliest split must beat "no labels" by 20 and every other split by 6, in units
    of twice the log-likelihood, and its labels must add up to 1. Classes of very unequal shares are left to the flags. A few codes behind
    the labels must be clearly likelier than none.
    """
    inputs = len(means)
    if inputs < _FEWEST + 2:
        return None
    fits = [(_cost(means, 0, count), 0, count) for count in range(2, inputs - _FEWEST + 1)]
    fits += [
        (_cost(means, inputs - count - codes, count) + _SURPRISE * (codes > 0), inputs - count - codes, count)
        for codes in range(_CODES + 1)
        for count in range(2, inputs - _FEWEST - codes + 1)
    ]
    best, start, count = min(fits)
    runner_up = sorted(fits)[1][0]
    share = float(means[start : start + count].sum())
    clear = _cost(means, 0, 0) - best > 20 and runner_up - best > 6
    codes = inputs - start - count if start else 0
    even = _misfit(means[start : start + count]) <= count + 3 * math.sqrt(
        2 * count
    )  # an outlier among latents is no reason to look for codes
    return LabelSplit(count, start == 0, codes) if clear and 0.85 < share < 1.15 and (even or not codes) else None


def _cost(means: Tensor, start: int, count: int) -> float:
    """Twice the negative log-likelihood, up to a constant, of `count` labels from `start` on."""
    labels, latents = means[start : start + count], torch.cat([means[:start], means[start + count :]])
    v = max(1e-8, float(latents.square().mean()))
    cost = len(latents) * (math.log(v) + 1)
    if count:
        cost += _misfit(labels) + count * math.log(_allowed(count))
    return cost


def _misfit(labels: Tensor) -> float:
    """Squared distances of the labels' means from even shares, in units of what they may be off."""
    return float((labels - 1 / len(labels)).square().sum()) / _allowed(len(labels))


def _allowed(count: int) -> float:
    return (0.15 / count) ** 2 + 1 / (500 * count)


def estimate_latent_std(layer: FirstLayer) -> Estimate | None:
    """Standard deviation of one latent, with a 95 % interval; None where the statistics cannot be explained at all."""
    power = _power(layer)
    means = estimate_input_means(layer) if layer.class_scales is None else None
    usable = power > 1e-12 * float(power.max())
    if int(usable.sum()) < 2:
        return None
    # Plain averages (momentum None, re-estimated statistics) keep nothing of the start, exponential ones do, and the file
    # does not say which it has: the right reading is the one under which the channels agree.
    readings = [(layer.var - left) / (1 - left) for left in dict.fromkeys((0.0, layer.initial_weight))]
    added = _label_variance(layer, means)
    agreed = [((var - added) / power)[usable] for var in readings]  # each (C,), s² by every channel
    ratios = min(agreed, key=lambda found: _disagreement(found))
    squared = float(ratios.median())
    biases = torch.zeros_like(power) if layer.bias_var is None else layer.bias_var
    shares = [float((part / power)[usable].median()) / squared for part in (added, biases)] if squared > 0 else []
    return _interval(layer, squared, ratios, means, shares) if shares else None


def _power(layer: FirstLayer) -> Tensor:
    """What latents of variance 1 give each channel, (C,)."""
    rows = layer.weight[layer.latent_columns]
    if layer.class_scales is None:
        return rows.square().sum(0).mean(1) + layer.standardized_mean**2 * rows.sum(0).var(1, unbiased=False)
    gains = layer.class_scales[:, layer.latent_columns]
    power = torch.einsum("d,dcp->c", gains.square().mean(0), rows.square()) / rows.shape[2]
    return (
        power
        if layer.standardized_mean == 0
        else power + layer.standardized_mean**2 * _varied(gains, _even(gains), rows)
    )


def _disagreement(ratios: Tensor) -> float:
    middle = float(ratios.median())
    return float((ratios - middle).abs().median()) / middle if middle > 0 else math.inf


def _interval(layer: FirstLayer, squared: float, ratios: Tensor, means: Tensor | None, taken: list[float]) -> Estimate:
    """Spread over channels, the finite number of samples behind the statistics, and the unknown batch size. `taken`: the variance of the labels and
    that of the biases over the latents'. Both were subtracted: the one was seen on as few samples, and either may have moved on since."""
    spread = 1.4826 * float((ratios - squared).abs().median())
    channels = 1.2533 * spread / squared / math.sqrt(len(ratios))
    behind = _WINDOW * 16.0
    if means is not None:
        seen = squared / max(
            1e-12, float((means[layer.latent_columns] - layer.standardized_mean * math.sqrt(squared)).square().mean())
        )
        behind = min(1e7, max(behind, seen * _low_chi_square(len(layer.latent_columns))))
    rows = layer.weight[layer.latent_columns]
    shares = rows.square().mean((1, 2))
    sampling = math.sqrt(
        2 * float(shares.square().sum()) / (behind * float(shares.sum()) ** 2)
    )  # few latents may carry it all
    low_by = (
        float((rows.mean(2).square().sum(0) / rows.square().sum(0).mean(1).clamp_min(1e-30)).median())
        if rows.shape[2] > 1
        else 0.0
    )
    lowered = low_by * _WINDOW / behind
    width = 1.96 * math.hypot(channels, sampling, taken[0] * math.sqrt(2 / behind), _MOVED * sum(taken))
    return Estimate(
        math.sqrt(squared), math.sqrt(squared * max(0.0, 1 - width)), math.sqrt(squared * (1 + width + lowered))
    )


def _low_chi_square(dof: int) -> float:
    """The 5 % quantile of chi²/dof (Wilson and Hilferty 1931): D means tell the number of samples no better than this."""
    return max(0.0, 1 - 2 / (9 * dof) - 1.645 * math.sqrt(2 / (9 * dof))) ** 3


def _label_variance(layer: FirstLayer, means: Tensor | None) -> Tensor:
    """Variance over classes and positions of what the labels add to each channel, (C,); zero without labels."""
    if layer.class_offsets is None:
        return torch.zeros_like(layer.var)
    shares = _even(layer.class_offsets)
    if (
        means is not None
        and len(layer.non_latent_columns) == len(shares)
        and torch.equal(layer.class_offsets[:, layer.non_latent_columns], torch.eye(len(shares), dtype=shares.dtype))
    ):
        shares = means[layer.non_latent_columns].clamp_min(0) / means[layer.non_latent_columns].clamp_min(
            0
        ).sum().clamp_min(1e-12)  # the classes' real shares
    return _varied(layer.class_offsets, shares, layer.weight)


def _even(vectors: Tensor) -> Tensor:
    return torch.full((len(vectors),), 1 / len(vectors), dtype=torch.float64)


def _varied(vectors: Tensor, shares: Tensor, weight: Tensor) -> Tensor:
    """Variance (C,) over classes and positions of what each class's vector (K, D) adds through `weight` (D, C, P): that within positions and that of their
    means. Nothing here is as large as classes times channels."""
    used = vectors.abs().sum(0) > 0
    flat, vectors = weight[used].flatten(1), vectors[:, used]  # (D', C P)
    mean = shares @ vectors
    spread = vectors - mean
    within = (flat * ((spread * shares[:, None]).T @ spread @ flat)).sum(0).reshape(weight.shape[1:]).mean(1)
    across: Tensor = (mean @ flat).reshape(weight.shape[1:]).var(1, unbiased=False)
    return within + across


# from a module, by watching it run


def capture_first_layer(
    forward: Callable[[Tensor, Tensor | None], Tensor],
    module: nn.Module,
    latent_shape: tuple[int, ...],
    classes: int | None,
) -> FirstLayer | None:
    """Run `forward` on a few latents and look at the first map and what follows it. None if no batch norm follows at once,
    or if the map's input is neither the latent itself nor that times something of its class (a normalised z, an embedding network)."""
    rng = torch.Generator().manual_seed(7)
    kinds = torch.arange(0) if classes is None else torch.arange(min(classes, _KINDS)) * classes // min(classes, _KINDS)
    labels = None if classes is None else kinds[torch.arange(max(_DRAWS, 2 * len(kinds))) % len(kinds)]
    z = torch.randn(_DRAWS if labels is None else len(labels), *latent_shape, generator=rng)
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    place = module_device(module)

    def watch(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        if len(seen) < 2 and given and isinstance(given[0], Tensor) and isinstance(made, Tensor):
            seen.append((layer, given[0].detach().cpu().clone(), made.detach().cpu().clone()))
            if len(seen) == 2:
                raise StopForward

    watched = (nn.Linear, nn.ConvTranspose2d, nn.modules.batchnorm._BatchNorm)
    active = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.ELU, nn.SELU, nn.SiLU)
    hooks = [part.register_forward_hook(watch) for part in module.modules() if isinstance(part, (*watched, *active))]
    try:
        with torch.no_grad(), contextlib.suppress(StopForward):
            forward(z.to(place), None if labels is None else labels.to(place))
    finally:
        for hook in hooks:
            hook.remove()
    return _from_run(seen, z.flatten(1), len(kinds))


def _from_run(seen: list[tuple[nn.Module, Tensor, Tensor]], z: Tensor, classes: int) -> FirstLayer | None:
    """`classes`: how many came in turn, 0 where there are none."""
    if (
        len(seen) < 2
        or not isinstance(seen[0][0], (nn.Linear, nn.ConvTranspose2d))
        or not isinstance(seen[1][0], nn.modules.batchnorm._BatchNorm)
    ):
        return None
    (first, given, made), (norm, received, _) = seen
    x = given.flatten(1)
    if not torch.equal(made.flatten(), received.flatten()) or x.shape[1] < z.shape[1]:
        return None
    if isinstance(first, nn.ConvTranspose2d) and x.shape[1] != first.in_channels:
        return None  # not a 1x1 input
    latents = [column for column in range(x.shape[1]) if bool((x[:, column, None] == z).all(0).any())]
    weights, statistics = ({name: entry.cpu() for name, entry in part.state_dict().items()} for part in (first, norm))
    if len(latents) == z.shape[1]:
        added = x[:classes].double()
        added[:, latents] = 0
        return build_first_layer(weights, statistics, latents, added if classes and x.shape[1] > len(latents) else None)
    gains = _gains(x, z, classes)
    layer = None if gains is None else build_first_layer(weights, statistics)
    return None if layer is None else replace(layer, class_scales=gains)


def _gains(x: Tensor, z: Tensor, classes: int) -> Tensor | None:
    """(K, D) what each class multiplies the latents with, where the input is that: the same in both halves of the draws."""
    if not classes or x.shape != z.shape or len(z) < 2 * classes:
        return None
    first, second = (x[start : start + classes] / z[start : start + classes] for start in (0, classes))
    return first.double() if torch.allclose(first, second, rtol=1e-3, atol=1e-5) else None


def build_first_layer(
    linear_state: Mapping[str, Tensor],
    batchnorm_state: Mapping[str, Tensor],
    latent_columns: list[int] | None = None,
    class_offsets: Tensor | None = None,
) -> FirstLayer | None:
    """The first layer from the state of a map and of the batch norm right behind it; all inputs are latents unless told.

    A flat map whose norm has fewer channels is one that is read as (C, side, side) before the norm. None for statistics
    that were never updated.
    """
    if "running_mean" not in batchnorm_state or "running_var" not in batchnorm_state:
        return None
    left = _left(
        batchnorm_state["running_mean"],
        batchnorm_state["running_var"],
        read_batch_count(batchnorm_state.get("num_batches_tracked")),
    )
    weight = linear_state["weight"].detach().double()
    weight = weight.T[:, :, None] if weight.ndim == 2 else weight.flatten(2)  # (D, C, P)
    channels = len(batchnorm_state["running_mean"])
    if left is None or weight.shape[1] % channels or (weight.shape[1] != channels and weight.shape[2] > 1):
        return None
    # Read as pictures, a bias differs between positions of one channel: it then has a variance, like the labels' means.
    bias = linear_state.get("bias", torch.zeros(weight.shape[1])).detach().double().reshape(channels, -1)
    mean = batchnorm_state["running_mean"].double() / (1 - left)
    spread = bias.var(1, unbiased=False)
    var = batchnorm_state["running_var"].double() - (1 - left) * spread
    everything = list(range(len(weight)))
    return FirstLayer(
        weight.reshape(len(weight), channels, -1),
        bias.mean(1),
        mean,
        var,
        latent_columns or everything,
        class_offsets,
        left,
        bias_var=spread,
    )
