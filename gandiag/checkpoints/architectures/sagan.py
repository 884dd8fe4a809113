"""SAGAN as its much-copied PyTorch version has it: a DCGAN of 64 pixels with attention at 16 and 32 pixels.

Zhang et al. 2019, "Self-Attention Generative Adversarial Networks", equations 1 to 3: attention over all positions,
without pooling, and y = gamma o + x. Specific to this repository: no conditional BatchNorm, no residual blocks,
spectral norm by a wrapper that stores weight_bar (`gandiag.checkpoints.norm_folding`), tanh at the end, samples drawn
with batch statistics.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import assume_batchnorm_mode, assume_latent
from gandiag.checkpoints.architectures.base import (
    RebuiltGenerator,
    load_strict,
    require_shape,
    resolve_output_activation,
)
from gandiag.checkpoints.architectures.layers.attention import AttentionNames, SelfAttention
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig

_FORWARD_ORDER = ("l1", "l2", "l3", "attn1", "l4", "attn2", "last")  # in the file l4 comes first
_ATTENTION = AttentionNames("query_conv", "key_conv", "value_conv")
_BATCHNORM_NOTE = "the repository never calls eval() and samples with batch statistics: --bn batch"


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A SAGAN generator. ArchitectureMismatch unless the keys are l1 to l4, attn1, attn2 and last."""
    tensors = weights.tensors
    if {name.partition(".")[0] for name in tensors} != {*_FORWARD_ORDER} or "attn1.query_conv.weight" not in tensors:
        raise ArchitectureMismatch("")
    latent_dim = require_shape(tensors, "l1.0.weight", 4)[0]
    with torch.device("meta"):
        net = Sagan(tensors)
    shape = infer_output_shape(net, torch.empty(2, latent_dim, device="meta"))
    output, activation, output_assumption = resolve_output_activation(config.output_range, shape, "SAGAN")
    net.output_activation = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}.get(activation, nn.Identity())
    load_strict(net, tensors)
    latent, latent_assumptions = assume_latent(latent_dim, config.prior, "SAGAN")
    assumptions = (*latent_assumptions, output_assumption, assume_batchnorm_mode(config.bn, _BATCHNORM_NOTE))
    return RebuiltGenerator("SAGAN", net, latent, output, assumptions=assumptions)


class Sagan(nn.Module):
    """forward(z (B, D)): images (B, C, H, W). Submodules have the names of the file."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in _FORWARD_ORDER:
            if name.startswith("attn"):
                self.add_module(name, SelfAttention(tensors, name, _ATTENTION, pool=False))
            else:
                self.add_module(name, _make_block(tensors, name))
        self.output_activation: nn.Module = nn.Tanh()

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :, None, None]
        for name in _FORWARD_ORDER:
            x = self.get_submodule(name)(x)
        out: Tensor = self.output_activation(x)
        return out


def _make_block(tensors: Mapping[str, Tensor], name: str) -> nn.Sequential:
    """A transposed convolution (to 4x4 pixels in l1, else upsampling by 2); BatchNorm and ReLU except in `last`."""
    in_channels, out_channels, kernel_size, _ = require_shape(tensors, f"{name}.0.weight", 4)
    stride, padding = (1, 0) if name == "l1" else (2, 1)
    conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride, padding, bias=f"{name}.0.bias" in tensors)
    return nn.Sequential(conv) if name == "last" else nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
