"""Rebuilds a generator from weights alone by trying the known architectures, the most specific first.

An architecture is a module beside this one with `rebuild(weights, config)`, which returns a SequentialSpec, or a
RebuiltGenerator where it builds the whole network, and raises ArchitectureMismatch for weights that are not its own; it
is registered by one row of ARCHITECTURES. Third parties add theirs by the entry point gandiag.loaders, and test it with
gandiag.testing.check_loader. An architecture matches only if every key is used and every shape agrees. What the weights
do not contain is inferred from the BatchNorm statistics (`inference.selection`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.architectures.shape_check import verify_forward
from gandiag.checkpoints.architectures.unsupported import identify_unsupported, make_mismatch_error
from gandiag.checkpoints.inference.affine_norms import state_affine_norms
from gandiag.checkpoints.inference.class_embedding import (
    ClassConditionalGenerator,
    ClassEmbedding,
    split_class_embedding,
)
from gandiag.checkpoints.inference.conditioning import InputLayout
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.layer_order import join_parallel_heads, reorder_layers
from gandiag.checkpoints.inference.search_store import SearchStore
from gandiag.checkpoints.inference.selection import InferredModel
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.checkpoints.inference.structures import Structure, infer_structures
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

    `shape_only`: it matches by shapes, not by key names. `function`: the name of its rebuild function.
    """

    name: str
    module: str
    shape_only: bool = False
    function: str = "rebuild"


ARCHITECTURES = (  # in match order, the most specific first
    Architecture("ctgan", "ctgan"),
    Architecture("tvae", "ctgan", function="rebuild_decoder"),
    Architecture("nvidia", "stylegan2_nvidia"),
    Architecture("stylegan3", "stylegan3"),
    Architecture("rosinality", "stylegan2_rosinality"),
    Architecture("rosinality-stylegan1", "stylegan1_rosinality"),
    Architecture("stylegan2-pytorch", "stylegan2_lucidrains"),
    Architecture("biggan-deep", "biggan_deep"),
    Architecture("biggan", "biggan"),
    Architecture("studiogan", "studiogan"),
    Architecture("sngan-projection", "residual_gans", function="rebuild_projection"),
    Architecture("gan-collections", "residual_gans", function="rebuild_collection"),
    Architecture("gan-stability", "residual_gans", function="rebuild_stability"),
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
    "loaders",
    {entry.name: f"gandiag.checkpoints.architectures.{entry.module}:{entry.function}" for entry in ARCHITECTURES},
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
    inferred: InferredModel | None = None
    variants: tuple[tuple[str, RebuildResult], ...] = ()

    def count_alternatives(self) -> int:
        """How many other readings of the weights there are, at most."""
        own = 0 if self.inferred is None else self.inferred.count_alternatives()
        return own + sum(1 + other.count_alternatives() for _, other in self.variants if other.inferred is not None)

    def iter_alternatives(self) -> Iterator[tuple[Mapping[str, str], RebuildResult]]:
        """Every other reading of the weights, with its open settings in words."""
        if self.inferred is not None:
            for texts, model in self.inferred.iter_alternatives():
                yield texts, _wrap_inferred(model, self.family, len(self.latent.shape) == 3, self.assumptions)
        for structure, other in self.variants:
            if other.inferred is not None:
                yield {"structure": structure, **other.inferred.describe_open()}, other
                for texts, rebuilt in other.iter_alternatives():
                    yield {"structure": structure, **texts}, rebuilt


def rebuild_generator(weights: Weights, config: AuditConfig, name: str, *, inspect_only: bool = False) -> RebuildResult:
    """The generator with these weights. LoadError with each architecture's reason if none matches.

    `inspect_only`: skip what takes seconds.
    """
    weights = fold_weight_norms(weights)
    candidates = _match_structures(weights, config, name)
    first = candidates[0].rebuilt
    _check_unused_flags(first, config, name)
    if isinstance(first, RebuiltGenerator):
        return _wrap_rebuilt(first, config, name)
    store = SearchStore.of_weights(weights, config, inspect_only=inspect_only)
    state = store.restore()
    try:
        results = infer_structures(candidates, config, state)
    except ArchitectureMismatch as mismatch:
        raise make_mismatch_error(weights, [("", str(mismatch))], name, shape_only=_SHAPE_ONLY) from None
    store.keep(state)
    best, *others = [
        _wrap_inferred(entry.model, entry.family, entry.latent_is_1x1, (*entry.assumptions, *entry.model.assumptions))
        for entry in results
    ]
    return replace(best, variants=tuple(zip([entry.structure for entry in results[1:]], others, strict=True)))


def _match_structures(weights: Weights, config: AuditConfig, name: str) -> list[Structure]:
    """What the weights may be, the likeliest first: an architecture's own network alone, or sequential structures."""
    mismatch: LoadError | None = None
    structures: list[Structure] = []
    try:
        rebuilt, embedding = _match_architecture(weights, config, name)
        if isinstance(rebuilt, RebuiltGenerator):
            return [Structure(rebuilt, None)]
        structures += [
            Structure(spec, embedding, spec.structure, spec.structure_unseen) for spec in (rebuilt, *rebuilt.variants)
        ]
        if embedding is not None and config.class_place is None and config.classes is None:
            structures.append(
                Structure(rebuilt, None, f"{embedding.module_name} is not used", unseen=True, is_rare=True)
            )
    except LoadError as error:
        mismatch = error
    joined = join_parallel_heads(weights)
    others = [] if joined is None else [(joined, "the last two layers are heads side by side", True)]
    if mismatch is not None:
        others += [(other, "layers in the order of their widths", False) for other in reorder_layers(weights)]
    for other, text, unseen in others:
        with contextlib.suppress(LoadError):
            rebuilt, embedding = _match_architecture(other, config, name)
            if isinstance(rebuilt, SequentialSpec):
                structures += [Structure(spec, embedding, text, unseen) for spec in (rebuilt, *rebuilt.variants)]
    if not structures:
        assert mismatch is not None
        raise mismatch
    return structures


def _wrap_inferred(
    inferred: InferredModel, family: str, latent_is_1x1: bool, assumptions: tuple[Assumption, ...]
) -> RebuildResult:
    """A sequential network as a generator: its class embedding, if it has one, inside."""
    layout = inferred.input_layout
    module: nn.Module = inferred.generator
    condition: LabelEncoding | None = "concat" if layout.classes else None
    if layout.embedding is not None:
        module = ClassConditionalGenerator(inferred.generator, layout)
        condition = "index" if layout.classes else None
    size = layout.latent_dim
    latent = LatentSpec(size, inferred.prior, (size, 1, 1) if latent_is_1x1 else (size,))
    return RebuildResult(module, family, latent, inferred.output, layout, assumptions, condition, inferred)


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
                spec = rebuild(sequential_weights, config)
                assert isinstance(spec, SequentialSpec)
                return state_affine_norms(spec, weights, config), embedding
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
