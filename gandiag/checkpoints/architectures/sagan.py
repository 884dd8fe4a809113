"""The self-attention GAN as its much-copied PyTorch version has it: a DCGAN of 64 pixels with attention over its maps of 16 and 32.

Zhang et al. 2019, "Self-Attention Generative Adversarial Networks", equations 1 to 3: weights over all positions by the product of two
1x1 convolutions, without scaling, and y = gamma o + x. The repository's ways: no conditional batch norm, no residual blocks, spectral
norm by a wrapper that keeps weight_bar (`gandiag.checkpoints.norm_folding`), tanh at the end, samples drawn by the batch's own statistics.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import (
    RebuiltGenerator,
    load_strict,
    require_shape,
    resolve_output_activation,
)
from gandiag.checkpoints.architectures.layers.residual_blocks import make_conv
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec

_ORDER = ("l1", "l2", "l3", "attn1", "l4", "attn2", "last")  # as samples pass; in the file l4 comes first


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are l1 to l4, attn1, attn2 and last."""
    tensors = weights.tensors
    if {name.partition(".")[0] for name in tensors} != {*_ORDER} or "attn1.query_conv.weight" not in tensors:
        raise ArchitectureMismatch("")
    dim = require_shape(tensors, "l1.0.weight", 4)[0]
    with torch.device("meta"):
        net = Sagan(tensors)
    shape = infer_output_shape(net, torch.empty(2, dim, device="meta"))
    output, final, said = resolve_output_activation(config.output_range, shape, "SAGAN")
    net.output_activation = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}.get(final, nn.Identity())
    load_strict(net, tensors)
    habit = "the stored statistics; the repository never calls eval() and samples by the batch's own: --bn batch"
    assumptions = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        Assumption("latent prior (--prior)", config.prior or "normal", "flag" if config.prior else "family (SAGAN)"),
        said,
        Assumption(
            "batch norm (--bn)",
            habit if config.bn == "eval" else config.bn,
            "gandiag" if config.bn == "eval" else "flag",
        ),
    )
    return RebuiltGenerator("SAGAN", net, LatentSpec(dim, config.prior or "normal"), output, assumptions=assumptions)  # type: ignore[arg-type]


class Sagan(nn.Module):
    """(B, D) to (B, C, side, side), under the names that the file has."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in _ORDER:
            self.add_module(name, SelfAttention(tensors, name) if name.startswith("attn") else _block(tensors, name))
        self.output_activation: nn.Module = nn.Tanh()

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :, None, None]
        for name in _ORDER:
            x = self.get_submodule(name)(x)
        made: Tensor = self.output_activation(x)
        return made


class SelfAttention(nn.Module):
    """Each position sees all others: y = gamma o + x."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.query_conv, self.key_conv, self.value_conv = (
            make_conv(tensors, f"{prefix}.{name}_conv") for name in ("query", "key", "value")
        )
        self.gamma = nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.gamma", 1)))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part(x).flatten(2) for part in (self.query_conv, self.key_conv, self.value_conv)
        )  # (B, C, HW)
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)  # (B, HW, HW): rows look at columns
        out: Tensor = self.gamma * torch.bmm(value, weights.transpose(1, 2)).view_as(x) + x
        return out


def _block(tensors: Mapping[str, Tensor], head: str) -> nn.Sequential:
    """A transposed convolution that makes 4x4 pixels of one, or doubles the side; batch norm and relu behind it, where there are any."""
    into, out, kernel, _ = require_shape(tensors, f"{head}.0.weight", 4)
    turned = nn.ConvTranspose2d(
        into, out, kernel, *((1, 0) if head == "l1" else (2, 1)), bias=f"{head}.0.bias" in tensors
    )
    return nn.Sequential(turned) if head == "last" else nn.Sequential(turned, nn.BatchNorm2d(out), nn.ReLU())
