"""Output activation, range and shape of the last layer, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import UNDECIDED, Assumption, OutputSpec

# Flat outputs that usually are images: size -> (C, H, W)
FLAT_IMAGE_SHAPES = {784: (1, 28, 28), 1024: (1, 32, 32), 3072: (3, 32, 32), 12288: (3, 64, 64)}
# Losses of pytorch_GAN_zoo, and the output activation of generators trained with them
_ACTIVATION_BY_LOSS = {"MSE": "tanh", "DCGAN": "tanh", "WGANGP": "none", "Logistic": "none"}
_ACTIVATION_BY_RANGE = {(-1.0, 1.0): "tanh", (0.0, 1.0): "sigmoid"}


def progressive_gan_activation(settings: Any) -> tuple[str, str] | None:
    """(output activation, reason) of a pytorch_GAN_zoo generator, by its checkpoint's loss; None for other files."""
    values = getattr(settings, "attributes", settings)
    loss = values.get("lossCriterion") if isinstance(values, Mapping) else None
    activation = _ACTIVATION_BY_LOSS.get(loss) if isinstance(loss, str) else None
    return None if activation is None else (activation, f"trained with the loss {loss}")


def activation_for_range(output_range: tuple[float, ...]) -> str:
    """The output activation that goes with a range given by --output-range: tanh, sigmoid or none."""
    return _ACTIVATION_BY_RANGE.get((float(output_range[0]), float(output_range[1])), "none")


def assume_output_activation(
    activation: str, output_range: tuple[float, ...], source: str, *, origin: str = "", note: str = ""
) -> Assumption:
    """The assumption about the output activation; its note starts with the range."""
    low, high = output_range[0], output_range[1]
    span = f"range [{low:g}, {high:g}]"
    return Assumption("output_activation", activation, source, origin, note=f"{span}; {note}" if note else span)


def resolve_image_output(
    shape: tuple[int, ...],
    modules_after: int | None,
    config: AuditConfig,
    file_activation: tuple[str, str] | None = None,
) -> tuple[OutputSpec, str, tuple[Assumption, ...]]:
    """Output of an image generator: tanh, unless --output-range or the file states another activation.

    `file_activation`: (activation, reason) stated by the file. A tanh called as a function leaves no trace in the
    weights.
    """
    if config.channels is not None and config.channels != shape[0]:
        raise LoadError(
            f"--channels {config.channels} contradicts the weights, which output {shape[0]} channels",
            "remove --channels",
        )
    if config.output_range is not None:
        low, high = config.output_range
        activation = activation_for_range(config.output_range)
        assumption = assume_output_activation(activation, (low, high), "flag")
        return OutputSpec("image", shape, (low, high)), activation, (assumption,)
    output = OutputSpec("image", shape, (-1.0, 1.0))
    if file_activation is not None:
        activation, reason = file_activation
        assumption = assume_output_activation(activation, (-1.0, 1.0), "file", origin="config", note=reason)
        return output, activation, (assumption,)
    evidence = f"{_describe_modules_after(modules_after)}; sigmoid, range [0, 1], would fit as well"
    return output, "tanh", (assume_output_activation("tanh", (-1.0, 1.0), "default", note=evidence),)


def assume_no_resize(modules_after: int | None, config: AuditConfig) -> tuple[Assumption, ...]:
    """Of a convolutional network: what more than the output activation after its last layer leaves open.

    Nothing where --image-size is given.
    """
    if modules_after is None or modules_after < 2 or config.image_size is not None:
        return ()
    note = f"{modules_after} modules without weights follow it; one of them may resize, pool or normalize the image"
    return (Assumption("structure", "nothing but the output activation after the last layer", UNDECIDED, note=note),)


def assume_last_gap(
    modules_before_last: int, config: AuditConfig, *, upsampled: bool = False
) -> tuple[Assumption, ...]:
    """That several modules before the last layer are what they are in the blocks before: no BatchNorm comes after them.

    `upsampled`: one of them is taken to upsample, which --image-size confirms. Nothing where --hidden-norm is given.
    """
    if config.hidden_norm is not None or (upsampled and config.image_size is not None):
        return ()
    value = "upsampling before the last layer too" if upsampled else "no resize and no norm before the last layer"
    note = (
        f"{modules_before_last} modules without weights precede it, and no BatchNorm follows them; one may pool "
        "or normalize"
    )
    return (Assumption("before_last_layer", value, UNDECIDED, note=note),)


def _describe_modules_after(modules_after: int | None) -> str:
    if modules_after is None:
        return "the file does not tell what follows the last layer"
    return "a module follows the last layer" if modules_after else "no module follows the last layer"


def resolve_flat_output(
    size: int, modules_after: int | None, config: AuditConfig
) -> tuple[OutputSpec, str, tuple[Assumption, ...]]:
    """A flat output: an image where its size is a usual one or flags say so, else a vector without activation."""
    shape, source = _infer_image_shape(size, config)
    if shape is not None:
        output, activation, assumptions = resolve_image_output(shape, modules_after, config)
        reshaped = Assumption("image_shape", shape, source, note=f"read from {size} outputs")
        return output, activation, (reshaped, *assumptions)
    given = config.output_range
    if modules_after:
        activation = "sigmoid" if given == (0.0, 1.0) else "tanh"
        low, high = given or (-1.0, 1.0)
        assumption = Assumption(
            "output_activation",
            activation,
            "flag" if given else "default",
            note="a module without weights follows the last layer",
        )
        return OutputSpec("vector", (size,), (low, high)), activation, (assumption,)
    declared = None if given is None else (given[0], given[1])
    assumption = Assumption(
        "output_activation", "none", "metadata" if modules_after == 0 else "default", note="the outputs are vectors"
    )
    return OutputSpec("vector", (size,), declared), "none", (assumption,)


def _infer_image_shape(size: int, config: AuditConfig) -> tuple[tuple[int, ...] | None, str]:
    """The shape (C, H, W) of a flat image, None for a vector; and its source."""
    if config.image_size is not None:
        channels, remainder = divmod(size, config.image_size**2)
        if remainder or not channels or config.channels not in (None, channels):
            options = f"--image-size {config.image_size}"
            options += f" with --channels {config.channels}" if config.channels else ""
            raise LoadError(
                f"{options} contradicts the weights: the last layer has {size} outputs",
                "remove --image-size and --channels, or correct them",
            )
        return (channels, config.image_size, config.image_size), "flag"
    if config.channels is not None:
        image_size = round((size / config.channels) ** 0.5)
        if image_size * image_size * config.channels != size:
            raise LoadError(
                f"--channels {config.channels} contradicts the weights: {size} outputs cannot be reshaped to a square "
                "image with so many channels",
                "remove --channels",
            )
        return (config.channels, image_size, image_size), "flag"
    return FLAT_IMAGE_SHAPES.get(size), "default"
