"""Minibatch discrimination: D sees how close each sample is to the others.

Source: Salimans et al. 2016, arXiv:1606.03498, section 3.2.

    M_i = f(x_i) T,   T in R^{A x B x C}
    c_b(x_i, x_j) = exp(-||M_{i,b} - M_{j,b}||_1),   o(x_i)_b = sum_j c_b(x_i, x_j),   D sees [f(x_i), o(x_i)]

As in the official code (openai/improved-gan, nn.MinibatchLayer): a sample is not compared with itself; T is
weight-normalized per column, theta exp(s) / ||theta||; the first minibatch of real samples initializes s so that half
the mean nearest distance is 1, and the bias to minus the mean of o. Real and generated minibatches are never mixed.
Samples are compared in groups of at most 128 (the official minibatches have 100), since the cost grows as B x group x
kernels x dims.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gandiag.trainer.remedies.base import Remedy
from gandiag.trainer.remedies.feature_layers import insert_before_head
from gandiag.trainer.remedies.pairwise_l1 import pairwise_l1_distances

NUM_KERNELS, KERNEL_DIM, GROUP_SIZE = 16, 5, 128  # the official CIFAR script uses 100 kernels
SELF_DISTANCE = 1e6  # so large that a sample contributes nothing to its own sum


class MinibatchDiscrimination(nn.Module):
    """Features (B, A) to similarities (B, kernels). The first minibatch sets scale and bias, and then `ready`."""

    ready: Tensor

    def __init__(
        self, in_features: int, n_kernels: int, kernel_dim: int, rng: torch.Generator, group_size: int = GROUP_SIZE
    ) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.empty(in_features, n_kernels * kernel_dim).normal_(0.0, 0.05, generator=rng))
        self.log_scale = nn.Parameter(torch.zeros(n_kernels, kernel_dim))
        self.bias = nn.Parameter(torch.full((n_kernels,), -1.0))
        self.group_size = group_size
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, features: Tensor) -> Tensor:
        if not bool(self.ready):
            self._initialize_from_data(features)
        return self.similarity(features) + self.bias  # (B, kernels)

    def similarity(self, features: Tensor) -> Tensor:
        """Return o, (B, kernels), between 0 and group − 1."""
        return torch.cat([torch.exp(-group).sum(2).T for group in self._distances(features)])

    def _distances(self, features: Tensor) -> list[Tensor]:
        """Return the L1 distances within each group, (kernels, g, g) per group, with a huge diagonal."""
        t = self.theta / self.theta.norm(dim=0) * self.log_scale.exp().reshape(-1)  # (A, kernels · dims)
        distances = []
        for group in (features @ t).split(self.group_size):
            m = group.reshape(len(group), *self.log_scale.shape).transpose(0, 1)  # (kernels, g, dims)
            diagonal = SELF_DISTANCE * torch.eye(len(group), dtype=m.dtype, device=m.device)
            distances.append(pairwise_l1_distances(m.contiguous()) + diagonal)
        return distances

    @torch.no_grad()
    def _initialize_from_data(self, features: Tensor) -> None:
        nearest = torch.cat([group.amin(2).T for group in self._distances(features)])  # (B, kernels)
        self.log_scale.sub_((0.5 * nearest.mean(0)).clamp_min(1e-6).log()[:, None])
        self.bias.copy_(-self.similarity(features).mean(0))
        self.ready.fill_(True)


def add_minibatch_layer(net: nn.Module, rng: torch.Generator) -> nn.Module:
    """Return D with minibatch discrimination appended to its features."""
    return insert_before_head(
        net, lambda width: MinibatchDiscrimination(width, NUM_KERNELS, KERNEL_DIM, rng), NUM_KERNELS, rng, "minibatch"
    )


MINIBATCH = Remedy(
    "minibatch",
    "D compares each sample with the others of its minibatch",
    "Salimans et al. 2016, arXiv:1606.03498",
    wrap_discriminator=add_minibatch_layer,
    uses_batch_statistics=True,
)
