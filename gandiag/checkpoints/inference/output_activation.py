"""What comes out of the last layer: its activation, range and shape, as far as the file says, and who said the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, OutputSpec

# Flat outputs that are customarily images: size -> (C, H, W)
FLAT_IMAGE_SHAPES = {784: (1, 28, 28), 1024: (1, 32, 32), 3072: (3, 32, 32), 12288: (3, 64, 64)}
_ZOO = {
    "MSE": "tanh",
    "DCGAN": "tanh",
    "WGANGP": "none",
    "Logistic": "none",
}  # losses of pytorch_GAN_zoo, and what its generators end in
_BY_RANGE = {(-1.0, 1.0): "tanh", (0.0, 1.0): "sigmoid"}


def progressive_gan_activation(settings: Any) -> tuple[str, str] | None:
    """(activation, in words) at the end of a generator of pytorch_GAN_zoo, by the loss that its checkpoint's settings name; None for other files."""
    found = getattr(settings, "attributes", settings)
    loss = found.get("lossCriterion") if isinstance(found, Mapping) else None
    final = _ZOO.get(loss) if isinstance(loss, str) else None
    return None if final is None else (final, f"{final} (trained by the loss {loss})")


def resolve_image_output(
    shape: tuple[int, ...],
    modules_after: int | None,
    config: AuditConfig,
    file_activation: tuple[str, str] | None = None,
) -> tuple[OutputSpec, str, tuple[Assumption, ...]]:
    """Images end in tanh unless --output-range or the file (`told`: the activation, and in words) says otherwise.

    A tanh called as a function leaves no trace in the weights.
    """
    if config.channels is not None and config.channels != shape[0]:
        raise LoadError(
            f"--channels {config.channels} contradicts the weights, which emit {shape[0]}", "remove --channels"
        )
    if config.output_range is not None:
        low, high = config.output_range
        final = _BY_RANGE.get((float(low), float(high)), "none")
        return (
            OutputSpec("image", shape, (low, high)),
            final,
            (Assumption("output activation (--output-range)", f"{final}, [{low:g}, {high:g}]", "flag"),),
        )
    if file_activation is not None:
        return (
            OutputSpec("image", shape, (-1.0, 1.0)),
            file_activation[0],
            (Assumption("output activation (--output-range)", f"{file_activation[1]}, [-1, 1]", "file (config)"),),
        )
    seen = (
        "a module follows the last layer"
        if modules_after
        else "no module follows the last layer"
        if modules_after == 0
        else "the file does not say"
    )
    value = f"tanh, [-1, 1] ({seen}; sigmoid, [0, 1], would fit as well)"
    return (
        OutputSpec("image", shape, (-1.0, 1.0)),
        "tanh",
        (Assumption("output activation (--output-range)", value, "default"),),
    )


def resolve_flat_output(
    size: int, modules_after: int | None, config: AuditConfig
) -> tuple[OutputSpec, str, tuple[Assumption, ...]]:
    """A flat output: an image where its size is an image's or flags say so, else a vector without activation."""
    shape, source = _image_shape(size, config)
    if shape is not None:
        output, final, found = resolve_image_output(shape, modules_after, config)
        what = Assumption(
            "image shape (--image-size, --channels)",
            f"{size} outputs are read as {shape[0]}x{shape[1]}x{shape[2]}",
            source,
        )
        return output, final, (what, *found)
    if modules_after:
        final = "sigmoid" if config.output_range == (0.0, 1.0) else "tanh"
        bounds = config.output_range or (-1.0, 1.0)
        source = "flag" if config.output_range else "default"
        note = Assumption(
            "output activation (--output-range)", f"{final}: a module without weights follows the last layer", source
        )
        return OutputSpec("vector", (size,), (bounds[0], bounds[1])), final, (note,)
    declared = None if config.output_range is None else (config.output_range[0], config.output_range[1])
    note = Assumption(
        "output activation (--output-range)",
        "none: the outputs are vectors",
        "metadata" if modules_after == 0 else "default",
    )
    return OutputSpec("vector", (size,), declared), "none", (note,)


def _image_shape(size: int, config: AuditConfig) -> tuple[tuple[int, ...] | None, str]:
    if config.image_size is not None:
        channels, rest = divmod(size, config.image_size**2)
        if rest or not channels or config.channels not in (None, channels):
            asked = f"--image-size {config.image_size}" + (
                f" with --channels {config.channels}" if config.channels else ""
            )
            raise LoadError(
                f"{asked} contradicts the weights: the last layer has {size} outputs",
                "remove --image-size and --channels, or correct them",
            )
        return (channels, config.image_size, config.image_size), "flag"
    if config.channels is not None:
        side = round((size / config.channels) ** 0.5)
        if side * side * config.channels != size:
            what = f"--channels {config.channels} contradicts the weights: {size} outputs are no square image of as many channels"
            raise LoadError(what, "remove --channels")
        return (config.channels, side, side), "flag"
    return FLAT_IMAGE_SHAPES.get(size), "default"
