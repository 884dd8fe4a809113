"""Converts user input to feature rows and rejects values that are not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gandiag.errors import OutputError, SourceError

BLOCK_SIZE = 1024  # rows checked at once, to limit memory


def as_features(values: Any, name: str = "samples") -> Tensor:
    """A tensor or array as (N, D) rows: float64 stays float64, any other type becomes float32.

    Further axes are flattened. Copies only where necessary.
    SourceError without a batch axis; OutputError for NaN or infinity.
    """
    rows = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    if rows.dim() < 2:
        raise SourceError(f"{name} have shape {tuple(rows.shape)}, not (N, D)", "pass one row per sample")
    rows = rows.flatten(1) if rows.dtype in (torch.float32, torch.float64) else rows.flatten(1).float()  # (N, D)
    n_invalid = sum(int((~torch.isfinite(block)).any(1).sum()) for block in torch.split(rows, BLOCK_SIZE))
    if n_invalid:
        raise OutputError(
            f"{n_invalid} of {len(rows)} {name} contain NaN or infinity",
            "check where they come from; a generator that has diverged has no diversity to measure",
        )
    return rows


def as_feature_pair(real: Any, fake: Any) -> tuple[Tensor, Tensor]:
    """Real and generated rows, (N, D) and (M, D), in one dtype. SourceError if their widths differ."""
    real_rows, fake_rows = as_features(real, "real samples"), as_features(fake, "generated samples")
    if real_rows.shape[1] != fake_rows.shape[1]:
        raise SourceError(
            f"real samples have {real_rows.shape[1]} features and generated samples have {fake_rows.shape[1]}",
            "embed both with the same extractor",
        )
    dtype = torch.promote_types(real_rows.dtype, fake_rows.dtype)
    return real_rows.to(dtype), fake_rows.to(dtype)
