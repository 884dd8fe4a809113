"""Inserts layers between a discriminator's features and its linear head, for remedies that see whole minibatches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gandiag.errors import ConfigError


class ConcatFeatures(nn.Module):
    """Features (B, A) to (B, A + E), with the E outputs of `extra` appended."""

    def __init__(self, extra: nn.Module) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.extra(features)], 1)


def insert_before_head(
    net: nn.Module, make_layer: Callable[[int], nn.Module], added_width: int, rng: torch.Generator, remedy: str
) -> nn.Sequential:
    """Return D with `make_layer(A)` appended to its A features and a last layer widened by `added_width`.

    D must be an nn.Sequential that ends in nn.Linear, or have modules `features` and `head` (nn.Linear); raises
    ConfigError otherwise. The head keeps its weights; new ones are normal with the std of the old.
    """
    body, head = split_head(net, remedy)
    width = head.in_features
    wide_head = nn.Linear(width + added_width, head.out_features, bias=head.bias is not None)
    with torch.no_grad():
        wide_head.weight[:, :width] = head.weight
        wide_head.weight[:, width:] = torch.empty(head.out_features, added_width).normal_(
            0.0, float(head.weight.std()), generator=rng
        )
        if head.bias is not None:
            wide_head.bias.copy_(head.bias)
    return nn.Sequential(*body, ConcatFeatures(make_layer(width)), wide_head)


def split_head(net: nn.Module, remedy: str) -> tuple[list[nn.Module], nn.Linear]:
    """Return the layers of D up to its features (B, A), and its last layer."""
    if isinstance(net, nn.Sequential) and len(net) > 1 and isinstance(net[-1], nn.Linear):
        return list(net[:-1]), net[-1]
    features, head = getattr(net, "features", None), getattr(net, "head", None)
    if isinstance(features, nn.Module) and isinstance(head, nn.Linear):
        return [features], head
    raise ConfigError(
        f"the remedy {remedy} needs D's features, which cannot be found in {type(net).__name__}",
        "make D an nn.Sequential that ends in nn.Linear, or name its modules `features` (to (B, A)) and `head` "
        "(nn.Linear)",
    )
