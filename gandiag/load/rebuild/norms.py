"""What the batch norms of a chain receive, against what they remember of their training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.load.moments import apart, batches_seen
from gandiag.load.rebuild.chain import Chain

CHANNELS = 32  # of the last layer before a norm that are looked at
NORM = nn.modules.batchnorm._BatchNorm


def untouched(norm: NORM) -> bool:
    """Statistics as they are before the first batch say nothing."""
    mean, var = norm.running_mean, norm.running_var
    return mean is None or var is None or bool((mean == 0).all() and (var == 1).all())


def places(chain: Chain) -> list[int]:
    return [place for place, layer in enumerate(chain.layers) if isinstance(layer, NORM)]


def handed_on(layer: nn.Module, x: Tensor, batch: bool) -> Tensor:
    """What a layer makes of its input; a norm may use the batch's own statistics."""
    if not isinstance(layer, NORM) or not batch:
        made: Tensor = layer(x)
        return made
    return F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)


def missed(norm: NORM, x: Tensor) -> float:
    """How far what a norm receives is from what it remembers."""
    return apart(x, *remembered(norm))


def remembered(norm: NORM) -> tuple[Tensor, Tensor]:
    """Running mean and variance (C,), without what is left of their start at 0 and 1 after few batches."""
    assert norm.running_mean is not None and norm.running_var is not None
    left = 0.9 ** (batches_seen(norm.num_batches_tracked) or 0)
    if not 1e-4 < left < 1:
        return norm.running_mean, norm.running_var
    return norm.running_mean / (1 - left), ((norm.running_var - left) / (1 - left)).clamp_min(1e-12)


def last_of(before: Sequence[nn.Module], norm: nn.Module, x: Tensor) -> float:
    """Mismatch at the last norm, for a few channels of the map before it."""
    assert isinstance(norm, NORM)
    if not before:
        return missed(norm, x)
    mean, var = remembered(norm)
    chosen = torch.arange(0, len(mean), -(-len(mean) // CHANNELS))
    layer = before[0]
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    part = bias[chosen] if isinstance(bias, Tensor) else None
    if isinstance(layer, nn.ConvTranspose2d):
        made = F.conv_transpose2d(x, weight[:, chosen], part, layer.stride, layer.padding, layer.output_padding)  # type: ignore[arg-type]
    elif isinstance(layer, nn.Conv2d):
        made = F.conv2d(x, weight[chosen], part, layer.stride, layer.padding)
    else:
        made = F.linear(x, weight[chosen], part)
    return apart(made, mean[chosen], var[chosen])
