"""Other orders of a state dict's layers: norms declared after the layers, keys sorted by name, heads side by side.

A state dict keeps the order of registration, and safetensors the alphabet's; neither need be the order of execution.
Layers are chained by their widths, and norms paired with them by channels, number and order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isqrt

import torch
from torch import Tensor

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights, parse_layers
from gandiag.checkpoints.weight_groups import Weights

MAX_ORDERS = 3  # that are tried
_MAX_STEPS = 4000  # of a search
_MAX_LAYERS = 40


def reorder_layers(weights: Weights) -> list[Weights]:
    """The weights with their layers in other orders that fit, the likeliest first; empty where there is none."""
    try:
        layers = parse_layers(weights, with_affine=True)
    except ArchitectureMismatch:
        return []
    norms = [layer for layer in layers if layer.keeps_channels]
    weighted = [layer for layer in layers if not layer.keeps_channels]
    if not weighted or len(layers) > _MAX_LAYERS:
        return []
    orders = [[layer.name for layer in layers]]
    for chain in (weighted, *_chain(weighted)):
        for paired in _pair_norms(chain, norms):
            names = [layer.name for layer in paired]
            if names not in orders:
                orders.append(names)
    return [_apply_order(weights, names) for names in orders[1 : MAX_ORDERS + 1]]


def _apply_order(weights: Weights, names: list[str]) -> Weights:
    keys = {name: [key for key in weights.tensors if key.rpartition(".")[0] == name] for name in names}
    tensors = {key: weights.tensors[key] for name in names for key in keys[name]}
    return replace(weights, tensors=tensors, module_names=None)


def _widths(layer: LayerWeights) -> list[tuple[int, int]]:
    """Possible (inputs, outputs): a kernel may be a convolution (out, in) or its transpose (in, out)."""
    first, second = layer.shape[:2]
    if layer.kind == "linear" or first == second:
        return [(second, first)]
    return [
        (inputs, outputs)
        for inputs, outputs in ((first, second), (second, first))
        if layer.accepts_out_channels(outputs)
    ]


def _follows(outputs: int, before: LayerWeights, inputs: int, layer: LayerWeights) -> bool:
    if before.kind == "linear" and layer.kind == "kernel":  # with a reshape to square maps between them
        return outputs % inputs == 0 and isqrt(outputs // inputs) ** 2 == outputs // inputs
    return outputs == inputs and not (before.kind == "kernel" and layer.kind == "linear")


def _chain(layers: Sequence[LayerWeights]) -> Iterator[list[LayerWeights]]:
    """Orders in which every layer takes what the one before it gives; linear layers first."""
    steps = 0

    def extend(path: list[LayerWeights], outputs: int, rest: list[LayerWeights]) -> Iterator[list[LayerWeights]]:
        nonlocal steps
        steps += 1
        if not rest:
            yield path
        if steps > _MAX_STEPS:
            return
        for layer in rest:
            for inputs, next_outputs in _widths(layer):
                if not path or _follows(outputs, path[-1], inputs, layer):
                    others = [entry for entry in rest if entry is not layer]
                    yield from extend([*path, layer], next_outputs, others)

    yield from itertools.islice(extend([], 0, sorted(layers, key=lambda layer: layer.kind != "linear")), MAX_ORDERS)


def _number(name: str) -> str:
    digits = re.findall(r"\d+", name)
    return digits[-1] if digits else ""


def _pair_norms(layers: Sequence[LayerWeights], norms: Sequence[LayerWeights]) -> list[list[LayerWeights]]:
    """The layers with every norm after one of its channels, both in their order; those whose numbers agree first."""
    results: list[tuple[int, list[LayerWeights]]] = []

    def fits(layer: LayerWeights, norm: LayerWeights) -> bool:
        channels = norm.shape[0]
        if layer.kind == "linear":
            outputs = layer.shape[0]
            return outputs == channels or (
                outputs % channels == 0 and isqrt(outputs // channels) ** 2 == outputs // channels
            )
        return any(outputs == channels for _, outputs in _widths(layer))

    def place(index: int, used: int, path: list[LayerWeights], agreeing: int) -> None:
        if len(results) >= 4 * MAX_ORDERS:
            return
        if index == len(layers):
            if used == len(norms):
                results.append((agreeing, path))
            return
        layer = layers[index]
        if used < len(norms) and fits(layer, norms[used]):
            same = int(_number(layer.name) == _number(norms[used].name))
            place(index + 1, used + 1, [*path, layer, norms[used]], agreeing + same)
        if len(norms) - used <= len(layers) - index - 1:
            place(index + 1, used, [*path, layer], agreeing)

    place(0, 0, [], 0)
    return [path for _, path in sorted(results, key=lambda entry: -entry[0])]


def join_parallel_heads(weights: Weights) -> Weights | None:
    """The weights with the last two layers side by side, as one; None unless both take and give the same square width.

    Two heads of one network (mean and scale) look exactly like two layers in a row. Numbered layers are in a row.
    """
    try:
        layers = parse_layers(weights)
    except ArchitectureMismatch:
        return None
    if len(layers) < 3 or any(
        layer.kind != "linear" or layer.name.rsplit(".", 1)[-1].isdigit() for layer in layers[-2:]
    ):
        return None
    first, second = layers[-2:]
    if first.shape != second.shape or first.shape[0] != first.shape[1] or set(first.tensors) != set(second.tensors):
        return None
    if layers[-3].kind == "linear" and _number(first.name) and _number(first.name) != _number(second.name):
        return None  # fc1, fc2: layers in a row
    joined: dict[str, Tensor] = {
        f"{first.name}_{second.name.rpartition('.')[2]}.{leaf}": torch.cat([first.tensors[leaf], second.tensors[leaf]])
        for leaf in first.tensors
    }
    own = {f"{layer.name}.{leaf}" for layer in (first, second) for leaf in layer.tensors}
    rest = {key: tensor for key, tensor in weights.tensors.items() if key not in own}
    return replace(weights, tensors={**rest, **joined}, module_names=None)
