"""Finds every network in a loaded checkpoint: groups of named tensors without wrapper prefixes, whole GANs split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from gandiag.checkpoints.key_names import numeric_sort_key, parse_role, strip_wrapper_prefixes
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.vae_parts import find_decoder_heads, find_unnamed_decoder
from gandiag.errors import LoadError

_BUFFERS = re.compile(
    r"running_mean|running_var|num_batches_tracked|noise_const|noise_\d+|resample_filter|w_avg|kernel"
)
_SPLIT_ROLES = ("average", "generator", "discriminator")
_WRAPPER_MODULES = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
_MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Weights:
    """One network's tensors, in order, under clean names.

    `module_names`: names of all modules in registration order, if known. `module_versions`: of their state dicts, which
    tell BatchNorm and InstanceNorm (2) from GroupNorm and LayerNorm (1). `path`: where the tensors are in the file,
    "" for the whole file. `selection_reason`: which weights were chosen, and what else the file has. `structure`: a
    pickled module's own tree. `extra_settings`: what the file or its folder holds beside the tensors.
    """

    tensors: Mapping[str, Tensor]
    module_names: tuple[str, ...] | None = None
    path: str = ""
    selection_reason: str = "the whole file"
    notes: tuple[str, ...] = field(default=())
    structure: ModuleNode | None = None
    extra_settings: Mapping[str, Any] = field(default_factory=dict)
    module_versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_parameters(self) -> int:
        """Number of trainable values, without buffers."""
        return sum(tensor.numel() for name, tensor in self.tensors.items() if not is_buffer(name, self.tensors))


def is_buffer(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is a buffer: by its name, or as a vector of spectral norm's power iteration.

    Weight norm uses some of the same names for parameters, hence the look at the other tensors.
    """
    prefix, _, leaf = name.rpartition(".")
    if is_named_buffer(name) or (leaf[-2:] in ("_u", "_v") and f"{name[:-2]}_orig" in tensors):
        return True
    return leaf in ("_u", "_v") and prefix.endswith(".0") and prefix.removesuffix("0") + "original" in tensors


def is_named_buffer(name: str) -> bool:
    """Whether a tensor has the name of a common buffer."""
    return _BUFFERS.fullmatch(name.rsplit(".", 1)[-1]) is not None


def find_groups(tree: Any, ordered: bool, path: str = "", depth: int = 0) -> list[Weights]:
    """Every network in a nested tree. `ordered`: keys are in registration order, else they are sorted naturally."""
    if isinstance(tree, nn.Module):
        return [_make_group(tree.state_dict(), path, ordered)]
    if _is_unnamed_average(tree, path):
        return [Weights({str(index): entry for index, entry in enumerate(tree)}, None, path)]
    if not isinstance(tree, Mapping) or depth > _MAX_DEPTH or "param_groups" in tree:
        return []
    if _is_state_dict(tree):
        return _split_gan(_make_group(tree, path, ordered))
    return [
        group
        for key, entry in tree.items()
        if parse_role(str(key))[0] != "optimizer"
        for group in find_groups(entry, ordered, _join(path, key), depth + 1)
    ]


def _is_unnamed_average(tree: Any, path: str) -> bool:
    """A list of averaged tensors, as FastGAN and torch_ema store it."""
    is_tensor_list = isinstance(tree, (list, tuple)) and tree and all(isinstance(entry, Tensor) for entry in tree)
    return bool(is_tensor_list) and parse_role(path)[0] == "average"


def _is_state_dict(tree: Mapping[Any, Any]) -> bool:
    """Whether a mapping takes names to tensors, with at least one matrix or kernel, and to numbers at most besides."""
    return (
        any(isinstance(entry, Tensor) and entry.ndim >= 2 for entry in tree.values())
        and all(isinstance(key, str) for key in tree)
        and all(isinstance(entry, (Tensor, int, float)) for entry in tree.values())
    )


def _make_group(tree: Mapping[str, Any], path: str, ordered: bool) -> Weights:
    tensors = {name: entry.detach() for name, entry in tree.items() if isinstance(entry, Tensor)}
    names = strip_wrapper_prefixes(tensors)
    if len(set(names.values())) != len(names):
        raise LoadError(
            f"two keys of {path or 'the state dict'} are the same without wrapper prefixes",
            "save the unwrapped model's state dict",
        )
    clean = {new: tensors[old] for old, new in names.items()}
    if not ordered:
        clean = {name: clean[name] for name in sorted(clean, key=numeric_sort_key)}
    return Weights(
        clean,
        _module_names(getattr(tree, "_metadata", None)),
        path,
        notes=_averaging_notes(tensors),
        structure=getattr(tree, "structure", None),
        module_versions=_module_versions(getattr(tree, "_metadata", None)),
    )


