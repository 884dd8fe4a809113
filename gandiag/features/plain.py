"""Features that need no network: the values themselves, and small images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from gandiag.contracts import Output
from gandiag.features.request import Request
from gandiag.sample.fit import match_channels, unit_range


@dataclass(frozen=True, slots=True)
class Identity:
    """The sample itself, flattened: (B, D) in data units. No axis is scaled; the metrics divide by one scalar of the real data."""

    output: Output
    name: str = "identity"
    fingerprint: str = "identity:1"
    costly: bool = False  # not worth a place in the cache

    @property
    def dim(self) -> int:
        return math.prod(self.output.shape)

    def __call__(self, samples: Tensor, output: Output) -> Tensor:
        return samples.detach().float().flatten(1).cpu()  # (B, D)


@dataclass(frozen=True, slots=True)
class Pixels:
    """The image averaged to `side` x `side` RGB, flattened: (B, 3 side²) in [0, 1]. Sees colour and layout, no texture."""

    name: str = "pixels"
    side: int = 8
    costly: bool = False

    @property
    def dim(self) -> int:
        return 3 * self.side**2

    @property
    def fingerprint(self) -> str:
        return f"pixels@{self.side}:1"

    def __call__(self, samples: Tensor, output: Output) -> Tensor:
        small = F.adaptive_avg_pool2d(unit_range(samples.detach(), output), self.side)
        return match_channels(small, 3).flatten(1).cpu()  # (B, D)


def identity(request: Request) -> Identity:
    """The factory behind "identity"."""
    return Identity(request.output)


def pixels(request: Request) -> Pixels:
    """The factory behind "pixels" and "pixels@side"."""
    request.demand_images()
    return Pixels(request.view.base, request.view.side or 8)
