"""Finds the generator inside a checkpoint: keys, averages, prefixes.

A *group* is a mapping of names to tensors. Groups are found anywhere in the tree, named by their path, and given a role
by that name; where names do not help, the shapes decide (`recognise.py`). Averaged weights are preferred, and said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.key_names import numeric_sort_key, parse_role, strip_wrapper_prefixes
from gandiag.checkpoints.network_kind import infer_network_kind
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.tensor_checks import iter_tensors
from gandiag.errors import LoadError, close_match_hint

_BUFFERS = re.compile(
    r"running_mean|running_var|num_batches_tracked|noise_const|noise_\d+|resample_filter|w_avg|kernel"
)
_SPLIT_ROLES = ("average", "generator", "discriminator")


@dataclass(frozen=True, slots=True)
class Weights:
    """One network's tensors, in order, under clean names. `modules`: every module's name, in order of registration, if known.

    `path`: where they stood in the file ("" for the whole file). `why`: which were used, and what else there was.
    `structure`: what a pickled module says of itself beside its tensors. `beside`: settings around them, in the file or its folder.
    """

    tensors: Mapping[str, Tensor]
    module_names: tuple[str, ...] | None = None
    path: str = ""
    selection_reason: str = "the whole file"
    notes: tuple[str, ...] = field(default=())
    structure: ModuleNode | None = None
    extra_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_parameters(self) -> int:
        """Trainable numbers: buffers are not counted."""
        return sum(
            tensor.numel()
            for name, tensor in self.tensors.items()
            if not _is_buffer(name) and not _is_iteration(name, self.tensors)
        )


def find_generator_weights(
    tree: Any, *, key: str | None = None, prefer: str = "ema", keys_ordered: bool = True, name: str = "the file"
) -> Weights:
    """The generator's weights in a loaded tree. LoadError with the candidates if there is none, or more than one."""
    groups = _groups(tree, keys_ordered)
    if key is not None:
        return _by_key(groups, key, name)
    if not groups:
        raise _nothing(tree, name)
    by_role: dict[str, list[Weights]] = {}
    for group in groups:
        by_role.setdefault(parse_role(group.path)[0], []).append(group)
    averages, raw = by_role.get("average", []), by_role.get("generator", [])
    if averages or raw:
        return _named(averages, raw, prefer, name)
    others = by_role.get("other", [])
    if not others:
        raise _no_generator(groups, name)
    return _one_of(_plausible(others, name), name, "")


def find_discriminator_weights(tree: Any, *, keys_ordered: bool = True, include_other: bool = False) -> list[Weights]:
    """Every group that its name calls a discriminator; with `unnamed`, of a file that is called one, the groups whose names say nothing."""
    groups = _groups(tree, keys_ordered)
    named = [group for group in groups if parse_role(group.path)[0] == "discriminator"]
    return named or [group for group in groups if include_other and parse_role(group.path)[0] == "other"]


def _named(averages: list[Weights], raw: list[Weights], prefer: str, name: str) -> Weights:
    if prefer == "raw" and not raw:
        raise LoadError(f"{name} holds only averaged weights: {_names(averages)}", "leave --weights raw out")
    if not averages or prefer == "raw":
        chosen = _one_of(raw, name, "")
        other = f"; its EMA copy {averages[0].path} is there too: --weights ema" if averages else ""
        return replace(chosen, selection_reason=f"{chosen.path}{other}")
    chosen = _completed(_one_of(averages, name, ""), raw)
    beside = f"; the raw {_names(raw)} is there too: --weights raw" if raw else ""
    return replace(chosen, selection_reason=f"{chosen.path} (EMA copy{beside})")


def _one_of(groups: list[Weights], name: str, why: str) -> Weights:
    if len(groups) == 1:
        return replace(groups[0], selection_reason=groups[0].path or "the whole file")
    listed = ", ".join(f"{group.path} ({_millions(group.n_parameters)} parameters)" for group in groups[:5])
    raise LoadError(
        f"{name} holds {len(groups)} networks that could be the generator: {listed}",
        f"choose one: --key {groups[0].path}",
    )


def _plausible(groups: list[Weights], name: str) -> list[Weights]:
    """Groups without a telling name, by their shapes: a single one is taken as it is, and judged later."""
    if len(groups) == 1:
        return groups
    fitting = [group for group in groups if infer_network_kind(group.tensors)[0] == "generator"]
    return fitting or groups


def _by_key(groups: list[Weights], key: str, name: str) -> Weights:
    for group in groups:
        if group.path == key:
            return replace(group, selection_reason=f"{key} (by --key)")
    for group in groups:
        inner = key.removeprefix(group.path + ".") if group.path else key
        if inner != key or not group.path:
            part = _part(group, inner, key)
            if part.tensors:
                return replace(part, selection_reason=f"{key} (by --key)")
    raise LoadError(
        f"{name} has no weights at {key!r}",
        close_match_hint(key, [group.path or "(the whole file)" for group in groups]) if groups else "leave --key out",
    )


