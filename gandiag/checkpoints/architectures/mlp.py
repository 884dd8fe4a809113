"""Linear layers only: (B, inputs) to vectors, or to flat images."""

from __future__ import annotations

from gandiag.checkpoints.inference.layer_list import (
    ArchitectureMismatch,
    LayerWeights,
    count_modules_between,
    parse_layers,
)
from gandiag.checkpoints.inference.layer_specs import LayerSpec, linear_layer_spec, norm_layer_spec
from gandiag.checkpoints.inference.output_activation import resolve_flat_output
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """A stack of Linear and BatchNorm1d.

    ArchitectureMismatch if anything else is in the file, or the widths do not match.
    """
    layers = parse_layers(weights, with_affine=True)
    if any(layer.kind == "kernel" for layer in layers) or not layers or layers[0].kind != "linear":
        raise ArchitectureMismatch("it is not made of linear layers only")
    modules_between = count_modules_between(layers, weights.module_names)
    open_norms = not any(layer.kind in ("norm", "affine") for layer in layers)
    layer_specs, width = stack_linear_layers(layers, modules_between, open_norms=open_norms)
    output, activation, assumptions = resolve_flat_output(width, modules_between[-1], config)
    return SequentialSpec("mlp", tuple(layer_specs), layers[0].shape[1], False, output, activation, assumptions)


def stack_linear_layers(
    layers: list[LayerWeights], modules_between: list[int | None], *, open_norms: bool = False
) -> tuple[list[LayerSpec], int]:
    """Specs of linear layers and BatchNorm with activations between them, and the width of the last one.

    `open_norms`: no layer of the file is a norm, so gaps may hold norms without weights.
    """
    layer_specs: list[LayerSpec] = []
    width = layers[0].shape[1]
    for index, layer in enumerate(layers):
        if layer.keeps_channels and layer.accepts_channels(width):
            layer_specs.append(norm_layer_spec(layer, spatial=False))
        elif layer.kind == "linear" and layer.shape[-1] == width:
            layer_specs.append(linear_layer_spec(layer))
            width = layer.shape[0]
        else:
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {width} values before it"
            )
        if index + 1 < len(layers):
            layer_specs += activation_layer_specs(
                layer, layers[index + 1], modules_between[index], open_norms=open_norms
            )
    return layer_specs, width


def activation_layer_specs(
    layer: LayerWeights, next_layer: LayerWeights, n_modules: int | None, *, open_norms: bool = False
) -> list[LayerSpec]:
    """The weightless modules between two layers: an activation, and possibly a second module.

    That one may be dropout, or a norm or another layer without weights; with `open_norms`, such a layer is possible
    where the file does not tell.
    """
    if not has_activation_between(layer, next_layer, n_modules):
        return []
    specs = [LayerSpec("activation"), LayerSpec("dropout")] if n_modules == 2 else [LayerSpec("activation")]
    is_open = open_norms if n_modules is None else n_modules > 1
    return surround_with_norms(specs) if is_open else specs


def surround_with_norms(specs: list[LayerSpec]) -> list[LayerSpec]:
    """These modules with gaps before and after them that may hold a layer without weights."""
    return [LayerSpec("norm_before"), *specs, LayerSpec("norm_after")]


def has_activation_between(layer: LayerWeights, next_layer: LayerWeights, n_modules: int | None) -> bool:
    """Whether an activation follows this layer.

    Where the file does not tell: yes, except between a layer and its norm. A PReLU is an activation itself.
    """
    if "prelu" in (layer.kind, next_layer.kind):
        return False
    if n_modules is not None:
        return bool(n_modules)
    return layer.keeps_channels or not next_layer.keeps_channels
