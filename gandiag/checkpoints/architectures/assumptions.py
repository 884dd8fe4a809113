"""Builds the assumptions that most architectures state: latent, classes, output range, resolution, BatchNorm mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

NORMALIZED_LATENT = "only its direction matters: z is normalized"


def resolve_setting(setting: str, requested: Any, default: Any, family: str, note: str = "") -> Assumption:
    """The requested value with source "flag", else the architecture's default with source "family"."""
    if requested is None:
        return Assumption(setting, default, "family", family, note=note)
    return Assumption(setting, requested, "flag", note=note)


def assume_latent(
    dim: int, prior: str | None, family: str, *, dim_note: str = "", prior_note: str = "", file_entry: str = ""
) -> tuple[LatentSpec, tuple[Assumption, Assumption]]:
    """The latent: its size from the shapes, its prior as requested, else normal.

    `file_entry`: where the file states the size as well.
    """
    stated_prior = resolve_setting("prior", prior, "normal", family, prior_note)
    if file_entry:
        size = Assumption("latent_dim", dim, "file", file_entry, note="agrees with the shapes")
    else:
        size = Assumption("latent_dim", dim, "shapes", note=dim_note)
    return LatentSpec(dim, stated_prior.value), (size, stated_prior)


def assume_classes(classes: int | None, note: str) -> tuple[Assumption, ...]:
    """The number of classes, as the shapes show it; nothing for an unconditional generator."""
    return (Assumption("classes", classes, "shapes", note=note),) if classes else ()


def assume_image(
    shape: tuple[int, ...],
    output_range: tuple[float, ...] | None,
    family: str,
    *,
    default: tuple[float, float] = (-1.0, 1.0),
    note: str = "",
) -> tuple[OutputSpec, Assumption]:
    """Images of this shape (C, H, W) in the requested range, else in the architecture's."""
    stated_range = resolve_setting("output_range", output_range, default, family, note)
    low, high = stated_range.value
    return OutputSpec("image", shape, (low, high)), stated_range


def assume_resolution(resolution: int, upsampling: str, source: str = "shapes", origin: str = "") -> Assumption:
    """The image size of a generator that starts at 4x4 pixels and doubles the resolution by `upsampling`."""
    return Assumption("image_size", resolution, source, origin, note=f"from 4 pixels, doubled by {upsampling}")


def assume_batchnorm_mode(mode: str, note: str) -> Assumption:
    """The BatchNorm mode: eval by gandiag's choice, else as requested. `note`: what the original code does instead."""
    return Assumption("bn", mode, "gandiag", note=note) if mode == "eval" else Assumption("bn", mode, "flag")


def format_shape(shape: Sequence[int]) -> str:
    """(3, 8, 8) -> "3x8x8"."""
    return "x".join(map(str, shape))
