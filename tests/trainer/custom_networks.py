"""A user's own networks, for the tests of `gandiag train --generator …`."""

from __future__ import annotations

from torch import Tensor, nn


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))


class Discriminator(nn.Module):
    """A discriminator whose features and head cannot be found by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 32), nn.ReLU())
        self.out = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.body(x))
        return logits
