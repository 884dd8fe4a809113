"""How much a generator's outputs vary with z, beside how large they are: what tells an untrained network."""

from __future__ import annotations

import torch

from gandiag.errors import GandiagError
from gandiag.pipeline.session import AuditSession

_LATENTS = 64


def measure_variation(session: AuditSession) -> dict[str, float] | None:
    """The record's `subject.variation`; None for samples, and where the outputs are not finite.

    `spread`: rms deviation of outputs from their mean over latents; `size`: rms of outputs about the middle of their
    range, or about 0 without one; `half_range`: half of the range, or 0.
    """
    sampler = session.subject.sampler
    if sampler is None:
        return None
    scale = session.plan.sources["fake"].scale
    try:
        samples = sampler.sample_indices(torch.arange(_LATENTS), seed=session.config.seed, scale=scale)
    except GandiagError:
        return None
    rows = samples.flatten(1).double()
    low, high = session.subject.output.range or (0.0, 0.0)
    return {
        "spread": float((rows - rows.mean(0)).square().mean().sqrt()),
        "size": float((rows - (low + high) / 2).square().mean().sqrt()),
        "half_range": (high - low) / 2,
    }
