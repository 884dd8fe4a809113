"""Samples from a copy of the generator at fixed latents. The module in training is neither run nor modified."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from gandiag.checkpoints.loader import wrap_module
from gandiag.checkpoints.module_adapter import frozen_copy
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import OutputSpec
from gandiag.sampling.module_state import isolated_rng
from gandiag.sampling.sampler import Sampler

_SHARDED = ("FullyShardedDataParallel", "FSDPModule")
_WRAPPERS = ("DistributedDataParallel", "DataParallel")


class SnapshotSampler:
    """Draws samples 0 … n-1 of the stream `seed`: nested for growing n, with the same latents at every step."""

    def __init__(self, module: nn.Module, config: AuditConfig) -> None:
        self.config = config
        with isolated_rng(config.seed):
            self._generator = wrap_module(unwrap_training_module(module), config)

    @property
    def output(self) -> OutputSpec:
        """What one sample looks like."""
        return self._generator.output

    def sample(self, module: nn.Module, n: int) -> Tensor:
        """Samples (n, *shape) of the current weights, float32 on the CPU.

        Cost: a copy of the module and a forward pass of n samples.
        """
        bare = unwrap_training_module(module)
        device = next((tensor.device for tensor in (*bare.parameters(), *bare.buffers())), torch.device("cpu"))
        with isolated_rng(self.config.seed), torch.no_grad():
            copy = frozen_copy(bare).to(device)
            generator = dataclasses.replace(self._generator, module=copy)
            sampler = Sampler(generator, device=device, batch_size=self.config.batch_size)
            return sampler.sample_indices(
                torch.arange(n), seed=self.config.seed, scale=self.config.scale, bn=self.config.bn
            )


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
