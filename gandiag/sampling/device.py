"""Where to run, how much at once, and what running out of memory looks like."""

from __future__ import annotations

import math

import torch
from torch import nn

from gandiag.errors import ConfigError
from gandiag.interfaces import OutputSpec


def select_device(name: str | torch.device) -> torch.device:
    """ "auto": CUDA, then MPS, then CPU. ConfigError for a device that is not there."""
    if str(name) == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, True)
    if not there:
        raise ConfigError(f"there is no {device.type} device on this machine", "use --device cpu")
    return device


def default_batch_size(output: OutputSpec, device: torch.device) -> int:
    """A first batch size: a power of two with about 4 M output values, 16 M on a GPU, and at most 128 images on a CPU."""
    budget, most = (1 << 22, 128) if device.type == "cpu" else (1 << 24, 512)
    most = most if output.kind == "image" else 4096
    fits = max(1, budget // max(1, math.prod(output.shape)))
    return int(min(most, 1 << (fits.bit_length() - 1)))


def is_out_of_memory(problem: BaseException) -> bool:
    """Running out of memory, as CUDA, MPS, the CPU allocator and Python each tell it."""
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(
        word in said for word in ("out of memory", "not enough memory", "can't allocate memory")
    )


def is_on_device(module: nn.Module, device: torch.device) -> bool:
    """Whether every parameter and buffer is on `device` already."""
    tensors = [*module.parameters(), *module.buffers()]
    return all(tensor.device.type == device.type and device.index in (None, tensor.device.index) for tensor in tensors)
