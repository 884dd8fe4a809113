"""Do a network's batch norms receive what their running statistics say they received in training?"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

_APART = 7919_0000  # from the small seeds of trainings: a network's first random numbers, an embedding say, must not come again as its latents


def sample_prior(n: int, shape: tuple[int, ...], prior: str, seed: int) -> Tensor:
    """n latents (n, *shape) at the prior's own scale. Even n: each with its mirror image, so that their mean is the prior's."""
    rng = torch.Generator().manual_seed(_APART + seed)
    half = (n + 1) // 2
    if prior == "unit":
        z = torch.rand(half, *shape, generator=rng)
        return torch.cat([z, 1 - z])[:n]
    z = (
        2 * torch.rand(half, *shape, generator=rng) - 1
        if prior == "uniform"
        else torch.randn(half, *shape, generator=rng)
    )
    if prior == "truncated":
        while bool((outside := z.abs() > 2).any()):
            z[outside] = torch.randn(int(outside.sum()), generator=rng)
    elif prior == "sphere":
        z = z / z.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in shape)) * z[0].numel() ** 0.5
    return torch.cat([z, -z])[:n]


def paired_labels(n: int, classes: int | None) -> Tensor | None:
    """Classes in turn, (n,) int64, for `draws`: z and -z stand half the batch apart and share one, or the labels' own share would not cancel."""
    return None if classes is None else (torch.arange((n + 1) // 2) % classes).repeat(2)[:n]


def prior_std(prior: str) -> float:
    """Standard deviation of one latent at scale 1: uniform on [-1, 1] has 3^-1/2, on [0, 1] half of it, a normal cut at 2 has 0.8796."""
    return {"uniform": 3**-0.5, "unit": 12**-0.5, "truncated": 0.8796256610342398}.get(prior, 1.0)


def standardized_prior_mean(prior: str) -> float:
    """Mean of one latent in units of its deviation, whatever the scale: 3^1/2 on [0, 1], else 0."""
    return 3**0.5 if prior == "unit" else 0.0


class StopForward(Exception):
    """Stops a forward pass once the layers asked for have been seen."""


def module_device(module: nn.Module) -> torch.device:
    """Where a module's weights are; a sampler may have moved them."""
    first = next(itertools.chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@contextlib.contextmanager
def enable_dropout(module: nn.Module) -> Iterator[None]:
    """Dropout as in training, by a seed of our own; the modes and the global random state are put back."""
    dropouts = [
        part for part in module.modules() if isinstance(part, nn.modules.dropout._DropoutNd) and not part.training
    ]
    if not dropouts:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        for part in dropouts:
            part.train()
        try:
            yield
        finally:
            for part in dropouts:
                part.eval()


def batchnorm_mismatch(
    forward: Callable[[Tensor, Tensor | None], object],
    module: nn.Module,
    z: Tensor,
    labels: Tensor | None,
    *,
    use_batch_stats: bool = False,
) -> float | None:
    """Mean over batch norms of |Δmean| / sigma + |log variance ratio|, each averaged over channels; None without batch norm.

    z: (B, *latent). 0 is exact; below 0.15 is a correct rebuild at B = 256, of which about 0.1 is the draw's own noise in a
    layer without positions. Wrong activations give 0.2 to 0.5 and more, a wrong eps or scale above 0.5. Reads high when the
    weights are averages and the statistics are not. Blind to everything after the last batch norm. `batch`: every norm hands
    on what it makes of the batch's own statistics, as in training; the running ones are left alone. Dropout drops, as it did
    when the statistics were taken. Cost: one forward of B.
    """
    found: list[float] = []

    def compare(norm: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> Tensor | None:
        if (
            not isinstance(norm, nn.modules.batchnorm._BatchNorm)
            or norm.running_mean is None
            or norm.running_var is None
        ):
            return None
        found.append(moments_distance(given[0], norm.running_mean, norm.running_var))
        return (
            torch.nn.functional.batch_norm(given[0], None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
            if use_batch_stats
            else None
        )

    hooks = [
        part.register_forward_hook(compare)
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    if not hooks:
        return None
    place = module_device(module)
    try:
        with torch.no_grad(), enable_dropout(module):
            forward(z.to(place), None if labels is None else labels.to(place))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(found) / len(found) if found else None


def moments_distance(inputs: Tensor, mean: Tensor, var: Tensor) -> float:
    """|Δmean| / sigma + |log variance ratio| of what a norm received, (B, C, …), and the moments (C,) that it remembers: the mean
    over channels, of which none counts for more than 20."""
    found_mean, found_var = (entry.cpu() for entry in channel_moments(inputs.detach()))
    mean, var = mean.cpu().double(), var.cpu().double() + 1e-12
    shift = ((found_mean - mean).abs() / var.sqrt()).clamp_max(10)
    stretch = ((found_var + 1e-12) / var).log().abs().clamp_max(10)
    return float((shift + stretch).mean())


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of every channel of x (B, C, …), float64.

    Of pictures, sums over positions are taken in x's own precision, about the mean, so that a variance far below the mean's square survives;
    in float64 throughout, and one channel after the other, this takes ten times as long.
    """
    if x.ndim == 2:
        var, mean = torch.var_mean(_double(x), 0)
        return mean, var
    x = x.flatten(2)
    count = len(x) * x.shape[2]
    near = (_double(x.sum(2)).sum(0) / count).to(x.dtype)
    centred = x - near[:, None]
    rest = _double(centred.sum(2)).sum(0) / count
    return _double(near) + rest, (_double(centred.square_().sum(2)).sum(0) - count * rest.square()) / (count - 1)


def read_batch_count(counter: Tensor | None) -> int | None:
    """What a batch norm's counter says, at least 0; None where there is none, and where it is no number."""
    if counter is None or counter.numel() != 1 or not bool(torch.isfinite(counter).all()):
        return None
    return max(0, int(counter))


def _double(x: Tensor) -> Tensor:
    return x.double() if x.device.type != "mps" else x.cpu().double()  # mps has no float64