# groups in a tree


def _groups(tree: Any, ordered: bool, path: str = "", depth: int = 0) -> list[Weights]:
    if isinstance(tree, nn.Module):
        return [_group(tree.state_dict(), path, ordered)]
    if (
        isinstance(tree, (list, tuple))
        and tree
        and all(isinstance(entry, Tensor) for entry in tree)
        and parse_role(path)[0] == "average"
    ):
        return [Weights({str(index): entry for index, entry in enumerate(tree)}, None, path)]
    if not isinstance(tree, Mapping) or depth > 6 or "param_groups" in tree:
        return []
    if _is_group(tree):
        return _split(_group(tree, path, ordered))
    found = []
    for key, entry in tree.items():
        if parse_role(str(key))[0] != "optimizer":
            found += _groups(entry, ordered, f"{path}.{key}".strip("."), depth + 1)
    return found


def _is_group(tree: Mapping[Any, Any]) -> bool:
    """Names to tensors, at least one of them a matrix or a kernel, and loose numbers at most."""
    tensors = [entry for entry in tree.values() if isinstance(entry, Tensor)]
    matrices = any(entry.ndim >= 2 for entry in tensors)
    return (
        matrices
        and all(isinstance(key, str) for key in tree)
        and all(isinstance(entry, (Tensor, int, float)) for entry in tree.values())
    )


def _group(tree: Mapping[str, Any], path: str, ordered: bool) -> Weights:
    tensors = {name: entry.detach() for name, entry in tree.items() if isinstance(entry, Tensor)}
    names = strip_wrapper_prefixes(tensors)
    if len(set(names.values())) != len(names):
        raise LoadError(
            f"two keys of {path or 'the state dict'} are the same once wrappers' prefixes are off",
            "save the unwrapped model's state dict",
        )
    clean = {new: tensors[old] for old, new in names.items()}
    if not ordered:
        clean = {name: clean[name] for name in sorted(clean, key=numeric_sort_key)}
    return Weights(
        clean,
        _modules(getattr(tree, "_metadata", None)),
        path,
        notes=_averaged(tensors),
        structure=getattr(tree, "structure", None),
    )


