"""Distributed training: rank 0 evaluates and broadcasts its decision."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_rank_zero() -> bool:
    """Whether this is the process that evaluates."""
    return not is_distributed() or dist.get_rank() == 0


def broadcast_decision(decision: bool, module: nn.Module) -> bool:
    """Rank 0's decision, in every process. All processes must call this at the same steps."""
    if not is_distributed():
        return decision
    device = torch.device("cpu")
    if dist.get_backend() == "nccl":
        device = next((parameter.device for parameter in module.parameters()), device)
    flag = torch.tensor([int(decision)], device=device)
    dist.broadcast(flag, src=0)
    return bool(flag.item())
