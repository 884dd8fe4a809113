"""Spectral normalization: divides every weight matrix of D by its largest singular value.

Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1: W_SN = W / sigma(W), with sigma(W) from one step of power
iteration per forward pass. Uses torch's own implementation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gandiag.errors import ConfigError
from gandiag.trainer.remedies.base import Remedy

NORMALIZED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def add_spectral_norm(net: nn.Module, rng: torch.Generator) -> nn.Module:
    """Normalize every linear layer and convolution of D in place; normalization layers are unchanged."""
    layers = [part for part in net.modules() if isinstance(part, NORMALIZED_LAYERS)]
    if not layers:
        raise ConfigError(
            f"the remedy spectral found no linear layer or convolution in {type(net).__name__}",
            "choose another remedy",
        )
    for layer in layers:
        spectral_norm(layer)
    return net


SPECTRAL = Remedy(
    "spectral",
    "D's layers have spectral norm 1",
    "Miyato et al. 2018, arXiv:1802.05957",
    wrap_discriminator=add_spectral_norm,
    adds_layers=False,
)
