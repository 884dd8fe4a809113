"""Linear layers only: (B, inputs) to vectors, or to flat images."""

from __future__ import annotations

from gandiag.checkpoints.inference.layer_list import (
    ArchitectureMismatch,
    LayerWeights,
    count_modules_between,
    parse_layers,
)
from gandiag.checkpoints.inference.output_activation import resolve_flat_output
from gandiag.checkpoints.inference.sequential import LayerSpec, SequentialSpec, batchnorm_layer_spec, linear_layer_spec
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """A chain of Linear and BatchNorm1d. NotThis if anything else is in the file, or the widths do not follow each other."""
    layers = parse_layers(weights)
    if any(layer.kind == "kernel" for layer in layers) or not layers or layers[0].kind != "linear":
        raise ArchitectureMismatch("it is not made of linear layers alone")
    spacing = count_modules_between(layers, weights.module_names)
    steps, width = stack_linear_layers(layers, spacing)
    output, final, assumed = resolve_flat_output(width, spacing[-1], config)
    return SequentialSpec("mlp", tuple(steps), layers[0].shape[1], False, output, final, assumed)


def stack_linear_layers(layers: list[LayerWeights], modules_between: list[int | None]) -> tuple[list[LayerSpec], int]:
    """Steps of linear layers and norms, activations between them, and the width they end with."""
    steps: list[LayerSpec] = []
    width = layers[0].shape[1]
    for index, layer in enumerate(layers):
        if layer.shape[-1] != width:
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {width} values before it"
            )
        steps.append(linear_layer_spec(layer) if layer.kind == "linear" else batchnorm_layer_spec(layer, spatial=False))
        width = layer.shape[0]
        if index + 1 < len(layers):
            steps += activation_layer_specs(layer, layers[index + 1], modules_between[index])
    return steps, width


def activation_layer_specs(layer: LayerWeights, next_layer: LayerWeights, n_modules: int | None) -> list[LayerSpec]:
    """The modules without weights between two layers: an activation, and a second one: what that is, the statistics say."""
    return (
        [LayerSpec(kind) for kind in ("activation", "dropout")[: 2 if n_modules == 2 else 1]]
        if has_activation_between(layer, next_layer, n_modules)
        else []
    )


def has_activation_between(layer: LayerWeights, next_layer: LayerWeights, n_modules: int | None) -> bool:
    """Does an activation follow this layer? Where the file is silent: yes, but not between a map and its norm."""
    return bool(n_modules) if n_modules is not None else layer.kind == "norm" or next_layer.kind != "norm"
