"""A training generator's samples at latents that never change, from a copy: the module that trains is never run and never touched."""

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
    """Samples 0 … n-1 of the stream `seed`: nested for growing n, the same latents at every step."""

    def __init__(self, module: nn.Module, config: AuditConfig) -> None:
        self.config = config
        with isolated_rng(config.seed):
            self._network = wrap_module(unwrap_training_module(module), config)

    @property
    def output(self) -> OutputSpec:
        return self._network.output

    def sample(self, module: nn.Module, n: int) -> Tensor:
        """(n, *shape) float32 on the CPU, of the weights as they are now. Costs a copy of the module and one pass of n samples."""
        bare = unwrap_training_module(module)
        device = next((entry.device for entry in (*bare.parameters(), *bare.buffers())), torch.device("cpu"))
        with isolated_rng(self.config.seed), torch.no_grad():
            twin = frozen_copy(bare).to(device)
            sampler = Sampler(
                dataclasses.replace(self._network, module=twin), device=device, batch_size=self.config.batch_size
            )
            return sampler.sample_indices(
                torch.arange(n), seed=self.config.seed, scale=self.config.scale, bn=self.config.bn
            )


def unwrap_training_module(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile` and data-parallel wrappers. LoadError where its weights are spread over machines."""
    while True:
        kind = type(module).__name__
        if kind in _SHARDED or any(base.__name__ in _SHARDED for base in type(module).__mro__):
            raise LoadError(
                f"the generator's weights are sharded ({kind})",
                "pass a copy with gathered weights, as your EMA copy often is",
            )
        inner = getattr(module, "_orig_mod", None) or (module.module if kind in _WRAPPERS else None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner
