"""Several processes that train one model: the first one looks and decides, and all hear of it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_rank_zero() -> bool:
    """Whether this process is the one that looks."""
    return not is_distributed() or dist.get_rank() == 0


def broadcast_decision(decision: bool, module: nn.Module) -> bool:
    """The first process's decision, in every process. All must call it at the same steps."""
    if not is_distributed():
        return decision
    on = (
        next((entry.device for entry in module.parameters()), torch.device("cpu"))
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )
    told = torch.tensor([int(decision)], device=on)
    dist.broadcast(told, src=0)
    return bool(told.item())
