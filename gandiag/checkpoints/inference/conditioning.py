"""Splits the first layer's inputs into latents and class, and joins the class to the latents: one-hot or embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gandiag.checkpoints.batchnorm.label_detection import LabelSplit
from gandiag.checkpoints.inference.layer_list import LayerWeights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

# Where the class vector goes: next to the latents, or multiplied with or added to them
LabelPosition = Literal["before", "after", "between", "times", "plus"]


@dataclass(frozen=True, slots=True, eq=False)
class InputLayout:
    """`latent_dim` inputs are z.

    With `classes`, each class is joined at `label_position`: its row of `embedding` (K, E), or one-hot.
    `continuous_codes`: how many of the latents follow a class that is between them. `embedding_name`: the embedding's
    module in the file.
    """

    latent_dim: int
    classes: int | None = None
    label_position: LabelPosition = "after"
    embedding: Tensor | None = None
    continuous_codes: int = 0
    embedding_name: str = ""

    @property
    def labels_first(self) -> bool:
        """Whether the class comes before the latents."""
        return self.label_position == "before"

    def combine(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Latents (B, *latent) and labels (B,) to the first layer's input (B, D)."""
        flat = z.flatten(1)
        if self.classes is None or labels is None:
            return flat
        if self.embedding is None:
            vectors = torch.nn.functional.one_hot(labels, self.classes).to(flat)  # (B, K)
        else:
            vectors = self.embedding[labels]  # (B, E)
        return combine_label(flat, vectors, self.label_position, self.continuous_codes)


def combine_label(z: Tensor, label_vectors: Tensor, label_position: LabelPosition, continuous_codes: int = 0) -> Tensor:
    """Latents (B, D) and class vectors (B, E) as one input: (B, D + E), or (B, D) if multiplied or added."""
    if label_position == "times":
        return z * label_vectors
    if label_position == "plus":
        return z + label_vectors
    if label_position == "between":
        n_noise = z.shape[1] - continuous_codes
        return torch.cat([z[:, :n_noise], label_vectors, z[:, n_noise:]], 1)
    return torch.cat([label_vectors, z] if label_position == "before" else [z, label_vectors], 1)


def infer_input_layout(
    in_features: int, first_layer: LayerWeights, label_split: LabelSplit | None, config: AuditConfig
) -> tuple[InputLayout, tuple[Assumption, ...]]:
    """Split `in_features` inputs into latents and class, by flags, else by the labels BatchNorm shows (`label_split`).

    LoadError where a flag contradicts the weights.
    """
    if config.condition == "index" and label_split is None and config.classes is None:
        raise LoadError(
            f"--condition index does not fit: {first_layer.weight_key} is {first_layer.shape}, and no weight takes a "
            "class index",
            "give --classes N --condition concat, or --model for another network",
        )
    classes, source = _count_classes(in_features, label_split, config)
    if classes is None and config.class_place is not None:
        raise LoadError(
            f"--class-place {config.class_place} needs the number of classes, which the weights do not show",
            "add --classes N",
        )
    if classes is None:
        _check_latent_dim(in_features, in_features, first_layer, config)
        return InputLayout(in_features), (Assumption("latent_dim", in_features, "shapes"),)
    latent_dim = in_features - classes
    if latent_dim < 1:
        raise LoadError(
            f"--classes {classes} contradicts the weights: {first_layer.weight_key} is {first_layer.shape}, with only "
            f"{in_features} inputs",
            "correct --classes",
        )
    _check_latent_dim(latent_dim, in_features, first_layer, config)
    detected = label_split if label_split is not None and label_split.classes == classes else None
    codes = 0 if detected is None else detected.continuous_codes
    position = _choose_label_position(detected, first_layer, config)
    assumptions = (
        Assumption("latent_dim", latent_dim, "shapes" if source == "flag" else source),
        Assumption(
            "classes", classes, source, note="one-hot" if position == "between" else "one-hot (--condition concat)"
        ),
        _assume_label_position(position, codes, detected, config),
    )
    if position == "between":
        return InputLayout(latent_dim, classes, position, torch.eye(classes), codes), assumptions
    return InputLayout(latent_dim, classes, position), assumptions


def _choose_label_position(
    detected: LabelSplit | None, first_layer: LayerWeights, config: AuditConfig
) -> LabelPosition:
    """Of one-hot labels: by --class-place, else by BatchNorm, else after the latents."""
    has_codes = detected is not None and detected.continuous_codes > 0
    if config.class_place is not None:
        allowed: tuple[LabelPosition, ...] = ("before", "after", "between") if has_codes else ("before", "after")
        return resolve_label_position(
            config, allowed, f"{first_layer.weight_key} takes the class one-hot, next to the latents"
        )
    if has_codes:
        return "between"
    return "before" if detected is not None and detected.labels_first else "after"


def _assume_label_position(
    position: LabelPosition, codes: int, detected: LabelSplit | None, config: AuditConfig
) -> Assumption:
    note = f"the last {codes} latents follow the class, as InfoGAN's codes do" if position == "between" else ""
    if config.class_place:
        return Assumption("class_place", position, "flag", note=note)
    return Assumption("class_place", position, "default" if detected is None else "batch-norm", note=note)


def _count_classes(in_features: int, label_split: LabelSplit | None, config: AuditConfig) -> tuple[int | None, str]:
    """The number of classes, None for an unconditional network; and its source."""
    if config.classes is not None:
        return config.classes, "flag"
    if config.latent_dim == in_features and config.condition is None:
        return None, "flag"
    if label_split is not None:
        return label_split.classes, "batch-norm"
    if config.condition is not None and config.latent_dim is not None and config.latent_dim < in_features:
        return in_features - config.latent_dim, "flag"
    if config.condition is not None:
        raise LoadError(
            f"--condition {config.condition} needs the number of classes, which the weights do not show",
            "add --classes N",
        )
    return None, "shapes"


def resolve_label_position(config: AuditConfig, allowed: tuple[LabelPosition, ...], reason: str) -> LabelPosition:
    """The position given by --class-place. LoadError with `reason` where it is not allowed."""
    position = next((entry for entry in allowed if entry == config.class_place), None)
    if position is None:
        raise LoadError(
            f"--class-place {config.class_place} contradicts the weights: {reason}",
            f"choose from: {', '.join(allowed)}",
        )
    return position


def _check_latent_dim(latent_dim: int, in_features: int, layer: LayerWeights, config: AuditConfig) -> None:
    """LoadError if --latent-dim differs from what the weights show."""
    given = config.latent_dim
    if given is None or given == latent_dim:
        return
    n_labels = in_features - latent_dim
    beside = f" beside {n_labels} labels" if n_labels else ""
    hint = "Remove --latent-dim."
    if given <= in_features and not n_labels:
        rest = in_features - given
        hint = f"Remove --latent-dim; or, if {rest} of the inputs are labels: --classes {rest} --condition concat"
    raise LoadError(
        f"--latent-dim {given} contradicts the weights: {layer.weight_key} is {layer.shape}, so it is "
        f"{latent_dim}{beside}",
        hint,
    )
