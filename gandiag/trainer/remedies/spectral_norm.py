"""Spectral normalisation: every map of D is divided by its largest singular value. Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1.

W_SN = W / sigma(W),   sigma(W) by one step of power iteration per forward pass; torch's own implementation
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gandiag.errors import ConfigError
from gandiag.trainer.remedies.base import Remedy

NORMALIZED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def add_spectral_norm(net: nn.Module, rng: torch.Generator) -> nn.Module:
    """D with every linear map and convolution normalised; norm layers stay as they are."""
    maps = [part for part in net.modules() if isinstance(part, NORMALIZED_LAYERS)]
    if not maps:
        raise ConfigError(
            f"the remedy spectral finds no linear map or convolution in {type(net).__name__}", "choose another remedy"
        )
    for part in maps:
        spectral_norm(part)
    return net


SPECTRAL = Remedy(
    "spectral",
    "D's maps have slope 1 at most",
    "Miyato et al. 2018, arXiv:1802.05957",
    wrap_discriminator=add_spectral_norm,
)
