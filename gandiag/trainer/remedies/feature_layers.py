"""Where D's features end and its verdict begins: what layers that look at the whole minibatch are put between."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gandiag.errors import ConfigError


class ConcatFeatures(nn.Module):
    """Features (B, A), and beside them what `extra` makes of the minibatch: (B, A + extra)."""

    def __init__(self, extra: nn.Module) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.extra(features)], 1)


def insert_before_head(
    net: nn.Module, make_layer: Callable[[int], nn.Module], added_width: int, rng: torch.Generator, remedy: str
) -> nn.Sequential:
    """D with `extra(A)` beside its A features, and a new last layer that takes `wider` more of them.

    D is an nn.Sequential that ends in nn.Linear, or has the modules `features` and `head` (nn.Linear). ConfigError for others.
    """
    body, head = split_head(net, remedy)
    width = head.in_features
    fresh = nn.Linear(width + added_width, head.out_features, bias=head.bias is not None)
    with torch.no_grad():
        fresh.weight[:, :width] = head.weight
        fresh.weight[:, width:] = torch.empty(head.out_features, added_width).normal_(
            0.0, float(head.weight.std()), generator=rng
        )
        if head.bias is not None:
            fresh.bias.copy_(head.bias)
    return nn.Sequential(*body, ConcatFeatures(make_layer(width)), fresh)


def split_head(net: nn.Module, remedy: str) -> tuple[list[nn.Module], nn.Linear]:
    """D up to its features (B, A), and its last layer."""
    if isinstance(net, nn.Sequential) and len(net) > 1 and isinstance(net[-1], nn.Linear):
        return list(net[:-1]), net[-1]
    features, head = getattr(net, "features", None), getattr(net, "head", None)
    if isinstance(features, nn.Module) and isinstance(head, nn.Linear):
        return [features], head
    what = f"the remedy {remedy} needs D's features, and {type(net).__name__} does not say which they are"
    raise ConfigError(
        what,
        "end D in nn.Linear inside one nn.Sequential, or give it the modules `features` (to (B, A)) and `head` (nn.Linear)",
    )
