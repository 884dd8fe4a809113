"""What the batch norms of a chain receive, against what they remember of their training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import moments_distance, read_batch_count
from gandiag.checkpoints.inference.sequential import SequentialGenerator

MAX_CHANNELS = 32  # of the last layer before a norm that are looked at
BatchNorm = nn.modules.batchnorm._BatchNorm


def has_initial_statistics(norm: BatchNorm) -> bool:
    """Statistics as they are before the first batch say nothing."""
    mean, var = norm.running_mean, norm.running_var
    return mean is None or var is None or bool((mean == 0).all() and (var == 1).all())


def batchnorm_indices(generator: SequentialGenerator) -> list[int]:
    return [place for place, layer in enumerate(generator.layers) if isinstance(layer, BatchNorm)]


def forward_layer(layer: nn.Module, x: Tensor, use_batch_stats: bool) -> Tensor:
    """What a layer makes of its input; a norm may use the batch's own statistics."""
    if not isinstance(layer, BatchNorm) or not use_batch_stats:
        made: Tensor = layer(x)
        return made
    return F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)


def layer_mismatch(norm: BatchNorm, x: Tensor) -> float:
    """How far what a norm receives is from what it remembers."""
    return moments_distance(x, *bias_corrected_statistics(norm))


def bias_corrected_statistics(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and variance (C,), without what is left of their start at 0 and 1 after few batches."""
    assert norm.running_mean is not None and norm.running_var is not None
    left = 0.9 ** (read_batch_count(norm.num_batches_tracked) or 0)
    if not 1e-4 < left < 1:
        return norm.running_mean, norm.running_var
    return norm.running_mean / (1 - left), ((norm.running_var - left) / (1 - left)).clamp_min(1e-12)


def last_layer_mismatch(previous_layers: Sequence[nn.Module], norm: nn.Module, x: Tensor) -> float:
    """Mismatch at the last norm, for a few channels of the map before it."""
    assert isinstance(norm, BatchNorm)
    if not previous_layers:
        return layer_mismatch(norm, x)
    mean, var = bias_corrected_statistics(norm)
    chosen = torch.arange(0, len(mean), -(-len(mean) // MAX_CHANNELS))
    layer = previous_layers[0]
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    part = bias[chosen] if isinstance(bias, Tensor) else None
    if isinstance(layer, nn.ConvTranspose2d):
        made = F.conv_transpose2d(x, weight[:, chosen], part, layer.stride, layer.padding, layer.output_padding)  # type: ignore[arg-type]
    elif isinstance(layer, nn.Conv2d):
        made = F.conv2d(x, weight[chosen], part, layer.stride, layer.padding)
    else:
        made = F.linear(x, weight[chosen], part)
    return moments_distance(made, mean[chosen], var[chosen])
