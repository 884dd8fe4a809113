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

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.architectures.shape_check import verify_forward
from gandiag.checkpoints.architectures.unsupported import identify_unsupported
from gandiag.checkpoints.batchnorm.first_layer import (
    FirstLayer,
    LabelSplit,
    build_first_layer,
    estimate_input_means,
    estimate_latent_std,
    find_label_split,
)
from gandiag.checkpoints.batchnorm.moments import standardized_prior_mean
from gandiag.checkpoints.inference.class_embedding import (
    ClassConditionalGenerator,
    ClassEmbedding,
    candidate_input_layouts,
    split_class_embedding,
)
from gandiag.checkpoints.inference.conditioning import InputLayout, combine_label, infer_input_layout
from gandiag.checkpoints.inference.hyperparameters import PRIOR_CANDIDATES
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.selection import infer_hyperparameters
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec
from gandiag.registry import Registry

FAMILIES = Registry(
    "loaders",
    {
        "pickled": "gandiag.checkpoints.architectures.pickled_module:rebuild",
        "ctgan": "gandiag.checkpoints.architectures.ctgan:rebuild",
        "nvidia": "gandiag.checkpoints.architectures.stylegan2_nvidia:rebuild",
        "rosinality": "gandiag.checkpoints.architectures.stylegan2_rosinality:rebuild",
        "stylegan2-pytorch": "gandiag.checkpoints.architectures.stylegan2_lucidrains:rebuild",
        "biggan-deep": "gandiag.checkpoints.architectures.biggan_deep:rebuild",
        "biggan": "gandiag.checkpoints.architectures.biggan:rebuild",
        "studiogan": "gandiag.checkpoints.architectures.studiogan:rebuild",
        "mimicry": "gandiag.checkpoints.architectures.mimicry:rebuild",
        "r3gan": "gandiag.checkpoints.architectures.r3gan:rebuild",
        "pgan": "gandiag.checkpoints.architectures.progressive_gan:rebuild",
        "lightweight-gan": "gandiag.checkpoints.architectures.lightweight_gan:rebuild",
        "fastgan": "gandiag.checkpoints.architectures.fastgan:rebuild",
        "sagan": "gandiag.checkpoints.architectures.sagan:rebuild",
        "transposed": "gandiag.checkpoints.architectures.dcgan:rebuild",
        "projected": "gandiag.checkpoints.architectures.linear_conv:rebuild",
        "mlp": "gandiag.checkpoints.architectures.mlp:rebuild",
    },
)
MATCH_ORDER = (  # the most specific first
    "ctgan",
    "nvidia",
    "rosinality",
    "stylegan2-pytorch",
    "biggan-deep",
    "biggan",
    "studiogan",
    "mimicry",
    "r3gan",
    "pgan",
    "lightweight-gan",
    "fastgan",
    "sagan",
    "pickled",
    "transposed",
    "projected",
    "mlp",
)
_ROWS = 4096  # of a table: more say the same of its moments
_BY_SHAPE = ("transposed", "projected", "mlp")  # families that look at shapes alone


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """A network made from weights alone, and everything that had to be assumed."""

    module: nn.Module
    family: str
    latent: LatentSpec
    output: OutputSpec
    input_layout: InputLayout
    assumptions: tuple[Assumption, ...]
    condition: LabelEncoding | None = None


def rebuild_generator(weights: Weights, config: AuditConfig, name: str, *, inspect_only: bool = False) -> RebuildResult:
    """The generator that these weights are. LoadError with what each family missed if none takes them. `glance`: what takes seconds is left."""
    weights = fold_weight_norms(weights)
    blueprint, table = _blueprint(weights, config, name)
    if config.strides and not any("--strides" in entry.what for entry in blueprint.assumptions):
        raise LoadError(
            f"--strides was given, and {name} ({blueprint.family}) has no transposed convolutions whose strides are open",
            "leave --strides out",
        )
    if config.class_place and isinstance(blueprint, RebuiltGenerator):
        takes = "no class" if blueprint.classes is None else "its class in one place only"
        raise LoadError(
            f"--class-place was given, and {name} ({blueprint.family}) takes {takes}", "leave --class-place out"
        )
    if isinstance(blueprint, RebuiltGenerator):
        return _finished(blueprint, config, name)
    try:
        first = _first_layer(blueprint)
        if table is not None:
            ways, said = candidate_input_layouts(table, blueprint.in_features, blueprint.weighted_layers[0], config)
        else:
            inputs, said = infer_input_layout(
                blueprint.in_features, blueprint.weighted_layers[0], None if first is None else _labels(first), config
            )
            ways = (inputs,)
        found = infer_hyperparameters(
            blueprint, ways, config, [_deviations(first, way) for way in ways], inspect_only=inspect_only
        )
    except ArchitectureMismatch as wrong:
        raise _no_family(weights, [str(wrong)], name) from None
    module = (
        found.generator
        if found.input_layout.embedding is None
        else ClassConditionalGenerator(found.generator, found.input_layout)
    )
    size = found.input_layout.latent_dim
    latent = LatentSpec(size, found.prior, (size, 1, 1) if blueprint.latent_is_1x1 else (size,))  # type: ignore[arg-type]
    condition: LabelEncoding | None = (
        None if not found.input_layout.classes else "concat" if found.input_layout.embedding is None else "index"
    )
    return RebuildResult(
        module, blueprint.family, latent, found.output, found.input_layout, (*said, *found.assumptions), condition
    )


