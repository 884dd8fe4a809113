"""Distributed training: rank 0 evaluates and broadcasts its decision."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from gandiag.errors import OutputError

DECISION_TIMEOUT = timedelta(minutes=30)  # an evaluation of rank 0, for which the others wait, takes far less


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_rank_zero() -> bool:
    """Whether this is the process that evaluates."""
    return not is_distributed() or dist.get_rank() == 0


def broadcast_decision(decision: bool, module: nn.Module) -> bool:
    """Rank 0's decision, in every process. All processes must call this at the same steps.

    OutputError where another process has ended, or does not answer within DECISION_TIMEOUT.
    """
    if not is_distributed():
        return decision
    device = torch.device("cpu")
    if dist.get_backend() == "nccl":
        device = next((parameter.device for parameter in module.parameters()), device)
    flag = torch.tensor([int(decision)], device=device)
    try:
        work = dist.broadcast(flag, src=0, async_op=True)
        if work is not None:
            work.wait(DECISION_TIMEOUT)
    except RuntimeError as error:
        raise OutputError(
            "Monitor: another process of this training has ended, or did not answer within "
            f"{DECISION_TIMEOUT.total_seconds() / 60:.0f} minutes",
            "look at its log, and start the training again",
        ) from error
    return bool(flag.item())
