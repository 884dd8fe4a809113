"""The discriminator in the state of `gandiag train`: one flat vector beside the generator's file, and config.json that says what it is.

A layer's weights stand in it before its bias, in the order of registration; under spectral normalisation the bias comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gandiag.checkpoints.architectures.discriminator import DiscriminatorSpec, strided_conv_layer_spec
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights, parse_layers
from gandiag.checkpoints.inference.sequential import LayerSpec, batchnorm_layer_spec, linear_layer_spec
from gandiag.checkpoints.metadata import read_file_metadata
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.readers import read_checkpoint
from gandiag.checkpoints.sidecar_config import read_checkpoint_config
from gandiag.checkpoints.state_dict import Weights
from gandiag.interfaces import Assumption, OutputSpec

LOSS_TYPES = {"minimax": "bce", "non-saturating": "bce"}
_BY_REMEDY = {"wgan-gp": "wasserstein", "relativistic": "relativistic"}
_SAME_D = {
    "none",
    "unrolled",
    "r1",
    "mode-seeking",
    "wgan-gp",
    "relativistic",
    "spectral",
    "packing",
}  # remedies whose D this file knows
_PACK = 2


def find_state_file(path: Path) -> Path | None:
    """The trainer's state that belongs to this generator's file, if there is one."""
    folder = path.parent.parent if path.parent.name == "snapshots" else path.parent
    found = folder / "state.pt"
    return found if read_file_metadata(path).run_info and found.is_file() and not found.is_symlink() else None


def read_saved_discriminator(path: Path, output: OutputSpec) -> tuple[DiscriminatorSpec, str]:
    """D of a generator's file, and the loss that it was trained with. NotThis where the state is another step's, or D no plain chain."""
    state = find_state_file(path)
    assert state is not None
    settings, run = read_checkpoint_config(state), read_file_metadata(path).run_info
    tree = read_checkpoint(str(state), compute_hash=False).tree
    try:
        steps, vector, buffers = tree["steps"], tree["discriminator"]["adam"][0], tree["discriminator"]["buffers"]
        remedies, recipe = str(settings["remedy"]).split("+"), settings["recipe"]
        ask = recipe["discriminator"]
        loss = next((_BY_REMEDY[name] for name in remedies if name in _BY_REMEDY), LOSS_TYPES[recipe["loss"]])
    except (KeyError, TypeError, IndexError):
        raise ArchitectureMismatch("state.pt or config.json is not as `gandiag train` writes them") from None
    if steps != run.get("step"):
        raise ArchitectureMismatch(
            f"the trainer's state.pt is that of step {steps:,}, and this generator is of step {run.get('step')}"
        )
    unknown = [name for name in remedies if name not in _SAME_D]
    if unknown:
        raise ArchitectureMismatch(f"under the remedy {unknown[0]}, D has layers that look at a whole minibatch")
    try:
        return _judge(ask, output, _Vector(vector, list(buffers)), set(remedies)), loss
    except (KeyError, TypeError, ValueError, RuntimeError) as wrong:
        raise ArchitectureMismatch(f"state.pt does not fit the networks that config.json describes ({wrong})") from None


class _Vector:
    """Parameters off the front of a vector, buffers off the front of a list."""

    def __init__(self, vector: Tensor, buffers: list[Tensor]) -> None:
        self._vector, self._buffers, self._at = vector, buffers, 0

    def take(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        part = self._vector[self._at : self._at + size].reshape(shape)
        self._at += size
        return part

    def buffer(self) -> Tensor:
        return self._buffers.pop(0)

    def demand_empty(self) -> None:
        if self._at != len(self._vector) or self._buffers:
            raise ValueError(f"{len(self._vector):,} parameters, of which {self._at:,} are explained")


def _judge(ask: Mapping[str, Any], output: OutputSpec, kept: _Vector, remedies: set[str]) -> DiscriminatorSpec:
    pack = _PACK if "packing" in remedies else 1
    shape = (output.shape[0] * pack, *output.shape[1:])
    spectral, conv = "spectral" in remedies, ask["kind"] == "conv"
    if ask["kind"] not in ("mlp", "conv") or ask["activation"].startswith("maxout"):
        raise ArchitectureMismatch(f"its D ({ask['kind']}, {ask['activation']}) is not among those that are rebuilt")
    width, side, tensors = (shape[0] if conv else math.prod(shape)), shape[-1], dict[str, Tensor]()
    for place, out in enumerate(ask["hidden"]):
        tensors |= _map(kept, f"{2 * place}", (out, width, 3, 3) if conv else (out, width), spectral)
        if ask["norm"]:
            tensors |= {f"{2 * place + 1}.{leaf}": kept.take(out) for leaf in ("weight", "bias")}
            tensors |= {
                f"{2 * place + 1}.{leaf}": kept.buffer()
                for leaf in ("running_mean", "running_var", "num_batches_tracked")
            }
        width, side = out, -(-side // 2)
    tensors |= _map(kept, f"{2 * len(ask['hidden'])}", (1, width * side * side if conv else width), spectral)
    kept.demand_empty()
    steps = _steps(parse_layers(fold_weight_norms(Weights(tensors))), conv)
    said = Assumption("D: networks and loss", "as the run's config.json says", "file")
    return DiscriminatorSpec(
        f"{ask['kind']} of gandiag train",
        steps,
        shape,
        (ask["activation"],),
        (1e-5,),
        float(ask["scale"]),
        pack,
        (said,),
    )


def _map(kept: _Vector, name: str, shape: tuple[int, ...], spectral: bool) -> dict[str, Tensor]:
    if not spectral:
        return {f"{name}.weight": kept.take(*shape), f"{name}.bias": kept.take(shape[0])}
    bias, weight = kept.take(shape[0]), kept.take(*shape)
    return {
        f"{name}.parametrizations.weight.original": weight,
        f"{name}.parametrizations.weight.0._u": kept.buffer(),
        f"{name}.parametrizations.weight.0._v": kept.buffer(),
        f"{name}.bias": bias,
    }


def _steps(layers: list[LayerWeights], conv: bool) -> tuple[LayerSpec, ...]:
    steps: list[LayerSpec] = [] if conv else [LayerSpec("flatten")]
    for place, layer in enumerate(layers):
        last = place + 1 == len(layers)
        if layer.kind == "norm":
            steps.append(batchnorm_layer_spec(layer, spatial=conv))
        elif layer.kind == "kernel":
            steps.append(strided_conv_layer_spec(layer, 2, 1))
        else:
            steps += [*([LayerSpec("flatten")] if conv else []), linear_layer_spec(layer)]
        if not last and layers[place + 1].kind != "norm":
            steps.append(LayerSpec("activation"))
    return tuple(steps)
