"""Tries the families in turn. What the weights do not say, the checkpoint's statistics settle (`hypotheses`).

A family is a file beside this one with `rebuild(weights, config) -> Blueprint`, or Ready where it builds the whole network,
which raises NotThis for weights that are not its own, and an entry in FAMILIES; others add theirs by the entry point
gandiag.loaders, and prove it with gandiag.testing.check_loader. It matches only if every key is used and every shape agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Condition, Latent, Output
from gandiag.errors import LoadError
from gandiag.load.first_layer import FirstLayer, Split, find_labels, from_tensors, input_means, input_scale
from gandiag.load.folding import folded
from gandiag.load.moments import prior_shift
from gandiag.load.rebuild.chain import Blueprint
from gandiag.load.rebuild.embedded import Embedded, Table, joins, set_apart
from gandiag.load.rebuild.hypotheses import settle
from gandiag.load.rebuild.inputs import Inputs, joined, split_inputs
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.layouts import known_layout
from gandiag.load.rebuild.questions import PRIORS
from gandiag.load.rebuild.ready import Ready
from gandiag.load.rebuild.tried import demand_samples
from gandiag.load.weights import Weights
from gandiag.registry import Registry

FAMILIES = Registry("loaders", {
    "pickled": "gandiag.load.rebuild.pickled:rebuild",
    "ctgan": "gandiag.load.rebuild.ctgan:rebuild",
    "nvidia": "gandiag.load.rebuild.nvidia:rebuild",
    "rosinality": "gandiag.load.rebuild.rosinality:rebuild",
    "stylegan2-pytorch": "gandiag.load.rebuild.lucidrains:rebuild",
    "biggan-deep": "gandiag.load.rebuild.biggan_deep:rebuild",
    "biggan": "gandiag.load.rebuild.biggan:rebuild",
    "studiogan": "gandiag.load.rebuild.studiogan:rebuild",
    "mimicry": "gandiag.load.rebuild.resnet:rebuild",
    "r3gan": "gandiag.load.rebuild.r3gan:rebuild",
    "pgan": "gandiag.load.rebuild.pgan:rebuild",
    "lightweight-gan": "gandiag.load.rebuild.lightweight:rebuild",
    "fastgan": "gandiag.load.rebuild.fastgan:rebuild",
    "sagan": "gandiag.load.rebuild.sagan:rebuild",
    "transposed": "gandiag.load.rebuild.transposed:rebuild",
    "projected": "gandiag.load.rebuild.projected:rebuild",
    "mlp": "gandiag.load.rebuild.mlp:rebuild",
})
ORDER = (  # the most specific first
    "ctgan", "nvidia", "rosinality", "stylegan2-pytorch", "biggan-deep", "biggan", "studiogan", "mimicry", "r3gan", "pgan", "lightweight-gan",
    "fastgan", "sagan", "pickled", "transposed", "projected", "mlp",
)  # fmt: skip
_ROWS = 4096  # of a table: more say the same of its moments
_BY_SHAPE = ("transposed", "projected", "mlp")  # families that look at shapes alone


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


def rebuild(weights: Weights, config: AuditConfig, name: str, *, glance: bool = False) -> Rebuilt:
    """The generator that these weights are. LoadError with what each family missed if none takes them. `glance`: what takes seconds is left."""
    weights = folded(weights)
    blueprint, table = _blueprint(weights, config, name)
    if config.strides and not any("--strides" in entry.what for entry in blueprint.assumptions):
        raise LoadError(f"--strides was given, and {name} ({blueprint.family}) has no transposed convolutions whose strides are open", "leave --strides out")
    if config.class_place and isinstance(blueprint, Ready):
        takes = "no class" if blueprint.classes is None else "its class in one place only"
        raise LoadError(f"--class-place was given, and {name} ({blueprint.family}) takes {takes}", "leave --class-place out")
    if isinstance(blueprint, Ready):
        return _finished(blueprint, config, name)
    try:
        first = _first_layer(blueprint)
        if table is not None:
            ways, said = joins(table, blueprint.inputs, blueprint.layers[0], config)
        else:
            inputs, said = split_inputs(blueprint.inputs, blueprint.layers[0], None if first is None else _labels(first), config)
            ways = (inputs,)
        found = settle(blueprint, ways, config, [_deviations(first, way) for way in ways], glance=glance)
    except NotThis as wrong:
        raise _no_family(weights, [str(wrong)], name) from None
    module = found.chain if found.inputs.table is None else Embedded(found.chain, found.inputs)
    size = found.inputs.latent
    latent = Latent(size, found.prior, (size, 1, 1) if blueprint.spatial else (size,))  # type: ignore[arg-type]
    condition: Condition | None = None if not found.inputs.classes else "concat" if found.inputs.table is None else "index"
    return Rebuilt(module, blueprint.family, latent, found.output, found.inputs, (*said, *found.assumptions), condition)


def _finished(made: Ready, config: AuditConfig, name: str) -> Rebuilt:
    """A family's own network, where no flag contradicts it."""
    if config.latent_dim not in (None, made.latent.dim):
        raise LoadError(f"--latent-dim {config.latent_dim} contradicts {name}, a {made.family} of latent size {made.latent.dim}", "Remove --latent-dim.")
    if config.classes not in (None, made.classes):
        has = f"has {made.classes} classes" if made.classes else "takes no class"
        raise LoadError(f"--classes {config.classes} contradicts {name}, a {made.family}, which {has}", "Remove --classes.")
    return Rebuilt(made.module, made.family, made.latent, made.output, Inputs(made.latent.dim, made.classes), made.assumptions, made.condition)


