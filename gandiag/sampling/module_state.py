"""Restores modules and random state exactly after use: flags, BatchNorm settings, buffers, even after an exception."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gandiag.errors import ConfigError


def hash_module_state(module: nn.Module) -> str:
    """A hash of everything that an audit must not change.

    Parameters, buffers, train flags, requires_grad, devices and BatchNorm settings.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, child in module.named_modules():
        is_batchnorm = isinstance(child, _BatchNorm)
        settings = (
            (getattr(child, "momentum", None), getattr(child, "track_running_stats", None)) if is_batchnorm else ()
        )
        digest.update(f"{name}|{_is_training(child)}|{settings}".encode())
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
    """Put the module in eval mode inside the block; restore every train flag, BatchNorm setting and buffer on exit."""
    children = list(module.modules())
    flags = [_is_training(child) for child in children]
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
            if _is_training(child) != flag:
                child.training = flag
        with torch.no_grad():
            for buffer, saved in buffers:
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed the global generators (torch on devices in use, NumPy, Python) inside the block; restore them on exit."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=cuda):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def find_batchnorm_layers(module: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics."""
    return [child for child in module.modules() if isinstance(child, _BatchNorm) and child.running_mean is not None]


def require_standard_batchnorm(module: nn.Module) -> None:
    """ConfigError where a BatchNorm layer cannot be switched to other statistics (TorchScript, hand-written layers)."""
    n_standard = len(find_batchnorm_layers(module))
    n_stored = sum(name.endswith("running_mean") for name, _ in module.named_buffers())
    if n_stored > n_standard:
        raise ConfigError(
            f"{n_stored - n_standard} BatchNorm layers of this network cannot be switched to other statistics",
            "use --bn eval",
        )


def use_batch_statistics(module: nn.Module) -> None:
    """Let BatchNorm use each batch's own statistics without updating the stored ones.

    Call inside `preserve_module_state`.
    """
    for norm in find_batchnorm_layers(module):
        norm.training, norm.track_running_stats = True, False


def estimate_standing_statistics(module: nn.Module, forward: Callable[[], None]) -> list[Tensor]:
    """Re-estimate the running statistics as the plain mean over what `forward` runs; the new values, in buffer order.

    The standing statistics of Brock, Donahue and Simonyan (2019, "Large scale GAN training", appendix B.1). Call inside
    `preserve_module_state`; the caller decides what to do with the values.
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
    """Write the values of `estimate_standing_statistics`. Call inside `preserve_module_state`, which undoes it."""
    buffers = [buffer for norm in find_batchnorm_layers(module) for buffer in norm.buffers()]
    with torch.no_grad():
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)


def _is_training(module: nn.Module) -> bool:
    return bool(getattr(module, "training", False))  # frozen TorchScript has no such flag
