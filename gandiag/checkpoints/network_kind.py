"""Generator, discriminator or translator? By the shapes of the first and last weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from gandiag.errors import LoadError

NetworkKind = Literal["generator", "discriminator", "translator", "unknown"]
_COLOURS = (1, 3, 4)


def infer_network_kind(tensors: Mapping[str, Tensor]) -> tuple[NetworkKind, str]:
    """What the network appears to be, and the sentence that says why.

    Conv2d kernels are (out, in, k, k), ConvTranspose2d (in, out, k, k), Linear (out, in). A network whose first kernel has
    1, 3 or 4 inputs takes an image; one that ends in a single unit judges; one that does both ends in pictures translates.
    """
    maps = [
        entry
        for name, entry in tensors.items()
        if entry.ndim in (2, 4) and name.rsplit(".", 1)[-1].startswith("weight")
    ]
    if not maps:
        return "unknown", "it has no linear or convolution weights"
    first, last = maps[0], maps[-1]
    takes_image = first.ndim == 4 and first.shape[1] in _COLOURS and first.shape[0] > 4
    judges = last.shape[0] == 1 and (last.ndim == 2 or last.shape[1] > 4)
    if takes_image and judges:
        return "discriminator", f"its first layer takes {first.shape[1]} channels and its last emits 1 value"
    if takes_image and last.ndim == 4 and min(last.shape[:2]) in _COLOURS:
        return "translator", f"it takes an image of {first.shape[1]} channels and emits one of {min(last.shape[:2])}"
    if (
        judges and first.ndim == 2 and last.ndim == 2 and first.shape[1] > 1
    ):  # a convolution behind a linear layer paints, in one colour
        return "discriminator", f"its first layer takes {first.shape[1]} values and its last emits 1"
    return ("generator", "") if first.ndim == 2 or first.shape[0] > 4 else ("unknown", "")


def reject_non_generator(tensors: Mapping[str, Tensor], name: str, siblings: list[str]) -> None:
    """LoadError if the weights are a discriminator's or an image translator's."""
    looks, why = infer_network_kind(tensors)
    if looks == "discriminator":
        beside = (
            f"generators in the same folder: {', '.join(siblings[:3])}"
            if siblings
            else "pass the generator's checkpoint, or choose with --key"
        )
        raise LoadError(f"{name} looks like a discriminator: {why}", beside)
    if looks == "translator":
        raise LoadError(
            f"{name} looks like an image-to-image network: {why}", "gandiag audits generators that take a latent vector"
        )
