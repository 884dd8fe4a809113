"""Runs candidate networks to a BatchNorm, resuming from cached activations of layers they share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import enable_dropout
from gandiag.checkpoints.batchnorm.sequential import BatchNorm, forward_layer, last_layer_mismatch, layer_mismatch

CacheKey = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class CachedActivation:
    """The input of a layer in a pass.

    `key`: identifies the pass up to there; `mismatches`: of the BatchNorm layers before it. `deterministic`: no dropout
    was active before it.
    """

    key: CacheKey
    layer_index: int
    x: Tensor
    mismatches: tuple[float, ...]
    deterministic: bool


class ActivationCache:
    """Mismatches of earlier passes, and activations of the last pass with batch statistics and with running ones.

    A BatchNorm's input depends neither on its own eps nor on the activation after it, so candidates that differ only
    there share most of a pass.
    """

    def __init__(self) -> None:
        self._mismatches: dict[CacheKey, tuple[float, ...]] = {}
        self._activations: dict[bool, list[CachedActivation]] = {}  # by whether BatchNorm uses batch statistics

    def get_mismatches(self, key: CacheKey) -> tuple[float, ...] | None:
        """The result of an earlier pass through the same layers."""
        return self._mismatches.get(key)

    def has_activation(self, key: CacheKey, use_batch_stats: bool) -> bool:
        """Whether the pass can resume at the layer that `key` leads to."""
        return any(entry.key == key for entry in self._activations.get(use_batch_stats, []))

    def run(
        self,
        layers: list[nn.Module],
        split: int,
        keys: tuple[CacheKey, CacheKey],
        make_input: Callable[[], Tensor],
        use_batch_stats: bool,
    ) -> tuple[float, ...]:
        """Mismatch at each BatchNorm among `layers`, the last included; infinite where a layer does not fit its input.

        `split`: index of the layer of which only some channels are computed. `keys`: of the pass before that layer, and
        of the whole pass. `make_input`: the first layer's input.
        """
        head_key, key = keys
        with torch.no_grad(), enable_dropout(nn.Sequential(*layers)):
            try:
                head = self._run_head(layers[:split], head_key, make_input, use_batch_stats)
                mismatches = (*head.mismatches, last_layer_mismatch(layers[split:-1], layers[-1], head.x))
            except RuntimeError:  # an image that a later layer's kernel does not fit into
                mismatches = (math.inf,) * sum(isinstance(layer, BatchNorm) for layer in layers)
        self._mismatches[key] = mismatches
        return mismatches

    def _run_head(
        self, layers: list[nn.Module], key: CacheKey, make_input: Callable[[], Tensor], use_batch_stats: bool
    ) -> CachedActivation:
        """The output of `layers`, resumed at the last activation that this pass shares with the one before."""
        prefix = len(key) - len(layers)
        n_batchnorms = [  # before each index
            *itertools.accumulate((isinstance(layer, BatchNorm) for layer in layers), initial=0)
        ]
        entries = [
            entry
            for entry in self._activations.get(use_batch_stats, [])
            if key[: len(entry.key)] == entry.key
            and (entry.deterministic or len(entry.key) == len(key))
            and len(entry.mismatches) <= n_batchnorms[min(entry.layer_index + 1, len(layers))]
        ]
        if not entries:
            entries = [CachedActivation(key[:prefix], 0, make_input(), (), True)]
        x, mismatches, deterministic = entries[-1].x, entries[-1].mismatches, entries[-1].deterministic
        for index in range(entries[-1].layer_index, len(layers)):
            layer = layers[index]
            if isinstance(layer, BatchNorm) and len(mismatches) == n_batchnorms[index]:
                mismatches = (*mismatches, layer_mismatch(layer, x))
                entries.append(CachedActivation(key[: prefix + index], index, x, mismatches, deterministic))
            deterministic &= not isinstance(layer, nn.modules.dropout._DropoutNd) or layer.p == 0
            x = forward_layer(layer, x, use_batch_stats)
        entries.append(CachedActivation(key, len(layers), x, mismatches, deterministic))
        self._activations[use_batch_stats] = entries
        return entries[-1]
