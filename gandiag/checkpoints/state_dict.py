"""Chooses the generator's (or discriminator's) state dict in a loaded checkpoint.

Groups of tensors are found anywhere in the tree (`weight_groups.py`) and get a role from their path; where names do not
help, shapes decide (`network_kind.py`). Averaged weights are preferred, and the choice is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gandiag.checkpoints.file_type import FileInfo, unsupported_file_error
from gandiag.checkpoints.key_names import parse_role
from gandiag.checkpoints.network_kind import infer_network_kind
from gandiag.checkpoints.safe_pickle.nodes import ArrayNode
from gandiag.checkpoints.tensor_checks import iter_tensors
from gandiag.checkpoints.weight_groups import Weights, extract_part, find_groups, is_buffer, is_named_buffer
from gandiag.errors import LoadError, close_match_hint

__all__ = ["Weights", "cast_to_float32", "find_discriminator_weights", "find_generator_weights"]


def find_generator_weights(
    tree: Any, *, key: str | None = None, prefer: str = "ema", keys_ordered: bool = True, name: str = "the file"
) -> Weights:
    """The generator's weights in a loaded tree. LoadError lists the candidates if there are none, or several."""
    groups = find_groups(tree, keys_ordered)
    if key is not None:
        return _find_key(groups, key, name)
    if not groups:
        raise _no_weights_error(tree, name)
    by_role: dict[str, list[Weights]] = {}
    for group in groups:
        by_role.setdefault(parse_role(group.path)[0], []).append(group)
    averages, raw = by_role.get("average", []), by_role.get("generator", [])
    if averages or raw:
        return _choose_named(averages, raw, prefer, name)
    others = by_role.get("other", [])
    if not others:
        raise LoadError(
            f"{name} holds {_join_paths(groups)}, which is not a generator",
            "pass the generator's checkpoint, or choose with --key",
        )
    return _require_one(_filter_generators(others), name)


def find_discriminator_weights(tree: Any, *, keys_ordered: bool = True, include_other: bool = False) -> list[Weights]:
    """Every group named as a discriminator. `include_other`: if there is none, the groups whose names give no role."""
    groups = find_groups(tree, keys_ordered)
    discriminators = [group for group in groups if parse_role(group.path)[0] == "discriminator"]
    return discriminators or [group for group in groups if include_other and parse_role(group.path)[0] == "other"]


