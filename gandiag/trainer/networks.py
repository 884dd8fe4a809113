"""Builds generators and discriminators from settings, as sequential networks that `gandiag audit` can rebuild."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gandiag.checkpoints.inference.sequential import make_hidden_activation, make_output_activation
from gandiag.errors import ConfigError
from gandiag.interfaces import OutputSpec
from gandiag.trainer.recipes import NetworkSettings
from gandiag.trainer.unrolling.conv_matrix import repeat_per_pixel


class InputScale(nn.Module):
    """Multiplies the input by a constant, so that D sees data on the scale that its weights expect."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Maxout(nn.Module):
    """The maximum of `pieces` linear maps per unit. Source: Goodfellow et al. 2013, arXiv:1302.4389."""

    def __init__(self, in_features: int, out_features: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(in_features, out_features * pieces)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.linear(x)
        return maps.reshape(len(x), -1, self.pieces).amax(2)  # (B, out)


class HigherOrderBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d that can be differentiated any number of times in training mode.

    torch's own supports two derivatives, and a gradient penalty combined with unrolling takes three.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.momentum is None or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        rows, pixels = x.flatten(1), x.shape[2] * x.shape[3]
        mean = self._channel_means(rows)
        centered = rows - repeat_per_pixel(mean, pixels)
        variance = self._channel_means(centered.square())
        with torch.no_grad():
            count = len(x) * pixels
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = repeat_per_pixel(self.weight * (variance + self.eps).rsqrt(), pixels)
        return torch.addcmul(repeat_per_pixel(self.bias, pixels), centered, scale).view(x.shape)

    def _channel_means(self, rows: Tensor) -> Tensor:
        return rows.mean(0).view(self.num_features, -1).mean(1)  # (C,)


def make_generator(
    settings: NetworkSettings, latent_dim: int, output: OutputSpec, rng: torch.Generator
) -> nn.Sequential:
    """Return a generator from z (B, latent_dim) to samples (B, *shape)."""
    if settings.kind == "conv":
        return initialize_weights(nn.Sequential(*_upsampling_layers(settings, latent_dim, output)), settings, rng)
    layers = _hidden_layers(settings, latent_dim)
    layers.append(nn.Linear(settings.hidden[-1], math.prod(output.shape)))
    if settings.final != "none":
        layers.append(make_output_activation(settings.final))
    if len(output.shape) > 1:
        layers.append(nn.Unflatten(1, output.shape))
    return initialize_weights(nn.Sequential(*layers), settings, rng)


def make_discriminator(
    settings: NetworkSettings, output: OutputSpec, pack_size: int, rng: torch.Generator
) -> nn.Sequential:
    """Return a discriminator from samples (B, *shape) to logits (B, 1), with a linear last layer.

    `pack_size` samples are concatenated along the first axis of `shape`.
    """
    shape = (output.shape[0] * pack_size, *output.shape[1:])
    if settings.kind == "conv":
        return initialize_weights(nn.Sequential(*_downsampling_layers(settings, shape)), settings, rng)
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    layers += [InputScale(settings.scale)] if settings.scale != 1.0 else []
    layers += _hidden_layers(settings, math.prod(shape))
    return initialize_weights(nn.Sequential(*layers, nn.Linear(settings.hidden[-1], 1)), settings, rng)


def _hidden_layers(settings: NetworkSettings, width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for out in settings.hidden:
        layers += _hidden_layer(settings, width, out)
        width = out
    return layers


def _hidden_layer(settings: NetworkSettings, width: int, out: int) -> list[nn.Module]:
    name, _, pieces = settings.activation.partition(":")
    if name == "maxout":
        return [Maxout(width, out, int(pieces))]
    batchnorm = [nn.BatchNorm1d(out)] if settings.norm else []
    return [nn.Linear(width, out), *batchnorm, make_hidden_activation(settings.activation)]


def _upsampling_layers(settings: NetworkSettings, latent_dim: int, output: OutputSpec) -> list[nn.Module]:
    """DCGAN's layout: one pixel, 4 x 4, doubled up to the output resolution, then a 3 x 3 convolution."""
    resolution, width = output.shape[-1], settings.hidden[0]
    reached = 4 << (len(settings.hidden) - 1)
    if resolution != reached:
        raise ConfigError(
            f"the recipe's {len(settings.hidden)} layers give {reached} x {reached} images, and the data are "
            f"{resolution} x {resolution}",
            "choose another recipe",
        )
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent_dim, 1, 1)),
        nn.ConvTranspose2d(latent_dim, width, 4, 1, 0, bias=not settings.norm),
    ]
    for out in (*settings.hidden[1:], None):
        layers += [nn.BatchNorm2d(width)] if settings.norm else []
        layers.append(make_hidden_activation(settings.activation))
        if out is not None:
            layers.append(nn.ConvTranspose2d(width, out, 4, 2, 1, bias=not settings.norm))
            width = out
    return [*layers, nn.Conv2d(width, output.shape[0], 3, padding=1), make_output_activation(settings.final)]


def _downsampling_layers(settings: NetworkSettings, shape: tuple[int, ...]) -> list[nn.Module]:
    """3 x 3 convolutions of stride 2, then a linear layer."""
    channels, resolution = shape[0], shape[-1]
    layers: list[nn.Module] = []
    for out in settings.hidden:
        layers.append(nn.Conv2d(channels, out, 3, 2, 1))
        layers += [HigherOrderBatchNorm2d(out)] if settings.norm else []
        layers.append(make_hidden_activation(settings.activation))
        channels, resolution = out, -(-resolution // 2)
    return [*layers, nn.Flatten(), nn.Linear(channels * resolution * resolution, 1)]


def initialize_weights(net: nn.Sequential, settings: NetworkSettings, rng: torch.Generator) -> nn.Sequential:
    """Draw all weights from `rng`, never from the global state, and set biases to 0, as the recipes' sources do."""
    for part in net.modules():
        if not isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            continue
        if settings.init == "orthogonal":
            nn.init.orthogonal_(part.weight, settings.gain, generator=rng)
        elif settings.init == "normal":
            nn.init.normal_(part.weight, 0.0, settings.gain, generator=rng)
        else:
            nn.init.kaiming_uniform_(part.weight, math.sqrt(5), generator=rng)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    return net
