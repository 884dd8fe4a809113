"""Prepares rows for the score: an order that depends on their contents alone, and a robust center and scale."""

from __future__ import annotations

import torch
from torch import Tensor

CAP_QUANTILE = 0.95  # of the real rows' distances to their center
CAP_FACTOR = 4.0  # rows farther out than this many such distances are moved in to it
HASHED_ROWS = 64  # at once: the bits of a block stay in the processor's cache
_MULTIPLIER = 0x5851F42D4C957F2D  # odd 63-bit multiplier (Knuth's MMIX generator)


def order_by_content(rows: Tensor) -> Tensor:
    """A pseudo-random order of rows (N, D), (N,) int64, in which each row's place depends on its contents alone.

    The order of the input does not matter, and one row more or less shifts the others by at most one place.
    """
    return content_keys(rows).argsort(stable=True)


def content_keys(rows: Tensor) -> Tensor:
    """A pseudo-random 64-bit number for each row (N, D) that depends on its contents alone, (N,) int64.

    Equal rows are told apart by counting, so that they do not all end up in the same half or fold.
    """
    starts = range(0, max(len(rows), 1), HASHED_ROWS)
    keys = torch.cat([_hash_rows(rows[start : start + HASHED_ROWS]) for start in starts])
    order = keys.argsort(stable=True)
    is_new = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    is_new[1:] = keys[order][1:] != keys[order][:-1]
    position = torch.arange(len(rows), device=rows.device)
    run_start = torch.where(is_new, position, torch.zeros_like(position)).cummax(0).values
    occurrence = torch.empty_like(position)
    occurrence[order] = position - run_start
    return _mix(keys + occurrence * _MULTIPLIER)


def _hash_rows(rows: Tensor) -> Tensor:
    """A 64-bit hash of each row's float32 values, (N,) int64. Minus zero counts as zero."""
    bits = (rows.float() + 0.0).contiguous().view(torch.int32).long()  # (N, D)
    column = _mix(torch.arange(1, bits.shape[1] + 1, device=rows.device) * _MULTIPLIER) | 1  # (D,) odd
    return _mix((_mix(bits) * column).sum(1))  # int64 arithmetic wraps around


def _mix(values: Tensor) -> Tensor:
    """A bijective mixing step on int64 values (the finalizer of splitmix64, with signed shifts)."""
    values = (values ^ (values >> 30)) * -0x40A7B892E31B1A47
    values = (values ^ (values >> 27)) * -0x6B2FB644ECCEEE15
    return values ^ (values >> 31)


def standardize_rows(reference: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All rows about the reference's median, in units of its spread, with far rows moved in.

    `reference` (N, D), `others` (M, D) each. A row farther from the center than CAP_FACTOR times the CAP_QUANTILE of
    the reference's distances is moved in to that distance, so that no single row moves the scale, a mean or a distance
    without bound. Directions are kept; `find_far_rows` recognizes the rows that were moved.
    """
    center = reference.median(0).values
    distance = (reference - center).norm(dim=1)
    cap = CAP_FACTOR * distance.quantile(CAP_QUANTILE)
    if not cap > 0:  # more than 95 % of the rows are one point
        cap = distance.max()
    cap = cap.clamp(min=1e-30)
    scale = distance.clamp(max=cap).square().mean().sqrt().clamp(min=1e-30)

    def standardize(rows: Tensor) -> Tensor:
        offset = rows - center
        norm = offset.norm(dim=1, keepdim=True).clamp(min=1e-30)
        factor: Tensor = (cap / norm).clamp(max=1) / scale
        return offset * factor

    return tuple(standardize(rows) for rows in (reference, *others))


def find_far_rows(*sets: Tensor) -> tuple[Tensor, ...]:
    """Which standardized rows (N, D) of each set were moved in, (N,) bool: those at the largest distance of all."""
    distances = [rows.norm(dim=1) for rows in sets]
    together = torch.cat(distances)
    cap = together.max()
    if not cap > 0.75 * CAP_FACTOR * together.quantile(CAP_QUANTILE):  # the sets are parts of what was standardized
        return tuple(torch.zeros_like(part, dtype=torch.bool) for part in distances)
    return tuple(part >= (1 - 1e-4) * cap for part in distances)
