"""Noise inputs: images of noise that some generators add to their feature maps beside the latent, one per layer.

An architecture puts one NoiseInput into each layer that has such an input, and adds what it returns:

    self.noise = NoiseInput("b8.conv0")
    x = x + self.noise(x, self.noise_const) * self.strength     # or self.noise(x), if the file stores no noise image

How the noise is drawn is decided by the audit (--noise), not by the architecture; see `sampling_controls.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

NOISE_MODES = ("const", "random", "none")
# (name, size, uniform) -> (B, size): the noise for the samples of one call
NoiseSampler = Callable[[str, int, bool], Tensor]


class NoiseInput(nn.Module):
    """The noise of one layer.

    `name`: layers of the same name share their draws. `uniform`: on [0, 1] instead of N(0, 1). `mode`:

    "const"   the stored noise image, else one fixed draw: the same for all samples, so only the latents vary
    "random"  the noise of sample i is a function of (seed, i, name) alone, whatever the batch
    "none"    zeros

    `sampler`: draws for the samples of the next call (sampling.latents.make_noise_sampler); without it "random" acts
    like "const", because a probe of how the output follows z must not measure noise.
    """

    def __init__(self, name: str, *, uniform: bool = False) -> None:
        super().__init__()
        self.name, self.uniform = name, uniform
        self.mode = "const"
        self.sampler: NoiseSampler | None = None

    def forward(self, x: Tensor, stored: Tensor | None = None) -> Tensor:
        """What to add to x (B, C, H, W): (1, 1, H, W), or (B, 1, H, W) if each sample has its own."""
        height, width = x.shape[-2:]
        if self.mode == "none":
            return x.new_zeros(1, 1, height, width)
        if self.mode == "random" and self.sampler is not None:
            return self.sampler(self.name, height * width, self.uniform).reshape(-1, 1, height, width).to(x)
        return (self._draw_fixed(height, width) if stored is None else stored.reshape(1, 1, height, width)).to(x)

    def _draw_fixed(self, height: int, width: int) -> Tensor:
        rng = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        return (torch.rand if self.uniform else torch.randn)(1, 1, height, width, generator=rng)  # (1, 1, H, W)


class NoiseInjection(nn.Module):
    """Adds one noise image to all channels, times one learned number (`weight`), as FastGAN and lightweight-gan do."""

    def __init__(self, noise_name: str) -> None:
        super().__init__()
        self.weight, self.noise = nn.Parameter(torch.empty(1)), NoiseInput(noise_name)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.weight * self.noise(x)
        return out


def find_noise_inputs(module: nn.Module) -> Iterator[NoiseInput]:
    """Every noise input of a network."""
    return (part for part in module.modules() if isinstance(part, NoiseInput))
