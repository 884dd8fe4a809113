"""Architectures that gandiag knows by their keys and does not rebuild: a precise refusal, with the route that works."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What it is, keys that only it has (all of them), and the code that builds it.
_KNOWN: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "StyleGAN3 or StyleGAN-XL, whose filters are designed by code that is not in the file",
        (r"synthesis\.L\d+_\d+_\d+\.",),
        "NVlabs/stylegan3",
    ),
    (
        "TransGAN, a transformer",
        (r"pos_embed_\d+$|pos_embed\.\d+", r"blocks?(_\d)?\.\d+(\.\d+)*\.attn\."),
        "VITA-Group/TransGAN",
    ),
    (
        "pytorch_GAN_zoo's StyleGAN",
        (r"mapping\.FC\.\d+\.module\.", r"toRGBLayers\.\d+\.module\."),
        "facebookresearch/pytorch_GAN_zoo",
    ),
    ("pytorch_GAN_zoo's progressive GAN", (r"toRGBLayers\.\d+\.module\.",), "facebookresearch/pytorch_GAN_zoo"),
    ("FastGAN", (r"(synthesis\.)?init\.init\.0\.", r"(synthesis\.)?feat_8\."), "odegeasslbc/FastGAN-pytorch"),
    ("R3GAN", (r"(Model\.)?MainLayers\.\d+\.",), "brownvc/R3GAN"),
    ("lightweight-gan", (r"initial_conv\.\d+\.", r"layers\.0\.\d+\.", r"out_conv\."), "lucidrains/lightweight-gan"),
    ("BigGAN (ajbrock)", (r"output_layer\.0\.", r"blocks\.0\.0\.conv1\."), "ajbrock/BigGAN-PyTorch"),
    ("a StudioGAN network", (r"linear0\.", r"blocks\.0\.0\.(conv2d|deconv|bn)"), "POSTECH-CVLab/PyTorch-StudioGAN"),
    (
        "a UNet of a diffusion model, which samples by many steps",
        (r"time_embedding\.", r"down_blocks\.0\."),
        "huggingface/diffusers",
    ),
)


def identify_unsupported(keys: Iterable[str]) -> tuple[str, str] | None:
    """(what it is, whose code builds it) for keys that gandiag recognises and does not rebuild."""
    names = list(keys)
    for what, patterns, place in _KNOWN:
        if all(any(re.match(pattern, name) for name in names) for pattern in patterns):
            return what, place
    return None
