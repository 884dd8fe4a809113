"""Generators of POSTECH-CVLab/PyTorch-StudioGAN: resnet, big_resnet, big_resnet_deep (both kinds) and deep_conv.

Kang et al. 2023, "StudioGAN: A Taxonomy and Benchmark of GANs for Image Synthesis". Files are
model=G-best-weights-step=N.pth and its average model=G_ema-…, each {"state_dict": …}. Spectral norm is torch's old one
and is folded before. BatchNorm has eps 1e-4. Its StyleGANs use NVIDIA's names; its InfoGANs mix codes into z, which a
file does not describe: refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gandiag.checkpoints.architectures.assumptions import assume_latent, resolve_setting
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
from gandiag.interfaces import Assumption

_EPS = 1e-4
# names of this library -> names of residual_blocks.py
_LAYER_NAMES = {
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
_OUTER_NAMES = {"linear0": "linear", "bn4": "norm", "conv2d5": "conv", "conv4": "conv"}
_CLASS_NOTES: Mapping[ConditioningKind, str] = {
    "shared": "as an index into one shared embedding",
    "onehot": "as an index, made one-hot inside",
}


class _Backbone(NamedTuple):
    """Which backbone it is, and how z and the class reach it. `chunk_size`: 0 for an undivided z."""

    kind: str
    conditioning: ConditioningKind
    classes: int | None
    latent_dim: int
    chunk_size: int


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A generator of StudioGAN.

    ArchitectureMismatch unless the keys are linear0, blocks.i.0.{conv2d…, deconv0, conv1x1_…}, bn4 and conv2d5 or
    conv4, and the shapes fit.
    """
    _check_names(weights.tensors)
    tensors = convert_state_dict(weights.tensors)
    n_blocks = len({name for name in tensors if re.fullmatch(r"steps\.\d+\.(conv1|deconv)\.weight", name)})
    backbone = _identify_backbone(tensors, n_blocks, config.classes)
    family = f"StudioGAN {backbone.kind}"
    is_deep = backbone.kind.startswith("big_resnet_deep")
    step = 2 if is_deep else 1
    eps = _EPS if config.bn_eps is None else config.bn_eps
    block_config = BlockConfig(
        conditioning=backbone.conditioning,
        chunk_size=backbone.chunk_size,
        joint_conditioning=is_deep,
        upsample_blocks=frozenset(range(step - 1, n_blocks, step)),
        eps=eps,
        final_eps=eps,
        activation=config.activation or "relu",
        output_activation=resolve_output_activation(config.output_range, (), family)[1],
    )
    with torch.device("meta"):
        net = ResidualGenerator(tensors, block_config, backbone.classes)
    shape = infer_image_shape(net, backbone.latent_dim)
    output, _, output_assumption = resolve_output_activation(config.output_range, shape, family)
    load_strict(net, tensors)
    chunk_note = f"in chunks of {backbone.chunk_size}: one for the first layer, one for each of {n_blocks} blocks"
    latent, latent_assumptions = assume_latent(
        backbone.latent_dim, config.prior, family, dim_note=chunk_note if backbone.chunk_size else ""
    )
    upsampling_source = ("family", family) if is_deep else ("shapes", "")
    upsampled = tuple(sorted(block_config.upsample_blocks))
    assumptions = (
        *latent_assumptions,
        Assumption("classes", backbone.classes, "shapes", note=_CLASS_NOTES.get(backbone.conditioning, "")),
        Assumption("upsampling_blocks", upsampled, *upsampling_source, note=f"to {shape[1]} pixels"),
        resolve_setting("activation", config.activation, block_config.activation, family),
        resolve_setting("bn_eps", config.bn_eps, eps, family),
        output_assumption,
    )
    return RebuiltGenerator(
        family, net, latent, output, backbone.classes, "index" if backbone.classes else None, assumptions
    )


def _check_names(tensors: Mapping[str, Tensor]) -> None:
    has_blocks = any(re.match(r"blocks\.0\.0\.(conv2d1|deconv0)\.", name) for name in tensors)
    if not has_blocks or "linear0.weight" not in tensors:
        raise ArchitectureMismatch("")
    if any(name.startswith(("info_mix_linear.", "info_proj_linear.")) for name in tensors):
        raise ArchitectureMismatch(
            "it is an InfoGAN variant: the number and kind of its codes beside z are in its YAML file only"
        )


def _identify_backbone(tensors: Mapping[str, Tensor], n_blocks: int, requested_classes: int | None) -> _Backbone:
    """The backbone that the shapes show. ArchitectureMismatch if they contradict each other."""
    first_inputs = require_shape(tensors, "linear.weight", 2)[1]
    has_deconv = "steps.0.deconv.weight" in tensors
    gain_name = "steps.0.bn.gain.weight" if has_deconv else "steps.0.bn1.gain.weight"
    norm_inputs = require_shape(tensors, gain_name, 2)[1] if gain_name in tensors else 0
    classes: int | None = None
    embedding_dim = 0
    if "shared.weight" in tensors:
        classes, embedding_dim = require_shape(tensors, "shared.weight", 2)
    embedded: ConditioningKind = "shared" if classes else "none"
    if "steps.0.conv4.weight" in tensors:
        if norm_inputs != first_inputs or norm_inputs <= embedding_dim:
            raise ArchitectureMismatch(
                f"its first layer takes {first_inputs} values, and its norms take {norm_inputs}, "
                f"{embedding_dim} of them for the class"
            )
        kind = "big_resnet_deep_studiogan" if "steps.0.conv_sc.weight" in tensors else "big_resnet_deep_legacy"
        return _Backbone(kind, embedded, classes, first_inputs - embedding_dim, 0)
    kind = "deep_conv" if has_deconv else "resnet"
    if not norm_inputs:
        return _Backbone(kind, "none", None, first_inputs, 0)
    # resnet with K one-hot classes and big_resnet with chunks of K latents have the same shapes: --classes decides.
    asks_for_onehot = classes is None and requested_classes == norm_inputs
    if kind == "resnet" and norm_inputs == first_inputs + embedding_dim and not asks_for_onehot:
        return _Backbone("big_resnet", embedded, classes, first_inputs * (n_blocks + 1), first_inputs)
    if classes is not None:
        raise ArchitectureMismatch(
            f"its norms take {norm_inputs} values, which are not the {embedding_dim} of the class "
            f"with a chunk of z of {first_inputs}"
        )
    return _Backbone(kind, "onehot", norm_inputs, first_inputs, 0)


def convert_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `residual_blocks.py`."""
    norms = {name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")}
    return add_batch_counters({_rename_key(name, norms): tensor for name, tensor in tensors.items()})


def _rename_key(name: str, norms: set[str]) -> str:
    head, _, leaf = name.rpartition(".")
    if head in norms and not head.endswith(".bn"):  # torch's own BatchNorm: weight and bias are its gain and bias
        name = {"weight": f"{head}.gain", "bias": name}.get(leaf, f"{head}.bn.{leaf}")
    parts = name.split(".")
    if parts[0] == "blocks" and len(parts) > 3 and parts[2] == "0":
        return ".".join(["steps", parts[1], _LAYER_NAMES.get(parts[3], parts[3]), *parts[4:]])
    return ".".join([_OUTER_NAMES.get(parts[0], parts[0]), *parts[1:]])
