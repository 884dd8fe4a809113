"""Sequential generators with a class embedding that is concatenated to, multiplied with or added to the latents.

Conditional GANs (Mirza and Osindero 2014) concatenate; auxiliary-classifier GANs often multiply. The embedding's width
tells which is possible, BatchNorm which one it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from gandiag.checkpoints.inference.conditioning import (
    InputLayout,
    LabelPosition,
    combine_label,
    resolve_label_position,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights, is_embedding_name
from gandiag.checkpoints.inference.sequential import SequentialGenerator
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

# Embeddings of these are not of a class.
_NOT_CLASS = re.compile(r"(?:^|_)(?:z|noise|latent|style|pos|position|time)(?:_|$)", re.IGNORECASE)
# PyTorch-GAN's name: its conditional generators put the class before the latents; most others put it after them.
_LABELS_FIRST_NAME = "label_emb"


@dataclass(frozen=True, slots=True, eq=False)
class ClassEmbedding:
    """`weight` (K, E): one vector per class, stored under `module_name`."""

    module_name: str
    weight: Tensor


class ClassConditionalGenerator(nn.Module):
    """(B, D) latents and (B,) class indices to samples (B, *shape)."""

    def __init__(self, chain: SequentialGenerator, input_layout: InputLayout) -> None:
        super().__init__()
        assert input_layout.embedding is not None
        classes, width = input_layout.embedding.shape
        self.table = nn.Embedding(classes, width, _weight=input_layout.embedding).requires_grad_(False)
        self.table_name = input_layout.embedding_name
        self.chain = chain
        self.label_position = input_layout.label_position
        self.continuous_codes = input_layout.continuous_codes
        self.eval()

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = combine_label(z.flatten(1), self.table(labels), self.label_position, self.continuous_codes)
        samples: Tensor = self.chain(x)
        return samples


def split_class_embedding(weights: Weights) -> tuple[Weights, ClassEmbedding | None]:
    """(the other weights, the class embedding); all weights and None where there is no embedding, or several.

    A linear layer without bias looks the same: the name decides, and a weight that fits between two layers is rejected
    later (`candidate_input_layouts`).
    """
    keys = [key for key, tensor in weights.tensors.items() if _is_class_embedding(key, tensor, weights.tensors)]
    if len(keys) != 1:
        return weights, None
    embedding = ClassEmbedding(keys[0].rpartition(".")[0], weights.tensors[keys[0]])
    rest = {key: tensor for key, tensor in weights.tensors.items() if key != keys[0]}
    batchnorms = [key.removesuffix("running_mean") for key in rest if key.endswith("running_mean")]
    gain_and_bias = [2 * len(rest[f"{name}running_mean"]) for name in batchnorms if f"{name}weight" not in rest]
    if embedding.weight.shape[1] in gain_and_bias:
        return weights, None  # the gains and biases of a conditional BatchNorm
    return replace(weights, tensors=rest), embedding


def _is_class_embedding(key: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    name, _, leaf = key.rpartition(".")
    module = name.rpartition(".")[2]
    if leaf != "weight" or f"{name}.bias" in tensors:
        return False
    if not is_embedding_name(module) or _NOT_CLASS.search(module) is not None:
        return False
    return tensor.ndim == 2 and tensor.is_floating_point() and tensor.numel() > 0


def candidate_input_layouts(
    embedding: ClassEmbedding, in_features: int, first_layer: LayerWeights, config: AuditConfig
) -> tuple[tuple[InputLayout, ...], tuple[Assumption, ...]]:
    """The ways to join the embedding to the latents of a first layer with `in_features` inputs, the default first.

    ArchitectureMismatch where none fits; LoadError where a flag contradicts the weights.
    """
    _check_embedding(embedding, in_features, first_layer)
    classes, width = embedding.weight.shape
    multiplied = width == in_features
    latent_dim = in_features if multiplied else in_features - width
    _check_flags(embedding, latent_dim, in_features, first_layer, config)
    positions: tuple[LabelPosition, ...] = ("after", "before")
    if multiplied:
        positions = ("times", "plus")
    elif embedding.module_name == _LABELS_FIRST_NAME:
        positions = ("before", "after")
    assumptions: tuple[Assumption, ...] = (
        Assumption("latent_dim", latent_dim, "shapes"),
        Assumption(
            "classes", classes, "shapes", note=f"embedded as vectors of {width} numbers by {embedding.module_name}"
        ),
    )
    if config.class_place is not None:
        reason = (
            f"{embedding.module_name}.weight holds vectors of {width} numbers, and {first_layer.weight_key} takes "
            f"{in_features} inputs"
        )
        positions = (resolve_label_position(config, positions, reason),)
        assumptions = (*assumptions, Assumption("class_place", positions[0], "flag"))
    layouts = tuple(
        InputLayout(latent_dim, classes, position, embedding.weight, embedding_name=embedding.module_name)
        for position in positions
    )
    return layouts, assumptions


def _check_embedding(embedding: ClassEmbedding, in_features: int, first_layer: LayerWeights) -> None:
    """ArchitectureMismatch unless the embedding can be joined to the first layer's latents."""
    name, (classes, width) = f"{embedding.module_name}.weight", embedding.weight.shape
    if classes < 2:
        raise ArchitectureMismatch(f"{name} has a single row; a class embedding needs at least two")
    if width > in_features:
        raise ArchitectureMismatch(
            f"{name} holds {classes} vectors of {width} numbers, which do not fit the {in_features} inputs of "
            f"{first_layer.weight_key}"
        )
    if classes == in_features:
        raise ArchitectureMismatch(
            f"{name} {classes, width} may be an embedding of {classes} classes or a linear layer that computes the "
            f"{in_features} inputs of {first_layer.weight_key}"
        )


def _check_flags(
    embedding: ClassEmbedding, latent_dim: int, in_features: int, first_layer: LayerWeights, config: AuditConfig
) -> None:
    """LoadError where a flag contradicts the embedding."""
    name, (classes, width) = f"{embedding.module_name}.weight", embedding.weight.shape
    if config.classes not in (None, classes):
        raise LoadError(
            f"--classes {config.classes} contradicts the weights: {name} holds {classes} classes", "Remove --classes."
        )
    if config.condition not in (None, "index"):
        raise LoadError(
            f"--condition {config.condition} contradicts the weights: {name} holds a vector for each class index",
            "Remove --condition.",
        )
    if config.latent_dim not in (None, latent_dim):
        label_inputs = "" if latent_dim == in_features else f", {width} of them for the class"
        raise LoadError(
            f"--latent-dim {config.latent_dim} contradicts the weights: {first_layer.weight_key} takes {in_features} "
            f"inputs{label_inputs}",
            "Remove --latent-dim.",
        )
