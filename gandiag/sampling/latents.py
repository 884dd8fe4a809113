"""Latents and labels, drawn one index at a time: sample i is a function of (seed, i), whatever the batch.

A counter-based generator (splitmix64: one stream per index, hashed from the seed) gives every coordinate its own 52-bit
uniform; inverse distribution functions turn it into the prior. Drawing index 7 alone or among 50,000 gives the same z.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gandiag.errors import ConfigError, close_match_hint
from gandiag.interfaces import LatentSpec

_GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as int64
_CHUNK = 1 << 15  # coordinates at once: the scratch stays in the cache
PRIORS = ("normal", "uniform", "unit", "truncated", "sphere")


def sample_latents(latent: LatentSpec, indices: Tensor, *, seed: int, scale: float = 1.0) -> Tensor:
    """Latents `indices` (B,) int64 of the stream `seed`: (B, *latent.shape) float32 on the CPU.

    Priors: "normal" N(0, 1); "uniform" on [-1, 1]; "unit" on [0, 1]; "truncated" N(0, 1) given |z| <= latent.truncation; "sphere" a normal
    draw put on the sphere of radius sqrt(dim). `scale` multiplies the base draw, so that every scale shares its random
    numbers. Cost: 50,000 x 128 in about half a second on one core.
    """
    if latent.prior not in PRIORS:
        raise ConfigError(f"there is no latent prior called {latent.prior!r}", close_match_hint(latent.prior, PRIORS))
    size = math.prod(latent.shape)
    rows = max(1, _CHUNK // max(size, 1))
    indices = indices.to("cpu", torch.int64)
    parts = [_base(latent, indices[part], size, seed) for part in chunk_slices(len(indices), rows)]
    base = torch.cat(parts) if parts else torch.empty(0, size)
    return (base * scale).reshape(len(indices), *latent.shape)  # (B, *shape)


def make_labels(indices: Tensor, classes: int, only_class: int | None = None) -> Tensor:
    """Class labels (B,) int64 of `indices`: every class in turn, so that any run of indices is balanced; or `only` one class."""
    if only_class is not None and not 0 <= only_class < classes:
        raise ConfigError(f"class {only_class} does not exist", f"choose a class from 0 to {classes - 1}")
    indices = indices.to("cpu", torch.int64)
    return indices % classes if only_class is None else torch.full_like(indices, only_class)  # (B,)


def _base(latent: LatentSpec, indices: Tensor, size: int, seed: int) -> Tensor:
    """The unscaled draw of each index: (B, size) float32."""
    uniform = sample_uniform(indices, size, seed=seed)
    if latent.prior == "uniform":
        return (2 * uniform - 1).float()
    if latent.prior == "unit":
        return uniform.float()
    if latent.prior == "truncated":
        tail = 0.5 * math.erfc(latent.truncation / math.sqrt(2))
        return _quantile(tail + (1 - 2 * tail) * uniform).float()
    z = _quantile(uniform)
    if latent.prior == "sphere":
        z = z * (size**0.5 / z.norm(dim=1, keepdim=True).clamp_min(1e-30))
    return z.float()


def sample_normal(indices: Tensor, size: int, *, seed: int) -> Tensor:
    """Standard normal numbers (B, size) float32, a function of (seed, index, column) only."""
    return _quantile(sample_uniform(indices, size, seed=seed)).float()


def sample_uniform(indices: Tensor, size: int, *, seed: int) -> Tensor:
    """Uniform numbers in (0, 1), never the ends: (B, size) float64, a function of (seed, index, column) only."""
    stream = _mix(
        _mix(torch.tensor(_signed(seed))) + (indices.to(torch.int64) + 1) * _GOLDEN
    )  # (B,) one stream an index
    counter = (torch.arange(size, dtype=torch.int64) + 1) * _GOLDEN  # (size,)
    bits = _mix(stream[:, None] + counter)  # (B, size) int64
    return ((bits >> 12) & 0xFFFFFFFFFFFFF).double().add_(0.5).mul_(2.0**-52)


def make_noise_sampler(seed: int, indices: Tensor) -> Callable[[str, int, bool], Tensor]:
    """What noise inputs draw from (load.rebuild.noise.Draw): (name, size, uniform) -> (B, size) float32, a function of (seed, index, name)."""
    rows = indices.to("cpu", torch.int64)

    def draw(name: str, size: int, uniform: bool) -> Tensor:
        made = sample_uniform(rows, size, seed=derive_seed(seed, f"noise input {name}"))  # (B, size)
        return (made if uniform else _quantile(made)).float()

    return draw


def derive_seed(seed: int, purpose: str) -> int:
    """Another seed for another purpose: streams that must not share their numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{purpose}".encode(), digest_size=8).digest()) >> 1


def chunk_slices(n: int, chunk_size: int) -> list[slice]:
    """0 … n cut into runs of `step`."""
    return [slice(start, min(start + chunk_size, n)) for start in range(0, n, chunk_size)]


def _quantile(uniform: Tensor) -> Tensor:
    found: Tensor = torch.special.ndtri(uniform)
    return found


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64, with logical shifts and products modulo 2**64."""
    for shift, mask, factor in ((30, 0x3FFFFFFFF, -4658895280553007687), (27, 0x1FFFFFFFFF, -7723592293110705685)):
        x = (x >> shift).bitwise_and_(mask).bitwise_xor_(x).mul_(factor)
    return (x >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(x)


def _signed(seed: int) -> int:
    """Any Python integer as the int64 with the same low 64 bits."""
    return (seed + 2**63) % 2**64 - 2**63
