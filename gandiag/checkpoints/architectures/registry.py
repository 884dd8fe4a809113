"""Rebuilds a generator from weights alone by trying the known architectures, the most specific first.

An architecture is a module beside this one with `rebuild(weights, config)`, which returns a SequentialSpec, or a
RebuiltGenerator where it builds the whole network, and raises ArchitectureMismatch for weights that are not its own; it
is registered by one row of ARCHITECTURES. Third parties add theirs by the entry point gandiag.loaders, and test it with
gandiag.testing.check_loader. An architecture matches only if every key is used and every shape agrees. What the weights
do not contain is inferred from the BatchNorm statistics (`inference.selection`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.architectures.shape_check import verify_forward
from gandiag.checkpoints.architectures.unsupported import identify_unsupported, make_mismatch_error
from gandiag.checkpoints.inference.class_embedding import (
    ClassConditionalGenerator,
    ClassEmbedding,
    candidate_input_layouts,
    split_class_embedding,
)
from gandiag.checkpoints.inference.conditioning import InputLayout, infer_input_layout
from gandiag.checkpoints.inference.first_layer_evidence import (
    detect_labels,
    estimate_latent_stds,
    find_first_layer,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.selection import InferredModel, infer_hyperparameters
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec
from gandiag.registry import Registry

RebuildFunction = Callable[[Weights, AuditConfig], SequentialSpec | RebuiltGenerator]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: its public name and the module with its `rebuild`.

    `shape_only`: it matches by shapes, not by key names.
    """

    name: str
    module: str
    shape_only: bool = False


ARCHITECTURES = (  # in match order, the most specific first
    Architecture("ctgan", "ctgan"),
    Architecture("nvidia", "stylegan2_nvidia"),
    Architecture("rosinality", "stylegan2_rosinality"),
    Architecture("stylegan2-pytorch", "stylegan2_lucidrains"),
    Architecture("biggan-deep", "biggan_deep"),
    Architecture("biggan", "biggan"),
    Architecture("studiogan", "studiogan"),
    Architecture("mimicry", "mimicry"),
    Architecture("r3gan", "r3gan"),
    Architecture("pgan", "progressive_gan"),
    Architecture("lightweight-gan", "lightweight_gan"),
    Architecture("fastgan", "fastgan"),
    Architecture("sagan", "sagan"),
    Architecture("pickled", "pickled_module"),
    Architecture("transposed", "dcgan", shape_only=True),
    Architecture("projected", "linear_conv", shape_only=True),
    Architecture("mlp", "mlp", shape_only=True),
)
MATCH_ORDER = tuple(entry.name for entry in ARCHITECTURES)
FAMILIES = Registry(
    "loaders", {entry.name: f"gandiag.checkpoints.architectures.{entry.module}:rebuild" for entry in ARCHITECTURES}
)
_SHAPE_ONLY = frozenset(entry.name for entry in ARCHITECTURES if entry.shape_only)


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
    """The generator with these weights. LoadError with each architecture's reason if none matches.

    `inspect_only`: skip what takes seconds.
    """
    weights = fold_weight_norms(weights)
    rebuilt, embedding = _match_architecture(weights, config, name)
    _check_unused_flags(rebuilt, config, name)
    if isinstance(rebuilt, RebuiltGenerator):
        return _wrap_rebuilt(rebuilt, config, name)
    try:
        inferred, assumptions = _infer_sequential(rebuilt, embedding, config, inspect_only)
    except ArchitectureMismatch as mismatch:
        raise make_mismatch_error(weights, [("", str(mismatch))], name, shape_only=_SHAPE_ONLY) from None
    layout = inferred.input_layout
    module: nn.Module = inferred.generator
    condition: LabelEncoding | None = "concat" if layout.classes else None
    if layout.embedding is not None:
        module = ClassConditionalGenerator(inferred.generator, layout)
        condition = "index" if layout.classes else None
    size = layout.latent_dim
    shape = (size, 1, 1) if rebuilt.latent_is_1x1 else (size,)
    latent = LatentSpec(size, inferred.prior, shape)
    return RebuildResult(
        module, rebuilt.family, latent, inferred.output, layout, (*assumptions, *inferred.assumptions), condition
    )


