"""Run somebody's network and leave it exactly as it was: flags, buffers and random numbers, even when interrupted."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gandiag.errors import ConfigError


def hash_module_state(module: nn.Module) -> str:
    """A hash of all that an audit must not change: parameters, buffers, train flags, requires_grad, devices, batch-norm knobs."""
    digest = hashlib.blake2b(digest_size=16)
    for name, child in module.named_modules():
        knobs = (
            (getattr(child, "momentum", None), getattr(child, "track_running_stats", None))
            if isinstance(child, _BatchNorm)
            else ()
        )
        digest.update(f"{name}|{_training(child)}|{knobs}".encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|{tensor.device}|{tensor.requires_grad}".encode())
        digest.update(tensor_to_bytes(tensor))
    return digest.hexdigest()


def tensor_to_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor of any dtype, as bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


@contextmanager
def preserve_module_state(module: nn.Module) -> Iterator[nn.Module]:
    """The module in eval mode inside; on the way out every train flag, batch-norm knob and buffer is what it was before."""
    children = list(module.modules())
    flags = [_training(child) for child in children]
    norms = [(norm, norm.track_running_stats, norm.momentum) for norm in find_batchnorm_layers(module)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        if any(flags):
            module.eval()
        yield module
    finally:
        for norm, track, momentum in norms:
            norm.track_running_stats, norm.momentum = track, momentum
        for child, flag in zip(children, flags, strict=True):
            if _training(child) != flag:
                child.training = flag
        with torch.no_grad():
            for buffer, saved in buffers:
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Global random numbers (torch on every device in use, NumPy, Python) start from `seed` inside and go on undisturbed after."""
    legacy, python = np.random.get_state(), random.getstate()
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=cuda):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(legacy)
            random.setstate(python)


def find_batchnorm_layers(module: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers that keep running statistics."""
    return [child for child in module.modules() if isinstance(child, _BatchNorm) and child.running_mean is not None]


def require_standard_batchnorm(module: nn.Module) -> None:
    """ConfigError where batch norm is there and cannot be told to use other statistics (TorchScript, hand-written layers)."""
    known = len(find_batchnorm_layers(module))
    stored = sum(name.endswith("running_mean") for name, _ in module.named_buffers())
    if stored > known:
        raise ConfigError(
            f"{stored - known} batch-norm layers of this network cannot be switched to other statistics",
            "use --bn eval",
        )


def _training(module: nn.Module) -> bool:
    return bool(getattr(module, "training", False))  # frozen TorchScript has no such flag


def use_batch_statistics(module: nn.Module) -> None:
    """Let batch norm use each batch's own statistics, without updating the stored ones. Call inside `untouched`."""
    for norm in find_batchnorm_layers(module):
        norm.training, norm.track_running_stats = True, False


def estimate_standing_statistics(module: nn.Module, forward: Callable[[], Any]) -> list[Tensor]:
    """Re-estimate the running statistics as the plain mean over what `forward` runs; the new values, in buffer order.

    The standing statistics of Brock, Donahue and Simonyan (2019, "Large scale GAN training", appendix B.1). Inside
    `untouched`; the caller decides what to do with the values.
    """
    norms = find_batchnorm_layers(module)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # None: cumulative mean
    forward()
    for norm in norms:
        norm.training = False
    return [buffer.detach().clone() for norm in norms for buffer in norm.buffers()]


def set_standing_statistics(module: nn.Module, values: list[Tensor]) -> None:
    """Write what `estimate_standing` found. Inside `untouched`, which takes it back."""
    with torch.no_grad():
        for buffer, value in zip(
            (buffer for norm in find_batchnorm_layers(module) for buffer in norm.buffers()), values, strict=True
        ):
            buffer.copy_(value)