def _averaged(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What torch's AveragedModel counts beside its weights."""
    count = tensors.get("n_averaged")
    if count is None or count.numel() != 1 or count.is_floating_point() or count.is_complex():
        return ()
    return (f"averaged weights (torch.optim.swa_utils.AveragedModel, updated {int(count):,} times)",)


def _modules(metadata: Any) -> tuple[str, ...] | None:
    """Module names of `state_dict._metadata`, without wrappers' prefixes."""
    if not isinstance(metadata, Mapping):
        return None
    return _clean([str(name) for name in metadata if name])


def _clean(names: list[str]) -> tuple[str, ...] | None:
    inner = [
        name + "."
        for name in names
        if name + "." not in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
    ]
    return tuple(name.rstrip(".") for name in strip_wrapper_prefixes(inner).values()) or None


def _split(group: Weights) -> list[Weights]:
    """A whole GAN in one state dict (Lightning: generator.*, discriminator.*) as its parts; anything else as it is."""
    heads = list(dict.fromkeys(name.split(".", 1)[0] for name in group.tensors if "." in name))
    if "GE" in heads and "G" in heads:
        return [_pair(group, heads, "GE", "SE"), _pair(group, heads, "G", "S")]
    if set(heads) == {"ema_model", "online_model"}:  # ema_pytorch: the average, and what it is taken of
        return [_part(group, head, f"{group.path}.{head}".strip(".")) for head in ("ema_model", "online_model")]
    roles = {head: parse_role(head)[0] for head in heads}
    if not any(found in ("average", "generator") for found in roles.values()) or len(heads) == 1:
        return (
            [_part(group, heads[0], group.path)]
            if len(heads) == 1 and roles[heads[0]] in ("average", "generator")
            else [group]
        )
    # "g" may be one layer among others; only a file that also holds the other side is a whole GAN.
    if "discriminator" not in roles.values() and not all(found in _SPLIT_ROLES for found in roles.values()):
        return [group]
    return [_part(group, head, f"{group.path}.{head}".strip(".")) for head in heads if roles[head] in _SPLIT_ROLES]


def _pair(group: Weights, heads: list[str], pictures: str, styles: str) -> Weights:
    """lucidrains' packages: G makes pictures, S (where there is one) maps z to styles; GE and SE are their averages."""
    if styles not in heads:
        return _part(group, pictures, f"{group.path}.{pictures}".strip("."))
    kept = {head + ".": f"{head[0]}." for head in (styles, pictures)}
    tensors = {
        new + name.removeprefix(old): entry
        for old, new in kept.items()
        for name, entry in group.tensors.items()
        if name.startswith(old)
    }
    return Weights(tensors, None, f"{group.path}.{styles}+{pictures}".strip("."))


def _part(group: Weights, head: str, path: str) -> Weights:
    inside = {
        name.removeprefix(head + "."): tensor for name, tensor in group.tensors.items() if name.startswith(head + ".")
    }
    modules = [name.removeprefix(head + ".") for name in group.module_names or () if name.startswith(head + ".")]
    clean = {new: inside[old] for old, new in strip_wrapper_prefixes(inside).items()}
    return Weights(clean, _clean(modules), path)


def _completed(average: Weights, raw: list[Weights]) -> Weights:
    """Averages that lack names (FastGAN, torch_ema) or buffers take them from the raw copy, where every shape agrees."""
    if not raw:
        return average
    full = raw[0]
    slots = [name for name in full.tensors if not _is_buffer(name) and not _is_iteration(name, full.tensors)]
    if all(name.isdigit() for name in average.tensors) and len(average.tensors) == len(slots):
        if any(
            full.tensors[slot].shape != entry.shape for slot, entry in zip(slots, average.tensors.values(), strict=True)
        ):
            raise LoadError(
                f"{average.path} is a list of {len(slots)} tensors whose shapes do not match {full.path} in order",
                "use --weights raw",
            )
        named = dict(zip(slots, average.tensors.values(), strict=True))
        note = f"{average.path} is a list of {len(slots)} tensors without names, mapped by order onto {full.path}; its buffers come from there"
        return replace(
            full,
            tensors={name: named.get(name, entry) for name, entry in full.tensors.items()},
            path=average.path,
            notes=(note,),
        )
    missing = [name for name in full.tensors if name not in average.tensors]
    if missing and all(_is_buffer(name) for name in missing) and set(average.tensors) <= set(full.tensors):
        note = f"{average.path} has no batch-norm statistics; those of {full.path} are used"
        return replace(
            full,
            tensors={name: average.tensors.get(name, entry) for name, entry in full.tensors.items()},
            path=average.path,
            notes=(note,),
        )
    return average


def _is_buffer(name: str) -> bool:
    return _BUFFERS.fullmatch(name.rsplit(".", 1)[-1]) is not None


def _is_iteration(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """A vector of spectral norm's power iteration: a buffer, though weight norm calls a parameter by the same name."""
    head, _, leaf = name.rpartition(".")
    old = leaf[-2:] in ("_u", "_v") and f"{name[:-2]}_orig" in tensors
    return old or (leaf in ("_u", "_v") and head.endswith(".0") and head.removesuffix("0") + "original" in tensors)


# when there is nothing to take


def _nothing(tree: Any, name: str) -> LoadError:
    if isinstance(tree, Mapping) and (
        "param_groups" in tree or any(parse_role(str(key))[0] == "optimizer" for key in tree)
    ):
        return LoadError(
            f"{name} holds optimizer state, not weights", "pass the checkpoint that has the generator's state dict"
        )
    if isinstance(tree, Mapping) and tree and not any(True for _ in iter_tensors(tree)):
        listed = ", ".join(str(key)[:30] for key in list(tree)[:5])
        return LoadError(
            f"{name} holds training bookkeeping ({listed}), not weights",
            "pass the checkpoint that has the generator's state dict",
        )
    if isinstance(tree, Tensor):
        return LoadError(
            f"{name} holds one tensor of shape {tuple(tree.shape)}, not a network",
            "pass a state dict, or the samples as .npz",
        )
    return LoadError(f"{name} holds no state dict", "save one: torch.save(generator.state_dict(), ...)")


def _no_generator(groups: list[Weights], name: str) -> LoadError:
    return LoadError(
        f"{name} holds {_names(groups)}, which is no generator", "pass the generator's checkpoint, or choose with --key"
    )


def _names(groups: list[Weights]) -> str:
    return " and ".join(group.path or "one network" for group in groups[:3])


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def cast_to_float32(weights: Weights, *, share_memory: bool = False) -> Weights:
    """Half-precision weights as float32; integers stay. All are copies, unless `borrow`ed: then the file must stay as it is."""
    odd = {
        name for name, entry in weights.tensors.items() if entry.is_floating_point() and entry.dtype != torch.float32
    }
    cast = {
        name: entry.float() if name in odd else entry if share_memory else entry.clone()
        for name, entry in weights.tensors.items()
    }
    return replace(weights, tensors=cast)
