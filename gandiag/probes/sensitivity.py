"""Measures how the output follows z by finite differences at a few latents: gain, rank and dead directions of dG/dz.

None of these numbers alone indicates collapse: a generator that maps z to many sharp modes is flat almost everywhere
and healthy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import LatentSpec, MetricResult
from gandiag.record import Measurement

STEP_SIZE = 0.05  # of the latents' std: small enough to be local, large enough for float32
DEAD_AXIS_RATIO = 1e-3  # an axis is dead if it moves the output by less than this share of the strongest axis


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The probe's parameters: latents, and latent axes at most. Cost: n_latents x (axes + 1) samples."""

    n_latents: int = 8
    max_axes: int = 128
    key: str = "sensitivity"

    def measure(
        self, forward: Callable[[Tensor], Tensor], prior_samples: Tensor, latent: LatentSpec, *, seed: int = 0
    ) -> MetricResult:
        """Estimate the Jacobian dG/dz by finite differences.

        `forward`: latents (N, *latent.shape) -> samples (N, ...). `prior_samples`: (>= n_latents, *latent.shape).

        latent_gain    RMS change of the output per RMS change of z, relative to output spread over latent spread: about
                       1 for a linear map, near 0 for one that is flat where it is sampled.
        latent_rank    (sum s)² / sum s² of the squared singular values s of dG/dz at the latents: directions in use.
        dead_latents   share of latent axes that move no output by more than a thousandth of the strongest axis.
        """
        points = prior_samples[: self.n_latents].float()
        flat = points.flatten(1)  # (P, Z)
        axes = _choose_axes(flat.shape[1], self.max_axes, seed)
        step = STEP_SIZE * (float(flat.std()) or 1.0)
        outputs = forward(points).flatten(1).double().cpu()  # (P, D)
        columns = []
        for axis in axes.tolist():
            shifted = flat.clone()
            shifted[:, axis] += step
            columns.append((forward(shifted.reshape(points.shape)).flatten(1).double().cpu() - outputs) / step)
        jacobian = torch.stack(columns, dim=2)  # (P, D, axes)
        return MetricResult(_summarize(jacobian, _rms_gap(outputs), _rms_gap(flat.double()), flat.shape[1]))


def _summarize(jacobian: Tensor, output_gap: float, latent_gap: float, dim: int) -> dict[str, Measurement]:
    n, n_axes = jacobian.shape[0], jacobian.shape[2]
    strength = jacobian.square().sum(1).amax(0).sqrt()  # (axes,) the largest effect of an axis at any point
    strongest = float(strength.max())
    if strongest <= 1e-9 * max(output_gap, 1e-12) or strongest == 0.0:
        reason = "the output does not follow z"
        return {
            "latent_gain": Measurement(0.0, 0.0, 0.0, better="neither", n=n, reason=reason),
            "latent_rank": Measurement.missing(reason),
            "dead_latents": Measurement(1.0, 1.0, 1.0, unit="share", better="lower", n=n_axes),
        }
    gram = torch.einsum("pda,pdb->pab", jacobian, jacobian)  # (P, axes, axes)
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)  # (P,)
    rank = trace.square() / gram.square().sum((1, 2)).clamp(min=1e-300)  # (P,)
    # RMS change of an output value per RMS change of z, (P,)
    per_value = (trace * dim / n_axes / jacobian.shape[1]).sqrt()
    gain = per_value * latent_gap / output_gap if output_gap > 0 else trace * 0
    dead = float((strength < DEAD_AXIS_RATIO * strongest).double().mean())
    return {
        "latent_gain": _mean_measurement(gain),
        "latent_rank": _mean_measurement(rank),
        "dead_latents": Measurement(
            dead, unit="share", better="lower", n=n_axes, reason=f"{n_axes} of {dim} axes tested"
        ),
    }


def _choose_axes(dim: int, max_axes: int, seed: int) -> Tensor:
    if dim <= max_axes:
        return torch.arange(dim)
    return torch.randperm(dim, generator=torch.Generator().manual_seed(seed))[:max_axes].sort().values


def _rms_gap(rows: Tensor) -> float:
    """RMS distance between different rows, per dimension."""
    return float((2 * rows.var(0, unbiased=True).mean()).sqrt()) if len(rows) > 1 else 0.0


def _mean_measurement(values: Tensor) -> Measurement:
    """Mean over the points with its 95 % interval."""
    mean = float(values.mean())
    error = 1.96 * float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Measurement(mean, max(0.0, mean - error), mean + error, better="neither", n=len(values))
