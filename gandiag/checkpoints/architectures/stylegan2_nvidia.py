"""StyleGAN2 in the layout of NVIDIA's PyTorch code (stylegan2-ada-pytorch and stylegan3): mapping.*, synthesis.b*.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA), on the StyleGAN2 of Karras et
al. 2020, "Analyzing and Improving the Image Quality of StyleGAN". What tensors do not show (the learning-rate
multiplier of the mapping, the clamp of convolutions) a network pickle states. All arithmetic is in float32, where the
original runs large layers in half precision on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from gandiag.checkpoints.architectures.assumptions import (
    NORMALIZED_LATENT,
    assume_classes,
    assume_image,
    assume_latent,
)
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict
from gandiag.checkpoints.architectures.layers.stylegan2 import (
    UNBOUNDED_OUTPUT,
    assume_own_w_avg,
    check_w_avg,
    infer_lr_multiplier,
)
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.architectures.stylegan2_nvidia_layers import (
    W_AVG_SAMPLES,
    MappingNetwork,
    StyleGan2,
    count_mapping_layers,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption

FAMILY = "StyleGAN2 (NVIDIA)"
_ORIGIN = "NVIDIA"
_DEFAULT_CLAMP = 256.0  # what train.py of stylegan2-ada-pytorch sets
_CHECK_SAMPLES = 512


class _Settings(NamedTuple):
    """What a network pickle or a config.json states. `has_clamp`: it states the clamp, which may be None."""

    lr_multiplier: Any = None
    clamp: float | None = _DEFAULT_CLAMP
    has_clamp: bool = False


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A StyleGAN2 of NVIDIA's code.

    ArchitectureMismatch unless the keys are mapping.fc*, synthesis.b4.const, synthesis.b*.conv1.*.
    """
    tensors = weights.tensors
    if "mapping.fc0.weight" not in tensors or "synthesis.b4.conv1.affine.weight" not in tensors:
        raise ArchitectureMismatch("")
    settings = _read_settings(weights.structure, weights.extra_settings)
    n_layers = count_mapping_layers(tensors)
    lr_multiplier = infer_lr_multiplier(tensors["mapping.fc0.weight"], settings.lr_multiplier, n_layers)
    with torch.device("meta"):
        net = StyleGan2(tensors, lr_multiplier.value, settings.clamp)
    mapping, synthesis = net.mapping, net.synthesis
    # before styles are drawn from it
    sizes = [size for size in (mapping.z_dim, mapping.classes) if size]
    infer_output_shape(mapping, *(torch.empty(2, size, device="meta") for size in sizes))
    load_strict(net, tensors)
    latent, latent_assumptions = assume_latent(
        mapping.z_dim,
        config.prior,
        _ORIGIN,
        prior_note=f"{NORMALIZED_LATENT}, and so is the class embedding" if mapping.classes else NORMALIZED_LATENT,
    )
    shape = (synthesis.channels, synthesis.resolution, synthesis.resolution)
    output, range_assumption = assume_image(shape, config.output_range, _ORIGIN, note=UNBOUNDED_OUTPUT)
    clamp_source, clamp_origin = ("file", "") if settings.has_clamp else ("family", _ORIGIN)
    assumptions = (
        *latent_assumptions,
        *assume_classes(mapping.classes, "as one-hot vectors"),
        lr_multiplier,
        _state_w_avg(mapping),
        Assumption("synthesis", synthesis.architecture, "shapes", note=f"to {synthesis.resolution} pixels"),
        Assumption("conv_clamp", settings.clamp, clamp_source, clamp_origin, note="float32 throughout"),
        range_assumption,
    )
    return RebuiltGenerator(
        FAMILY, net, latent, output, mapping.classes, "onehot" if mapping.classes else None, assumptions
    )


def _state_w_avg(mapping: MappingNetwork) -> Assumption:
    if not mapping.has_w_avg:
        return assume_own_w_avg(W_AVG_SAMPLES)
    return check_w_avg("w_avg", mapping.w_avg, mapping.sample_w(_CHECK_SAMPLES))


def _read_settings(structure: ModuleNode | None, extra_settings: Mapping[str, Any]) -> _Settings:
    """Settings of the network pickle, else of a config.json.

    ArchitectureMismatch for activations that differ from these layers'.
    """
    settings = _Settings(lr_multiplier=extra_settings.get("lr_multiplier"))
    clamp = extra_settings.get("conv_clamp")
    if isinstance(clamp, (int, float)) and clamp > 0:
        settings = settings._replace(clamp=float(clamp), has_clamp=True)
    if structure is None:
        return settings
    nodes = dict(structure.named_modules())
    first, conv = nodes.get("mapping.fc0"), nodes.get("synthesis.b4.conv1")
    if first is not None and isinstance(first.settings.get("bias_gain"), (int, float)):
        settings = settings._replace(lr_multiplier=first.settings["bias_gain"])
    if conv is not None and "conv_clamp" in conv.settings:
        clamp = conv.settings["conv_clamp"]
        settings = settings._replace(clamp=float(clamp) if isinstance(clamp, (int, float)) else None, has_clamp=True)
    for name, node in nodes.items():
        activation = node.settings.get("activation")
        is_lrelu = name.startswith("mapping.fc") or name.endswith((".conv0", ".conv1"))
        expected = "lrelu" if is_lrelu else "linear"
        if isinstance(activation, str) and activation != expected:
            raise ArchitectureMismatch(f"{name} has the activation {activation[:20]}, not {expected}")
    return settings
