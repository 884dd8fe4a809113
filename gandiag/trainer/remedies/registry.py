"""Remedies by name, alone or together: `unrolled`, `minibatch+unrolled`, or a plug-in's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.errors import ConfigError, PluginError
from gandiag.registry import Registry
from gandiag.trainer.remedies.base import Remedy, TrainingBatch

REMEDIES = Registry(
    "remedies",
    {
        "none": "gandiag.trainer.remedies.losses:NONE",
        "minibatch": "gandiag.trainer.remedies.minibatch_discrimination:MINIBATCH",
        "minibatch-stddev": "gandiag.trainer.remedies.minibatch_stddev:MINIBATCH_STDDEV",
        "unrolled": "gandiag.trainer.remedies.unrolled:UNROLLED",
        "packing": "gandiag.trainer.remedies.packing:PACKING",
        "wgan-gp": "gandiag.trainer.remedies.wgan_gp:WGAN_GP",
        "spectral": "gandiag.trainer.remedies.spectral_norm:SPECTRAL",
        "r1": "gandiag.trainer.remedies.r1:R1",
        "relativistic": "gandiag.trainer.remedies.relativistic:RELATIVISTIC",
        "mode-seeking": "gandiag.trainer.remedies.mode_seeking:MODE_SEEKING",
    },
    "remedy",
)


def get_remedy(text: str) -> Remedy:
    """The remedy, or several joined with +. PluginError lists near matches; ConfigError says which two do not go together."""
    names = [part.strip() for part in text.split("+")]
    if len(set(names)) != len(names):
        raise ConfigError(f"--remedy is {text!r}, which names a remedy twice", "name each once")
    found: list[Remedy] = [REMEDIES.get(name) for name in names]
    for name, entry in zip(names, found, strict=True):
        if not isinstance(entry, Remedy):
            raise PluginError(
                f"the remedy {name!r} is a {type(entry).__name__}", "register a gandiag.trainer.remedies.base.Remedy"
            )
    return reduce(_joined, found)


def _joined(one: Remedy, other: Remedy) -> Remedy:
    for part, unset in (("loss", None), ("unroll_steps", 0), ("pack_size", 1), ("discriminator_steps", 1)):
        if getattr(one, part) != unset and getattr(other, part) != unset:
            raise ConfigError(f"{one.name} and {other.name} both set the {part}", "choose one of them")
    return dataclasses.replace(
        one,
        name=f"{one.name}+{other.name}",
        title=f"{one.title}; {other.title}",
        source=f"{one.source}; {other.source}",
        wrap_discriminator=_dressed(one, other),
        loss=one.loss or other.loss,
        discriminator_penalty=_summed(one.discriminator_penalty, other.discriminator_penalty),
        generator_penalty=_summed(one.generator_penalty, other.generator_penalty),
        unroll_steps=max(one.unroll_steps, other.unroll_steps),
        pack_size=max(one.pack_size, other.pack_size),
        discriminator_steps=max(one.discriminator_steps, other.discriminator_steps),
        uses_batch_statistics=one.uses_batch_statistics or other.uses_batch_statistics,
    )


def _dressed(one: Remedy, other: Remedy) -> Callable[[nn.Module, torch.Generator], nn.Module] | None:
    first, second = one.wrap_discriminator, other.wrap_discriminator
    if first is None or second is None:
        return first or second
    return lambda net, rng: second(first(net, rng), rng)


def _summed(one: Callable[[TrainingBatch], Tensor] | None, other: Callable[[TrainingBatch], Tensor] | None) -> Any:
    if one is None or other is None:
        return one or other
    return lambda turn: one(turn) + other(turn)
