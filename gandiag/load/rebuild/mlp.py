"""Linear layers only: (B, inputs) to vectors, or to flat images."""

from __future__ import annotations

from gandiag.config import AuditConfig
from gandiag.load.rebuild.chain import Blueprint, Step, linear_step, norm_step
from gandiag.load.rebuild.layers import Layer, NotThis, gaps, layers_of
from gandiag.load.rebuild.outputs import flat_output
from gandiag.load.weights import Weights


def rebuild(weights: Weights, config: AuditConfig) -> Blueprint:
    """A chain of Linear and BatchNorm1d. NotThis if anything else is in the file, or the widths do not follow each other."""
    layers = layers_of(weights)
    if any(layer.kind == "kernel" for layer in layers) or not layers or layers[0].kind != "linear":
        raise NotThis("it is not made of linear layers alone")
    spacing = gaps(layers, weights.modules)
    steps, width = flat_steps(layers, spacing)
    output, final, assumed = flat_output(width, spacing[-1], config)
    return Blueprint("mlp", tuple(steps), layers[0].shape[1], False, output, final, assumed)


def flat_steps(layers: list[Layer], spacing: list[int | None]) -> tuple[list[Step], int]:
    """Steps of linear layers and norms, activations between them, and the width they end with."""
    steps: list[Step] = []
    width = layers[0].shape[1]
    for index, layer in enumerate(layers):
        if layer.shape[-1] != width:
            raise NotThis(f"{layer.key} is {layer.shape}, which does not take the {width} values before it")
        steps.append(linear_step(layer) if layer.kind == "linear" else norm_step(layer, spatial=False))
        width = layer.shape[0]
        if index + 1 < len(layers):
            steps += between(layer, layers[index + 1], spacing[index])
    return steps, width


def between(layer: Layer, following: Layer, gap: int | None) -> list[Step]:
    """The modules without weights between two layers: an activation, and a second one: what that is, the statistics say."""
    return [Step(kind) for kind in ("activation", "dropout")[: 2 if gap == 2 else 1]] if activated(layer, following, gap) else []


def activated(layer: Layer, following: Layer, gap: int | None) -> bool:
    """Does an activation follow this layer? Where the file is silent: yes, but not between a map and its norm."""
    return bool(gap) if gap is not None else layer.kind == "norm" or following.kind != "norm"
