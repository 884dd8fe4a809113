"""Which inputs of the first layer are latents, and how the class is joined to them: one-hot, or by its row of a table (`embedded`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gandiag.checkpoints.batchnorm.first_layer import LabelSplit
from gandiag.checkpoints.inference.layer_list import LayerWeights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

LabelPosition = Literal[
    "before", "after", "between", "times", "plus"
]  # of what stands for the class: beside latents, or multiplied with or added to them


LABEL_POSITION_SETTING = "place of the class (--class-place)"


@dataclass(frozen=True, slots=True, eq=False)
class InputLayout:
    """`latent` inputs are z. Where there are classes, each is joined to them at `place` as its row of `table` (K, E), or one-hot.
    `codes`: how many of the latents stand behind a class that is between them.
    """

    latent_dim: int
    classes: int | None = None
    label_position: LabelPosition = "after"
    embedding: Tensor | None = None
    continuous_codes: int = 0

    @property
    def labels_first(self) -> bool:
        return self.label_position == "before"

    def combine(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """(B, latent) and (B,) to what the first layer takes."""
        flat = z.flatten(1)
        if self.classes is None or labels is None:
            return flat
        vectors = (
            torch.nn.functional.one_hot(labels, self.classes).to(flat)
            if self.embedding is None
            else self.embedding[labels]
        )  # (B, K) or (B, E)
        return combine_label(flat, vectors, self.label_position, self.continuous_codes)


def combine_label(z: Tensor, label_vectors: Tensor, label_position: LabelPosition, continuous_codes: int = 0) -> Tensor:
    """Latents (B, D) and what stands for each one's class (B, E) as one input: (B, D + E), or (B, D) where they are multiplied or added."""
    if label_position == "times":
        return z * label_vectors
    if label_position == "plus":
        return z + label_vectors
    if label_position == "between":
        return torch.cat(
            [z[:, : z.shape[1] - continuous_codes], label_vectors, z[:, z.shape[1] - continuous_codes :]], 1
        )
    return torch.cat([label_vectors, z] if label_position == "before" else [z, label_vectors], 1)


def infer_input_layout(
    in_features: int, first_layer: LayerWeights, label_split: LabelSplit | None, config: AuditConfig
) -> tuple[InputLayout, tuple[Assumption, ...]]:
    """Divide `total` inputs by flags, else by what batch norm shows (`seen`).

    LoadError where a flag contradicts the weights.
    """
    if config.condition == "index" and label_split is None and config.classes is None:
        raise LoadError(
            f"--condition index does not fit: {first_layer.weight_key} is {first_layer.shape}, and nothing in the weights takes a class index",
            "--classes N --condition concat, or --model for another network",
        )
    classes, source = _classes(in_features, label_split, config)
    if classes is None and config.class_place is not None:
        raise LoadError(
            f"--class-place {config.class_place} needs the number of classes, which the weights do not show",
            "add --classes N",
        )
    if classes is None:
        _agree(in_features, in_features, first_layer, config)
        return InputLayout(in_features), (Assumption("latent size (--latent-dim)", str(in_features), "shapes"),)
    latent = in_features - classes
    if latent < 1:
        raise LoadError(
            f"--classes {classes} contradicts the weights: {first_layer.weight_key} is {first_layer.shape}, {in_features} inputs in all",
            "correct --classes",
        )
    _agree(latent, in_features, first_layer, config)
    shown = label_split is not None and label_split.classes == classes
    codes = label_split.continuous_codes if label_split is not None and shown else 0
    place: LabelPosition = (
        "between" if codes else "before" if label_split is not None and shown and label_split.labels_first else "after"
    )
    if config.class_place is not None:
        possible: tuple[LabelPosition, ...] = ("before", "after", "between") if codes else ("before", "after")
        place = resolve_label_position(
            config, possible, f"{first_layer.weight_key} takes the class one-hot, beside the latents"
        )
    where = (
        f"between the latents: the last {codes} stand behind it, the codes of an InfoGAN"
        if place == "between"
        else f"{place} the latents"
    )
    said = (
        Assumption("latent size (--latent-dim)", str(latent), "shapes" if source == "flag" else source),
        Assumption(
            "classes (--classes)", f"{classes}, one-hot" + " (--condition concat)" * (place != "between"), source
        ),
        Assumption(
            LABEL_POSITION_SETTING, where, "flag" if config.class_place else "batch-norm" if shown else "default"
        ),
    )
    return (
        InputLayout(latent, classes, place, torch.eye(classes), codes)
        if place == "between"
        else InputLayout(latent, classes, place)
    ), said


def _classes(total: int, seen: LabelSplit | None, config: AuditConfig) -> tuple[int | None, str]:
    if config.classes is not None:
        return config.classes, "flag"
    if config.latent_dim == total and config.condition is None:
        return None, "flag"
    if seen is not None:
        return seen.classes, "batch-norm"
    if config.condition is not None and config.latent_dim is not None and config.latent_dim < total:
        return total - config.latent_dim, "flag"
    if config.condition is not None:
        raise LoadError(
            f"--condition {config.condition} needs the number of classes, which the weights do not show",
            "add --classes N",
        )
    return None, "shapes"


def resolve_label_position(config: AuditConfig, allowed: tuple[LabelPosition, ...], reason: str) -> LabelPosition:
    """The place of --class-place. LoadError, with `why`, where it is none of those that are possible."""
    if config.class_place not in allowed:
        raise LoadError(
            f"--class-place {config.class_place} contradicts the weights: {reason}",
            f"choose from: {', '.join(allowed)}",
        )
    return config.class_place


def _agree(latent: int, total: int, layer: LayerWeights, config: AuditConfig) -> None:
    """LoadError if --latent-dim is not what the weights say."""
    if config.latent_dim in (None, latent):
        return
    given = config.latent_dim or 0
    so = f"{layer.weight_key} is {layer.shape}, so it is {latent}" + (
        "" if latent == total else f" beside {total - latent} labels"
    )
    rest = total - given
    labels = f"Remove --latent-dim; or, if {rest} of the inputs are labels: --classes {rest} --condition concat"
    hint = "Remove --latent-dim." if rest < 0 or latent != total else labels
    raise LoadError(f"--latent-dim {given} contradicts the weights: {so}", hint)