def _match_architecture(
    weights: Weights, config: AuditConfig, name: str
) -> tuple[SequentialSpec | RebuiltGenerator, ClassEmbedding | None]:
    """The result of the first architecture that matches, and the class embedding of a sequential network."""
    reasons: list[tuple[str, str]] = []
    sequential_weights, embedding = split_class_embedding(weights)
    plugins = (plugin for plugin in FAMILIES if plugin not in MATCH_ORDER)
    for family in (*plugins, *MATCH_ORDER):
        if family in _SHAPE_ONLY and identify_unsupported(weights.tensors):
            continue  # the key names are another architecture's, whatever the shapes
        rebuild: RebuildFunction = FAMILIES.get(family)
        try:
            if family in _SHAPE_ONLY:
                return rebuild(sequential_weights, config), embedding
            rebuilt = rebuild(weights, config)
            if isinstance(rebuilt, RebuiltGenerator):
                verify_forward(rebuilt.module, rebuilt.latent, rebuilt.output, (rebuilt.condition, rebuilt.classes))
            return rebuilt, None
        except ArchitectureMismatch as mismatch:
            if str(mismatch):  # without a reason not even the key names are its own
                reasons.append((family, str(mismatch)))
    raise make_mismatch_error(weights, reasons, name, shape_only=_SHAPE_ONLY)


def _check_unused_flags(rebuilt: SequentialSpec | RebuiltGenerator, config: AuditConfig, name: str) -> None:
    """LoadError for --strides or --class-place where they have no effect."""
    if config.strides and not any(entry.setting == "strides" for entry in rebuilt.assumptions):
        raise LoadError(
            f"--strides was given, but {name} ({rebuilt.family}) has no transposed convolutions whose strides are open",
            "leave --strides out",
        )
    if config.class_place and isinstance(rebuilt, RebuiltGenerator):
        conditioning = "no class" if rebuilt.classes is None else "its class in one position only"
        raise LoadError(
            f"--class-place was given, but {name} ({rebuilt.family}) takes {conditioning}", "leave --class-place out"
        )


def _wrap_rebuilt(rebuilt: RebuiltGenerator, config: AuditConfig, name: str) -> RebuildResult:
    """An architecture's own network. LoadError where a flag contradicts it."""
    if config.latent_dim not in (None, rebuilt.latent.dim):
        raise LoadError(
            f"--latent-dim {config.latent_dim} contradicts {name}, a {rebuilt.family} with latent size "
            f"{rebuilt.latent.dim}",
            "Remove --latent-dim.",
        )
    if config.classes not in (None, rebuilt.classes):
        conditioning = f"has {rebuilt.classes} classes" if rebuilt.classes else "takes no class"
        raise LoadError(
            f"--classes {config.classes} contradicts {name}, a {rebuilt.family}, which {conditioning}",
            "Remove --classes.",
        )
    return RebuildResult(
        rebuilt.module,
        rebuilt.family,
        rebuilt.latent,
        rebuilt.output,
        InputLayout(rebuilt.latent.dim, rebuilt.classes),
        rebuilt.assumptions,
        rebuilt.condition,
    )


def _infer_sequential(
    spec: SequentialSpec, embedding: ClassEmbedding | None, config: AuditConfig, inspect_only: bool
) -> tuple[InferredModel, tuple[Assumption, ...]]:
    """A sequential network with its hyperparameters inferred, and the assumptions about its inputs."""
    first_layer = find_first_layer(spec)
    first_weights = spec.weighted_layers[0]
    if embedding is not None:
        layouts, assumptions = candidate_input_layouts(embedding, spec.in_features, first_weights, config)
    else:
        layout, assumptions = infer_input_layout(spec.in_features, first_weights, detect_labels(first_layer), config)
        layouts = (layout,)
    latent_stds = [estimate_latent_stds(first_layer, layout) for layout in layouts]
    return infer_hyperparameters(spec, layouts, config, latent_stds, inspect_only=inspect_only), assumptions