def cast_to_float32(weights: Weights, *, share_memory: bool = False) -> Weights:
    """The weights with floating-point tensors as float32; integers keep their type.

    All tensors are copies, unless `share_memory`: then the file must not change while they are used.
    """

    def cast(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            return tensor.float()
        return tensor if share_memory else tensor.clone()

    return replace(weights, tensors={name: cast(tensor) for name, tensor in weights.tensors.items()})


def _choose_named(averages: list[Weights], raw: list[Weights], prefer: str, name: str) -> Weights:
    if prefer == "raw" and not raw:
        raise LoadError(f"{name} holds only averaged weights: {_join_paths(averages)}", "leave --weights raw out")
    if not averages or prefer == "raw":
        chosen = _require_one(raw, name)
        other = f"; its EMA copy {averages[0].path} is there too: --weights ema" if averages else ""
        return replace(chosen, selection_reason=f"{chosen.path}{other}")
    chosen = _fill_from_raw(_require_one(averages, name), raw)
    other = f"; the raw {_join_paths(raw)} is there too: --weights raw" if raw else ""
    return replace(chosen, selection_reason=f"{chosen.path} (EMA copy{other})")


def _require_one(groups: list[Weights], name: str) -> Weights:
    if len(groups) == 1:
        return replace(groups[0], selection_reason=groups[0].path or "the whole file")
    listed = ", ".join(f"{group.path} ({_format_count(group.n_parameters)} parameters)" for group in groups[:5])
    raise LoadError(
        f"{name} holds {len(groups)} networks that could be the generator: {listed}",
        f"choose one: --key {groups[0].path}",
    )


def _filter_generators(groups: list[Weights]) -> list[Weights]:
    """Groups shaped like a generator, or all if none is. A single group is kept and checked later."""
    if len(groups) == 1:
        return groups
    generators = [group for group in groups if infer_network_kind(group.tensors)[0] == "generator"]
    return generators or groups


def _find_key(groups: list[Weights], key: str, name: str) -> Weights:
    named = [group for group in groups if group.path == key] or [
        group for group in groups if group.path.endswith("." + key)
    ]
    if len(named) > 1:
        listed = ", ".join(group.path for group in named[:5])
        raise LoadError(f"{name} has several parts that end in {key!r}: {listed}", f"choose one: --key {named[0].path}")
    if named:
        return replace(named[0], selection_reason=f"{named[0].path} (by --key)")
    for group in groups:
        for inner in _inner_keys(group.path, key):
            part = extract_part(group, inner, key)
            if part.tensors:
                return replace(part, selection_reason=f"{key} (by --key)")
    raise LoadError(
        f"{name} has no weights at {key!r}",
        close_match_hint(key, [group.path or "(the whole file)" for group in groups]) if groups else "leave --key out",
    )


def _inner_keys(path: str, key: str) -> list[str]:
    """What may be left of a key below a group: all of it, or what follows the group's path or the path's end."""
    parts = key.split(".")
    heads = [".".join(parts[:count]) for count in range(1, len(parts))]
    shared = [head for head in heads if path == head or path.endswith("." + head)]
    return [key.removeprefix(head + ".") for head in reversed(shared)] + ([] if path else [key])


def _fill_from_raw(average: Weights, raw: list[Weights]) -> Weights:
    """Averages without names (FastGAN, torch_ema) or buffers take them from the raw weights if every shape agrees."""
    if not raw:
        return average
    full = raw[0]
    parameters = [name for name in full.tensors if not is_buffer(name, full.tensors)]
    if all(name.isdigit() for name in average.tensors) and len(average.tensors) == len(parameters):
        values = list(average.tensors.values())
        if any(full.tensors[name].shape != entry.shape for name, entry in zip(parameters, values, strict=True)):
            raise LoadError(
                f"{average.path} is a list of {len(parameters)} tensors whose shapes do not match {full.path} in order",
                "use --weights raw",
            )
        note = (
            f"{average.path} is a list of {len(parameters)} unnamed tensors, matched by order with {full.path}, "
            "whose buffers are used"
        )
        return _merge(full, dict(zip(parameters, values, strict=True)), average.path, note)
    missing = [name for name in full.tensors if name not in average.tensors]
    if missing and all(map(is_named_buffer, missing)) and set(average.tensors) <= set(full.tensors):
        note = f"{average.path} has no BatchNorm statistics; those of {full.path} are used"
        return _merge(full, average.tensors, average.path, note)
    return average


def _merge(full: Weights, tensors: Mapping[str, Tensor], path: str, note: str) -> Weights:
    """`full` with these tensors in place of its own."""
    merged = {name: tensors.get(name, entry) for name, entry in full.tensors.items()}
    return replace(full, tensors=merged, path=path, notes=(note,))


def _no_weights_error(tree: Any, name: str) -> LoadError:
    hint = "pass the checkpoint that has the generator's state dict"
    if isinstance(tree, Tensor):
        return LoadError(
            f"{name} holds one tensor of shape {tuple(tree.shape)}, not a network",
            "pass a state dict, or the samples as .npz",
        )
    if isinstance(tree, Mapping):
        if _holds_flax(tree):
            raise unsupported_file_error(FileInfo(Path(name), "flax-pickle", 0))
        if "param_groups" in tree or any(parse_role(str(key))[0] == "optimizer" for key in tree):
            return LoadError(f"{name} holds optimizer state, not weights", hint)
        if tree and not any(True for _ in iter_tensors(tree)):
            listed = ", ".join(str(key)[:30] for key in list(tree)[:5])
            return LoadError(f"{name} holds training bookkeeping ({listed}), not weights", hint)
    return LoadError(f"{name} holds no state dict", "save one: torch.save(generator.state_dict(), ...)")


def _holds_flax(tree: Any, depth: int = 0) -> bool:
    """Whether a tree nests arrays called kernel, as Flax does."""
    if not isinstance(tree, Mapping) or depth > 8:
        return False
    return isinstance(tree.get("kernel"), ArrayNode) or any(_holds_flax(entry, depth + 1) for entry in tree.values())


def _join_paths(groups: list[Weights]) -> str:
    return " and ".join(group.path or "one network" for group in groups[:3])


def _format_count(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"
