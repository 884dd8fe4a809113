"""Labels and latent std of a sequential network, where a BatchNorm directly follows its first layer."""

from __future__ import annotations

from dataclasses import replace

import torch

from gandiag.checkpoints.batchnorm.first_layer import (
    FirstLayer,
    build_first_layer,
    estimate_input_means,
    estimate_latent_std,
)
from gandiag.checkpoints.batchnorm.label_detection import LabelSplit, find_label_split
from gandiag.checkpoints.batchnorm.moments import standardized_prior_mean
from gandiag.checkpoints.inference.conditioning import InputLayout, combine_label
from gandiag.checkpoints.inference.hyperparameters import PRIOR_CANDIDATES
from gandiag.checkpoints.inference.sequential import SequentialSpec

_MAX_EMBEDDING_ROWS = 4096  # rows of an embedding that are used: more add nothing to its moments


def find_first_layer(spec: SequentialSpec) -> FirstLayer | None:
    """The first layer and the BatchNorm right after it, if there is one."""
    layers = [layer for layer in spec.layer_specs if layer.kind != "unflatten"]
    if len(layers) < 2 or layers[0].weights is None or layers[1].weights is None or layers[1].weights.kind != "norm":
        return None
    return build_first_layer(layers[0].weights.tensors, layers[1].weights.tensors)


def detect_labels(layer: FirstLayer | None) -> LabelSplit | None:
    """One-hot labels among the inputs, by the inputs' means."""
    means = None if layer is None else estimate_input_means(layer)
    return None if means is None else find_label_split(means)


def estimate_latent_stds(layer: FirstLayer | None, layout: InputLayout) -> dict[str, float]:
    """The std of one latent under each candidate prior; empty where the first layer does not show it."""
    if layer is None:
        return {}
    layer = _apply_layout(layer, layout)
    means = {prior: standardized_prior_mean(prior) for prior in PRIOR_CANDIDATES}
    by_mean = {mean: estimate_latent_std(replace(layer, standardized_mean=mean)) for mean in {*means.values()}}
    stds: dict[str, float] = {}
    for prior, mean in means.items():
        estimate = by_mean[mean]
        if estimate is None:
            return {}
        stds[prior] = estimate.value
    return stds


def _apply_layout(layer: FirstLayer, layout: InputLayout) -> FirstLayer:
    """The first layer with its latent columns, and what the class adds to them or multiplies them by."""
    if layout.classes is None:
        return replace(layer, latent_columns=list(range(layout.latent_dim)))
    vectors = torch.eye(layout.classes, dtype=torch.float64) if layout.embedding is None else layout.embedding.double()
    n_rows = min(len(vectors), _MAX_EMBEDDING_ROWS)
    vectors = vectors[torch.arange(n_rows) * len(vectors) // n_rows]
    position, codes = layout.label_position, layout.continuous_codes
    if position == "times":
        return replace(layer, latent_columns=list(range(layout.latent_dim)), class_scales=vectors)
    zero_latents = torch.zeros(len(vectors), layout.latent_dim, dtype=torch.float64)
    latent_mask = combine_label(torch.ones(1, layout.latent_dim), 0 * vectors[:1], position, codes)[0]
    return replace(
        layer,
        latent_columns=latent_mask.nonzero()[:, 0].tolist(),
        class_offsets=combine_label(zero_latents, vectors, position, codes),
    )
