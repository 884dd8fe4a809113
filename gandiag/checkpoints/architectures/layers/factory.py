"""Builds layers whose sizes are read from a state dict."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape


def make_conv(tensors: Mapping[str, Tensor], prefix: str) -> nn.Conv2d:
    """A convolution that keeps the resolution; with a bias if the state dict holds one."""
    out_channels, in_channels, kernel_size, _ = require_shape(tensors, f"{prefix}.weight", 4)
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=f"{prefix}.bias" in tensors)


def make_linear(tensors: Mapping[str, Tensor], prefix: str) -> nn.Linear:
    """A linear layer; with a bias if the state dict holds one."""
    out_features, in_features = require_shape(tensors, f"{prefix}.weight", 2)
    return nn.Linear(in_features, out_features, bias=f"{prefix}.bias" in tensors)


def make_embedding(tensors: Mapping[str, Tensor], prefix: str) -> nn.Embedding:
    """An embedding table, one row per class."""
    num_embeddings, embedding_dim = require_shape(tensors, f"{prefix}.weight", 2)
    return nn.Embedding(num_embeddings, embedding_dim)
