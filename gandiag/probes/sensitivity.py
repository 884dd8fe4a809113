"""Does the output follow z at all? Finite differences around probe points: gain, rank and dead directions of dG/dz.

A lower bound on trouble, never a score against data: a generator that maps z to many sharp modes is flat almost everywhere
and healthy, so that none of these numbers alone says collapse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import LatentSpec, MetricResult
from gandiag.record import Measurement

STEP_SIZE = 0.05  # of the latent's own scale: small enough to be local, large enough for float32
DEAD_AXIS_RATIO = 1e-3  # a latent axis that moves the output by less than this share of the strongest axis


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The probe. `points` base latents; at most `axes` latent axes are tried. Cost: points x (axes + 1) samples."""

    n_latents: int = 8
    max_axes: int = 128
    key: str = "sensitivity"

    def measure(
        self, forward: Callable[[Tensor], Tensor], prior_samples: Tensor, latent: LatentSpec, *, seed: int = 0
    ) -> MetricResult:
        """`forward`: latents (N, *latent.shape) -> samples (N, ...); `base`: (>= points, *latent.shape) draws of the prior.

        latent_gain    RMS change of the output per RMS change of z, relative to output spread over latent spread: about 1 for
                       a linear map, near 0 for one that is flat where it is sampled.
        latent_rank    (sum s)² / sum s² of the squared singular values s of dG/dz at the probe points: directions in use.
        dead_latents   latent axes that move no output by more than a thousandth of what the strongest axis does.
        """
        points = prior_samples[: self.n_latents].float()
        flat = points.flatten(1)  # (P, Z)
        axes = _axes(flat.shape[1], self.max_axes, seed)
        scale = float(flat.std()) or 1.0
        here = forward(points).flatten(1).double().cpu()  # (P, D)
        columns = []
        for axis in axes.tolist():
            moved = flat.clone()
            moved[:, axis] += STEP_SIZE * scale
            columns.append(
                (forward(moved.reshape(points.shape)).flatten(1).double().cpu() - here) / (STEP_SIZE * scale)
            )
        jacobian = torch.stack(columns, dim=2)  # (P, D, axes)
        return MetricResult(self._numbers(jacobian, _gap(here), _gap(flat.double()), flat.shape[1]))

    def _numbers(self, jacobian: Tensor, output_gap: float, latent_gap: float, dim: int) -> dict[str, Measurement]:
        n, tried = jacobian.shape[0], jacobian.shape[2]
        strength = jacobian.square().sum(1).amax(0).sqrt()  # (axes,) the most that an axis does anywhere
        strongest = float(strength.max())
        if strongest <= 1e-9 * max(output_gap, 1e-12) or strongest == 0.0:
            return {
                "latent_gain": Measurement(0.0, 0.0, 0.0, better="neither", n=n, reason="the output does not follow z"),
                "latent_rank": Measurement.missing("the output does not follow z"),
                "dead_latents": Measurement(1.0, 1.0, 1.0, unit="share", better="lower", n=tried),
            }
        gram = torch.einsum("pda,pdb->pab", jacobian, jacobian)  # (P, axes, axes)
        trace = gram.diagonal(dim1=1, dim2=2).sum(1)  # (P,)
        rank = trace.square() / gram.square().sum((1, 2)).clamp(min=1e-300)  # (P,)
        per_value = (
            trace * dim / tried / jacobian.shape[1]
        ).sqrt()  # (P,) RMS change of an output value per RMS change of z
        gain = per_value * latent_gap / output_gap if output_gap > 0 else trace * 0
        dead = float((strength < DEAD_AXIS_RATIO * strongest).double().mean())
        return {
            "latent_gain": _spread(gain, "neither"),
            "latent_rank": _spread(rank, "neither"),
            "dead_latents": Measurement(
                dead, unit="share", better="lower", n=tried, reason=f"{tried} of {dim} axes tried"
            ),
        }


def _axes(dim: int, most: int, seed: int) -> Tensor:
    if dim <= most:
        return torch.arange(dim)
    return torch.randperm(dim, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def _gap(rows: Tensor) -> float:
    """RMS distance between different rows, per dimension."""
    return float((2 * rows.var(0, unbiased=True).mean()).sqrt()) if len(rows) > 1 else 0.0


def _spread(values: Tensor, better: str) -> Measurement:
    middle, error = (
        float(values.mean()),
        1.96 * float(values.std()) / max(len(values), 1) ** 0.5 if len(values) > 1 else 0.0,
    )
    return Measurement(middle, max(0.0, middle - error), middle + error, better=better, n=len(values))  # type: ignore[arg-type]
