"""Recognizes architectures that gandiag does not rebuild, and explains why no architecture matched."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gandiag.checkpoints.state_dict import Weights
from gandiag.errors import LoadError

# Description; patterns of keys, all of which must match; repository with the code that builds it
_UNSUPPORTED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "StyleGAN3 or StyleGAN-XL",
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
    """(description, repository) for keys that gandiag recognizes as another architecture's; else None."""
    names = list(keys)
    for description, patterns, repository in _UNSUPPORTED:
        if all(any(re.match(pattern, name) for name in names) for pattern in patterns):
            return description, repository
    return None


def make_mismatch_error(
    weights: Weights, reasons: list[tuple[str, str]], name: str, *, shape_only: Iterable[str]
) -> LoadError:
    """The error for weights that match no architecture.

    `reasons`: (architecture or "", reason) of those that rejected them. `shape_only`: architectures that match by
    shapes alone; their reasons count only where no other architecture came close.
    """
    by_weights = [(architecture, reason) for architecture, reason in reasons if architecture != "pickled"]
    known = identify_unsupported(weights.tensors)
    if known is not None:
        description, repository = known
        why = next((reason for _, reason in by_weights), "")
        variant = f" in a variant that gandiag does not rebuild: {why}" if why else ", which gandiag does not rebuild"
        return LoadError(
            f"{name} holds {description}{variant}",
            f"build it with its own code ({repository}): --model pkg.mod:factory [--init k=v], run where that is "
            "importable; or audit a folder of its samples",
        )
    if weights.structure is not None:
        listed = _list_reasons(reasons[:2])
        return LoadError(
            f"{name} holds a whole object ({weights.structure.cls}) whose forward() is not in the file: its "
            f"{len(weights.tensors)} tensors can be read, but not run ({listed})",
            "give the code that builds it: --model pkg.mod:factory [--init k=v]; it will not be unpickled",
        )
    shape_families = set(shape_only)
    relevant = [entry for entry in by_weights if entry[0] not in shape_families] or by_weights
    distinct = list(dict.fromkeys(reason for _, reason in relevant))
    same_for_all = len(distinct) == 1 and len(relevant) > 1
    listed = distinct[0] if same_for_all else _list_reasons(relevant)
    return LoadError(
        f"{name} holds {len(weights.tensors)} tensors but no architecture that gandiag can rebuild ({listed})",
        "give the code that builds it: --model pkg.mod:factory [--init k=v]",
    )


def _list_reasons(reasons: list[tuple[str, str]]) -> str:
    return "; ".join(f"{architecture}: {reason}" if architecture else reason for architecture, reason in reasons)
