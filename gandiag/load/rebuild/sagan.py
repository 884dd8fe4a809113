"""The self-attention GAN as its much-copied PyTorch version has it: a DCGAN of 64 pixels with attention over its maps of 16 and 32.

Zhang et al. 2019, "Self-Attention Generative Adversarial Networks", equations 1 to 3: weights over all positions by the product of two
1x1 convolutions, without scaling, and y = gamma o + x. The repository's ways: no conditional batch norm, no residual blocks, spectral
norm by a wrapper that keeps weight_bar (`gandiag.load.folding`), tanh at the end, samples drawn by the batch's own statistics.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Latent
from gandiag.load.rebuild.blocks import conv_of
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.ready import Ready, fitted, shape_of, tanh_or_flag
from gandiag.load.rebuild.tried import rehearsed
from gandiag.load.weights import Weights

_ORDER = ("l1", "l2", "l3", "attn1", "l4", "attn2", "last")  # as samples pass; in the file l4 comes first


def rebuild(weights: Weights, config: AuditConfig) -> Ready:
    """NotThis unless the keys are l1 to l4, attn1, attn2 and last."""
    tensors = weights.tensors
    if {name.partition(".")[0] for name in tensors} != {*_ORDER} or "attn1.query_conv.weight" not in tensors:
        raise NotThis("")
    dim = shape_of(tensors, "l1.0.weight", 4)[0]
    with torch.device("meta"):
        net = Sagan(tensors)
    shape = rehearsed(net, torch.empty(2, dim, device="meta"))
    output, final, said = tanh_or_flag(config.output_range, shape, "SAGAN")
    net.final = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}.get(final, nn.Identity())
    fitted(net, tensors)
    habit = "the stored statistics; the repository never calls eval() and samples by the batch's own: --bn batch"
    assumptions = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        Assumption("latent prior (--prior)", config.prior or "normal", "flag" if config.prior else "family (SAGAN)"),
        said,
        Assumption("batch norm (--bn)", habit if config.bn == "eval" else config.bn, "gandiag" if config.bn == "eval" else "flag"),
    )
    return Ready("SAGAN", net, Latent(dim, config.prior or "normal"), output, assumptions=assumptions)  # type: ignore[arg-type]


class Sagan(nn.Module):
    """(B, D) to (B, C, side, side), under the names that the file has."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in _ORDER:
            self.add_module(name, SelfAttention(tensors, name) if name.startswith("attn") else _block(tensors, name))
        self.final: nn.Module = nn.Tanh()

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :, None, None]
        for name in _ORDER:
            x = self.get_submodule(name)(x)
        made: Tensor = self.final(x)
        return made


class SelfAttention(nn.Module):
    """Each position sees all others: y = gamma o + x."""

    def __init__(self, tensors: Mapping[str, Tensor], head: str) -> None:
        super().__init__()
        self.query_conv, self.key_conv, self.value_conv = (conv_of(tensors, f"{head}.{name}_conv") for name in ("query", "key", "value"))
        self.gamma = nn.Parameter(torch.empty(shape_of(tensors, f"{head}.gamma", 1)))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query_conv, self.key_conv, self.value_conv))  # (B, C, HW)
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)  # (B, HW, HW): rows look at columns
        out: Tensor = self.gamma * torch.bmm(value, weights.transpose(1, 2)).view_as(x) + x
        return out


def _block(tensors: Mapping[str, Tensor], head: str) -> nn.Sequential:
    """A transposed convolution that makes 4x4 pixels of one, or doubles the side; batch norm and relu behind it, where there are any."""
    into, out, kernel, _ = shape_of(tensors, f"{head}.0.weight", 4)
    turned = nn.ConvTranspose2d(into, out, kernel, *((1, 0) if head == "l1" else (2, 1)), bias=f"{head}.0.bias" in tensors)
    return nn.Sequential(turned) if head == "last" else nn.Sequential(turned, nn.BatchNorm2d(out), nn.ReLU())
