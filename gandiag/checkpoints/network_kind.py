"""Classifies a network as generator, discriminator or image-to-image by the shapes of its first and last weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

from gandiag.errors import LoadError

NetworkKind = Literal["generator", "discriminator", "image-to-image", "unknown"]
_IMAGE_CHANNELS = (1, 3, 4)


def infer_network_kind(tensors: Mapping[str, Tensor]) -> tuple[NetworkKind, str]:
    """The kind of network, and the reason as a sentence.

    Conv2d kernels are (out, in, k, k), ConvTranspose2d (in, out, k, k), Linear (out, in). A first kernel with 1, 3 or 4
    inputs takes an image. A network that ends in a single unit is a discriminator; one that takes and returns images is
    image-to-image.
    """
    weights = [
        entry
        for name, entry in tensors.items()
        if entry.ndim in (2, 4) and name.rsplit(".", 1)[-1].startswith("weight")
    ]
    if not weights:
        return "unknown", "it has no linear or convolution weights"
    first, last = weights[0], weights[-1]
    takes_image = first.ndim == 4 and first.shape[1] in _IMAGE_CHANNELS and first.shape[0] > 4
    one_output = last.shape[0] == 1 and (last.ndim == 2 or last.shape[1] > 4)
    if takes_image and one_output:
        return "discriminator", f"its first layer takes {first.shape[1]} channels and its last emits 1 value"
    if takes_image and last.ndim == 4 and min(last.shape[:2]) in _IMAGE_CHANNELS:
        channels = min(last.shape[:2])
        return "image-to-image", f"it takes an image of {first.shape[1]} channels and emits one of {channels}"
    # A convolution after a linear layer generates a grayscale image instead.
    if one_output and first.ndim == 2 and last.ndim == 2 and first.shape[1] > 1:
        return "discriminator", f"its first layer takes {first.shape[1]} values and its last emits 1"
    return ("generator", "") if first.ndim == 2 or first.shape[0] > 4 else ("unknown", "")


def reject_recurrent(names: Iterable[str], tensors: Mapping[str, Tensor], name: str) -> None:
    """LoadError that names a recurrent generator (TimeGAN, RCGAN) for what it is. `names`: all tensors of the file."""
    if not any(key.endswith("weight_hh_l0") for key in names):
        return
    ratios = [
        entry.shape[0] // max(1, entry.shape[1])
        for key, entry in tensors.items()
        if key.rsplit(".", 1)[-1] == "weight_hh_l0" and entry.ndim == 2
    ]
    layer = {4: "an LSTM", 3: "a GRU", 1: "a plain RNN"}.get(ratios[0] if ratios else 0, "recurrent layers")
    raise LoadError(
        f"{name} holds {layer}: a recurrent network, as of TimeGAN or RCGAN, whose latents are sequences of a length "
        "that is not in the file",
        "give the code that builds it, as --model pkg.mod:factory of a module that maps one latent vector to one "
        "series; or audit its samples: an .npy of shape (N, channels, time)",
    )


def reject_vocoder(names: Iterable[str], name: str) -> None:
    """LoadError that names a vocoder (HiFi-GAN, BigVGAN and their like), which makes a waveform of a spectrogram."""
    heads = {key.split(".")[0] for key in names}
    if {"conv_pre", "ups", "resblocks", "conv_post"} <= heads:
        raise LoadError(
            f"{name} holds a vocoder in the layout of HiFi-GAN: it takes a spectrogram and draws no latents, so it has "
            "no variety of its own",
            "audit the model that makes the spectrograms; or compare its samples in groups, one group a spectrogram: "
            "--group-by",
        )


def reject_non_generator(tensors: Mapping[str, Tensor], name: str, siblings: list[str]) -> None:
    """LoadError if the weights are a discriminator's or an image-to-image network's."""
    kind, reason = infer_network_kind(tensors)
    if kind == "discriminator":
        hint = "pass the generator's checkpoint, or choose with --key"
        if siblings:
            hint = f"generators in the same folder: {', '.join(siblings[:3])}"
        raise LoadError(f"{name} looks like a discriminator: {reason}", hint)
    if kind == "image-to-image":
        raise LoadError(
            f"{name} looks like an image-to-image network: {reason}",
            "gandiag audits generators that take a latent vector",
        )
