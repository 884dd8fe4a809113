"""Folds spectral and weight normalization into the weights that they compute in eval mode.

Old style: weight_orig, weight_u, weight_v, or weight_g, weight_v. New style: parametrizations.weight.original with
0._u, 0._v, or original0 (g), original1 (v). A much-copied wrapper keeps weight_bar, weight_u, weight_v one module
deeper (`module.`), and takes a power-iteration step before every use, in eval mode too. Spectral norm divides by u'Wv
(Miyato et al. 2018), weight norm is g v/|v| (Salimans & Kingma 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from gandiag.checkpoints.state_dict import Weights

_WRAPPER_KEYS = ("weight_bar", "weight_u", "weight_v")
_NORM_KEYS = (  # spectral norm (three keys), weight norm (two)
    _WRAPPER_KEYS,
    ("weight_orig", "weight_u", "weight_v"),
    ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"),
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def fold_weight_norms(weights: Weights) -> Weights:
    """The weights without normalization tensors, in the same order; unchanged if there are none."""
    tensors = dict(weights.tensors)
    folded: dict[str, Tensor] = {}  # effective weight under its first key, empty tensors under the keys to drop
    for name in tensors:
        for keys in _NORM_KEYS:
            if _has_key(name, keys[0]):
                prefix = name[: len(name) - len(keys[0])]
                weight = _fold(tensors, [prefix + key for key in keys])
                if weight is not None:
                    folded |= {prefix + key: weight if key == keys[0] else torch.empty(0) for key in keys}
    if not folded:
        return weights
    wrappers = tuple(name[: -len(_WRAPPER_KEYS[0])] for name in folded if name.endswith(".module." + _WRAPPER_KEYS[0]))
    renamed = {
        _plain_name(_strip_wrapper(name, wrappers)): folded.get(name, tensor)
        for name, tensor in tensors.items()
        if name not in folded or folded[name].numel()
    }
    wrapped_modules = {wrapper.removesuffix(".") for wrapper in wrappers}
    modules = weights.module_names
    if modules is not None:
        modules = tuple(
            name for name in modules if ".parametrizations" not in f".{name}" and name not in wrapped_modules
        )
    return replace(weights, tensors=renamed, module_names=modules)


def _has_key(name: str, key: str) -> bool:
    return name == key or name.endswith("." + key)


def _strip_wrapper(name: str, wrappers: tuple[str, ...]) -> str:
    """A tensor's name without the wrapper around its module: l1.0.module.bias -> l1.0.bias."""
    wrapper = next((wrapper for wrapper in wrappers if name.startswith(wrapper)), "")
    return wrapper.removesuffix("module.") + name.removeprefix(wrapper)


def _plain_name(name: str) -> str:
    """conv.weight_orig -> conv.weight."""
    for keys in _NORM_KEYS:
        if _has_key(name, keys[0]):
            return name[: len(name) - len(keys[0])] + "weight"
    return name


def _fold(tensors: Mapping[str, Tensor], names: list[str]) -> Tensor | None:
    """The effective weight; None if a tensor is missing or their shapes do not fit."""
    if any(name not in tensors or not tensors[name].is_floating_point() for name in names):
        return None
    parts = [tensors[name] for name in names]
    if names[0].endswith(_WRAPPER_KEYS[0]):
        return _fold_wrapped_spectral_norm(*parts)
    return _fold_spectral_norm(*parts) if len(parts) == 3 else _fold_weight_norm(*parts)


def _fold_spectral_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    """W / u'Wv. Transposed convolutions have their outputs on axis 1, and torch then transposes the matrix.

    If both orientations fit, the vectors decide: power iteration ends with u = Wv / |Wv| of the right matrix.
    """
    if weight.ndim < 2 or u.ndim != 1 or v.ndim != 1 or weight.numel() != u.numel() * v.numel():
        return None
    matrices = [weight.movedim(axis, 0).flatten(1) for axis in (0, 1) if weight.shape[axis] == len(u)]
    mapped = [torch.mv(matrix, v) for matrix in matrices]
    nearest = max(mapped, key=lambda vector: float(torch.dot(u, vector) / vector.norm().clamp_min(1e-30)), default=None)
    return None if nearest is None else weight / torch.dot(u, nearest)


def _fold_wrapped_spectral_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    """W / u'Wv after one power-iteration step. The rows of W are its first axis, even for a transposed convolution."""
    if weight.ndim < 2 or u.ndim != 1 or v.ndim != 1:
        return None
    if len(u) != len(weight) or weight.numel() != u.numel() * v.numel():
        return None
    matrix = weight.flatten(1)
    v = torch.mv(matrix.T, u)
    mapped = torch.mv(matrix, v / v.norm().clamp_min(1e-12))
    effective: Tensor = weight / mapped.norm().clamp_min(1e-30)
    return effective


def _fold_weight_norm(g: Tensor, v: Tensor) -> Tensor | None:
    """g v / |v|, with the norm over every axis on which g has one entry."""
    if g.ndim != v.ndim or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=True)):
        return None
    axes = [axis for axis, size in enumerate(g.shape) if size == 1]
    effective: Tensor = v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=True))
    return effective