def _finished(made: RebuiltGenerator, config: AuditConfig, name: str) -> RebuildResult:
    """A family's own network, where no flag contradicts it."""
    if config.latent_dim not in (None, made.latent.dim):
        raise LoadError(
            f"--latent-dim {config.latent_dim} contradicts {name}, a {made.family} of latent size {made.latent.dim}",
            "Remove --latent-dim.",
        )
    if config.classes not in (None, made.classes):
        has = f"has {made.classes} classes" if made.classes else "takes no class"
        raise LoadError(
            f"--classes {config.classes} contradicts {name}, a {made.family}, which {has}", "Remove --classes."
        )
    return RebuildResult(
        made.module,
        made.family,
        made.latent,
        made.output,
        InputLayout(made.latent.dim, made.classes),
        made.assumptions,
        made.condition,
    )


def _blueprint(
    weights: Weights, config: AuditConfig, name: str
) -> tuple[SequentialSpec | RebuiltGenerator, ClassEmbedding | None]:
    """What the first family makes of them that takes them, and the class embedding that stood beside its layers."""
    reasons = []
    chain, table = split_class_embedding(weights)
    for family in (*(extra for extra in FAMILIES if extra not in MATCH_ORDER), *MATCH_ORDER):
        if family in _BY_SHAPE and identify_unsupported(weights.tensors):
            continue  # a chain that would fit by accident is not what these names are
        build: Callable[[Weights, AuditConfig], SequentialSpec | RebuiltGenerator] = FAMILIES.get(family)
        try:
            if family in _BY_SHAPE:
                return build(chain, config), table
            made = build(weights, config)
            if isinstance(made, RebuiltGenerator):
                verify_forward(made.module, made.latent, made.output, (made.condition, made.classes))
            return made, None
        except ArchitectureMismatch as wrong:
            reasons += [f"{family}: {wrong}"] if str(wrong) else []  # no reason: not even the names are its own
    raise _no_family(weights, reasons, name)


def _no_family(weights: Weights, reasons: list[str], name: str) -> LoadError:
    layout = identify_unsupported(weights.tensors)
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
    named = [
        reason for reason in reasons if reason.partition(":")[0] not in _BY_SHAPE
    ]  # what almost is one of these is no plain chain
    reasons = named or reasons
    whys = {reason.partition(": ")[2] for reason in reasons}
    reasons = [*whys] if len(whys) == 1 and len(reasons) > 1 else reasons  # the same in every reading
    return LoadError(
        f"{name} holds {len(weights.tensors)} tensors but no architecture that gandiag can rebuild ({'; '.join(reasons)})",
        "say what builds it: --model pkg.mod:factory [--init k=v]",
    )


def _first_layer(blueprint: SequentialSpec) -> FirstLayer | None:
    """The first map and the batch norm right behind it, if there is one."""
    steps = [step for step in blueprint.layer_specs if step.kind != "unflatten"]
    if len(steps) < 2 or steps[0].weights is None or steps[1].weights is None or steps[1].weights.kind != "norm":
        return None
    return build_first_layer(steps[0].weights.tensors, steps[1].weights.tensors)


def _labels(first: FirstLayer) -> LabelSplit | None:
    means = estimate_input_means(first)
    return None if means is None else find_label_split(means)


def _deviations(first: FirstLayer | None, inputs: InputLayout) -> dict[str, float]:
    """The deviation of one latent under each prior that is tried; none where the first layer does not show it."""
    if first is None:
        return {}
    known = replace(first, **_given(inputs))
    found = {
        shift: estimate_latent_std(replace(known, standardized_mean=shift))
        for shift in {standardized_prior_mean(prior) for prior in PRIOR_CANDIDATES}
    }
    scales = {prior: found[standardized_prior_mean(prior)] for prior in PRIOR_CANDIDATES}
    return {prior: one.value for prior, one in scales.items() if one is not None} if all(scales.values()) else {}


def _given(inputs: InputLayout) -> dict[str, Any]:
    """What of a first layer's inputs are latents, and what the class does to them."""
    if inputs.classes is None:
        return {"latent_columns": list(range(inputs.latent_dim))}
    vectors = torch.eye(inputs.classes, dtype=torch.float64) if inputs.embedding is None else inputs.embedding.double()
    vectors = vectors[torch.arange(min(len(vectors), _ROWS)) * len(vectors) // min(len(vectors), _ROWS)]
    if inputs.label_position == "times":
        return {"latent_columns": list(range(inputs.latent_dim)), "class_scales": vectors}
    none = torch.zeros(len(vectors), inputs.latent_dim, dtype=torch.float64)
    marked = combine_label(
        torch.ones(1, inputs.latent_dim), 0 * vectors[:1], inputs.label_position, inputs.continuous_codes
    )[0]
    return {
        "latent_columns": marked.nonzero()[:, 0].tolist(),
        "class_offsets": combine_label(none, vectors, inputs.label_position, inputs.continuous_codes),
    }
