"""Norms with gain and bias but without statistics, over maps: InstanceNorm, GroupNorm, or LayerNorm over channels.

All three hold two vectors of one entry per channel. The version that torch writes beside a module's name tells
InstanceNorm (2) from GroupNorm (1), and so may the name; the number of groups is nowhere. Each number that divides the
channels is another network, so it is an open setting, which --hidden-norm answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import UNDECIDED, Assumption

_GROUPS = (32, 16, 8, 4, 2)
_BATCH_NAME = re.compile(r"(^|[._])(bn|batch_?norm)\d*($|[._])", re.IGNORECASE)
_INSTANCE_NAME = re.compile(r"(^|[._])(in|inst|instance_?norm)\d*($|[._])", re.IGNORECASE)
_GROUP_NAME = re.compile(r"(^|[._])(gn|group_?norm)\d*($|[._])", re.IGNORECASE)
_INSTANCE_VERSION = 2  # of the state dicts of BatchNorm and InstanceNorm; other modules have 1


def state_affine_norms(spec: SequentialSpec, weights: Weights, config: AuditConfig) -> SequentialSpec:
    """The spec with the norms that its gains and biases may belong to, and an assumption about them.

    ArchitectureMismatch for BatchNorm without its statistics; LoadError where --hidden-norm does not fit.
    """
    layers = [layer.weights for layer in spec.layer_specs if layer.kind == "affine_norm" and layer.weights is not None]
    if not layers:
        return spec
    nameless = next((layer.name for layer in layers if _BATCH_NAME.search(layer.name)), None)
    if nameless is not None:
        raise ArchitectureMismatch(
            f"{nameless} is a BatchNorm without its running statistics: the file keeps parameters alone"
        )
    norms, source = _list_norms(layers, weights)
    note = "a norm with gain and bias"
    if config.hidden_norm is not None:
        if config.hidden_norm not in norms:
            raise LoadError(
                f"--hidden-norm {config.hidden_norm} contradicts the weights, whose norms have gain and bias over "
                f"{', '.join(str(layer.shape[0]) for layer in layers[:4])} channels",
                f"choose from: {', '.join(norms)}",
            )
        norms, source = (config.hidden_norm,), "flag"
    elif source == UNDECIDED:
        note += "; or BatchNorm, if the file leaves its statistics out"
    assumption = Assumption("hidden_norm", norms[0], source, layers=tuple(layer.name for layer in layers), note=note)
    variants = tuple(state_affine_norms(variant, weights, config) for variant in spec.variants)
    return replace(spec, affine_norms=norms, affine_assumption=assumption, variants=variants)


def _list_norms(layers: Sequence[LayerWeights], weights: Weights) -> tuple[tuple[str, ...], str]:
    """The norms that fit, the likeliest first, and what tells."""
    channels = [layer.shape[0] for layer in layers]
    groups = [n for n in _GROUPS if all(count % n == 0 and count > n for count in channels)]
    grouped = (*(f"group:{n}" for n in groups), "layer")
    versions = {weights.module_versions.get(layer.name) for layer in layers}
    names = [layer.name for layer in layers]
    if versions == {_INSTANCE_VERSION} or all(map(_INSTANCE_NAME.search, names)):
        return ("instance",), "metadata"
    if versions == {1} or all(map(_GROUP_NAME.search, names)):
        return grouped, "metadata" if len(grouped) == 1 else "default"
    return ("instance", *grouped), UNDECIDED
