"""What users pass in, as rows: (N, D) floats that are finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gandiag.errors import OutputError, SourceError

BLOCK_SIZE = 1024  # rows looked at together, to spare memory


def as_features(values: Any, name: str = "samples") -> Tensor:
    """A tensor or an array as (N, D) float32, or float64 where it came so; further axes are flattened. It is not copied unless it must be.

    SourceError unless there is a batch axis; OutputError for NaN or infinity.
    """
    found = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    if found.dim() < 2:
        raise SourceError(f"{name} have the shape {tuple(found.shape)}, not (N, D)", "pass one row per sample")
    found = found.flatten(1) if found.dtype in (torch.float32, torch.float64) else found.flatten(1).float()  # (N, D)
    broken = sum(int((~torch.isfinite(part)).any(1).sum()) for part in torch.split(found, BLOCK_SIZE))
    if broken:
        raise OutputError(
            f"{name} hold NaN or infinity in {broken} of {len(found)} rows",
            "find out why; a diverged generator has no variety to measure",
        )
    return found


def as_feature_pair(real: Any, fake: Any) -> tuple[Tensor, Tensor]:
    """Both sides as rows, (N, D) and (M, D), of one dtype. SourceError if their widths differ."""
    left, right = as_features(real, "real samples"), as_features(fake, "generated samples")
    if left.shape[1] != right.shape[1]:
        raise SourceError(
            f"real samples have {left.shape[1]} features and generated ones {right.shape[1]}",
            "embed both with the same extractor",
        )
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype), right.to(dtype)
