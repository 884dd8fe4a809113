"""Selects the device and the batch size, and recognizes out-of-memory errors."""

from __future__ import annotations

import math

import torch
from torch import nn

from gandiag.errors import ConfigError
from gandiag.interfaces import OutputSpec


def select_device(name: str | torch.device) -> torch.device:
    """The device called `name`; "auto" prefers CUDA, then MPS, then the CPU.

    ConfigError where the device does not exist.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if str(name) == "auto":
        best = next((kind for kind, available in (("cuda", has_cuda), ("mps", has_mps)) if available), "cpu")
        return torch.device(best)
    device = torch.device(name)
    if not {"cuda": has_cuda, "mps": has_mps}.get(device.type, True):
        raise ConfigError(f"there is no {device.type} device on this machine", "use --device cpu")
    return device


def default_batch_size(output: OutputSpec, device: torch.device) -> int:
    """A power of two with about 4 M output values, 16 M on a GPU.

    At most 128 images on a CPU, 512 on a GPU, and 4,096 vectors or series.
    """
    max_values, max_images = (1 << 22, 128) if device.type == "cpu" else (1 << 24, 512)
    max_samples = max_images if output.kind == "image" else 4096
    affordable = max(1, max_values // max(1, math.prod(output.shape)))
    return int(min(max_samples, 1 << (affordable.bit_length() - 1)))


def fixed_call_rows(output: OutputSpec, device: torch.device) -> int | None:
    """How many samples one call of a network makes on a CPU, whatever the batch size: rounding depends on it.

    None elsewhere, where the batch size decides.
    """
    if device.type != "cpu":
        return None
    return min(16 if output.kind == "image" else 64, default_batch_size(output, device))


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception means out of memory, as CUDA, MPS, the CPU allocator or Python reports it."""
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    message = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(
        phrase in message for phrase in ("out of memory", "not enough memory", "can't allocate memory")
    )


def is_on_device(module: nn.Module, device: torch.device) -> bool:
    """Whether every parameter and buffer is on `device` already."""
    tensors = [*module.parameters(), *module.buffers()]
    return all(tensor.device.type == device.type and device.index in (None, tensor.device.index) for tensor in tensors)
