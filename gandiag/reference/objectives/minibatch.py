"""Minibatch discrimination: D sees how close each sample is to the others. Source: Salimans et al. 2016, arXiv:1606.03498, section 3.2.

    M_i = f(x_i) T,   T in R^{A x B x C}
    c_b(x_i, x_j) = exp(-||M_{i,b} - M_{j,b}||_1),   o(x_i)_b = sum_j c_b(x_i, x_j),   D sees [f(x_i), o(x_i)]

As in the official code (openai/improved-gan, nn.MinibatchLayer): a sample is not compared with itself; T is weight-normalised,
theta exp(s) / ||theta||, per column; s starts where half the mean nearest distance is 1, and the bias at minus the mean of o, both
from the first minibatch of real samples. Real and generated minibatches are never mixed. Here samples are compared in groups of at most
128 (the official minibatches have 100), since the cost grows as B x group x kernels x dims.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gandiag.reference.objectives.contract import Remedy
from gandiag.reference.objectives.features import insert
from gandiag.reference.objectives.pairs import distances

KERNELS, DIMS, GROUP = 16, 5, 128  # the official CIFAR script has 100 kernels


class Minibatch(nn.Module):
    """Features (B, A) to closeness (B, kernels). `ready` once the first minibatch has set scale and bias."""

    ready: Tensor

    def __init__(self, features: int, kernels: int, dims: int, rng: torch.Generator, group: int = GROUP) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.empty(features, kernels * dims).normal_(0.0, 0.05, generator=rng))
        self.log_scale = nn.Parameter(torch.zeros(kernels, dims))
        self.bias = nn.Parameter(torch.full((kernels,), -1.0))
        self.group = group
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, features: Tensor) -> Tensor:
        if not bool(self.ready):
            self._prime(features)
        return self.closeness(features) + self.bias  # (B, kernels)

    def closeness(self, features: Tensor) -> Tensor:
        """o, (B, kernels): 0 … group − 1."""
        return torch.cat([torch.exp(-part).sum(2).T for part in self._distances(features)])

    def _distances(self, features: Tensor) -> list[Tensor]:
        """L1 distances of each sample to the others of its group, (kernels, g, g) each; huge to itself."""
        t = self.theta / self.theta.norm(dim=0) * self.log_scale.exp().reshape(-1)  # (A, kernels · dims)
        found = []
        for part in (features @ t).split(self.group):
            m = part.reshape(len(part), *self.log_scale.shape).transpose(0, 1)  # (kernels, g, dims)
            found.append(distances(m.contiguous()) + 1e6 * torch.eye(len(part), dtype=m.dtype, device=m.device))
        return found

    @torch.no_grad()
    def _prime(self, features: Tensor) -> None:
        nearest = torch.cat([part.amin(2).T for part in self._distances(features)])  # (B, kernels)
        self.log_scale.sub_((0.5 * nearest.mean(0)).clamp_min(1e-6).log()[:, None])
        self.bias.copy_(-self.closeness(features).mean(0))
        self.ready.fill_(True)


def dress(net: nn.Module, rng: torch.Generator) -> nn.Module:
    """D with the layer beside its features."""
    return insert(net, lambda width: Minibatch(width, KERNELS, DIMS, rng), KERNELS, rng, "minibatch")


MINIBATCH = Remedy("minibatch", "D compares each sample with the others of its minibatch", "Salimans et al. 2016, arXiv:1606.03498",
                   dress=dress, batchwise=True)  # fmt: skip
