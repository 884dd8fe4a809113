"""Which inputs of the first layer are latents, and which are one-hot labels joined to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption
from gandiag.errors import LoadError
from gandiag.load.rebuild.layers import Layer


@dataclass(frozen=True, slots=True)
class Inputs:
    """`latent` inputs are z; `classes` more are a one-hot label, before (`labels_first`) or after them."""

    latent: int
    classes: int | None = None
    labels_first: bool = False

    def join(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """(B, latent) and (B,) to what the first layer takes: (B, latent + classes)."""
        flat = z.flatten(1)
        if self.classes is None or labels is None:
            return flat
        onehot = torch.nn.functional.one_hot(labels, self.classes).to(flat)  # (B, K)
        return torch.cat([onehot, flat] if self.labels_first else [flat, onehot], 1)


def split_inputs(total: int, layer: Layer, seen: tuple[int, bool] | None, config: AuditConfig) -> tuple[Inputs, tuple[Assumption, ...]]:
    """Divide `total` inputs by flags, else by what batch norm shows (`seen`: classes, and whether they come first).

    LoadError where a flag contradicts the weights.
    """
    if config.condition == "index" and seen is None and config.classes is None:
        raise LoadError(f"--condition index does not fit: {layer.key} is {layer.shape}, and nothing in the weights takes a class index",
                        "--classes N --condition concat, or --model for another network")
    classes, source = _classes(total, seen, config)
    if classes is None:
        _agree(total, total, layer, config)
        return Inputs(total), (Assumption("latent size (--latent-dim)", str(total), "shapes"),)
    latent = total - classes
    if latent < 1:
        raise LoadError(f"--classes {classes} contradicts the weights: {layer.key} is {layer.shape}, {total} inputs in all", "correct --classes")
    _agree(latent, total, layer, config)
    shown = seen is not None and seen[0] == classes
    first = seen[1] if seen is not None and shown else False
    place = f"one-hot, joined {'before' if first else 'after'} the latents (--condition concat{', place by batch norm' if shown else ''})"
    said = (
        Assumption("latent size (--latent-dim)", str(latent), "shapes" if source == "flag" else source),
        Assumption("classes (--classes)", f"{classes}, {place}", source),
    )
    guess = Assumption("place of the labels (--model, if it is another)", "after the latents", "default")
    return Inputs(latent, classes, first), said if shown else (*said, guess)


def _classes(total: int, seen: tuple[int, bool] | None, config: AuditConfig) -> tuple[int | None, str]:
    if config.classes is not None:
        return config.classes, "flag"
    if config.latent_dim == total and config.condition is None:
        return None, "flag"
    if seen is not None:
        return seen[0], "batch-norm"
    if config.condition is not None and config.latent_dim is not None and config.latent_dim < total:
        return total - config.latent_dim, "flag"
    if config.condition is not None:
        raise LoadError(f"--condition {config.condition} needs the number of classes, which the weights do not show", "add --classes N")
    return None, "shapes"


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
