"""Minibatch standard deviation: D sees how much its features vary over the minibatch.

Source: Karras et al. 2018, arXiv:1710.10196, section 3.

    s = mean over features a of the standard deviation of f(x)_a over the minibatch; every sample gets the same s
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gandiag.trainer.remedies.base import Remedy
from gandiag.trainer.remedies.feature_layers import insert_before_head

EPSILON = 1e-8  # under the square root, as in the authors' code


class MinibatchStdDev(nn.Module):
    """Features (B, A) to the mean of their standard deviations over the minibatch, (B, 1)."""

    def forward(self, features: Tensor) -> Tensor:
        variance = (features - features.mean(0)).square().mean(0)  # (A,)
        return (variance + EPSILON).sqrt().mean().expand(len(features), 1)


def add_stddev_layer(net: nn.Module, rng: torch.Generator) -> nn.Module:
    """Return D with the standard deviation appended to its features."""
    return insert_before_head(net, lambda width: MinibatchStdDev(), 1, rng, "minibatch-stddev")


MINIBATCH_STDDEV = Remedy(
    "minibatch-stddev",
    "D sees the standard deviation of its minibatch",
    "Karras et al. 2018, arXiv:1710.10196",
    wrap_discriminator=add_stddev_layer,
    uses_batch_statistics=True,
)
