"""The fixed pseudo-random order of sample indices: which samples are kept when not all can be."""

from __future__ import annotations

from torch import Tensor, int64


def hash_indices(indices: Tensor) -> Tensor:
    """A fixed pseudo-random number for each index: (N,) int64 -> (N,) int64 >= 0 (splitmix64's finaliser)."""
    x = (indices.to(int64) + 1) * -7046029254386353131  # wraps modulo 2**64 on purpose
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return (x ^ ((x >> 31) & 0x1FFFFFFFF)) & 0x7FFFFFFFFFFFFFFF
