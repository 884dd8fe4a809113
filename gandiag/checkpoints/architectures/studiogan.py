"""Generators of POSTECH-CVLab/PyTorch-StudioGAN: resnet, big_resnet, big_resnet_deep (both kinds) and deep_conv.

Kang et al. 2023, "StudioGAN: A Taxonomy and Benchmark of GANs for Image Synthesis". Files are model=G-best-weights-step=N.pth and
its average model=G_ema-…, each {"state_dict": …}. Spectral norm is torch's old one, folded before. Batch norm has eps 1e-4.
Its StyleGANs have NVIDIA's names; its InfoGANs mix codes into z, which a file does not describe: refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from gandiag.checkpoints.architectures.base import (
    RebuiltGenerator,
    load_strict,
    require_shape,
    resolve_output_activation,
)
from gandiag.checkpoints.architectures.layers.residual_blocks import (
    BlockConfig,
    ConditioningKind,
    ResidualGenerator,
    add_batch_counters,
    infer_image_shape,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec

_EPS = 1e-4
_LEAF = {
    "conv2d0": "conv_sc",
    "conv2d1": "conv1",
    "conv2d2": "conv2",
    "conv2d3": "conv3",
    "conv2d4": "conv4",
    "deconv0": "deconv",
    "bn0": "bn",
    "conv1x1_theta": "theta",
    "conv1x1_phi": "phi",
    "conv1x1_g": "g",
    "conv1x1_attn": "o",
    "sigma": "gamma",
}
_HEAD = {"linear0": "linear", "bn4": "norm", "conv2d5": "conv", "conv4": "conv"}
_HOW: Mapping[ConditioningKind, str] = {
    "shared": "as an index into one shared embedding",
    "onehot": "as an index, made one-hot inside",
}


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are linear0, blocks.i.0.{conv2d…, deconv0, conv1x1_…}, bn4 and conv2d5 or conv4, and the shapes follow each other."""
    if (
        not any(re.match(r"blocks\.0\.0\.(conv2d1|deconv0)\.", name) for name in weights.tensors)
        or "linear0.weight" not in weights.tensors
    ):
        raise ArchitectureMismatch("")
    if any(name.startswith(("info_mix_linear.", "info_proj_linear.")) for name in weights.tensors):
        raise ArchitectureMismatch(
            "it is an InfoGAN variant, whose codes beside z (how many, of which kind) are in its YAML file only"
        )
    tensors = convert_state_dict(weights.tensors)
    blocks = len({name for name in tensors if re.fullmatch(r"steps\.\d+\.(conv1|deconv)\.weight", name)})
    kind, told, classes, dim, chunk = _inputs(tensors, blocks, config.classes)
    family = f"StudioGAN {kind}"
    deep = kind.startswith("big_resnet_deep")
    every = 2 if deep else 1
    _, final, _ = resolve_output_activation(config.output_range, (), family)
    eps = _EPS if config.bn_eps is None else config.bn_eps
    design = BlockConfig(
        told, chunk, deep, frozenset(range(every - 1, blocks, every)), eps, eps, config.activation or "relu", final
    )
    with torch.device("meta"):
        net = ResidualGenerator(tensors, design, classes)
    output, _, said = resolve_output_activation(config.output_range, infer_image_shape(net, dim), family)
    load_strict(net, tensors)
    pieces = f", in pieces of {chunk}: one for the first map, one for each of {blocks} blocks" if chunk else ""
    assumed = (
        Assumption("latent size (--latent-dim)", f"{dim}{pieces}", "shapes"),
        Assumption("latent prior (--prior)", config.prior or "normal", _source(config.prior, family)),
        Assumption("classes (--classes)", f"{classes}, {_HOW[told]}" if classes else "none", "shapes"),
        Assumption(
            "upsampling (--image-size)",
            f"in every {'block' if every == 1 else 'second block'}: to {output.shape[1]} pixels",
            "shapes" if every == 1 else f"family ({family})",
        ),
        Assumption("hidden activation (--activation)", design.activation, _source(config.activation, family)),
        Assumption("batch-norm eps (--bn-eps)", f"{eps:g}", _source(config.bn_eps, family)),
        said,
    )
    return RebuiltGenerator(
        family, net, LatentSpec(dim, config.prior or "normal"), output, classes, "index" if classes else None, assumed
    )  # type: ignore[arg-type]


def _source(flag: object, family: str) -> str:
    return f"family ({family})" if flag is None else "flag"


def _inputs(
    tensors: Mapping[str, Tensor], blocks: int, classes: int | None
) -> tuple[str, ConditioningKind, int | None, int, int]:
    """Which backbone, how norms learn of the class, classes, the latent size and its pieces. NotThis where the numbers contradict each other."""
    given = require_shape(tensors, "linear.weight", 2)[1]
    first = "steps.0.bn.gain.weight" if "steps.0.deconv.weight" in tensors else "steps.0.bn1.gain.weight"
    told = require_shape(tensors, first, 2)[1] if first in tensors else 0
    known, embedded = require_shape(tensors, "shared.weight", 2) if "shared.weight" in tensors else (None, 0)
    if "steps.0.conv4.weight" in tensors:
        if told != given or told <= embedded:
            raise ArchitectureMismatch(
                f"its first map takes {given} numbers, and its norms {told}, of which the class is {embedded}"
            )
        kind = "big_resnet_deep_studiogan" if "steps.0.conv_sc.weight" in tensors else "big_resnet_deep_legacy"
        return kind, "shared" if known else "none", known, given - embedded, 0
    plain = "deep_conv" if "steps.0.deconv.weight" in tensors else "resnet"
    if not told:
        return plain, "none", None, given, 0
    if plain == "resnet" and told == given + embedded and not (known is None and classes == told):
        return "big_resnet", "shared" if known else "none", known, given * (blocks + 1), given
    if known is not None:
        raise ArchitectureMismatch(
            f"its norms take {told} numbers, of which the class is {embedded} and a piece of z {given}"
        )
    return plain, "onehot", told, given, 0


def convert_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `blocks.py`."""
    norms = {name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")}
    return add_batch_counters({_renamed(name, norms): entry for name, entry in tensors.items()})


def _renamed(name: str, norms: set[str]) -> str:
    head, _, leaf = name.rpartition(".")
    if head in norms and not head.endswith(".bn"):  # torch's own batch norm: weight and bias are its gain and bias
        name = f"{head}.gain" if leaf == "weight" else name if leaf == "bias" else f"{head}.bn.{leaf}"
    parts = name.split(".")
    if parts[0] == "blocks" and len(parts) > 3 and parts[2] == "0":
        return ".".join(["steps", parts[1], _LEAF.get(parts[3], parts[3]), *parts[4:]])
    return ".".join([_HEAD.get(parts[0], parts[0]), *parts[1:]])
