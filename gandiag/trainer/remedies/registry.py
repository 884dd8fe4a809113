"""Looks up remedies by name, alone or combined: `unrolled`, `minibatch+unrolled`, or a plug-in's.

A new remedy is a module beside this one and one line in the table below; everything else is a field of `Remedy`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn

from gandiag.errors import ConfigError, PluginError
from gandiag.registry import Registry
from gandiag.trainer.remedies.base import Remedy, TrainingBatch

# In the order in which `default_remedies` are compared.
_BUILTIN = {
    "none": "gandiag.trainer.remedies.losses:NONE",
    "minibatch-stddev": "gandiag.trainer.remedies.minibatch_stddev:MINIBATCH_STDDEV",
    "minibatch": "gandiag.trainer.remedies.minibatch_discrimination:MINIBATCH",
    "packing": "gandiag.trainer.remedies.packing:PACKING",
    "unrolled": "gandiag.trainer.remedies.unrolled:UNROLLED",
    "r1": "gandiag.trainer.remedies.r1:R1",
    "relativistic": "gandiag.trainer.remedies.relativistic:RELATIVISTIC",
    "wgan-gp": "gandiag.trainer.remedies.wgan_gp:WGAN_GP",
    "spectral": "gandiag.trainer.remedies.spectral_norm:SPECTRAL",
    "mode-seeking": "gandiag.trainer.remedies.mode_seeking:MODE_SEEKING",
}
REMEDIES = Registry("remedies", _BUILTIN, "remedy")

# Fields that two combined remedies may not both set, and their neutral values.
_EXCLUSIVE = {"loss": None, "unroll_steps": 0, "pack_size": 1, "discriminator_steps": 1}


def default_remedies() -> tuple[str, ...]:
    """Return the built-in remedies that are compared on a user's own networks unless others are named."""
    return tuple(name for name in _BUILTIN if REMEDIES.get(name).compare_by_default)


def get_remedy(text: str, *, builtin_only: bool = False) -> Remedy:
    """Return a remedy, or several combined with +.

    `builtin_only` rejects everything else without importing it: use it for names that were read from a file. Raises
    PluginError with close matches for unknown names, and ConfigError for remedies that cannot be combined.
    """
    names = [part.strip() for part in text.split("+")]
    if len(set(names)) != len(names):
        raise ConfigError(f"--remedy {text!r} names a remedy twice", "name each remedy once")
    if builtin_only and not set(names) <= set(_BUILTIN):
        unknown = next(name for name in names if name not in _BUILTIN)
        raise PluginError(f"the remedy {unknown!r} is not built in", "use a remedy that ships with gandiag")
    remedies: list[Remedy] = [REMEDIES.get(name) for name in names]
    for name, remedy in zip(names, remedies, strict=True):
        if not isinstance(remedy, Remedy):
            raise PluginError(
                f"the remedy {name!r} is a {type(remedy).__name__}, not a Remedy",
                "register a gandiag.trainer.remedies.base.Remedy",
            )
    return reduce(_combine, remedies)


def _combine(first: Remedy, second: Remedy) -> Remedy:
    for name, neutral in _EXCLUSIVE.items():
        if getattr(first, name) != neutral and getattr(second, name) != neutral:
            raise ConfigError(
                f"the remedies {first.name} and {second.name} both set the {name.replace('_', ' ')}", "use one of them"
            )
    wrapping = [remedy for remedy in (first, second) if remedy.wrap_discriminator is not None]
    return dataclasses.replace(
        first,
        name=f"{first.name}+{second.name}",
        title=f"{first.title}; {second.title}",
        source=f"{first.source}; {second.source}",
        wrap_discriminator=_chain_wrappers(first, second),
        adds_layers=any(remedy.adds_layers for remedy in wrapping),
        loss=first.loss or second.loss,
        discriminator_penalty=_sum_penalties(first.discriminator_penalty, second.discriminator_penalty),
        generator_penalty=_sum_penalties(first.generator_penalty, second.generator_penalty),
        unroll_steps=max(first.unroll_steps, second.unroll_steps),
        pack_size=max(first.pack_size, second.pack_size),
        discriminator_steps=max(first.discriminator_steps, second.discriminator_steps),
        uses_batch_statistics=first.uses_batch_statistics or second.uses_batch_statistics,
    )


def _chain_wrappers(first: Remedy, second: Remedy) -> Callable[[nn.Module, torch.Generator], nn.Module] | None:
    inner, outer = first.wrap_discriminator, second.wrap_discriminator
    if inner is None or outer is None:
        return inner or outer
    return lambda net, rng: outer(inner(net, rng), rng)


def _sum_penalties(
    first: Callable[[TrainingBatch], Tensor] | None, second: Callable[[TrainingBatch], Tensor] | None
) -> Callable[[TrainingBatch], Tensor] | None:
    if first is None or second is None:
        return first or second
    return lambda batch: first(batch) + second(batch)
