"""Conditional chains whose class is a row of a table: beside the latents, as in conditional GANs (Mirza and Osindero 2014), or multiplied
with them, as auxiliary-classifier GANs are often written. The table's width says which is possible, batch norm which it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from gandiag.checkpoints.inference.conditioning import (
    LABEL_POSITION_SETTING,
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

_OTHERS = re.compile(
    r"(?:^|_)(?:z|noise|latent|style|pos|position|time)(?:_|$)", re.IGNORECASE
)  # what is embedded there is no class
_FIRST = "label_emb"  # PyTorch-GAN's name, whose conditional generators join the class before the latents; most others join it after them


@dataclass(frozen=True, slots=True, eq=False)
class ClassEmbedding:
    """`rows` (K, E): one vector for each class, under the module's name."""

    module_name: str
    weight: Tensor


class ClassConditionalGenerator(nn.Module):
    """(B, D) latents and (B,) class indices to samples (B, *shape)."""

    def __init__(self, chain: SequentialGenerator, input_layout: InputLayout) -> None:
        super().__init__()
        assert input_layout.embedding is not None
        rows, width = input_layout.embedding.shape
        self.table = nn.Embedding(rows, width, _weight=input_layout.embedding).requires_grad_(False)
        self.chain, self.label_position, self.continuous_codes = (
            chain,
            input_layout.label_position,
            input_layout.continuous_codes,
        )
        self.eval()

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        made: Tensor = self.chain(
            combine_label(z.flatten(1), self.table(labels), self.label_position, self.continuous_codes)
        )
        return made


def split_class_embedding(weights: Weights) -> tuple[Weights, ClassEmbedding | None]:
    """The weights without their one class embedding, and that; all of them and None where there is none, or several.

    A linear layer without bias looks the same: names tell, and what fits as one (`joins`) is none.
    """
    tables = [key for key, tensor in weights.tensors.items() if _is_table(key, tensor, weights.tensors)]
    if len(tables) != 1:
        return weights, None
    rest = {key: tensor for key, tensor in weights.tensors.items() if key != tables[0]}
    bare = [key.removesuffix("running_mean") for key in rest if key.endswith("running_mean")]
    if weights.tensors[tables[0]].shape[1] in [
        2 * len(rest[f"{norm}running_mean"]) for norm in bare if f"{norm}weight" not in rest
    ]:
        return weights, None  # the gains and biases of a conditional batch norm
    return replace(weights, tensors=rest), ClassEmbedding(tables[0].rpartition(".")[0], weights.tensors[tables[0]])


def _is_table(key: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    name, _, leaf = key.rpartition(".")
    own = name.rpartition(".")[2]
    named = (
        leaf == "weight" and f"{name}.bias" not in tensors and is_embedding_name(own) and _OTHERS.search(own) is None
    )
    return named and tensor.ndim == 2 and tensor.is_floating_point() and tensor.numel() > 0


def candidate_input_layouts(
    embedding: ClassEmbedding, in_features: int, first_layer: LayerWeights, config: AuditConfig
) -> tuple[tuple[InputLayout, ...], tuple[Assumption, ...]]:
    """The ways in which the table can be joined to latents for a first layer of `total` inputs, the customary one first.

    NotThis where none leads there; LoadError where a flag contradicts the weights.
    """
    classes, width = embedding.weight.shape
    if width > in_features or classes < 2:
        misfit = f"{classes} vectors of {width} numbers, which do not fit the {in_features} inputs of {first_layer.weight_key}"
        raise ArchitectureMismatch(
            f"{embedding.module_name}.weight holds {misfit if classes > 1 else 'one vector, and one class is none'}"
        )
    if classes == in_features:
        raise ArchitectureMismatch(
            f"{embedding.module_name}.weight {classes, width} may be {classes} classes as well as a layer that makes the {in_features} inputs of {first_layer.weight_key}"
        )
    beside: tuple[LabelPosition, ...] = ("before", "after") if embedding.module_name == _FIRST else ("after", "before")
    places: tuple[LabelPosition, ...] = ("times", "plus") if width == in_features else beside
    latent = in_features if width == in_features else in_features - width
    if config.classes not in (None, classes):
        raise LoadError(
            f"--classes {config.classes} contradicts the weights: {embedding.module_name}.weight holds {classes} classes",
            "Remove --classes.",
        )
    if config.condition not in (None, "index"):
        raise LoadError(
            f"--condition {config.condition} contradicts the weights: {embedding.module_name}.weight holds a vector for each class index",
            "Remove --condition.",
        )
    if config.latent_dim not in (None, latent):
        beside_it = "" if latent == in_features else f", {width} of them the class"
        raise LoadError(
            f"--latent-dim {config.latent_dim} contradicts the weights: {first_layer.weight_key} takes {in_features} inputs{beside_it}",
            "Remove --latent-dim.",
        )
    said: tuple[Assumption, ...] = (
        Assumption("latent size (--latent-dim)", str(latent), "shapes"),
        Assumption(
            "classes (--classes)", f"{classes}, each a vector of {width} numbers ({embedding.module_name})", "shapes"
        ),
    )
    if config.class_place is not None:
        places = (
            resolve_label_position(
                config,
                places,
                f"{embedding.module_name}.weight holds vectors of {width} numbers, and {first_layer.weight_key} takes {in_features}",
            ),
        )
        said = (*said, Assumption(LABEL_POSITION_SETTING, f"{places[0]} the latents", "flag"))
    return tuple(InputLayout(latent, classes, place, embedding.weight) for place in places), said
