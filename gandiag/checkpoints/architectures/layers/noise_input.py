"""Noise inputs: what some generators add to their feature maps beside the latent, one picture a layer.

A family puts one Noise into each layer that has such an input, and adds what it returns:

    self.noise = Noise("b8.conv0")
    x = x + self.noise(x, self.noise_const) * self.strength     # or self.noise(x), where the file stores no picture

How the pictures are drawn is then the audit's choice (--noise), not the family's; see `knobs.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

NOISE_MODES = ("const", "random", "none")
NoiseSampler = Callable[
    [str, int, bool], Tensor
]  # (name, size, uniform) -> (B, size): the noise of the samples of one call


class NoiseInput(nn.Module):
    """The noise of one layer. `name`: layers of one name share their draws; `uniform`: on [0, 1] instead of N(0, 1).

    mode "const"   the picture that the file stores, else one fixed draw: the same for all samples, so that latents alone vary
    mode "random"  the picture of sample i is a function of (seed, i, name) alone, whatever the batch
    mode "none"    zeros

    `draw`: what draws for the samples of the coming call (sample.latents.noise_of); without it "random" is "const": whoever
    asks how the output follows z must not be answered by noise.
    """

    def __init__(self, name: str, *, uniform: bool = False) -> None:
        super().__init__()
        self.name, self.uniform = name, uniform
        self.mode = "const"
        self.sampler: NoiseSampler | None = None

    def forward(self, x: Tensor, stored: Tensor | None = None) -> Tensor:
        """What to add to x (B, C, H, W): (1, 1, H, W), or (B, 1, H, W) where each sample has its own."""
        height, width = x.shape[-2:]
        if self.mode == "none":
            return x.new_zeros(1, 1, height, width)
        if self.mode == "random" and self.sampler is not None:
            return self.sampler(self.name, height * width, self.uniform).reshape(-1, 1, height, width).to(x)
        return (self._fixed(height, width) if stored is None else stored.reshape(1, 1, height, width)).to(x)

    def _fixed(self, height: int, width: int) -> Tensor:
        rng = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        return (torch.rand if self.uniform else torch.randn)(1, 1, height, width, generator=rng)  # (1, 1, H, W)


def find_noise_inputs(module: nn.Module) -> Iterator[NoiseInput]:
    """Every noise input of a network."""
    return (part for part in module.modules() if isinstance(part, NoiseInput))
