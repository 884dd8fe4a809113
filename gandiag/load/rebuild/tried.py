"""A network whose layers do not follow each other is found out before it is filled: a run on the meta device, without numbers."""

from __future__ import annotations

import torch
from torch import nn

from gandiag.load.rebuild.layers import NotThis


def tried(net: nn.Module, latent: int, shape: tuple[int, ...], onehot: int | None = None) -> None:
    """NotThis unless `net` (on the meta device) makes samples of `shape` from z (B, latent), and one-hot labels (B, onehot) where it takes them."""
    given = (torch.empty(2, latent, device="meta"), *([] if onehot is None else [torch.empty(2, onehot, device="meta")]))
    try:
        made = tuple(net.eval()(*given).shape)
    except (RuntimeError, ValueError, IndexError, TypeError) as wrong:
        raise NotThis(f"its layers do not follow each other: {str(wrong).splitlines()[0][:100]}") from None
    if made != (2, *shape):
        raise NotThis(f"it would make samples of {made[1:]}, not {shape}")
