"""Reads the discriminator from the state of `gandiag train`: one flat vector in state.pt, described by config.json.

A layer's weights precede its bias, in registration order; under spectral normalization the bias comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gandiag.checkpoints.architectures.discriminator import DiscriminatorSpec
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights, parse_layers
from gandiag.checkpoints.inference.layer_specs import (
    LayerSpec,
    batchnorm_layer_spec,
    linear_layer_spec,
    strided_conv_layer_spec,
)
from gandiag.checkpoints.metadata import read_checkpoint_config, read_file_metadata
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.readers import read_checkpoint
from gandiag.checkpoints.state_dict import Weights
from gandiag.errors import ConfigError, PluginError
from gandiag.interfaces import Assumption, OutputSpec
from gandiag.registry import import_target

if TYPE_CHECKING:
    from gandiag.trainer.remedies.base import Remedy


def find_state_file(path: Path) -> Path | None:
    """The trainer's state.pt that belongs to this generator's file, if there is one."""
    folder = path.parent.parent if path.parent.name == "snapshots" else path.parent
    state = folder / "state.pt"
    return state if read_file_metadata(path).run_info and state.is_file() and not state.is_symlink() else None


def read_saved_discriminator(path: Path, output: OutputSpec) -> tuple[DiscriminatorSpec, str]:
    """The discriminator of a generator's file, and the loss it was trained with.

    ArchitectureMismatch if the state is of another step, or if D is not a sequential network.
    """
    state = find_state_file(path)
    assert state is not None
    settings, run_info = read_checkpoint_config(state), read_file_metadata(path).run_info
    tree = read_checkpoint(str(state), compute_hash=False).tree
    try:
        step, discriminator = tree["steps"], tree["discriminator"]
        parameters, buffers = discriminator["adam"][0], discriminator["buffers"]
        remedy_name, recipe = str(settings["remedy"]), settings["recipe"]
        network, loss_name = recipe["discriminator"], str(recipe["loss"])
    except (KeyError, TypeError, IndexError):
        raise ArchitectureMismatch("state.pt or config.json is not as `gandiag train` writes it") from None
    if step != run_info.get("step"):
        raise ArchitectureMismatch(
            f"state.pt is from step {step:,}, and this generator is from step {run_info.get('step')}"
        )
    remedy = _get_remedy(remedy_name)
    if remedy.wrap_discriminator is not None and remedy.adds_layers:
        raise ArchitectureMismatch(f"with the remedy {remedy.name}, D has layers that act on a whole minibatch")
    loss = _get_loss_type(remedy, loss_name)
    try:
        return _build_spec(network, output, _FlatState(parameters, list(buffers)), remedy), loss
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArchitectureMismatch(f"state.pt does not fit the networks that config.json describes ({error})") from None


def _get_remedy(name: str) -> Remedy:
    """The remedy of a run; ArchitectureMismatch unless it is built in.

    The name comes from a file, so no plug-in may be imported for it. The trainer is a layer above this one, so its
    registry is reached by name.
    """
    get_remedy = import_target("gandiag.trainer.remedies.registry:get_remedy")
    try:
        remedy: Remedy = get_remedy(name, builtin_only=True)
    except (ConfigError, PluginError) as error:
        raise ArchitectureMismatch(f"the remedy in config.json is not supported: {error.message}") from None
    return remedy


def _get_loss_type(remedy: Remedy, loss_name: str) -> str:
    """What D's logits mean: bce, wasserstein or relativistic."""
    loss = remedy.loss or import_target("gandiag.trainer.remedies.losses:LOSSES").get(loss_name)
    if loss is None or loss.type is None:
        raise ArchitectureMismatch(f"the loss {loss_name!r} in config.json is not supported")
    return str(loss.type)