def _averaging_notes(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A note on the update counter that torch's AveragedModel keeps."""
    count = tensors.get("n_averaged")
    if count is None or count.numel() != 1 or count.is_floating_point() or count.is_complex():
        return ()
    return (f"averaged weights (torch.optim.swa_utils.AveragedModel, updated {int(count):,} times)",)


def _module_names(metadata: Any) -> tuple[str, ...] | None:
    """Module names of `state_dict._metadata`, without wrapper prefixes."""
    if not isinstance(metadata, Mapping):
        return None
    return _strip_module_names([str(name) for name in metadata if name])


def _module_versions(metadata: Any) -> dict[str, int]:
    """Versions of the modules by their names without wrapper prefixes, where the file states them."""
    if not isinstance(metadata, Mapping):
        return {}
    versions = {
        f"{name}.": entry["version"]
        for name, entry in metadata.items()
        if name and f"{name}." not in _WRAPPER_MODULES and isinstance(entry, Mapping) and "version" in entry
    }
    names = strip_wrapper_prefixes(list(versions))
    return {names[old].rstrip("."): entry for old, entry in versions.items() if type(entry) is int}


def _strip_module_names(names: list[str]) -> tuple[str, ...] | None:
    prefixes = [name + "." for name in names if name + "." not in _WRAPPER_MODULES]
    return tuple(name.rstrip(".") for name in strip_wrapper_prefixes(prefixes).values()) or None


# whole GANs in one state dict


def _split_gan(group: Weights) -> list[Weights]:
    """The networks of a whole GAN in one state dict (Lightning: generator.*, discriminator.*); other groups as is."""
    heads = list(dict.fromkeys(name.split(".", 1)[0] for name in group.tensors if "." in name))
    if "GE" in heads and "G" in heads:
        return [_join_styles(group, heads, "GE", "SE"), _join_styles(group, heads, "G", "S")]
    if set(heads) == {"ema_model", "online_model"}:  # ema_pytorch: the average and the network in training
        return [extract_part(group, head, _join(group.path, head)) for head in ("ema_model", "online_model")]
    autoencoder = _split_autoencoder(group, heads)
    if autoencoder:
        return autoencoder
    nested = _split_below(group, heads)
    if nested:
        return nested
    roles = {head: parse_role(head)[0] for head in heads}
    is_generator = [role in ("average", "generator") for role in roles.values()]
    if is_generator == [True]:
        return [extract_part(group, heads[0], group.path)]
    if not any(is_generator):
        return [group]
    # "g" may be one layer among others; only a file that also has the discriminator is a whole GAN.
    if "discriminator" not in roles.values() and not all(role in _SPLIT_ROLES for role in roles.values()):
        return [group]
    return [extract_part(group, head, _join(group.path, head)) for head in heads if roles[head] in _SPLIT_ROLES]


def _split_autoencoder(group: Weights, heads: list[str]) -> list[Weights]:
    """The encoder and the decoder of a variational autoencoder; empty where the group is none."""
    parts = find_decoder_heads(heads)
    if parts == ["decoder"]:
        return [extract_part(group, head, _join(group.path, head)) for head in heads if head in ("encoder", "decoder")]
    own = [name for name in group.tensors if name.split(".", 1)[0] in parts] or find_unnamed_decoder(group.tensors)
    if not own:
        return []
    path = _join(group.path, "decoder")
    decoder = replace(group, tensors={name: group.tensors[name] for name in own}, path=path)
    if group.module_names is not None:
        heads_kept = {name.split(".", 1)[0] for name in own}
        names = tuple(name for name in group.module_names if name.split(".", 1)[0] in heads_kept)
        decoder = replace(decoder, module_names=names)
    rest = {name: entry for name, entry in group.tensors.items() if name not in decoder.tensors}
    return [replace(group, tensors=rest, path=_join(group.path, "encoder"), module_names=None), decoder]


def _split_below(group: Weights, heads: list[str], depth: int = 0) -> list[Weights]:
    """The networks of a GAN that is one part of this group, at any depth (gan.generator.*); empty without one."""
    if depth >= _MAX_DEPTH or any(parse_role(head)[0] in _SPLIT_ROLES for head in heads):
        return []
    for head in heads:
        if head.isdigit():
            continue
        part = extract_part(group, head, _join(group.path, head))
        inner = list(dict.fromkeys(name.split(".", 1)[0] for name in part.tensors if "." in name))
        roles = {parse_role(name)[0] for name in inner}
        is_gan = "discriminator" in roles and bool(roles & {"generator", "average"})
        if is_gan or set(inner) == {"ema_model", "online_model"}:
            return _split_gan(part)
        below = _split_below(part, inner, depth + 1)
        if below:
            return below
    return []


def _join_styles(group: Weights, heads: list[str], images: str, styles: str) -> Weights:
    """lucidrains' packages: G generates images, S (if present) maps z to styles; GE and SE are their averages."""
    if styles not in heads:
        return extract_part(group, images, _join(group.path, images))
    prefixes = {f"{head}.": f"{head[0]}." for head in (styles, images)}
    tensors = {
        new + name.removeprefix(old): entry
        for old, new in prefixes.items()
        for name, entry in group.tensors.items()
        if name.startswith(old)
    }
    return Weights(tensors, None, _join(group.path, f"{styles}+{images}"))


def extract_part(group: Weights, head: str, path: str) -> Weights:
    """The tensors of a group whose names start with `head`."""
    prefix = head + "."
    tensors = {name.removeprefix(prefix): entry for name, entry in group.tensors.items() if name.startswith(prefix)}
    modules = [name.removeprefix(prefix) for name in group.module_names or () if name.startswith(prefix)]
    clean = {new: tensors[old] for old, new in strip_wrapper_prefixes(tensors).items()}
    versions = {
        name.removeprefix(prefix): entry for name, entry in group.module_versions.items() if name.startswith(prefix)
    }
    return Weights(clean, _strip_module_names(modules), path, module_versions=versions)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}".strip(".")
