"""Chooses between the structures that one state dict allows, by the BatchNorm statistics of the whole network.

A layer declared and never used, norms declared after the layers, two heads side by side, upsampling or an activation
after the reshape: shapes fit all of them, and every BatchNorm of the network counts, not the first ones alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.batchnorm.thresholds import BAD_MISMATCH, DECISIVE_RATIO, GOOD_MISMATCH
from gandiag.checkpoints.inference.class_embedding import ClassEmbedding, candidate_input_layouts
from gandiag.checkpoints.inference.conditioning import InputLayout, infer_input_layout
from gandiag.checkpoints.inference.first_layer_evidence import detect_labels, estimate_latent_stds, find_first_layer
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.search_state import OutOfBudget, SearchState
from gandiag.checkpoints.inference.selection import (
    InferredModel,
    adopt_settings,
    compare_spec,
    infer_hyperparameters,
    screen_spec,
)
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import UNDECIDED, Assumption

_RARE_RATIO = 1.0
_CONVINCING = 0.4 * GOOD_MISMATCH  # a structure that fits this well, with common strides, is not compared with others
_SCREENED_RATIO = 3.0  # one that fits this many times worse than a good one, at its settings, is not searched
_RESERVED_SHARE = 0.3  # of the budget, kept for the other structures while the first one is searched


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """One network that the weights may be.

    `text`: what sets it apart, "" where nothing does. `unseen`: the others are tried however well one fits,
    as no BatchNorm may tell them apart. `is_rare`: it is a candidate only if it fits best.
    """

    rebuilt: SequentialSpec | RebuiltGenerator
    embedding: ClassEmbedding | None
    text: str = ""
    unseen: bool = False
    is_rare: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class InferredStructure:
    """A structure with its hyperparameters inferred. `assumptions`: about its inputs and the structure itself."""

    rebuilt: SequentialSpec
    structure: str
    model: InferredModel
    family: str
    latent_is_1x1: bool
    assumptions: tuple[Assumption, ...]
    mismatch: float | None
    is_rare: bool = False


def infer_structures(
    structures: Sequence[Structure], config: AuditConfig, state: SearchState
) -> list[InferredStructure]:
    """The structure that fits the statistics best, then those that fit nearly as well.

    Without statistics all stay open, in their order. Raises what the first one raised where none can be built.
    """
    found: list[InferredStructure] = []
    errors: list[Exception] = []
    structures = _order_by_fit(structures, config, state)
    for index, structure in enumerate(structures):
        is_last = index + 1 == len(structures)
        state.reserved = 0.0 if is_last or not math.isfinite(state.remaining) else _RESERVED_SHARE * state.remaining
        if structure.is_rare and not found:
            continue
        if not structure.unseen and any(map(_is_convincing, found)):
            continue
        try:
            if any(_is_ruled_out(structure, entry, config) for entry in found):
                continue
            same_layers = [entry for entry in found if entry.rebuilt is structure.rebuilt and _fits_well(entry)]
            found.append(_infer(structure, config, state, *same_layers[:1]))
        except (ArchitectureMismatch, LoadError) as error:
            errors.append(error)
    if not found or (errors and (found[0].mismatch or 0.0) >= BAD_MISMATCH):
        raise errors[0]
    found = [found[0], *(entry for entry in found[1:] if not entry.is_rare or _fits_better(entry, found[0]))]
    if len(found) == 1:
        source = "batch-norm" if found[0].structure and found[0].mismatch is not None else "shapes"
        return [_state_structure(found[0], source)]
    if all(entry.mismatch is None for entry in found):
        return [_state_structure(found[0], "default"), *found[1:]]
    ranked = sorted(found, key=lambda entry: float("inf") if entry.mismatch is None else entry.mismatch)
    best = ranked[0].mismatch or 0.0
    close = [
        entry
        for entry in ranked[1:]
        if entry.mismatch is None or entry.mismatch < (_RARE_RATIO if entry.is_rare else DECISIVE_RATIO) * best
    ]
    return [_state_structure(ranked[0], UNDECIDED if close else "batch-norm"), *close]


def _is_convincing(entry: InferredStructure) -> bool:
    """Whether it fits so well that others need not be tried; uncommon strides make up for a wrong structure."""
    assignment = entry.model.assignment
    is_common = assignment is not None and not any(assignment.choices)
    return entry.mismatch is not None and entry.mismatch < _CONVINCING and is_common


def _fits_well(entry: InferredStructure) -> bool:
    return entry.mismatch is not None and entry.mismatch < GOOD_MISMATCH


def _fits_better(rare: InferredStructure, first: InferredStructure) -> bool:
    """Whether an uncommon structure is worth a thought: no statistics, or it fits well and better than the first."""
    if rare.mismatch is None or first.mismatch is None:
        return True
    return rare.mismatch < min(GOOD_MISMATCH, first.mismatch)


def _state_structure(entry: InferredStructure, source: str) -> InferredStructure:
    """The structure with an assumption about itself, where there is anything to say."""
    text = entry.structure or ("layers in the order of the file" if source != "shapes" else "")
    if not text:
        return entry
    return replace(entry, assumptions=(Assumption("structure", text, source), *entry.assumptions))


def _is_ruled_out(structure: Structure, found: InferredStructure, config: AuditConfig) -> bool:
    """Whether another structure fits well, and this one clearly worse at the same settings."""
    if not _fits_well(found):
        return False
    layouts, _, _ = _list_inputs(structure, config)
    assert isinstance(structure.rebuilt, SequentialSpec)
    try:
        return compare_spec(structure.rebuilt, layouts, config, found.model) >= _SCREENED_RATIO
    except OutOfBudget:
        return False


def _order_by_fit(structures: Sequence[Structure], config: AuditConfig, state: SearchState) -> Sequence[Structure]:
    """The structures in their order, but first the one that fits far better than the first by few passes: searching a
    wrong one takes longest.
    """
    common = [entry for entry in structures if not entry.is_rare]
    if len(common) < 2:
        return structures
    scores: dict[int, float] = {}
    for index, structure in enumerate(common):
        with contextlib.suppress(ArchitectureMismatch, LoadError, OutOfBudget):
            assert isinstance(structure.rebuilt, SequentialSpec)
            layouts, latent_stds, _ = _list_inputs(structure, config)
            score = screen_spec(structure.rebuilt, layouts, config, latent_stds, state)
            if score is not None:
                scores[index] = score
    best = min(scores, key=scores.__getitem__, default=0)
    if 0 not in scores or scores[0] < DECISIVE_RATIO * scores[best]:
        return structures
    return [common[best], *(entry for entry in structures if entry is not common[best])]


def _list_inputs(
    structure: Structure, config: AuditConfig
) -> tuple[tuple[InputLayout, ...], list[dict[str, float]], tuple[Assumption, ...]]:
    """The input layouts of a structure, the std of one latent that the first layer shows for each, and assumptions."""
    spec, embedding = structure.rebuilt, structure.embedding
    assert isinstance(spec, SequentialSpec)
    first_layer = find_first_layer(spec)
    first_weights = spec.weighted_layers[0]
    if embedding is not None:
        layouts, assumptions = candidate_input_layouts(embedding, spec.in_features, first_weights, config)
    else:
        layout, assumptions = infer_input_layout(spec.in_features, first_weights, detect_labels(first_layer), config)
        layouts = (layout,)
    return layouts, [estimate_latent_stds(first_layer, layout) for layout in layouts], assumptions


def _infer(
    structure: Structure, config: AuditConfig, state: SearchState, like: InferredStructure | None = None
) -> InferredStructure:
    """`like`: one of the same layers with other inputs, which fits well, so that its settings hold here too."""
    spec = structure.rebuilt
    assert isinstance(spec, SequentialSpec)
    layouts, latent_stds, assumptions = _list_inputs(structure, config)
    if like is None:
        model = infer_hyperparameters(spec, layouts, config, latent_stds, state)
    else:
        model = adopt_settings(spec, layouts, config, latent_stds, like.model)
    return InferredStructure(
        spec,
        structure.text,
        model,
        spec.family,
        spec.latent_is_1x1,
        assumptions,
        model.total_mismatch(),
        structure.is_rare,
    )