def _blueprint(weights: Weights, config: AuditConfig, name: str) -> tuple[Blueprint | Ready, Table | None]:
    """What the first family makes of them that takes them, and the class embedding that stood beside its layers."""
    reasons = []
    chain, table = set_apart(weights)
    for family in (*(extra for extra in FAMILIES if extra not in ORDER), *ORDER):
        if family in _BY_SHAPE and known_layout(weights.tensors):
            continue  # a chain that would fit by accident is not what these names are
        build: Callable[[Weights, AuditConfig], Blueprint | Ready] = FAMILIES.get(family)
        try:
            if family in _BY_SHAPE:
                return build(chain, config), table
            made = build(weights, config)
            if isinstance(made, Ready):
                demand_samples(made.module, made.latent, made.output, (made.condition, made.classes))
            return made, None
        except NotThis as wrong:
            reasons += [f"{family}: {wrong}"] if str(wrong) else []  # no reason: not even the names are its own
    raise _no_family(weights, reasons, name)


def _no_family(weights: Weights, reasons: list[str], name: str) -> LoadError:
    layout = known_layout(weights.tensors)
    if layout is not None:
        what, place = layout
        hint = f"build it with its own code ({place}): --model pkg.mod:factory [--init k=v], run where that is importable; or audit a folder of its samples"
        why = next((reason.partition(": ")[2] for reason in reasons if not reason.startswith("pickled:")), "")
        form = f" in a form that gandiag does not rebuild: {why}" if why else ", which gandiag does not rebuild"
        return LoadError(f"{name} holds {what}{form}", hint)
    if weights.structure is not None:
        what = f"{name} holds a whole object ({weights.structure.cls}) whose forward() is not in the file: its {len(weights.tensors)} tensors can be read"
        hint = "say what builds it: --model pkg.mod:factory [--init k=v]; it will not be unpickled"
        return LoadError(f"{what}, but not run ({'; '.join(reasons[:2])})", hint)
    reasons = [reason for reason in reasons if not reason.startswith("pickled:")]
    named = [reason for reason in reasons if reason.partition(":")[0] not in _BY_SHAPE]  # what almost is one of these is no plain chain
    reasons = named or reasons
    whys = {reason.partition(": ")[2] for reason in reasons}
    reasons = [*whys] if len(whys) == 1 and len(reasons) > 1 else reasons  # the same in every reading
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


def _labels(first: FirstLayer) -> Split | None:
    means = input_means(first)
    return None if means is None else find_labels(means)


def _deviations(first: FirstLayer | None, inputs: Inputs) -> dict[str, float]:
    """The deviation of one latent under each prior that is tried; none where the first layer does not show it."""
    if first is None:
        return {}
    known = replace(first, **_given(inputs))
    found = {shift: input_scale(replace(known, shift=shift)) for shift in {prior_shift(prior) for prior in PRIORS}}
    scales = {prior: found[prior_shift(prior)] for prior in PRIORS}
    return {prior: one.value for prior, one in scales.items() if one is not None} if all(scales.values()) else {}


def _given(inputs: Inputs) -> dict[str, Any]:
    """What of a first layer's inputs are latents, and what the class does to them."""
    if inputs.classes is None:
        return {"latents": list(range(inputs.latent))}
    vectors = torch.eye(inputs.classes, dtype=torch.float64) if inputs.table is None else inputs.table.double()
    vectors = vectors[torch.arange(min(len(vectors), _ROWS)) * len(vectors) // min(len(vectors), _ROWS)]
    if inputs.place == "times":
        return {"latents": list(range(inputs.latent)), "gains": vectors}
    none = torch.zeros(len(vectors), inputs.latent, dtype=torch.float64)
    marked = joined(torch.ones(1, inputs.latent), 0 * vectors[:1], inputs.place, inputs.codes)[0]
    return {"latents": marked.nonzero()[:, 0].tolist(), "labels": joined(none, vectors, inputs.place, inputs.codes)}
