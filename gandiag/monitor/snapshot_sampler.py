"""Samples from a copy of the generator at fixed latents. The module in training is neither run nor modified.

A module that cannot be copied is sampled in place, and put back afterwards (`in_place.py`).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from gandiag.checkpoints.generator_builder import build_from_module
from gandiag.checkpoints.loader import wrap_module
from gandiag.checkpoints.module_adapter import frozen_copy
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import OutputSpec
from gandiag.monitor.in_place import copy_or_none, restored
from gandiag.sampling.module_state import isolated_rng
from gandiag.sampling.sampler import Sampler

_SHARDED = ("FullyShardedDataParallel", "FSDPModule")
_WRAPPERS = ("DistributedDataParallel", "DataParallel")


class SnapshotSampler:
    """Draws samples 0 … n-1 of the stream `seed`: nested for growing n, with the same latents at every step."""

    def __init__(self, module: nn.Module, config: AuditConfig) -> None:
        self.config = config
        bare = unwrap_training_module(module)
        with isolated_rng(config.seed):
            self._is_copied = copy_or_none(bare) is not None
            if self._is_copied:
                self._generator = wrap_module(bare, config)
                return
            if _find_device(bare).type != "cpu":
                raise LoadError(
                    f"{type(bare).__name__} cannot be copied, and is not on the CPU",
                    "pass a module that copy.deepcopy copies, such as your EMA copy",
                )
            with restored(bare), torch.no_grad():
                self._generator = build_from_module(bare, config, {"loader": "module", "weights": "the module's own"})

    @property
    def output(self) -> OutputSpec:
        """What one sample looks like."""
        return self._generator.output

    def sample(self, module: nn.Module, n: int) -> Tensor:
        """Samples (n, *shape) of the current weights, float32 on the CPU.

        Cost: a copy of the module and a forward pass of n samples.
        """
        bare = unwrap_training_module(module)
        device = _find_device(bare)
        with isolated_rng(self.config.seed), torch.no_grad():
            if self._is_copied:
                return self._draw(frozen_copy(bare).to(device), device, n)
            with restored(bare):
                return self._draw(bare, device, n)

    def _draw(self, module: nn.Module, device: torch.device, n: int) -> Tensor:
        generator = dataclasses.replace(self._generator, module=module)
        sampler = Sampler(generator, device=device, batch_size=self.config.batch_size)
        return sampler.sample_indices(
            torch.arange(n), seed=self.config.seed, scale=self.config.scale, bn=self.config.bn
        )


def _find_device(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def unwrap_training_module(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile` and data-parallel wrappers; LoadError if its weights are sharded."""
    while True:
        kind = type(module).__name__
        if kind in _SHARDED or any(base.__name__ in _SHARDED for base in type(module).__mro__):
            raise LoadError(
                f"the generator's weights are sharded ({kind})",
                "pass a copy with gathered weights, such as your EMA copy",
            )
        inner = getattr(module, "_orig_mod", None) or (module.module if kind in _WRAPPERS else None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner
