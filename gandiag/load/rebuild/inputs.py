"""Which inputs of the first layer are latents, and how the class is joined to them: one-hot, or by its row of a table (`embedded`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption
from gandiag.errors import LoadError
from gandiag.load.first_layer import Split
from gandiag.load.rebuild.layers import Layer

Place = Literal["before", "after", "between", "times", "plus"]  # of what stands for the class: beside latents, or multiplied with or added to them


PLACE = "place of the class (--class-place)"


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """`latent` inputs are z. Where there are classes, each is joined to them at `place` as its row of `table` (K, E), or one-hot.
    `codes`: how many of the latents stand behind a class that is between them.
    """

    latent: int
    classes: int | None = None
    place: Place = "after"
    table: Tensor | None = None
    codes: int = 0

    @property
    def labels_first(self) -> bool:
        return self.place == "before"

    def join(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """(B, latent) and (B,) to what the first layer takes."""
        flat = z.flatten(1)
        if self.classes is None or labels is None:
            return flat
        vectors = torch.nn.functional.one_hot(labels, self.classes).to(flat) if self.table is None else self.table[labels]  # (B, K) or (B, E)
        return joined(flat, vectors, self.place, self.codes)


def joined(z: Tensor, vectors: Tensor, place: Place, codes: int = 0) -> Tensor:
    """Latents (B, D) and what stands for each one's class (B, E) as one input: (B, D + E), or (B, D) where they are multiplied or added."""
    if place == "times":
        return z * vectors
    if place == "plus":
        return z + vectors
    if place == "between":
        return torch.cat([z[:, : z.shape[1] - codes], vectors, z[:, z.shape[1] - codes :]], 1)
    return torch.cat([vectors, z] if place == "before" else [z, vectors], 1)


def split_inputs(total: int, layer: Layer, seen: Split | None, config: AuditConfig) -> tuple[Inputs, tuple[Assumption, ...]]:
    """Divide `total` inputs by flags, else by what batch norm shows (`seen`).

    LoadError where a flag contradicts the weights.
    """
    if config.condition == "index" and seen is None and config.classes is None:
        raise LoadError(f"--condition index does not fit: {layer.key} is {layer.shape}, and nothing in the weights takes a class index",
                        "--classes N --condition concat, or --model for another network")
    classes, source = _classes(total, seen, config)
    if classes is None and config.class_place is not None:
        raise LoadError(f"--class-place {config.class_place} needs the number of classes, which the weights do not show", "add --classes N")
    if classes is None:
        _agree(total, total, layer, config)
        return Inputs(total), (Assumption("latent size (--latent-dim)", str(total), "shapes"),)
    latent = total - classes
    if latent < 1:
        raise LoadError(f"--classes {classes} contradicts the weights: {layer.key} is {layer.shape}, {total} inputs in all", "correct --classes")
    _agree(latent, total, layer, config)
    shown = seen is not None and seen.classes == classes
    codes = seen.codes if seen is not None and shown else 0
    place: Place = "between" if codes else "before" if seen is not None and shown and seen.first else "after"
    if config.class_place is not None:
        possible: tuple[Place, ...] = ("before", "after", "between") if codes else ("before", "after")
        place = placed(config, possible, f"{layer.key} takes the class one-hot, beside the latents")
    where = f"between the latents: the last {codes} stand behind it, the codes of an InfoGAN" if place == "between" else f"{place} the latents"
    said = (
        Assumption("latent size (--latent-dim)", str(latent), "shapes" if source == "flag" else source),
        Assumption("classes (--classes)", f"{classes}, one-hot" + " (--condition concat)" * (place != "between"), source),
        Assumption(PLACE, where, "flag" if config.class_place else "batch-norm" if shown else "default"),
    )
    return (Inputs(latent, classes, place, torch.eye(classes), codes) if place == "between" else Inputs(latent, classes, place)), said


def _classes(total: int, seen: Split | None, config: AuditConfig) -> tuple[int | None, str]:
    if config.classes is not None:
        return config.classes, "flag"
    if config.latent_dim == total and config.condition is None:
        return None, "flag"
    if seen is not None:
        return seen.classes, "batch-norm"
    if config.condition is not None and config.latent_dim is not None and config.latent_dim < total:
        return total - config.latent_dim, "flag"
    if config.condition is not None:
        raise LoadError(f"--condition {config.condition} needs the number of classes, which the weights do not show", "add --classes N")
    return None, "shapes"


def placed(config: AuditConfig, possible: tuple[Place, ...], why: str) -> Place:
    """The place of --class-place. LoadError, with `why`, where it is none of those that are possible."""
    if config.class_place not in possible:
        raise LoadError(f"--class-place {config.class_place} contradicts the weights: {why}", f"choose from: {', '.join(possible)}")
    return config.class_place


def _agree(latent: int, total: int, layer: Layer, config: AuditConfig) -> None:
    """LoadError if --latent-dim is not what the weights say."""
    if config.latent_dim in (None, latent):
        return
    given = config.latent_dim or 0
    so = f"{layer.key} is {layer.shape}, so it is {latent}" + ("" if latent == total else f" beside {total - latent} labels")
    rest = total - given
    labels = f"Remove --latent-dim; or, if {rest} of the inputs are labels: --classes {rest} --condition concat"
    hint = "Remove --latent-dim." if rest < 0 or latent != total else labels
    raise LoadError(f"--latent-dim {given} contradicts the weights: {so}", hint)
