"""A network whose layers do not follow each other is found out before it is filled: a run on the meta device, without numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gandiag.load.rebuild.layers import NotThis


def rehearsed(net: nn.Module, *given: Tensor | None) -> tuple[int, ...]:
    """The shape of one sample that `net` makes of these inputs, all on the meta device. NotThis where its layers do not follow each other."""
    try:
        with torch.no_grad():
            return tuple(net.eval()(*given).shape[1:])
    except (RuntimeError, ValueError, IndexError, TypeError) as wrong:
        first = (str(wrong).strip().splitlines() or [type(wrong).__name__])[0]
        raise NotThis(f"its layers do not follow each other: {first[:120]}") from None


def tried(net: nn.Module, latent: int, shape: tuple[int, ...], onehot: int | None = None) -> None:
    """NotThis unless `net` makes samples of `shape` from z (B, latent), and one-hot labels (B, onehot) where it takes them."""
    made = rehearsed(net, *(torch.empty(2, size, device="meta") for size in (latent, onehot) if size is not None))
    if made != shape:
        raise NotThis(f"it would make samples of {made}, not {shape}")
