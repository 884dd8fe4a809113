"""Generators as people write them, small and calibrated, for the tests of loading."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Draw = Callable[[int, torch.Generator], Tensor]


class DCGAN(nn.Module):
    """pytorch/examples' layout: main.0 transposed convolution, main.1 batch norm, main.2 activation, …"""

    def __init__(
        self,
        nz: int = 12,
        ngf: int = 8,
        blocks: int = 3,
        act: Callable[[], nn.Module] = nn.ReLU,
        channels: int = 3,
        bias: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = nz
        for block in range(blocks):
            out = ngf * 2 ** (blocks - 1 - block)
            layers += [
                nn.ConvTranspose2d(width, out, 4, *((1, 0) if block == 0 else (2, 1)), bias=bias),
                nn.BatchNorm2d(out),
                act(),
            ]
            width = out
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=bias), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.main(z.view(len(z), -1, 1, 1))
        return out


def mlp(
    widths: tuple[int, ...] = (2, 64, 64, 2),
    *,
    norm: bool = False,
    act: Callable[[], nn.Module] = nn.ReLU,
    final: nn.Module | None = None,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Linear stacks: 0.weight, 2.weight, …; with `norm` a BatchNorm1d behind every hidden layer."""
    layers: list[nn.Module] = []
    for index, (into, out) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(into, out))
        if index < len(widths) - 2:
            layers += [nn.BatchNorm1d(out, eps), act()] if norm else [act()]
    return nn.Sequential(*layers, *([final] if final else []))


def critic(channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 4),
    )


def shuffled(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and affine parameters drawn anew, reproducibly."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, entry in net.named_parameters():
            entry.copy_(torch.randn(entry.shape, generator=rng) * (0.15 if entry.ndim > 1 else 0.2))
            if entry.ndim == 1 and name.endswith("weight"):
                entry += 1
    return net


def calibrated(
    net: nn.Module, draw: Callable[[torch.Generator], Tensor], *, batches: int = 60, seed: int = 0
) -> nn.Module:
    """Batch-norm statistics as training leaves them: forward passes in train mode, momentum 0.1."""
    rng = torch.Generator().manual_seed(seed)
    shuffled(net, seed).train()
    with torch.no_grad():
        for _ in range(batches):
            net(draw(rng))
    return net.eval()


def normal(dim: int, *, scale: float = 1.0, batch: int = 32) -> Callable[[torch.Generator], Tensor]:
    return lambda rng: scale * torch.randn(batch, dim, generator=rng)


def save(content: Any, folder: Path, name: str = "netG.pth") -> str:
    torch.save(content, folder / name)
    return str(folder / name)