class _FlatState:
    """Takes parameters from the front of a flat vector, and buffers from the front of a list."""

    def __init__(self, parameters: Tensor, buffers: list[Tensor]) -> None:
        self._parameters, self._buffers, self._position = parameters, buffers, 0

    def take_parameter(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        part = self._parameters[self._position : self._position + size].reshape(shape)
        self._position += size
        return part

    def take_buffer(self) -> Tensor:
        return self._buffers.pop(0)

    def require_empty(self) -> None:
        """ValueError if anything is left."""
        if self._position != len(self._parameters) or self._buffers:
            raise ValueError(f"{len(self._parameters):,} parameters, of which {self._position:,} are used")


def _build_spec(network: Mapping[str, Any], output: OutputSpec, state: _FlatState, remedy: Remedy) -> DiscriminatorSpec:
    if network["kind"] not in ("mlp", "conv") or network["activation"].startswith("maxout"):
        raise ArchitectureMismatch(f"gandiag does not rebuild its D ({network['kind']}, {network['activation']})")
    shape = (output.shape[0] * remedy.pack_size, *output.shape[1:])
    is_conv = network["kind"] == "conv"
    tensors = _take_tensors(network, shape, state, spectral=remedy.wrap_discriminator is not None)
    state.require_empty()
    return DiscriminatorSpec(
        f"{network['kind']} of gandiag train",
        _list_layer_specs(parse_layers(fold_weight_norms(Weights(tensors))), is_conv),
        shape,
        (network["activation"],),
        (1e-5,),
        float(network["scale"]),
        remedy.pack_size,
        (Assumption("discriminator.config", "as in the run's config.json", "file", "config.json"),),
    )


def _take_tensors(
    network: Mapping[str, Any], shape: tuple[int, ...], state: _FlatState, *, spectral: bool
) -> dict[str, Tensor]:
    """The named tensors of the network's layers; convolutions halve the image size, rounding up."""
    is_conv, hidden = network["kind"] == "conv", network["hidden"]
    width, size = (shape[0] if is_conv else math.prod(shape)), shape[-1]
    tensors: dict[str, Tensor] = {}
    for index, out in enumerate(hidden):
        tensors |= _take_layer(state, f"{2 * index}", (out, width, 3, 3) if is_conv else (out, width), spectral)
        if network["norm"]:
            norm = f"{2 * index + 1}"
            tensors |= {f"{norm}.{leaf}": state.take_parameter(out) for leaf in ("weight", "bias")}
            buffers = ("running_mean", "running_var", "num_batches_tracked")
            tensors |= {f"{norm}.{leaf}": state.take_buffer() for leaf in buffers}
        width, size = out, -(-size // 2)
    last_width = width * size * size if is_conv else width
    return tensors | _take_layer(state, f"{2 * len(hidden)}", (1, last_width), spectral)


def _take_layer(state: _FlatState, name: str, shape: tuple[int, ...], spectral: bool) -> dict[str, Tensor]:
    if not spectral:
        return {f"{name}.weight": state.take_parameter(*shape), f"{name}.bias": state.take_parameter(shape[0])}
    bias, weight = state.take_parameter(shape[0]), state.take_parameter(*shape)
    return {
        f"{name}.parametrizations.weight.original": weight,
        f"{name}.parametrizations.weight.0._u": state.take_buffer(),
        f"{name}.parametrizations.weight.0._v": state.take_buffer(),
        f"{name}.bias": bias,
    }


def _list_layer_specs(layers: list[LayerWeights], is_conv: bool) -> tuple[LayerSpec, ...]:
    specs: list[LayerSpec] = [] if is_conv else [LayerSpec("flatten")]
    for index, layer in enumerate(layers):
        if layer.kind == "norm":
            specs.append(batchnorm_layer_spec(layer, spatial=is_conv))
        elif layer.kind == "kernel":
            specs.append(strided_conv_layer_spec(layer, 2, 1))
        else:
            specs += [*([LayerSpec("flatten")] if is_conv else []), linear_layer_spec(layer)]
        is_last = index + 1 == len(layers)
        if not is_last and layers[index + 1].kind != "norm":
            specs.append(LayerSpec("activation"))
    return tuple(specs)
