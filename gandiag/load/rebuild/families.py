"""Tries the families in turn, and settles what the weights do not say: labels, hidden activation, batch-norm eps.

A family is a file beside this one with `rebuild(weights, config) -> Blueprint`, or Ready where it builds the whole network,
which raises NotThis for weights that are not its own, and an entry in FAMILIES; others add theirs by the entry point
gandiag.loaders, and prove it with gandiag.testing.check_loader. It matches only if every key is used and every shape agrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Condition, Latent, Output
from gandiag.errors import LoadError
from gandiag.load.first_layer import FirstLayer, find_labels, from_tensors, input_means, input_scale
from gandiag.load.folding import folded
from gandiag.load.moments import draws, mismatch, prior_deviation
from gandiag.load.rebuild.chain import Blueprint, Chain, assemble, hidden_module
from gandiag.load.rebuild.inputs import Inputs, split_inputs
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.layouts import known_layout
from gandiag.load.rebuild.ready import Ready
from gandiag.load.weights import Weights
from gandiag.registry import Registry

FAMILIES = Registry("loaders", {
    "pickled": "gandiag.load.rebuild.pickled:rebuild",
    "ctgan": "gandiag.load.rebuild.ctgan:rebuild",
    "stylegan2-pytorch": "gandiag.load.rebuild.lucidrains:rebuild",
    "biggan-deep": "gandiag.load.rebuild.biggan_deep:rebuild",
    "mimicry": "gandiag.load.rebuild.resnet:rebuild",
    "transposed": "gandiag.load.rebuild.transposed:rebuild",
    "projected": "gandiag.load.rebuild.projected:rebuild",
    "mlp": "gandiag.load.rebuild.mlp:rebuild",
})
ORDER = ("ctgan", "stylegan2-pytorch", "biggan-deep", "mimicry", "pickled", "transposed", "projected", "mlp")  # the most specific first
_BY_SHAPE = ("transposed", "projected", "mlp")  # families that look at shapes alone
Choice = TypeVar("Choice", str, float)
_CLEAR = 2.0  # how many times worse the runner-up must be
_BUDGET = 2e8  # multiplications, about, for one ranking pass over z and as many for -z
_DROPOUTS = (0.0, 0.2, 0.3, 0.5)
_NORMS = 3  # batch norms looked at when ranking: later ones cost more and say the same


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A network made from weights alone, and everything that had to be assumed."""

    module: nn.Module
    family: str
    latent: Latent
    output: Output
    inputs: Inputs
    assumptions: tuple[Assumption, ...]
    condition: Condition | None = None


def rebuild(weights: Weights, config: AuditConfig, name: str) -> Rebuilt:
    """The generator that these weights are. LoadError with what each family missed if none takes them."""
    weights = folded(weights)
    blueprint = _blueprint(weights, config, name)
    if isinstance(blueprint, Ready):
        return _finished(blueprint, config, name)
    first = _first_layer(blueprint)
    inputs, said = split_inputs(blueprint.inputs, blueprint.layers[0], None if first is None else _labels(first), config)
    prior, prior_source = (config.prior, "flag") if config.prior else ("normal", "default")
    scale = _scale(first, inputs)
    try:
        module, chosen = _settle(blueprint, inputs, config, (prior, scale))
    except NotThis as wrong:
        raise _no_family(weights, [str(wrong)], name) from None
    shape = (inputs.latent, 1, 1) if blueprint.spatial else (inputs.latent,)
    latent = Latent(inputs.latent, prior, shape)  # type: ignore[arg-type]
    assumed = (*said, Assumption("latent prior (--prior)", prior, prior_source), *chosen, *blueprint.assumptions)
    condition: Condition | None = "concat" if inputs.classes else None
    return Rebuilt(module, blueprint.family, latent, blueprint.output, inputs, assumed, condition)


def _finished(made: Ready, config: AuditConfig, name: str) -> Rebuilt:
    """A family's own network, where no flag contradicts it."""
    if config.latent_dim not in (None, made.latent.dim):
        raise LoadError(f"--latent-dim {config.latent_dim} contradicts {name}, a {made.family} of latent size {made.latent.dim}", "Remove --latent-dim.")
    if config.classes not in (None, made.classes):
        has = f"has {made.classes} classes" if made.classes else "takes no class"
        raise LoadError(f"--classes {config.classes} contradicts {name}, a {made.family}, which {has}", "Remove --classes.")
    return Rebuilt(made.module, made.family, made.latent, made.output, Inputs(made.latent.dim, made.classes), made.assumptions, made.condition)


def _blueprint(weights: Weights, config: AuditConfig, name: str) -> Blueprint | Ready:
    reasons = []
    for family in (*(extra for extra in FAMILIES if extra not in ORDER), *ORDER):
        if family in _BY_SHAPE and known_layout(weights.tensors):
            continue  # a chain that would fit by accident is not what these names are
        build: Callable[[Weights, AuditConfig], Blueprint | Ready] = FAMILIES.get(family)
        try:
            return build(weights, config)
        except NotThis as wrong:
            reasons += [f"{family}: {wrong}"] if str(wrong) else []  # no reason: not even the names are its own
    raise _no_family(weights, reasons, name)


def _no_family(weights: Weights, reasons: list[str], name: str) -> LoadError:
    layout = known_layout(weights.tensors)
    if layout is not None:
        what, place = layout
        hint = f"build it with its own code ({place}): --model pkg.mod:factory [--init k=v], run where that is importable; or audit a folder of its samples"
        return LoadError(f"{name} holds {what}, which gandiag does not rebuild", hint)
    if weights.structure is not None:
        what = f"{name} holds a whole object ({weights.structure.cls}) whose forward() is not in the file: its {len(weights.tensors)} tensors can be read"
        hint = "say what builds it: --model pkg.mod:factory [--init k=v]; it will not be unpickled"
        return LoadError(f"{what}, but not run ({'; '.join(reasons[:2])})", hint)
    reasons = [reason for reason in reasons if not reason.startswith("pickled:")]
    return LoadError(
        f"{name} holds {len(weights.tensors)} tensors but no architecture that gandiag can rebuild ({'; '.join(reasons)})",
        "say what builds it: --model pkg.mod:factory [--init k=v]",
    )


def _first_layer(blueprint: Blueprint) -> FirstLayer | None:
    """The first map and the batch norm right behind it, if there is one."""
    steps = [step for step in blueprint.steps if step.kind != "unflatten"]
    if len(steps) < 2 or steps[0].layer is None or steps[1].layer is None or steps[1].layer.kind != "norm":
        return None
    return from_tensors(steps[0].layer.tensors, steps[1].layer.tensors)


def _labels(first: FirstLayer) -> tuple[int, bool] | None:
    means = input_means(first)
    split = None if means is None else find_labels(means)
    return None if split is None else (split.classes, split.first)


def _scale(first: FirstLayer | None, inputs: Inputs) -> float | None:
    if first is None:
        return None
    start = inputs.classes or 0 if inputs.labels_first else 0
    labels = torch.eye(inputs.classes, dtype=torch.float64) if inputs.classes else None
    known = FirstLayer(first.weight, first.bias, first.mean, first.var, list(range(start, start + inputs.latent)), labels, first.left)
    found = input_scale(known)
    return None if found is None else found.value


# hidden activation and eps, by the statistics

def _settle(blueprint: Blueprint, inputs: Inputs, config: AuditConfig, source: tuple[str, float | None]) -> tuple[Chain, tuple[Assumption, ...]]:
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
