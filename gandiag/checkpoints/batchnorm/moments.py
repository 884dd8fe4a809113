"""BatchNorm input moments against running statistics, and latents drawn from the standard priors."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

# Offset of the seeds: trainings use small ones, and a network's first random numbers, such as an embedding, must not
# come again as its latents.
_SEED_OFFSET = 7919_0000


def sample_prior(n: int, shape: tuple[int, ...], prior: str, seed: int) -> Tensor:
    """Draw n latents (n, *shape) at the prior's own scale.

    With even n each has its mirror image, so their mean is the prior's.
    """
    rng = torch.Generator().manual_seed(_SEED_OFFSET + seed)
    half = (n + 1) // 2
    if prior == "unit":
        z = torch.rand(half, *shape, generator=rng)
        return torch.cat([z, 1 - z])[:n]
    if prior == "uniform":
        z = 2 * torch.rand(half, *shape, generator=rng) - 1
    else:
        z = torch.randn(half, *shape, generator=rng)
    if prior == "truncated":
        while bool((outside := z.abs() > 2).any()):
            z[outside] = torch.randn(int(outside.sum()), generator=rng)
    elif prior == "sphere":
        z = z / z.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in shape)) * z[0].numel() ** 0.5
    return torch.cat([z, -z])[:n]


def paired_labels(n: int, classes: int | None) -> Tensor | None:
    """Labels (n,) int64 for the latents of `sample_prior`, all classes in turn; None without classes.

    z and its mirror image -z, half a batch apart, share a label: otherwise the labels' contribution to the mean would
    not cancel.
    """
    return None if classes is None else (torch.arange((n + 1) // 2) % classes).repeat(2)[:n]


def prior_std(prior: str) -> float:
    """Standard deviation of one latent at scale 1.

    Uniform on [-1, 1] has 3^-1/2, on [0, 1] half of it; a normal cut at 2 has 0.8796.
    """
    return {"uniform": 3**-0.5, "unit": 12**-0.5, "truncated": 0.8796256610342398}.get(prior, 1.0)


def standardized_prior_mean(prior: str) -> float:
    """Mean of one latent in units of its standard deviation, at any scale: 3^1/2 on [0, 1], else 0."""
    return 3**0.5 if prior == "unit" else 0.0


class StopForward(Exception):
    """Raised in a hook to end a forward pass once the layers of interest have run."""


def module_device(module: nn.Module) -> torch.device:
    """The device of a module's weights, which a sampler may have moved; the CPU without weights."""
    first = next(itertools.chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@contextlib.contextmanager
def enable_dropout(module: nn.Module) -> Iterator[None]:
    """Run dropout as in training, with a fixed seed. Modes and the global random state are restored on exit."""
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
    """Mean over BatchNorm layers and channels of |Δmean| / sigma + |log variance ratio|; None without BatchNorm.

    z: (B, *latent). 0 is exact. Correct rebuilds stay below 0.15 at B = 256, of which about 0.1 is sampling noise in
    layers without spatial positions. Wrong activations give 0.2 to 0.5 and more, a wrong eps or scale above 0.5. Reads
    high when the weights are averages (EMA) and the statistics are not. Blind to everything after the last BatchNorm.
    `use_batch_stats`: each BatchNorm normalizes with the batch's own statistics, as in training; the running ones are
    not updated. Dropout is active, as it was when the statistics were collected. Cost: one forward of B.
    """
    mismatches: list[float] = []

    def compare(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor | None:
        if (
            not isinstance(layer, nn.modules.batchnorm._BatchNorm)
            or layer.running_mean is None
            or layer.running_var is None
        ):
            return None
        mismatches.append(moments_distance(inputs[0], layer.running_mean, layer.running_var))
        if not use_batch_stats:
            return None
        return torch.nn.functional.batch_norm(inputs[0], None, None, layer.weight, layer.bias, True, 0.0, layer.eps)

    hooks = [
        part.register_forward_hook(compare)
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    if not hooks:
        return None
    device = module_device(module)
    try:
        with torch.no_grad(), enable_dropout(module):
            forward(z.to(device), None if labels is None else labels.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(mismatches) / len(mismatches) if mismatches else None


def moments_distance(inputs: Tensor, mean: Tensor, var: Tensor) -> float:
    """|Δmean| / sigma + |log variance ratio| between BatchNorm inputs (B, C, …) and stored moments (C,).

    Averaged over channels; no channel counts for more than 20.
    """
    input_mean, input_var = (entry.cpu() for entry in channel_moments(inputs.detach()))
    mean, var = mean.cpu().double(), var.cpu().double() + 1e-12
    shift = ((input_mean - mean).abs() / var.sqrt()).clamp_max(10)
    stretch = ((input_var + 1e-12) / var).log().abs().clamp_max(10)
    return float((shift + stretch).mean())


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,), float64, of every channel of x (B, C, …).

    For images, sums over positions are taken in x's own precision and about the mean, so that a variance far below the
    squared mean survives. float64 throughout, one channel after the other, takes ten times as long.
    """
    if x.ndim == 2:
        var, mean = torch.var_mean(_to_double(x), 0)
        return mean, var
    x = x.flatten(2)
    count = len(x) * x.shape[2]
    center = (_to_double(x.sum(2)).sum(0) / count).to(x.dtype)
    centered = x - center[:, None]
    residual = _to_double(centered.sum(2)).sum(0) / count
    return (
        _to_double(center) + residual,
        (_to_double(centered.square_().sum(2)).sum(0) - count * residual.square()) / (count - 1),
    )


def read_batch_count(counter: Tensor | None) -> int | None:
    """The value of `num_batches_tracked`, at least 0; None where it is missing or not a finite scalar."""
    if counter is None or counter.numel() != 1 or not bool(torch.isfinite(counter).all()):
        return None
    return max(0, int(counter))


def _to_double(x: Tensor) -> Tensor:
    return x.double() if x.device.type != "mps" else x.cpu().double()  # mps has no float64
