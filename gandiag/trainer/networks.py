"""Networks from settings: plain stacks, so that `gandiag audit` can rebuild them from their weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gandiag.checkpoints.inference.sequential import make_hidden_activation, make_output_activation
from gandiag.errors import ConfigError
from gandiag.interfaces import OutputSpec
from gandiag.trainer.recipes import NetworkSettings
from gandiag.trainer.unrolling.small_convs import PixelConvTranspose2d, SmallBatchNorm2d, SmallConv2d


class InputScale(nn.Module):
    """The input times a constant: D sees data of a size that its weights expect."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Maxout(nn.Module):
    """The largest of `pieces` linear maps per unit. Source: Goodfellow et al. 2013, arXiv:1302.4389."""

    def __init__(self, inputs: int, out: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(inputs, out * pieces)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.linear(x)
        return maps.reshape(len(x), -1, self.pieces).amax(2)  # (B, out)


def make_generator(
    settings: NetworkSettings, latent_dim: int, output: OutputSpec, rng: torch.Generator
) -> nn.Sequential:
    """z (B, latent) to samples (B, *shape)."""
    if settings.kind == "conv":
        return initialize_weights(nn.Sequential(*_rising(settings, latent_dim, output)), settings, rng)
    layers = _hidden(settings, latent_dim)
    layers += [nn.Linear(settings.hidden[-1], math.prod(output.shape))]
    if settings.final != "none":
        layers.append(make_output_activation(settings.final))
    if len(output.shape) > 1:
        layers.append(nn.Unflatten(1, output.shape))
    return initialize_weights(nn.Sequential(*layers), settings, rng)


def make_discriminator(
    settings: NetworkSettings, output: OutputSpec, pack_size: int, rng: torch.Generator
) -> nn.Sequential:
    """Samples (B, *shape), `pack` of them side by side on the first axis, to logits (B, 1). The last layer is the linear head."""
    shape = (output.shape[0] * pack_size, *output.shape[1:])
    if settings.kind == "conv":
        return initialize_weights(nn.Sequential(*_falling(settings, shape)), settings, rng)
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    layers += [InputScale(settings.scale)] if settings.scale != 1.0 else []
    layers += _hidden(settings, math.prod(shape))
    return initialize_weights(nn.Sequential(*layers, nn.Linear(settings.hidden[-1], 1)), settings, rng)


def _hidden(ask: NetworkSettings, width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for out in ask.hidden:
        layers += _hidden_layer(ask, width, out)
        width = out
    return layers


def _hidden_layer(ask: NetworkSettings, width: int, out: int) -> list[nn.Module]:
    name, _, pieces = ask.activation.partition(":")
    if name == "maxout":
        return [Maxout(width, out, int(pieces))]
    norm = [nn.BatchNorm1d(out)] if ask.norm else []
    return [nn.Linear(width, out), *norm, make_hidden_activation(ask.activation)]


def _rising(ask: NetworkSettings, latent: int, output: OutputSpec) -> list[nn.Module]:
    """DCGAN's layout: the latent as a pixel, 4 x 4, doubled until the side is reached, and a last 3 x 3 map."""
    side, width = output.shape[-1], ask.hidden[0]
    if side != 4 << (len(ask.hidden) - 1):
        raise ConfigError(
            f"{len(ask.hidden)} layers lead to a side of {4 << (len(ask.hidden) - 1)}, and the images have {side}",
            "choose another recipe",
        )
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        PixelConvTranspose2d(latent, width, 4, 1, 0, bias=not ask.norm),
    ]
    for out in (*ask.hidden[1:], None):
        layers += [*([nn.BatchNorm2d(width)] if ask.norm else []), make_hidden_activation(ask.activation)]
        if out is not None:
            layers.append(nn.ConvTranspose2d(width, out, 4, 2, 1, bias=not ask.norm))
            width = out
    return [*layers, nn.Conv2d(width, output.shape[0], 3, padding=1), make_output_activation(ask.final)]


def _falling(ask: NetworkSettings, shape: tuple[int, ...]) -> list[nn.Module]:
    """3 x 3 maps of stride 2, and a linear head."""
    channels, side = shape[0], shape[-1]
    layers: list[nn.Module] = []
    for out in ask.hidden:
        layers += [
            SmallConv2d(channels, out, 3, 2, 1),
            *([SmallBatchNorm2d(out)] if ask.norm else []),
            make_hidden_activation(ask.activation),
        ]
        channels, side = out, -(-side // 2)
    return [*layers, nn.Flatten(), nn.Linear(channels * side * side, 1)]


def initialize_weights(net: nn.Sequential, settings: NetworkSettings, rng: torch.Generator) -> nn.Sequential:
    """Fresh weights from `rng`, never from the global state; biases 0, as the recipes' codes have them."""
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
