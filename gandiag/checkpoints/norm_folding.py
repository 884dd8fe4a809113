"""Spectral and weight normalisation, folded into the weights that they stand for in eval mode.

Old style: weight_orig, weight_u, weight_v, or weight_g, weight_v. New style: parametrizations.weight.original with 0._u, 0._v,
or original0 (g), original1 (v). A much-copied wrapper keeps weight_bar, weight_u, weight_v one module deeper (`module.`), and takes a step of the power
iteration before every use, in eval mode too. Spectral norm divides by u'Wv (Miyato et al. 2018), weight norm is g v/|v| (Salimans & Kingma 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from gandiag.checkpoints.state_dict import Weights

_WRAPPED = ("weight_bar", "weight_u", "weight_v")
_SPECTRAL = (
    _WRAPPED,
    ("weight_orig", "weight_u", "weight_v"),
    ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"),
)
_WEIGHT = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


def fold_weight_norms(weights: Weights) -> Weights:
    """The weights without normalisation tensors, in the same order; themselves where there are none."""
    found = dict(weights.tensors)
    done: dict[str, Tensor] = {}
    for name in list(found):
        for keys in (*_SPECTRAL, *_WEIGHT):
            if name == keys[0] or name.endswith("." + keys[0]):
                head = name[: len(name) - len(keys[0])]
                made = _fold(found, [head + key for key in keys])
                if made is not None:
                    done |= {head + key: made if key == keys[0] else torch.empty(0) for key in keys}
    if not done:
        return weights
    wrappers = tuple(name[: -len(_WRAPPED[0])] for name in done if name.endswith(".module." + _WRAPPED[0]))
    renamed = {
        _plain(_unwrapped(name, wrappers)): done.get(name, tensor)
        for name, tensor in found.items()
        if name not in done or done[name].numel()
    }
    inner = {wrapper.removesuffix(".") for wrapper in wrappers}
    modules = (
        None
        if weights.module_names is None
        else tuple(name for name in weights.module_names if ".parametrizations" not in f".{name}" and name not in inner)
    )
    return replace(weights, tensors=renamed, module_names=modules)


def _unwrapped(name: str, wrappers: tuple[str, ...]) -> str:
    """A tensor's name without the wrapper around its module: "l1.0.module.bias" is l1.0.bias."""
    wrapper = next((wrapper for wrapper in wrappers if name.startswith(wrapper)), "")
    return wrapper.removesuffix("module.") + name.removeprefix(wrapper)


def _plain(name: str) -> str:
    for keys in (*_SPECTRAL, *_WEIGHT):
        if name == keys[0] or name.endswith("." + keys[0]):
            return name[: len(name) - len(keys[0])] + "weight"
    return name


def _fold(tensors: Mapping[str, Tensor], names: list[str]) -> Tensor | None:
    if any(name not in tensors or not tensors[name].is_floating_point() for name in names):
        return None
    parts = [tensors[name] for name in names]
    if names[0].endswith(_WRAPPED[0]):
        return _wrapped(*parts)
    return _spectral(*parts) if len(parts) == 3 else _weighted(*parts)


def _spectral(weight: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    """W / u'Wv. Transposed convolutions have their outputs second, and torch then turns the matrix.

    Where both sides fit, the vectors tell: each power iteration ends with u = Wv / |Wv|, of the matrix that it was made for.
    """
    if weight.ndim < 2 or u.ndim != 1 or v.ndim != 1 or weight.numel() != u.numel() * v.numel():
        return None
    sides = [weight.movedim(axis, 0).flatten(1) for axis in (0, 1) if weight.shape[axis] == len(u)]
    mapped = [torch.mv(matrix, v) for matrix in sides]
    nearest = max(mapped, key=lambda vector: float(torch.dot(u, vector) / vector.norm().clamp_min(1e-30)), default=None)
    return None if nearest is None else weight / torch.dot(u, nearest)


def _wrapped(weight: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    """W / u'Wv after a step of the power iteration, rows of W by its first axis, that of a transposed convolution too."""
    if (
        weight.ndim < 2
        or u.ndim != 1
        or v.ndim != 1
        or len(u) != len(weight)
        or weight.numel() != u.numel() * v.numel()
    ):
        return None
    matrix = weight.flatten(1)
    v = torch.mv(matrix.T, u)
    seen = torch.mv(matrix, v / v.norm().clamp_min(1e-12))
    made: Tensor = weight / seen.norm().clamp_min(1e-30)
    return made


def _weighted(g: Tensor, v: Tensor) -> Tensor | None:
    """g v / |v|, the norm over every axis on which g has one entry."""
    if g.ndim != v.ndim or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=True)):
        return None
    axes = [axis for axis, size in enumerate(g.shape) if size == 1]
    made: Tensor = v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=True))
    return made
