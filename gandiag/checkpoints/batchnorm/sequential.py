"""BatchNorm mismatch of a sequential network, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import moments_distance, read_batch_count
from gandiag.checkpoints.inference.sequential import SequentialGenerator

MAX_CHANNELS = 32  # output channels of the last layer before a BatchNorm that are computed
BatchNorm = nn.modules.batchnorm._BatchNorm


def has_initial_statistics(layer: BatchNorm) -> bool:
    """Whether the running statistics are missing or still those from before the first batch (mean 0, variance 1)."""
    mean, var = layer.running_mean, layer.running_var
    return mean is None or var is None or bool((mean == 0).all() and (var == 1).all())


def batchnorm_indices(generator: SequentialGenerator) -> list[int]:
    """Indices of the BatchNorm layers in `generator.layers`."""
    return [index for index, layer in enumerate(generator.layers) if isinstance(layer, BatchNorm)]


def forward_layer(layer: nn.Module, x: Tensor, use_batch_stats: bool) -> Tensor:
    """Apply one layer. With `use_batch_stats` a BatchNorm normalizes with the batch's own statistics."""
    if not isinstance(layer, BatchNorm) or not use_batch_stats:
        output: Tensor = layer(x)
        return output
    return F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)


def layer_mismatch(layer: BatchNorm, x: Tensor) -> float:
    """Mismatch between a BatchNorm's input and its stored statistics."""
    return moments_distance(x, *bias_corrected_statistics(layer))


def bias_corrected_statistics(layer: BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and variance (C,) without the remainder of their start at 0 and 1, large after few batches."""
    assert layer.running_mean is not None and layer.running_var is not None
    remainder = 0.9 ** (read_batch_count(layer.num_batches_tracked) or 0)
    if not 1e-4 < remainder < 1:
        return layer.running_mean, layer.running_var
    return layer.running_mean / (1 - remainder), ((layer.running_var - remainder) / (1 - remainder)).clamp_min(1e-12)


def last_layer_mismatch(previous_layers: Sequence[nn.Module], batchnorm: nn.Module, x: Tensor) -> float:
    """Mismatch at the last BatchNorm, over at most MAX_CHANNELS channels of the layer before it.

    `previous_layers`: that layer, or empty where x already is the BatchNorm's input.
    """
    assert isinstance(batchnorm, BatchNorm)
    if not previous_layers:
        return layer_mismatch(batchnorm, x)
    mean, var = bias_corrected_statistics(batchnorm)
    channels = torch.arange(0, len(mean), -(-len(mean) // MAX_CHANNELS))
    layer = previous_layers[0]
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    channel_bias = bias[channels] if isinstance(bias, Tensor) else None
    if isinstance(layer, nn.ConvTranspose2d):
        stride, padding, output_padding = layer.stride, layer.padding, layer.output_padding
        output = F.conv_transpose2d(x, weight[:, channels], channel_bias, stride, padding, output_padding)  # type: ignore[arg-type]
    elif isinstance(layer, nn.Conv2d):
        output = F.conv2d(x, weight[channels], channel_bias, layer.stride, layer.padding)
    else:
        output = F.linear(x, weight[channels], channel_bias)
    return moments_distance(output, mean[channels], var[channels])
