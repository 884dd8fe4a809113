"""Settles what the weights do not say by the checkpoint's own running statistics: hidden activation, batch-norm eps, dropout."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption
from gandiag.load.moments import draws, mismatch, prior_deviation
from gandiag.load.rebuild.chain import Blueprint, Chain, assemble, hidden_module
from gandiag.load.rebuild.inputs import Inputs

Choice = TypeVar("Choice", str, float)
_CLEAR = 2.0  # how many times worse the runner-up must be
_BUDGET = 2e8  # multiplications, about, for one ranking pass over z and as many for -z
_DROPOUTS = (0.0, 0.2, 0.3, 0.5)
_NORMS = 3  # batch norms looked at when ranking: later ones cost more and say the same


def settle(blueprint: Blueprint, inputs: Inputs, config: AuditConfig, source: tuple[str, float | None]) -> tuple[Chain, tuple[Assumption, ...]]:
    """The assembled chain with the activation and eps that flags, then batch-norm statistics, then custom choose."""
    if blueprint.known:
        return assemble(blueprint, "none", 1e-5), (Assumption("activations and batch-norm eps", "as the pickled layers say", "file"),)
    if config.activation is not None:
        hidden_module(config.activation)
    activations = [config.activation] if config.activation else [blueprint.default, "leaky:0.2"] if blueprint.activations else ["none"]
    norms = sum(layer.kind == "norm" for layer in blueprint.layers)
    epses = [config.bn_eps] if config.bn_eps is not None else [1e-5, 0.8] if norms else [1e-5]
    if norms < 2 or (len(activations) == 1 and len(epses) == 1):
        chain = assemble(blueprint, activations[0], epses[0])
        return chain, _chosen(blueprint, config, (activations[0], epses[0]), ("", ""), norms)
    z, labels = _inputs(blueprint, inputs, source)
    table = {(act, eps): _fit(assemble(blueprint, act, eps), z, labels, inputs) for act in activations for eps in epses}
    best = min(table, key=lambda pair: table[pair])
    act, act_why = _ranked({act: table[act, best[1]] for act in activations}, config.activation is None)
    eps, eps_why = _ranked({eps: table[act, eps] for eps in epses}, config.bn_eps is None)
    said = _chosen(blueprint, config, (act, eps), (act_why, eps_why), norms)
    if not blueprint.dropouts:
        return assemble(blueprint, act, eps), said
    drop, why = _dropped({p: _fit(assemble(blueprint, act, eps, p), z, labels, inputs) for p in _DROPOUTS})
    return assemble(blueprint, act, eps, drop), (*said, Assumption("dropout in training, none in use", _told(f"{drop:g}", why), _source(False, why)))


def _ranked(scores: dict[Choice, float], free: bool) -> tuple[Choice, str]:
    """The winner and why; the first one (the default) where the margin is below 2."""
    if len(scores) < 2 or not free:
        return next(iter(scores)), ""
    (winner, best), (loser, worse) = sorted(scores.items(), key=lambda pair: pair[1])[:2]
    if worse < _CLEAR * best:
        default = next(iter(scores))
        return default, f"undecided: batch-norm mismatch {best:.3f} for {winner}, {worse:.3f} for {loser}; the default is kept"
    return winner, f"batch-norm mismatch {best:.3f}; {loser}: {worse:.3f}"


def _dropped(scores: dict[float, float]) -> tuple[float, str]:
    """The share dropped in training: the best one, where none fits half as well; neighbours differ by little, and no use depends on it."""
    best = min(scores, key=lambda p: scores[p])
    if scores[0.0] < _CLEAR * scores[best]:
        return 0.0, f"undecided: batch-norm mismatch {scores[0.0]:.3f} without, {scores[best]:.3f} with {best:g}; none is assumed"
    return best, f"batch-norm mismatch {scores[best]:.3f}; without: {scores[0.0]:.3f}"


def _fit(chain: Chain, z: Tensor, labels: Tensor | None, inputs: Inputs) -> float:
    found = mismatch(lambda a, b: torch.as_tensor(chain(inputs.join(a, b))), chain, z, labels, skip=1, stop=_NORMS)
    return found if found is not None and math.isfinite(found) else 1e9  # weights that are NaN fit nothing


def _inputs(blueprint: Blueprint, inputs: Inputs, source: tuple[str, float | None]) -> tuple[Tensor, Tensor | None]:
    prior, scale = source
    maps = [layer for layer in blueprint.layers if layer.kind != "norm"][: _NORMS + 1]
    work = sum(layer.tensors["weight"].numel() * (4 ** (index + 1) if index and layer.kind == "kernel" else 1) for index, layer in enumerate(maps))
    n = 2 * int(min(256, max(16, _BUDGET / work)))  # the wider the layers, the more channels average the draw's noise
    z = draws(n, (inputs.latent,), prior, seed=0)
    if scale is not None:
        z = z * (scale / prior_deviation(prior))
    # Pairs (z, -z) stand half the batch apart: give both the same label, or the labels' own share would not cancel.
    labels = None if inputs.classes is None else torch.arange(n // 2).repeat(2) % inputs.classes
    return z, labels


def _chosen(blueprint: Blueprint, config: AuditConfig, values: tuple[str, float], why: tuple[str, str], norms: int) -> tuple[Assumption, ...]:
    found = []
    if blueprint.activations:
        found.append(Assumption("hidden activation (--activation)", _told(values[0], why[0]), _source(config.activation is not None, why[0])))
    if norms:
        found.append(Assumption("batch-norm eps (--bn-eps)", _told(f"{values[1]:g}", why[1]), _source(config.bn_eps is not None, why[1])))
    return tuple(found)


def _told(value: str, why: str) -> str:
    return f"{value} ({why})" if why else value


def _source(given: bool, why: str) -> str:
    return "flag" if given else "default" if not why or why.startswith("undecided") else "batch-norm"
