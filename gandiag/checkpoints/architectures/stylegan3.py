"""StyleGAN3 (t, r) and StyleGAN-XL, as network pickles or state dicts: mapping.*, synthesis.L<n>_<size>_<channels>.*.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks"; Sauer et al. 2022, "StyleGAN-XL: Scaling StyleGAN to
Large Diverse Datasets". What tensors do not show (the scale of the output, the clamp, the learning-rate multiplier of
the mapping) a network pickle states. All arithmetic is in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
    count_mapping_layers,
)
from gandiag.checkpoints.architectures.stylegan3_layers import (
    PretrainedMapping,
    StyleGan3,
    SynthesisPlan,
    has_layers,
    plan_synthesis,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption

_ORIGIN = "NVIDIA"
_CHECK_SAMPLES = 512


class _Settings(NamedTuple):
    """What tensors do not show: the file's values, else NVIDIA's defaults. `stated`: names of those in the file."""

    lr_multiplier: Any = None
    clamp: float | None = 256.0
    output_scale: float = 0.25
    stated: frozenset[str] = frozenset()

    def assume(self, setting: str, value: Any, note: str) -> Assumption:
        """The value with its source."""
        if setting in self.stated:
            return Assumption(setting, value, "file", note=note)
        return Assumption(setting, value, "family", _ORIGIN, note=note)


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A StyleGAN3 or StyleGAN-XL; settings of a pickled network must agree with the shapes.

    ArchitectureMismatch unless the keys are mapping.fc*, synthesis.input.*, synthesis.L*.
    """
    tensors = _drop_unused_embedding(weights.tensors)
    if not has_layers(tensors):
        raise ArchitectureMismatch("")
    if "mapping.fc0.weight" not in tensors or "synthesis.input.freqs" not in tensors:
        raise ArchitectureMismatch("mapping.fc0.weight or synthesis.input.freqs is missing")
    plan = plan_synthesis(tensors)
    settings = _read_settings(weights.structure, weights.extra_settings, plan)
    n_layers = count_mapping_layers(tensors)
    lr_multiplier = infer_lr_multiplier(tensors["mapping.fc0.weight"], settings.lr_multiplier, n_layers)
    with torch.device("meta"):
        net = StyleGan3(tensors, lr_multiplier.value, settings.clamp, settings.output_scale)
    mapping, synthesis = net.mapping, net.synthesis
    is_xl = isinstance(mapping, PretrainedMapping)
    if isinstance(mapping, MappingNetwork):  # before styles are drawn from it
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
    variant = "StyleGAN-XL" if is_xl else f"StyleGAN3-{_infer_variant(tensors, plan)}"
    assumptions = (
        *latent_assumptions,
        *assume_classes(mapping.classes, "as a pretrained embedding" if is_xl else "as one-hot vectors"),
        lr_multiplier,
        _state_w_avg(net),
        Assumption("synthesis", variant, "shapes", note=f"{len(plan.layers)} layers to {plan.resolution} pixels"),
        settings.assume("conv_clamp", settings.clamp, "float32 throughout"),
        settings.assume("output_scale", settings.output_scale, "factor on the last layer's output"),
        range_assumption,
    )
    condition = ("index" if is_xl else "onehot") if mapping.classes else None
    family = "StyleGAN-XL" if is_xl else "StyleGAN3"
    return RebuiltGenerator(family, net, latent, output, mapping.classes, condition, assumptions)  # type: ignore[arg-type]


def _drop_unused_embedding(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors without the class embedding that StyleGAN-XL keeps, unused, in networks without classes."""
    is_unused = "mapping.embed.bias" not in tensors and "mapping.embed_proj.weight" not in tensors
    return {name: entry for name, entry in tensors.items() if not (is_unused and name == "mapping.embed.weight")}


def _infer_variant(tensors: Mapping[str, Tensor], plan: SynthesisPlan) -> str:
    """r (1x1 kernels: rotation turns the image too), or t (translation alone)."""
    return "r" if tensors[f"synthesis.{plan.layers[0].name}.weight"].shape[-1] == 1 else "t"


def _state_w_avg(net: StyleGan3) -> Assumption:
    mapping = net.mapping
    if isinstance(mapping, PretrainedMapping):
        return Assumption("w_avg", "w_avg", "file", note="one mean style for every class")
    if not mapping.has_w_avg:
        return assume_own_w_avg(W_AVG_SAMPLES)
    return check_w_avg("w_avg", mapping.w_avg, mapping.sample_w(_CHECK_SAMPLES))


def _read_settings(structure: ModuleNode | None, extra_settings: Mapping[str, Any], plan: SynthesisPlan) -> _Settings:
    """Settings of the network pickle, else of a config.json.

    ArchitectureMismatch where a layer's factors or padding differ from those that the filters and sizes give.
    """
    nodes = {} if structure is None else dict(structure.named_modules())
    first = f"synthesis.{plan.layers[0].name}"
    found: dict[str, Any] = {}
    for field, node_name, attribute in (
        ("lr_multiplier", "mapping.fc0", "bias_gain"),
        ("conv_clamp", first, "conv_clamp"),
        ("output_scale", "synthesis", "output_scale"),
    ):
        value = nodes[node_name].settings.get(attribute, ...) if node_name in nodes else extra_settings.get(field, ...)
        if value is None or (isinstance(value, (int, float)) and 0 < value < 1e6):
            found[field] = value
    for layer in plan.layers:
        node = nodes.get(f"synthesis.{layer.name}")
        expected = {"up_factor": layer.up, "down_factor": layer.down, "padding": [*layer.padding, *layer.padding]}
        for attribute, value in expected.items():
            if node is not None and node.settings.get(attribute, value) != value:
                raise ArchitectureMismatch(f"{attribute} of {layer.name} is not {value}, as its filters say")
    return _Settings(
        found.get("lr_multiplier"),
        found.get("conv_clamp", 256.0),
        found.get("output_scale") or 0.25,
        frozenset(found),
    )
